//! Projects the counts of a sample of texts to all of them: tokens, requests, and the hours that limits allow. Pure.

use embedd_wire::{Count, Counts, Kind, MostOfRequest, Provider};

/// Minutes and days of an hour, and the days that a month counts.
const MINUTES: f64 = 60.0;
const HOURS_OF_DAY: f64 = 24.0;
const DAYS_OF_MONTH: f64 = 30.0;

/// What all texts together need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Projection {
    pub tokens: i64,
    pub tokens_are_exact: bool,
    /// Requests to the provider.
    pub requests: i64,
    /// Texts of which the model reads only the beginning.
    pub long_texts: i64,
    /// Whether a random sample was counted.
    pub is_estimated: bool,
}

impl Projection {
    /// Nothing is to be embedded.
    pub fn none() -> Self {
        Self { tokens: 0, tokens_are_exact: true, requests: 0, long_texts: 0, is_estimated: false }
    }
}

/// The counts of some texts.
#[derive(Debug, Default)]
pub struct Sample {
    texts: i64,
    characters: i64,
    tokens: i64,
    long_texts: i64,
    are_estimates: bool,
    packing: Packing,
}

impl Sample {
    /// Adds texts with their counts.
    pub fn add(&mut self, texts: &[String], counts: &Counts) {
        self.are_estimates |= !counts.are_exact;
        for (text, count) in texts.iter().zip(&counts.texts) {
            self.texts += 1;
            self.characters += text.chars().count() as i64;
            self.tokens += i64::from(count.tokens);
            self.long_texts += i64::from(count.is_truncated);
            if let Some(most) = counts.most {
                self.packing.add(count, most);
            }
        }
    }

    /// Projects the sample to so many texts and characters; a whole one is what it is.
    pub fn project(&self, texts: i64, characters: i64, is_whole: bool) -> Projection {
        if is_whole {
            return Projection {
                tokens: self.tokens,
                tokens_are_exact: !self.are_estimates,
                requests: self.packing.requests(),
                long_texts: self.long_texts,
                is_estimated: false,
            };
        }
        let scaled = |number: i64, all: i64, part: i64| {
            (number as f64 * all as f64 / part.max(1) as f64).round() as i64
        };
        Projection {
            tokens: scaled(self.tokens, characters, self.characters),
            tokens_are_exact: false,
            requests: self.packing.projected(texts),
            long_texts: scaled(self.long_texts, texts, self.texts),
            is_estimated: true,
        }
    }
}

/// Packs texts into requests as the embedder does: each is filled as far as its limits allow.
#[derive(Debug, Default)]
struct Packing {
    /// Full requests, and the texts in them.
    full: i64,
    in_full: u64,
    /// The request that is being filled.
    texts: u64,
    tokens: u64,
    bytes: u64,
}

impl Packing {
    fn add(&mut self, count: &Count, most: MostOfRequest) {
        let (tokens, bytes) = (u64::from(count.tokens), u64::from(count.bytes));
        let fits = self.texts < most.texts
            && self.tokens + tokens <= most.tokens
            && self.bytes + bytes <= most.bytes;
        if self.texts > 0 && !fits {
            let (full, in_full) = (self.full + 1, self.in_full + self.texts);
            *self = Self { full, in_full, ..Self::default() };
        }
        self.texts += 1;
        self.tokens += tokens;
        self.bytes += bytes;
    }

    fn requests(&self) -> i64 {
        self.full + i64::from(self.texts > 0)
    }

    /// The requests for so many texts: the last one of the sample is not full, so it does not count beside others.
    fn projected(&self, texts: i64) -> i64 {
        let (requests, in_requests) = match self.full {
            0 => (self.requests(), self.texts),
            full => (full, self.in_full),
        };
        (texts as f64 * requests as f64 / in_requests.max(1) as f64).ceil() as i64
    }
}

