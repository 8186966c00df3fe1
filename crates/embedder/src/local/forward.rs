//! The forward pass: from word pieces to one normalised vector a sentence, without padding, on the calling thread.

use super::Model;
use super::attention::{Head, attend};
use super::gate::{Gate, Yielder};
use super::kernels::{Isa, PANEL, Sums};
use super::math::{add_and_normalise, each, gelu, quantise};
use super::weights::{Layer, Linear};
use std::ops::Range;
use std::sync::Arc;

/// Tokens that go through all layers together: their state is what has to stay in memory.
const BATCH_TOKENS: usize = 2048;

/// Tokens that go through a layer together, up to a sentence more or less: their activations fit into the second-level
/// cache.
const GROUP_TOKENS: usize = 96;

/// Tokens that go through a feed-forward block together.
const STRIP_TOKENS: usize = 60;

/// Memory of one thread's forward passes, kept between calls; it grows to a few megabytes.
#[derive(Default)]
pub struct Scratch {
    state: Vec<f32>,
    buffers: Buffers,
}

impl Scratch {
    /// Memory of a thread that yields to questions.
    pub fn yielding_at(gate: Arc<Gate>) -> Scratch {
        let buffers = Buffers { yielder: Yielder::new(gate), ..Buffers::default() };
        Scratch { buffers, ..Scratch::default() }
    }

    /// Frees the memory.
    pub fn clear(&mut self) {
        let yielder = std::mem::take(&mut self.buffers.yielder);
        let buffers = Buffers { yielder, ..Buffers::default() };
        *self = Scratch { buffers, ..Scratch::default() };
    }

    /// Yields if a question runs and this thread is one that yields.
    pub fn yield_to_questions(&mut self) {
        self.buffers.yielder.check();
    }
}

/// What a layer needs besides the state.
#[derive(Default)]
struct Buffers {
    integers: Vec<i16>,
    units: Vec<f32>,
    wide: Vec<f32>,
    narrow: Vec<f32>,
    head: Head,
    /// Polled between small pieces of a pass.
    yielder: Yielder,
}

/// A group of sentences and their state, one row of `hidden` numbers a token, handed to a layer.
pub(super) struct Work<'a> {
    state: &'a mut [f32],
    /// Each sentence's tokens, as rows of `state`.
    sentences: &'a [Range<usize>],
    head_size: usize,
    buffers: &'a mut Buffers,
}

impl Model {
    /// Turns sentences into vectors of length 1, in the same order; the work is done on the calling thread.
    ///
    /// Word pieces the model does not have count as unknown, and those beyond its last position are left out. A
    /// sentence of no word pieces at all gets a vector of zeros.
    pub fn embed(&self, batch: &[&super::Tokens], scratch: &mut Scratch) -> Vec<Vec<f32>> {
        let mut vectors = Vec::with_capacity(batch.len());
        let mut rest = batch;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = rest.iter().take_while(|sentence| {
                let before = tokens;
                tokens += sentence.ids.len();
                before == 0 || tokens <= BATCH_TOKENS
            });
            let (now, later) = rest.split_at(fits.count());
            self.embed_part(now, scratch, &mut vectors);
            rest = later;
        }
        vectors
    }

    /// Embeds as many sentences as go through all layers together.
    fn embed_part(
        &self,
        batch: &[&super::Tokens],
        scratch: &mut Scratch,
        vectors: &mut Vec<Vec<f32>>,
    ) {
        let hidden = self.config.hidden;
        let Scratch { state, buffers } = scratch;
        state.clear();
        let mut sentences = Vec::with_capacity(batch.len());
        for tokens in batch {
            let ids = &tokens.ids[..tokens.ids.len().min(self.config.positions)];
            let first = state.len() / hidden;
            sentences.push(first..first + ids.len());
            state.resize((first + ids.len()) * hidden, 0.0);
            let rows = state[first * hidden..].chunks_exact_mut(hidden);
            for (position, (id, row)) in ids.iter().zip(rows).enumerate() {
                self.embed_token(*id, position, row);
            }
        }
        for layer in &self.weights.layers {
            for group in groups(&sentences) {
                let first = group[0].start;
                let last = group[group.len() - 1].end;
                let sentences: Vec<_> =
                    group.iter().map(|rows| rows.start - first..rows.end - first).collect();
                let mut work = Work {
                    state: &mut state[first * hidden..last * hidden],
                    sentences: &sentences,
                    head_size: self.config.head_size(),
                    buffers,
                };
                self.instructions.run(layer, &mut work);
            }
        }
        vectors.extend(
            sentences
                .into_iter()
                .map(|rows| pool(&state[rows.start * hidden..rows.end * hidden], hidden)),
        );
    }

    /// Writes what a word piece at a position looks like before the first layer.
    fn embed_token(&self, id: u32, position: usize, row: &mut [f32]) {
        let known = (id as usize) < self.config.vocabulary;
        let id = if known { id } else { self.tokenizer.unknown() };
        self.weights.embeddings.write(id as usize, position, row);
        add_and_normalise::<super::kernels::Portable>(row, None, &self.weights.embeddings.norm);
    }
}

/// Cuts a batch into runs of sentences of about [`GROUP_TOKENS`] tokens.
fn groups(sentences: &[Range<usize>]) -> impl Iterator<Item = &[Range<usize>]> {
    let mut rest = sentences;
    std::iter::from_fn(move || {
        let start = rest.first()?.start;
        let full = rest.iter().position(|rows| rows.end - start >= GROUP_TOKENS);
        let (group, later) = rest.split_at(full.map_or(rest.len(), |index| index + 1));
        rest = later;
        Some(group)
    })
}

