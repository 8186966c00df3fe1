//! Self-attention: every token of a sentence looks at every other, one head at a time.

use super::config::LANES;
use super::gate::Yielder;
use super::kernels::{Isa, fma};
use super::math::{Lanes, each, exp, largest, total};

/// Queries worked on at once.
const ROWS: usize = 4;

/// Memory for one head of one sentence, kept between calls.
#[derive(Default)]
pub(super) struct Head {
    /// For every 16 keys, their numbers turned on their side: number by number, 16 keys side by side.
    keys: Vec<Lanes>,
    /// For every 16 numbers of a value, all tokens' one after the other.
    values: Vec<Lanes>,
    /// The scores of [`ROWS`] queries, each row filled up to whole lanes.
    scores: Vec<Lanes>,
}

/// Reads queries, keys and values of one sentence, and writes what its tokens saw.
///
/// `qkv` has a row a token: all heads' queries, then keys, then values, `hidden` numbers each.
#[inline(always)]
pub(super) fn attend<I: Isa>(
    qkv: &[f32],
    hidden: usize,
    head_size: usize,
    head: &mut Head,
    seen: &mut [f32],
    yielder: &mut Yielder,
) {
    let tokens = seen.len() / hidden;
    let key_blocks = tokens.div_ceil(LANES);
    let value_blocks = head_size.div_ceil(LANES);
    for first in (0..hidden).step_by(head_size) {
        yielder.check();
        let row =
            |token: usize, part: usize| &qkv[(token * 3 + part) * hidden + first..][..head_size];
        head.keys.clear();
        head.keys.resize(key_blocks * head_size, [0.0; LANES]);
        head.values.clear();
        head.values.resize(value_blocks * tokens, [0.0; LANES]);
        for token in 0..tokens {
            let keys = &mut head.keys[token / LANES * head_size..][..head_size];
            for (key, number) in keys.iter_mut().zip(row(token, 1)) {
                key[token % LANES] = *number;
            }
            for (block, numbers) in row(token, 2).chunks(LANES).enumerate() {
                head.values[block * tokens + token][..numbers.len()].copy_from_slice(numbers);
            }
        }
        head.scores.resize(ROWS * key_blocks, [0.0; LANES]);
        for start in (0..tokens).step_by(ROWS) {
            // The last few rows are done twice rather than singly.
            let queries: [usize; ROWS] =
                std::array::from_fn(|index| (start + index).min(tokens - 1));
            let rows = queries.map(|token| row(token, 0));
            for (block, keys) in head.keys.chunks_exact(head_size).enumerate() {
                let sums = product::<I>(rows, keys);
                for (index, sums) in sums.into_iter().enumerate() {
                    head.scores[index * key_blocks + block] = sums;
                }
            }
            let mut shares = [0.0; ROWS];
            for (row, share) in head.scores.chunks_exact_mut(key_blocks).zip(&mut shares) {
                *share = 1.0 / soften::<I>(row, tokens);
            }
            let mut rows =
                head.scores.chunks_exact(key_blocks).map(|row| &row.as_flattened()[..tokens]);
            let rows: [&[f32]; ROWS] = std::array::from_fn(|_| rows.next().unwrap_or_default());
            for (block, values) in head.values.chunks_exact(tokens).enumerate() {
                let sums = product::<I>(rows, values);
                let from = first + block * LANES;
                let width = LANES.min(first + head_size - from);
                for ((sums, share), token) in sums.into_iter().zip(shares).zip(queries) {
                    let sums = each(sums, |sum| sum * share);
                    seen[token * hidden + from..][..width].copy_from_slice(&sums[..width]);
                }
            }
        }
    }
}

/// Multiplies each row's numbers with the lanes and adds them up.
#[inline(always)]
fn product<I: Isa>(rows: [&[f32]; ROWS], lanes: &[Lanes]) -> [Lanes; ROWS] {
    let [a, b, c, d] = rows.map(|row| &row[..lanes.len()]);
    // Four sums by name, not by number: that keeps them in registers.
    let [mut at, mut bt, mut ct, mut dt] = [[0.0; LANES]; ROWS];
    for (index, lanes) in lanes.iter().enumerate() {
        at = add_product::<I>(at, a[index], lanes);
        bt = add_product::<I>(bt, b[index], lanes);
        ct = add_product::<I>(ct, c[index], lanes);
        dt = add_product::<I>(dt, d[index], lanes);
    }
    [at, bt, ct, dt]
}

/// Adds sixteen products with one number.
#[inline(always)]
fn add_product<I: Isa>(mut sums: Lanes, number: f32, lanes: &Lanes) -> Lanes {
    for lane in 0..LANES {
        sums[lane] = fma::<I>(number, lanes[lane], sums[lane]);
    }
    sums
}

/// Turns the first `tokens` scores of a row into their exponentials, the rest into nearly nothing; returns the sum.
#[inline(always)]
fn soften<I: Isa>(row: &mut [Lanes], tokens: usize) -> f32 {
    row.as_flattened_mut()[tokens..].fill(f32::NEG_INFINITY);
    let mut peak = [f32::NEG_INFINITY; LANES];
    for lanes in row.iter() {
        for lane in 0..LANES {
            peak[lane] = if lanes[lane] > peak[lane] { lanes[lane] } else { peak[lane] };
        }
    }
    let peak = largest(peak);
    let mut sum = [0.0; LANES];
    for lanes in row {
        *lanes = each(*lanes, |score| exp::<I>(score - peak));
        for lane in 0..LANES {
            sum[lane] += lanes[lane];
        }
    }
    total(sum)
}
