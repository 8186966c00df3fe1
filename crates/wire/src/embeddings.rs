//! The vectors of a request's texts, all or some of them.

use std::ops::Range;

use crate::Failure;

/// The vectors of a request's texts, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embeddings {
    /// The dimensions of a vector.
    pub dimensions: usize,
    /// The elements of the vectors, one vector after the other.
    pub values: Vec<f32>,
    /// For each text, whether it was truncated.
    pub truncated: Vec<bool>,
    /// Texts that the provider rejects, by index, with the reason; their vectors are zeros.
    pub refused: Vec<(u32, String)>,
    /// Texts without a vector because their part of the request failed, by index; their vectors are zeros.
    pub unanswered: Vec<u32>,
    /// Why they have none.
    pub failure: Option<Failure>,
}

impl Embeddings {
    /// The vector of the text at this index; empty if there is no such text.
    pub fn vector(&self, index: usize) -> &[f32] {
        let start = index.saturating_mul(self.dimensions);
        self.values.get(start..start.saturating_add(self.dimensions)).unwrap_or_default()
    }

    /// The embeddings of a range of the texts.
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

    /// The embeddings of the texts at these indexes, which must be in ascending order.
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

    /// The number of texts.
    pub fn count(&self) -> usize {
        self.truncated.len()
    }
}