/// The mean of a sentence's rows, at length 1.
fn pool(rows: &[f32], hidden: usize) -> Vec<f32> {
    let mut vector = vec![0.0; hidden];
    for row in rows.chunks_exact(hidden) {
        vector.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    let length =
        vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
    vector
}

/// One layer over one group: attention, then the feed-forward block, each added to the state and normalised.
///
/// # Safety
/// The processor must have the instruction set.
#[inline(always)]
pub(super) unsafe fn layer_pass<I: Isa>(layer: &Layer, work: &mut Work) {
    let hidden = layer.mix.outputs;
    let Buffers { integers, units, wide, narrow, head, yielder } = &mut *work.buffers;

    quantise_rows::<I>(work.state, hidden, integers, units);
    // SAFETY: the caller vouches for the instruction set.
    unsafe { dense::<I>(&layer.qkv, integers, units, wide, yielder) };
    narrow.resize(work.state.len(), 0.0);
    for rows in work.sentences {
        let seen = &mut narrow[rows.start * hidden..rows.end * hidden];
        attend::<I>(
            &wide[rows.start * 3 * hidden..rows.end * 3 * hidden],
            hidden,
            work.head_size,
            head,
            seen,
            yielder,
        );
    }
    quantise_rows::<I>(narrow, hidden, integers, units);
    // SAFETY: as above.
    unsafe { dense::<I>(&layer.mix, integers, units, narrow, yielder) };
    for (row, more) in work.state.chunks_exact_mut(hidden).zip(narrow.chunks_exact(hidden)) {
        add_and_normalise::<I>(row, Some(more), &layer.mix_norm);
    }

    for strip in work.state.chunks_mut(STRIP_TOKENS * hidden) {
        quantise_rows::<I>(strip, hidden, integers, units);
        // SAFETY: as above.
        unsafe { dense::<I>(&layer.up, integers, units, wide, yielder) };
        for lanes in wide.as_chunks_mut().0 {
            *lanes = each(*lanes, gelu::<I>);
        }
        quantise_rows::<I>(wide, layer.up.outputs, integers, units);
        // SAFETY: as above.
        unsafe { dense::<I>(&layer.down, integers, units, narrow, yielder) };
        for (row, more) in strip.chunks_exact_mut(hidden).zip(narrow.chunks_exact(hidden)) {
            add_and_normalise::<I>(row, Some(more), &layer.down_norm);
        }
    }
}

/// Turns rows of floats into rows of integers and their units.
#[inline(always)]
fn quantise_rows<I: Isa>(
    rows: &[f32],
    width: usize,
    integers: &mut Vec<i16>,
    units: &mut Vec<f32>,
) {
    integers.resize(rows.len(), 0);
    units.clear();
    for (row, out) in rows.chunks_exact(width).zip(integers.chunks_exact_mut(width)) {
        units.push(quantise::<I>(row, out));
    }
}

/// Runs a dense layer over rows of integers; `out` gets one row of floats for each.
///
/// # Safety
/// The processor must have the instruction set.
#[inline(always)]
unsafe fn dense<I: Isa>(
    linear: &Linear,
    integers: &[i16],
    units: &[f32],
    out: &mut Vec<f32>,
    yielder: &mut Yielder,
) {
    assert_eq!(integers.len(), units.len() * linear.inputs);
    out.resize(units.len() * linear.outputs, 0.0);
    let tiles = units.len().div_ceil(I::ROWS).max(1);
    let rows = units.len().div_ceil(tiles).max(1);
    for (index, panel) in linear.panels.chunks_exact(linear.inputs).enumerate() {
        yielder.check();
        let tiles = integers.chunks(rows * linear.inputs).zip(units.chunks(rows));
        for ((integers, units), out) in tiles.zip(out.chunks_mut(rows * linear.outputs)) {
            macro_rules! tile {
                ($($rows:literal)*) => {
                    match units.len() {
                        $($rows if $rows <= I::ROWS => {
                            let mut sums: Sums<$rows> = [[0; PANEL]; $rows];
                            // SAFETY: the caller vouches for the instruction set; the chunk holds this many rows.
                            unsafe { I::tile(integers, panel, &mut sums) };
                            spread::<I>(&sums, linear, index * PANEL, units, out);
                        })*
                        _ => unreachable!("a tile has at most twelve rows"),
                    }
                };
            }
            tile!(1 2 3 4 5 6 7 8 9 10 11 12);
        }
    }
}

/// Turns one panel's integer sums into floats, adds the bias, and puts them into their columns.
#[inline(always)]
fn spread<I: Isa>(
    sums: &[[i32; PANEL]],
    linear: &Linear,
    column: usize,
    units: &[f32],
    out: &mut [f32],
) {
    let width = PANEL.min(linear.outputs - column);
    let scale: &[f32] = &linear.unit[column..][..PANEL];
    let bias: &[f32] = &linear.bias[column..][..PANEL];
    for ((sums, unit), row) in sums.iter().zip(units).zip(out.chunks_exact_mut(linear.outputs)) {
        let mut values = [0.0; PANEL];
        for lane in 0..PANEL {
            values[lane] =
                super::kernels::fma::<I>(sums[lane] as f32 * unit, scale[lane], bias[lane]);
        }
        row[column..][..width].copy_from_slice(&values[..width]);
    }
}
