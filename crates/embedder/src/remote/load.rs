//! What a request holds, measured in every way in which a service may limit it.

use crate::providers::Measure;

/// Texts, tokens and bytes of a request, or the most of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub texts: u64,
    pub tokens: u64,
    /// Bytes of the texts.
    pub bytes: u64,
}

impl Load {
    /// Any request.
    #[cfg(test)]
    pub const ANY: Load = Load { texts: u64::MAX, tokens: u64::MAX, bytes: u64::MAX };

    /// One of the three.
    pub fn get(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Texts => self.texts,
            Measure::Tokens => self.tokens,
            Measure::Bytes => self.bytes,
        }
    }

    /// Changes one of the three.
    pub fn set(&mut self, measure: Measure, value: u64) {
        *match measure {
            Measure::Texts => &mut self.texts,
            Measure::Tokens => &mut self.tokens,
            Measure::Bytes => &mut self.bytes,
        } = value;
    }

    /// One more text.
    pub fn add(&mut self, tokens: u32, bytes: usize) {
        self.texts += 1;
        self.tokens += u64::from(tokens);
        self.bytes += bytes as u64;
    }

    /// Whether nothing of it is more than this.
    pub fn is_within(&self, most: Load) -> bool {
        Measure::ALL.into_iter().all(|measure| self.get(measure) <= most.get(measure))
    }

    /// The smaller of each.
    pub fn min(self, other: Load) -> Load {
        Load {
            texts: self.texts.min(other.texts),
            tokens: self.tokens.min(other.tokens),
            bytes: self.bytes.min(other.bytes),
        }
    }

    /// The greater of each.
    pub fn max(self, other: Load) -> Load {
        Load {
            texts: self.texts.max(other.texts),
            tokens: self.tokens.max(other.tokens),
            bytes: self.bytes.max(other.bytes),
        }
    }
}
