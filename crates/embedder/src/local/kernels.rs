//! Integer dot products, one tile at a time, for each instruction set; the set is chosen when the model is opened.
//!
//! All sets give the same integers. Everything else is written once, in plain Rust, and compiled once for each set.

use super::forward::{Work, layer_pass};
use super::weights::Layer;

/// Outputs in a panel of packed weights.
pub(super) const PANEL: usize = 32;

/// A cache line of packed weights: two consecutive inputs' weights for each of 16 outputs.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Line(pub [i16; 32]);

/// Integer sums of up to `R` rows with one panel.
pub(super) type Sums<const R: usize> = [[i32; PANEL]; R];

/// What differs between instruction sets.
pub(super) trait Isa {
    /// Rows a tile may have before it runs out of registers; at most 12.
    const ROWS: usize;

    /// Whether a fused multiply-add is one instruction, and not a call.
    const FUSED: bool;

    /// Multiplies `R` rows of integers, one behind the other, with a panel.
    ///
    /// # Safety
    /// The processor must have this instruction set, and `rows` must hold `R * panel.len()` integers.
    unsafe fn tile<const R: usize>(rows: &[i16], panel: &[Line], sums: &mut Sums<R>);
}

/// `a * b + c`, fused where that is fast.
#[inline(always)]
pub(super) fn fma<I: Isa>(a: f32, b: f32, c: f32) -> f32 {
    if I::FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Plain Rust, for any processor.
pub(super) struct Portable;

impl Isa for Portable {
    const ROWS: usize = 4;
    const FUSED: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    unsafe fn tile<const R: usize>(rows: &[i16], panel: &[Line], sums: &mut Sums<R>) {
        for (row, sums) in rows.chunks_exact(panel.len()).zip(sums) {
            *sums = row_portable(row, panel);
        }
    }
}

/// Multiplies one row with a panel, in a function of its own and with plain indices: of that the compiler makes vectors.
#[inline(never)]
fn row_portable(row: &[i16], panel: &[Line]) -> [i32; PANEL] {
    let mut sums = [0_i32; PANEL];
    for (pair, lines) in row.chunks_exact(2).zip(panel.chunks_exact(2)) {
        let (first, second) = (i32::from(pair[0]), i32::from(pair[1]));
        for half in 0..2 {
            for output in 0..16 {
                let [a, b] =
                    [lines[half].0[2 * output], lines[half].0[2 * output + 1]].map(i32::from);
                let sum = sums[half * 16 + output];
                sums[half * 16 + output] = sum.wrapping_add(first * a + second * b);
            }
        }
    }
    sums
}

/// A set of instructions this processor has.
#[derive(Clone, Copy, Debug)]
pub struct InstructionSet {
    name: &'static str,
    layer: LayerPass,
}

/// Runs one layer over a group of sentences.
type LayerPass = unsafe fn(&Layer, &mut Work);

impl InstructionSet {
    /// Every set this processor has, the fastest first, the portable one last.
    pub fn supported() -> Vec<InstructionSet> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("fma")
            {
                sets.push(InstructionSet { name: "avx512-vnni", layer: x86::layer_avx512 });
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                sets.push(InstructionSet { name: "avx2", layer: x86::layer_avx2 });
            }
        }
        sets.push(InstructionSet { name: "portable", layer: layer_pass::<Portable> });
        sets
    }

    /// The fastest set this processor has.
    pub(super) fn best() -> InstructionSet {
        InstructionSet::supported()[0]
    }

    /// The set's name, for logs and benches.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs one layer over the sentences in `work`.
    pub(super) fn run(&self, layer: &Layer, work: &mut Work) {
        // SAFETY: only `supported` makes an `InstructionSet`, and only for what the processor has.
        unsafe { (self.layer)(layer, work) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The same for x86-64, with AVX2, and with AVX-512 and its 16-bit dot product (VNNI).

    use super::{Isa, Layer, Line, PANEL, Sums, Work, layer_pass};
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// AVX2 and FMA.
    pub struct Avx2;

    /// AVX-512 with VNNI.
    pub struct Avx512;

    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn layer_avx2(layer: &Layer, work: &mut Work) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { layer_pass::<Avx2>(layer, work) }
    }

    /// # Safety
    /// The processor must have the AVX-512 subsets named here.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
    pub unsafe fn layer_avx512(layer: &Layer, work: &mut Work) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { layer_pass::<Avx512>(layer, work) }
    }

    impl Isa for Avx2 {
        const ROWS: usize = 6;
        const FUSED: bool = true;

        #[inline(always)]
        unsafe fn tile<const R: usize>(rows: &[i16], panel: &[Line], sums: &mut Sums<R>) {
            // SAFETY: the caller vouches for the instruction set and the number of rows.
            unsafe { tile_avx2(rows, panel, sums) }
        }
    }

    impl Isa for Avx512 {
        const ROWS: usize = 12;
        const FUSED: bool = true;

        #[inline(always)]
        unsafe fn tile<const R: usize>(rows: &[i16], panel: &[Line], sums: &mut Sums<R>) {
            // SAFETY: the caller vouches for the instruction set and the number of rows.
            unsafe { tile_avx512(rows, panel, sums) }
        }
    }

    /// Two consecutive integers of a row, as one 32-bit number to be repeated over a register.
    ///
    /// # Safety
    /// `rows` must hold `at + 2` integers.
    #[inline(always)]
    unsafe fn pair(rows: &[i16], at: usize) -> i32 {
        debug_assert!(at + 2 <= rows.len());
        // SAFETY: in bounds, as the caller vouches; the read may be unaligned.
        unsafe { rows.as_ptr().add(at).cast::<i32>().read_unaligned() }
    }

    /// Half a panel at a time, so that six rows' sums fit into sixteen registers.
    ///
    /// # Safety
    /// As for [`Isa::tile`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile_avx2<const R: usize>(rows: &[i16], panel: &[Line], sums: &mut Sums<R>) {
        let inputs = panel.len();
        for half in 0..2 {
            let mut acc = [[_mm256_setzero_si256(); 2]; R];
            for (index, lines) in panel.as_chunks::<2>().0.iter().enumerate() {
                let line = lines[half].0.as_ptr().cast::<__m256i>();
                // SAFETY: a line is two aligned registers long.
                let weights = unsafe { [_mm256_load_si256(line), _mm256_load_si256(line.add(1))] };
                for (row, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: `rows` holds `R * inputs` integers.
                    let input = _mm256_set1_epi32(unsafe { pair(rows, row * inputs + 2 * index) });
                    for (acc, weights) in acc.iter_mut().zip(weights) {
                        *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(input, weights));
                    }
                }
            }
            for (sums, acc) in sums.iter_mut().zip(acc) {
                let out = sums[half * PANEL / 2..][..PANEL / 2].as_mut_ptr().cast::<__m256i>();
                // SAFETY: half a panel of sums is two registers long.
                unsafe {
                    _mm256_storeu_si256(out, acc[0]);
                    _mm256_storeu_si256(out.add(1), acc[1]);
                }
            }
        }
    }

    /// Twelve rows' sums take 24 of the 32 registers.
    ///
    /// # Safety
    /// As for [`Isa::tile`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
    unsafe fn tile_avx512<const R: usize>(rows: &[i16], panel: &[Line], sums: &mut Sums<R>) {
        let inputs = panel.len();
        let mut acc = [[_mm512_setzero_si512(); 2]; R];
        for (index, lines) in panel.as_chunks::<2>().0.iter().enumerate() {
            // SAFETY: a line is one aligned register long.
            let weights =
                unsafe { lines.each_ref().map(|line| _mm512_load_si512(line.0.as_ptr().cast())) };
            for (row, acc) in acc.iter_mut().enumerate() {
                // SAFETY: `rows` holds `R * inputs` integers.
                let input = _mm512_set1_epi32(unsafe { pair(rows, row * inputs + 2 * index) });
                for (acc, weights) in acc.iter_mut().zip(weights) {
                    // Written out, because the compiler takes `_mm512_dpwssd_epi32` apart into two instructions.
                    // SAFETY: the caller vouches for the instruction set; only registers are touched.
                    unsafe {
                        asm!(
                            "vpdpwssd {}, {}, {}",
                            inout(zmm_reg) *acc, in(zmm_reg) input, in(zmm_reg) weights,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                }
            }
        }
        for (sums, acc) in sums.iter_mut().zip(acc) {
            let out = sums.as_mut_ptr().cast::<__m512i>();
            // SAFETY: a panel of sums is two registers long.
            unsafe {
                _mm512_storeu_si512(out, acc[0]);
                _mm512_storeu_si512(out.add(1), acc[1]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::weights::{Builder, ROW_LENGTH};
    use super::*;

    /// Integers of a row that is as long as a row may be.
    fn long_row(inputs: usize, seed: usize) -> Vec<i16> {
        let row: Vec<f64> =
            (0..inputs).map(|n| ((n * 7919 + seed * 104_729) % 2003) as f64 - 1001.0).collect();
        let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.iter().map(|value| (value * f64::from(ROW_LENGTH) / length).round() as i16).collect()
    }

    /// Compares a tile of `R` rows with sums in 64 bits, with rows as different and as alike as can be.
    fn check<I: Isa, const R: usize>() {
        for inputs in [16, 48, 384, 1536] {
            let rows: Vec<i16> = (0..R).flat_map(|row| long_row(inputs, row)).collect();
            let columns: Vec<Vec<i16>> =
                (0..PANEL).map(|column| long_row(inputs, column)).collect();
            let weight = columns.iter().flatten().map(|value| f32::from(*value)).collect();
            let linear = Builder { weight, bias: vec![0.0; PANEL] }.pack(inputs);
            let mut sums: Sums<R> = [[-1; PANEL]; R];
            // SAFETY: the callers have checked the instruction set; there are `R * inputs` integers.
            unsafe { I::tile(&rows, &linear.panels, &mut sums) };
            for (row, sums) in rows.chunks_exact(inputs).zip(&sums) {
                for (column, sum) in sums.iter().enumerate() {
                    let packed = |input: usize| {
                        let line = &linear.panels[input / 2 * 2 + column / 16];
                        i64::from(line.0[column % 16 * 2 + input % 2])
                    };
                    let expected: i64 =
                        (0..inputs).map(|input| i64::from(row[input]) * packed(input)).sum();
                    assert_eq!(
                        i64::from(*sum),
                        expected,
                        "{R} rows, {inputs} inputs, column {column}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_tile_gives_the_true_sums() {
        check::<Portable, 1>();
        check::<Portable, 3>();
        check::<Portable, 4>();
        #[cfg(target_arch = "x86_64")]
        for set in InstructionSet::supported() {
            match set.name() {
                "avx2" => {
                    check::<x86::Avx2, 1>();
                    check::<x86::Avx2, 5>();
                    check::<x86::Avx2, 6>();
                }
                "avx512-vnni" => {
                    check::<x86::Avx512, 1>();
                    check::<x86::Avx512, 7>();
                    check::<x86::Avx512, 12>();
                }
                _ => {}
            }
        }
    }
}
