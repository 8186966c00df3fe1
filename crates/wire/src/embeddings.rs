//! The vectors of a request's texts, whole or in part.

use std::ops::Range;

use crate::Failure;

/// Vectors of a request's texts, in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embeddings {
    /// Numbers in a vector.
    pub dimensions: usize,
    /// The vectors, one after the other.
    pub values: Vec<f32>,
    /// For each text, whether the model did not take all of it.
    pub truncated: Vec<bool>,
    /// Texts that the provider refuses, by number, with its reason; their numbers are all zero.
    pub refused: Vec<(u32, String)>,
    /// Texts that have no vector yet because their part of the request failed, by number; their numbers are all zero.
    pub unanswered: Vec<u32>,
    /// Why.
    pub failure: Option<Failure>,
}

impl Embeddings {
    /// The vector of the text with this number; empty when there is no such text.
    pub fn vector(&self, index: usize) -> &[f32] {
        let start = index.saturating_mul(self.dimensions);
        self.values.get(start..start.saturating_add(self.dimensions)).unwrap_or_default()
    }

    /// Those of some of the texts.
    pub fn part(&self, range: Range<usize>) -> Embeddings {
        let numbers = range.start * self.dimensions..range.end * self.dimensions;
        let is_in = |(number, _): &&(u32, String)| range.contains(&(*number as usize));
        let moved =
            |(number, reason): &(u32, String)| (number - range.start as u32, reason.clone());
        Embeddings {
            dimensions: self.dimensions,
            values: self.values.get(numbers).unwrap_or_default().to_vec(),
            truncated: self.truncated.get(range.clone()).unwrap_or_default().to_vec(),
            refused: self.refused.iter().filter(is_in).map(moved).collect(),
            ..Embeddings::default()
        }
    }

    /// Those of the texts with these numbers, which have to be in their order.
    pub fn only(&self, numbers: &[usize]) -> Embeddings {
        let place = |number: u32| numbers.binary_search(&(number as usize)).ok();
        let moved =
            |(number, reason): &(u32, String)| Some((place(*number)? as u32, reason.clone()));
        Embeddings {
            dimensions: self.dimensions,
            values: numbers.iter().flat_map(|number| self.vector(*number)).copied().collect(),
            truncated: numbers.iter().map(|n| self.truncated.get(*n) == Some(&true)).collect(),
            refused: self.refused.iter().filter_map(moved).collect(),
            ..Embeddings::default()
        }
    }

    /// How many texts there were.
    pub fn count(&self) -> usize {
        self.truncated.len()
    }
}
