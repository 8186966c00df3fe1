//! The arithmetic between the dense layers: sixteen numbers at a time, in plain Rust the compiler turns into vectors.

use super::config::LANES;
use super::kernels::{Isa, fma};
use super::weights::{Norm, row_factor};

/// Sixteen numbers worked on at once.
pub(super) type Lanes = [f32; LANES];

/// Adding this and taking the lowest bits rounds a small float to the nearest integer.
const ROUNDING: f32 = 12_582_912.0;

/// Applies a function to each of sixteen numbers.
#[inline(always)]
pub(super) fn each(mut lanes: Lanes, function: impl Fn(f32) -> f32) -> Lanes {
    for lane in &mut lanes {
        *lane = function(*lane);
    }
    lanes
}

/// The sum of sixteen numbers.
#[inline(always)]
pub(super) fn total(lanes: Lanes) -> f32 {
    fold(lanes, |a, b| a + b)
}

/// The largest of sixteen numbers.
#[inline(always)]
pub(super) fn largest(lanes: Lanes) -> f32 {
    fold(lanes, |a, b| if a > b { a } else { b })
}

/// Joins sixteen numbers by halves.
#[inline(always)]
fn fold(mut lanes: Lanes, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// `e` to the power of `x`, for `x` up to 0; what would be below 1e-38 becomes about that.
#[inline(always)]
pub(super) fn exp<I: Isa>(x: f32) -> f32 {
    let x = if x > -87.0 { x } else { -87.0 };
    let rounded = fma::<I>(x, std::f32::consts::LOG2_E, ROUNDING);
    let whole = rounded - ROUNDING;
    let rest = fma::<I>(whole, -0.693_359_4, x);
    let rest = fma::<I>(whole, 2.121_944_4e-4, rest);
    let mut sum = 1.987_569_1e-4;
    for factor in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        sum = fma::<I>(sum, rest, factor);
    }
    let power = rounded.to_bits().wrapping_sub(ROUNDING.to_bits()).wrapping_add(127) << 23;
    sum * f32::from_bits(power)
}

/// The Gaussian error linear unit, `x * (1 + erf(x / sqrt 2)) / 2`; the error function as a quotient of polynomials.
#[inline(always)]
pub(super) fn gelu<I: Isa>(x: f32) -> f32 {
    let z = x * std::f32::consts::FRAC_1_SQRT_2;
    let z = if z > 4.0 { 4.0 } else { z };
    let z = if z < -4.0 { -4.0 } else { z };
    let square = z * z;
    let mut above = -2.726_142_3e-10;
    for factor in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        above = fma::<I>(above, square, factor);
    }
    let mut below = -1.456_607_2e-5;
    for factor in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        below = fma::<I>(below, square, factor);
    }
    let half = 0.5 * x;
    fma::<I>(half, z * above / below, half)
}

/// Turns a row of floats into integers, and returns what one unit of them is worth.
#[inline(always)]
pub(super) fn quantise<I: Isa>(row: &[f32], out: &mut [i16]) -> f32 {
    let mut peak = [0.0; LANES];
    let mut squared = [0.0; LANES];
    for lanes in row.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let value = lanes[lane];
            peak[lane] = if value.abs() > peak[lane] { value.abs() } else { peak[lane] };
            squared[lane] = fma::<I>(value, value, squared[lane]);
        }
    }
    let factor = row_factor(largest(peak), total(squared));
    for (lanes, out) in row.as_chunks::<LANES>().0.iter().zip(out.as_chunks_mut::<LANES>().0) {
        for lane in 0..LANES {
            out[lane] = fma::<I>(lanes[lane], factor, ROUNDING).to_bits() as i16;
        }
    }
    if factor == 0.0 { 0.0 } else { 1.0 / factor }
}

/// Adds `more` to a row and normalises it: mean 0, variance 1, then scaled and shifted.
#[inline(always)]
pub(super) fn add_and_normalise<I: Isa>(row: &mut [f32], more: Option<&[f32]>, norm: &Norm) {
    if let Some(more) = more {
        for (lanes, more) in
            row.as_chunks_mut::<LANES>().0.iter_mut().zip(more.as_chunks::<LANES>().0)
        {
            for lane in 0..LANES {
                lanes[lane] += more[lane];
            }
        }
    }
    let count = row.len() as f32;
    let row = row.as_chunks_mut::<LANES>().0;
    let mut sum = [0.0; LANES];
    for lanes in row.iter() {
        for lane in 0..LANES {
            sum[lane] += lanes[lane];
        }
    }
    let mean = total(sum) / count;
    let mut squared = [0.0; LANES];
    for lanes in row.iter() {
        for lane in 0..LANES {
            let apart = lanes[lane] - mean;
            squared[lane] = fma::<I>(apart, apart, squared[lane]);
        }
    }
    let factor = 1.0 / (total(squared) / count + norm.epsilon).sqrt();
    let weights = norm.weight.as_chunks::<LANES>().0;
    let biases = norm.bias.as_chunks::<LANES>().0;
    for ((lanes, weights), biases) in row.iter_mut().zip(weights).zip(biases) {
        for lane in 0..LANES {
            lanes[lane] = fma::<I>((lanes[lane] - mean) * factor, weights[lane], biases[lane]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::Portable;
    use super::super::weights::ROW_LENGTH;
    use super::*;

    /// The error function, by its series.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn gelu_is_near_the_true_one() {
        for step in -5000..=5000 {
            let x = step as f32 / 1000.0;
            let expected = 0.5 * f64::from(x) * (1.0 + erf(f64::from(x) / 2.0_f64.sqrt()));
            assert!((f64::from(gelu::<Portable>(x)) - expected).abs() < 2e-6, "{x}");
        }
        assert!((gelu::<Portable>(100.0) - 100.0).abs() < 1e-4);
        assert!(gelu::<Portable>(-100.0).abs() < 1e-4);
    }

    #[test]
    fn exp_is_near_the_true_one() {
        for step in 0..=8700 {
            let x = -step as f32 / 100.0;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp::<Portable>(x)) - expected).abs() < 1e-6 * expected, "{x}");
        }
        assert_eq!(exp::<Portable>(0.0), 1.0);
        assert!((0.0..1e-37).contains(&exp::<Portable>(f32::NEG_INFINITY)));
    }

    #[test]
    fn integer_rows_are_never_too_long() {
        let even: Vec<f32> = (0..1536).map(|n| if n % 2 == 0 { 3.0 } else { -3.0 }).collect();
        let mut peaked = vec![1e-4; 1536];
        peaked[7] = -9e9;
        let mixed: Vec<f32> = (0..1536).map(|n| ((n * 7919) % 1000) as f32 / 250.0 - 2.0).collect();
        for row in [even, peaked, mixed, vec![1e-38; 1536], vec![0.0; 1536]] {
            let mut out = vec![0; row.len()];
            let unit = quantise::<Portable>(&row, &mut out);
            let length = out.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            assert!(length <= f64::from(ROW_LENGTH) + 20.0, "{length}");
            let peak = row.iter().fold(0.0_f32, |peak, value| peak.max(value.abs()));
            for (value, integer) in row.iter().zip(&out) {
                assert!(
                    (f32::from(*integer) * unit - value).abs() <= 0.51 * unit + peak * 1e-6 + 1e-37
                );
            }
        }
        let mut out = [1; 16];
        quantise::<Portable>(&[f32::NAN; 16], &mut out);
        quantise::<Portable>(&[f32::INFINITY; 16], &mut out);
    }
}
