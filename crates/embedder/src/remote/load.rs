//! The size of a batch, in every measure that a service may limit.

use crate::providers::Measure;

/// Texts, tokens and bytes of a batch, or limits of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub texts: u64,
    pub tokens: u64,
    /// Bytes of the texts.
    pub bytes: u64,
}

impl Load {
    /// A limit that any batch is within.
    #[cfg(test)]
    pub const ANY: Load = Load { texts: u64::MAX, tokens: u64::MAX, bytes: u64::MAX };

    /// The value of a measure.
    pub fn get(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Texts => self.texts,
            Measure::Tokens => self.tokens,
            Measure::Bytes => self.bytes,
        }
    }

    /// Sets the value of a measure.
    pub fn set(&mut self, measure: Measure, value: u64) {
        *match measure {
            Measure::Texts => &mut self.texts,
            Measure::Tokens => &mut self.tokens,
            Measure::Bytes => &mut self.bytes,
        } = value;
    }

    /// Adds a text.
    pub fn add(&mut self, tokens: u32, bytes: usize) {
        self.texts += 1;
        self.tokens += u64::from(tokens);
        self.bytes += bytes as u64;
    }

    /// Whether no measure exceeds its limit.
    pub fn is_within(&self, most: Load) -> bool {
        Measure::ALL.into_iter().all(|measure| self.get(measure) <= most.get(measure))
    }

    /// The minimum of each measure.
    pub fn min(self, other: Load) -> Load {
        Load {
            texts: self.texts.min(other.texts),
            tokens: self.tokens.min(other.tokens),
            bytes: self.bytes.min(other.bytes),
        }
    }

    /// The maximum of each measure.
    pub fn max(self, other: Load) -> Load {
        Load {
            texts: self.texts.max(other.texts),
            tokens: self.tokens.max(other.tokens),
            bytes: self.bytes.max(other.bytes),
        }
    }
}