/// The hours that so many texts need at least by the limits of a provider; None where it has none.
///
/// A day that is capped is waited for as a whole, and what was used before is not known here.
pub fn hours_at_limits(
    provider: &Provider,
    projection: &Projection,
    texts_to_embed: i64,
) -> Option<f64> {
    let limits = &provider.limits;
    // Gemini counts every text as a request.
    let requests = match provider.kind {
        Kind::Gemini => texts_to_embed,
        _ => projection.requests,
    };
    let at_rate = |amount: i64, per_minute: Option<u32>| {
        per_minute.map(|per_minute| amount as f64 / f64::from(per_minute.max(1)) / MINUTES)
    };
    let at_cap = |cap: Option<u64>, days: f64| {
        let waits = |cap: u64| (projection.tokens - 1).max(0) as u64 / cap.max(1);
        cap.map(|cap| waits(cap) as f64 * days * HOURS_OF_DAY)
    };
    [
        at_rate(requests, limits.requests_per_minute),
        at_rate(projection.tokens, limits.tokens_per_minute),
        at_cap(limits.max_tokens_per_day, 1.0),
        at_cap(limits.max_tokens_per_month, DAYS_OF_MONTH),
    ]
    .into_iter()
    .flatten()
    .reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use embedd_wire::Limits;

    use super::*;

    const MOST: MostOfRequest = MostOfRequest { texts: 3, tokens: 100, bytes: 1000 };

    fn counts(tokens: &[u32], are_exact: bool, most: Option<MostOfRequest>) -> Counts {
        let texts = tokens.iter().map(|tokens| Count {
            tokens: *tokens,
            bytes: 10 * tokens,
            is_truncated: *tokens > 50,
        });
        Counts { texts: texts.collect(), are_exact, most }
    }

    fn sample(tokens: &[u32], are_exact: bool, most: Option<MostOfRequest>) -> Sample {
        let mut sample = Sample::default();
        let texts = vec!["4 ch".to_string(); tokens.len()];
        sample.add(&texts, &counts(tokens, are_exact, most));
        sample
    }

    #[test]
    fn requests_are_filled_by_texts_tokens_and_bytes() {
        for (tokens, most, requests) in [
            (&[1, 1, 1][..], MOST, 1),
            (&[1, 1, 1, 1], MOST, 2),
            (&[50, 50, 1], MOST, 2),
            // A text above a limit is sent alone.
            (&[1, 500, 1], MOST, 3),
            (&[60, 60], MostOfRequest { tokens: 1000, ..MOST }, 2),
            (&[], MOST, 0),
        ] {
            assert_eq!(sample(tokens, true, Some(most)).packing.requests(), requests, "{tokens:?}");
        }
    }

    #[test]
    fn a_whole_sample_is_what_it_is_and_another_is_scaled() {
        let whole = sample(&[10, 60, 30, 20], true, Some(MOST)).project(4, 16, true);
        let expected = Projection {
            tokens: 120,
            tokens_are_exact: true,
            requests: 2,
            long_texts: 1,
            is_estimated: false,
        };
        assert_eq!(whole, expected);
        // A hundred texts of twice the length on average.
        let scaled = sample(&[10, 60, 30, 20], true, Some(MOST)).project(100, 800, false);
        let expected = Projection {
            tokens: 6000,
            tokens_are_exact: false,
            requests: 34,
            long_texts: 25,
            is_estimated: true,
        };
        assert_eq!(scaled, expected);
        assert!(!sample(&[1], false, None).project(1, 4, true).tokens_are_exact);
        assert_eq!(sample(&[1], true, None).project(1, 4, true).requests, 0);
        assert_eq!(sample(&[], true, None).project(9, 9, false).tokens, 0);
    }

    #[test]
    fn the_narrowest_limit_decides() {
        let projection = Projection { tokens: 6_000_000, requests: 1200, ..Projection::none() };
        let hours = |kind, limits| {
            let provider = Provider { kind, limits, ..Provider::local() };
            hours_at_limits(&provider, &projection, 12_000)
        };
        let limits = |requests, tokens| Limits {
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            ..Limits::DEFAULT
        };
        assert_eq!(hours(Kind::Openai, Limits::DEFAULT), None);
        assert_eq!(hours(Kind::Openai, limits(Some(10), None)), Some(2.0));
        assert_eq!(hours(Kind::Openai, limits(Some(10), Some(20_000))), Some(5.0));
        assert_eq!(hours(Kind::Gemini, limits(Some(10), Some(20_000))), Some(20.0));
        let capped = |day, month| Limits {
            max_tokens_per_day: day,
            max_tokens_per_month: month,
            ..limits(Some(10), None)
        };
        // The rest of six capped days is used on the seventh.
        assert_eq!(hours(Kind::Openai, capped(Some(900_000), None)), Some(144.0));
        assert_eq!(hours(Kind::Openai, capped(Some(6_000_000), None)), Some(2.0));
        assert_eq!(hours(Kind::Openai, capped(None, Some(5_999_999))), Some(720.0));
    }
}
