//! Vectors of provider kind `test`, for testing applications: they depend only on the words of a text, need no model
//! and no network, and are the same on every machine and in every version.
//!
//! A word is a run of letters and digits, in lower case. Element `i` of its vector, from 0, comes from block `i / 8`
//! of the word, which is the SHA-256 of the word's UTF-8 bytes followed by the block number as four bytes,
//! little-endian. The four bytes of the block at `4 * (i % 8)`, read as a signed little-endian integer and divided by
//! 2^31, are the element. The vector is normalised to length 1. A text's vector is the sum of the vectors of its
//! words, each as often as it occurs, plus a tenth of the vector of the byte 0 followed by the whole text, normalised
//! to length 1: texts that share words are near each other, and no two texts have the same vector.

use embedd_wire::{Embeddings, Request};
use sha2::{Digest, Sha256};

/// Dimensions where the request names none.
const DIMENSIONS: usize = 64;

/// The weight of the text as a whole.
const WHOLE: f64 = 0.1;

/// The vectors of a request's texts.
pub fn embed(request: &Request) -> Embeddings {
    let dimensions = match request.model.dimensions as usize {
        0 => DIMENSIONS,
        wanted => wanted,
    };
    let values = request.texts.iter().flat_map(|text| vector(text, dimensions)).collect();
    let truncated = vec![false; request.texts.len()];
    Embeddings { dimensions, values, truncated, ..Embeddings::default() }
}

fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut sum = vec![0.0; dimensions];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        add(&mut sum, word.to_lowercase().as_bytes(), 1.0);
    }
    add(&mut sum, &[b"\0", text.as_bytes()].concat(), WHOLE);
    let length = length(&sum);
    sum.into_iter().map(|number| (number / length) as f32).collect()
}

/// Adds the vector of a word, times a weight.
fn add(sum: &mut [f64], word: &[u8], weight: f64) {
    let mut own = Vec::with_capacity(sum.len());
    for block in 0u32.. {
        let hash = Sha256::new().chain_update(word).chain_update(block.to_le_bytes()).finalize();
        let (numbers, _) = hash.as_slice().as_chunks::<4>();
        let left = sum.len() - own.len();
        own.extend(
            numbers
                .iter()
                .take(left)
                .map(|four| f64::from(i32::from_le_bytes(*four)) / 2f64.powi(31)),
        );
        if own.len() == sum.len() {
            break;
        }
    }
    let factor = weight / length(&own);
    sum.iter_mut().zip(own).for_each(|(sum, number)| *sum += number * factor);
}

fn length(numbers: &[f64]) -> f64 {
    // A hash is not expected to be all zeros, but the elements must be numbers even then.
    numbers.iter().map(|number| number * number).sum::<f64>().sqrt().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: &str, other: &str) -> f32 {
        vector(one, 64).iter().zip(vector(other, 64)).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn texts_that_share_words_have_similar_vectors() {
        assert!(near("a red tent for two", "two red tents: a TENT for all") > 0.6);
        assert!(near("a red tent for two", "invoices and taxes") < 0.4);
        assert!(near("Red Tent!", "red tent") > 0.97);
        assert_ne!(vector("Red Tent!", 64), vector("red tent", 64));
        assert_eq!(vector("red", 8), vector("red", 8));
        for text in ["", "!", "\u{1f418}", "straße"] {
            let length: f32 = vector(text, 7).iter().map(|number| number * number).sum();
            assert!((length - 1.0).abs() < 1e-5, "{text}");
        }
    }

    #[test]
    fn vectors_never_change() {
        let numbers = vector("Hello, world", 4);
        // Computed independently from the description above.
        assert_eq!(numbers, [0.41183308, 0.021134648, -0.3143841, -0.85504943]);
    }
}
