//! The vectors of the fake: a function of model and text, of length 1, and cheap to compute.

/// The increment of the generator's state for each element.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The influence of the input type on a vector. The two vectors of a text are near each other (cosine about 0.94),
/// while those of different texts are unrelated.
const PURPOSE_WEIGHT: f32 = 0.25;

/// The vector of a text for a request without input type.
pub fn vector(model: &str, text: &str, dimensions: usize) -> Vec<f32> {
    typed_vector(model, text, None, dimensions)
}

/// The vector of a text with an input type of Voyage ("query", "document") or Gemini ("RETRIEVAL_QUERY",
/// "RETRIEVAL_DOCUMENT"); either spelling gives the same vector.
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

/// The fake's token count of a text: one token for every four bytes begun.
pub fn tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}

/// The seed of a vector.
pub(super) fn seed(model: &str, text: &str) -> u64 {
    hash(hash(0, model.as_bytes()), text.as_bytes())
}

/// Writes a vector into a buffer, replacing its content.
pub(super) fn fill(out: &mut Vec<f32>, seed: u64, input_type: Option<&str>, dimensions: usize) {
    out.clear();
    out.resize(dimensions, 0.0);
    noise(out, seed, 1.0);
    if let Some(purpose) = input_type.map(purpose) {
        noise(out, seed ^ hash(0, purpose.as_bytes()), PURPOSE_WEIGHT);
    }
    // Eight independent sums, which the processor can compute in parallel.
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

/// The common word in both spellings of an input type.
fn purpose(input_type: &str) -> String {
    let lower = input_type.to_ascii_lowercase();
    let shared = ["query", "document"].into_iter().find(|word| lower.contains(word));
    shared.map_or(lower.clone(), str::to_string)
}

/// Adds pseudo-random numbers between -weight and weight.
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

/// A hash that processes eight bytes at a time.
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

/// Mixes the bits.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
