//! The made-up vectors: they follow from model and text alone, are of length 1, and cost next to nothing.

/// Added for every number of a vector, so that each is the mix of another state.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// How far what a text is for moves its vector. The two vectors of a text stay near each other (a cosine of
/// about 0.94), while those of two texts are as far apart as chance has it.
const PURPOSE_WEIGHT: f32 = 0.25;

/// The vector of a text for which the request did not say what it is for.
pub fn vector(model: &str, text: &str, dimensions: usize) -> Vec<f32> {
    typed_vector(model, text, None, dimensions)
}

/// The vector of a text, and of what it is for as Voyage ("query", "document") or Gemini ("RETRIEVAL_QUERY",
/// "RETRIEVAL_DOCUMENT") spell it; either spelling gives the same vector.
pub fn typed_vector(
    model: &str,
    text: &str,
    input_type: Option<&str>,
    dimensions: usize,
) -> Vec<f32> {
    let mut out = Vec::new();
    fill(&mut out, seed(model, text), input_type, dimensions);
    out
}

/// Tokens the fake counts in a text: one for every four bytes begun.
pub fn tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}

/// What the numbers of a vector begin from.
pub(super) fn seed(model: &str, text: &str) -> u64 {
    hash(hash(0, model.as_bytes()), text.as_bytes())
}

/// Puts a vector into a buffer, instead of what was there.
pub(super) fn fill(out: &mut Vec<f32>, seed: u64, input_type: Option<&str>, dimensions: usize) {
    out.clear();
    out.resize(dimensions, 0.0);
    noise(out, seed, 1.0);
    if let Some(purpose) = input_type.map(purpose) {
        noise(out, seed ^ hash(0, purpose.as_bytes()), PURPOSE_WEIGHT);
    }
    // Eight sums side by side, because one that waits for itself is slower than all the rest.
    let mut sums = [0f32; 8];
    for chunk in out.chunks(8) {
        for (sum, number) in sums.iter_mut().zip(chunk) {
            *sum += number * number;
        }
    }
    let length = sums.iter().sum::<f32>().sqrt();
    if length > 0.0 {
        let factor = 1.0 / length;
        out.iter_mut().for_each(|number| *number *= factor);
    }
}

/// The word both spellings of an input type share.
fn purpose(input_type: &str) -> String {
    let lower = input_type.to_ascii_lowercase();
    let shared = ["query", "document"].into_iter().find(|word| lower.contains(word));
    shared.map_or(lower.clone(), str::to_string)
}

/// Adds numbers between -weight and weight.
fn noise(out: &mut [f32], seed: u64, weight: f32) {
    let factor = weight / (1u64 << 31) as f32;
    let mut state = seed;
    for pair in out.chunks_mut(2) {
        state = state.wrapping_add(STEP);
        let mixed = mix(state);
        for (number, bits) in pair.iter_mut().zip([mixed as u32, (mixed >> 32) as u32]) {
            *number += bits.cast_signed() as f32 * factor;
        }
    }
}

/// A hash that takes eight bytes at a time.
fn hash(begin: u64, bytes: &[u8]) -> u64 {
    let mut state = begin ^ (bytes.len() as u64).wrapping_mul(STEP);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        state = mix(state ^ word);
    }
    let rest = chunks.remainder().iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    mix(state ^ rest)
}

/// Spreads every bit over all bits.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
