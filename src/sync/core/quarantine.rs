//! Quarantine after the embedder has ended: a worker sends smaller requests, one at a time, until it has found the text over
//! which the embedder ends (poison), while all other texts go on. Pure.

use std::collections::HashMap;

/// Ends of the embedder in a row that have another cause than a text.
const BY_CHANCE: u32 = 1;
/// Texts of a request at the first level of quarantine; each further level halves them.
const FIRST_TEXTS: usize = 64;
/// The level at which requests have one text.
const ALONE: u32 = BY_CHANCE + 7;
/// Answers in a row after which the level goes down by one.
const TRUSTED_AFTER: u32 = 32;
/// How often the embedder has to end over one text alone until the text counts as poison.
const PROOFS: u32 = 3;

/// The quarantine of one worker.
#[derive(Debug, Default)]
pub struct Quarantine {
    level: u32,
    answered: u32,
    /// How often in a row the embedder has ended over the text of this row alone: possible poison.
    proofs: HashMap<(i32, String), u32>,
}

impl Quarantine {
    /// The embedder has ended. `alone` is the row whose text it had, if it had a single one; true when that text is poison.
    pub fn on_end(&mut self, alone: Option<(i32, &str)>) -> bool {
        self.level = (self.level + 1).min(ALONE);
        self.answered = 0;
        let Some((table, key)) = alone else { return false };
        let proofs = self.proofs.entry((table, key.to_string())).or_default();
        *proofs += 1;
        let is_proven = *proofs >= PROOFS;
        if is_proven {
            self.proofs.remove(&(table, key.to_string()));
        }
        is_proven
    }

    /// The embedder has answered a request. `embedded` is the row whose text it had alone and embedded: that text is none
    /// over which it ends, so what ended it before had another cause.
    pub fn on_answer(&mut self, embedded: Option<(i32, &str)>) {
        if let Some((table, key)) = embedded.filter(|_| !self.proofs.is_empty()) {
            self.proofs.remove(&(table, key.to_string()));
        }
        if self.level == 0 {
            return;
        }
        self.answered += 1;
        if self.answered >= TRUSTED_AFTER {
            self.answered = 0;
            self.level -= 1;
        }
        if self.level == 0 {
            self.proofs.clear();
        }
    }

    /// Texts of a request, with one request at a time; none when there is no quarantine.
    pub fn most_texts(&self) -> Option<usize> {
        let halvings = self.level.checked_sub(BY_CHANCE + 1)?;
        Some((FIRST_TEXTS >> halvings).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_end_is_chance_and_further_ones_halve_the_requests_to_one_text() {
        let mut quarantine = Quarantine::default();
        assert_eq!(quarantine.most_texts(), None);
        let sizes: Vec<_> = (0..10)
            .map(|_| {
                quarantine.on_end(None);
                quarantine.most_texts()
            })
            .collect();
        let halves = [64, 32, 16, 8, 4, 2, 1, 1, 1].map(Some);
        assert_eq!(sizes, [&[None][..], &halves].concat());
        for _ in 0..(ALONE * TRUSTED_AFTER) {
            quarantine.on_answer(None);
        }
        assert_eq!(quarantine.most_texts(), None);
    }

    #[test]
    fn a_row_is_set_aside_only_after_it_ended_the_embedder_alone_several_times() {
        let mut quarantine = Quarantine::default();
        assert!(!quarantine.on_end(Some((1, "a"))));
        assert!(!quarantine.on_end(Some((1, "b"))));
        assert!(!quarantine.on_end(Some((2, "a"))));
        assert!(!quarantine.on_end(Some((1, "a"))));
        assert!(quarantine.on_end(Some((1, "a"))));
        // It is counted from the start when it comes back with another text.
        assert!(!quarantine.on_end(Some((1, "a"))));
    }

    /// Another request ends the embedder again and again, while a row is changed and embedded in between.
    #[test]
    fn a_row_that_was_embedded_in_between_is_not_set_aside() {
        let mut quarantine = Quarantine::default();
        for _ in 0..100 {
            assert!(!quarantine.on_end(Some((1, "a"))));
            assert!(!quarantine.on_end(Some((1, "a"))));
            quarantine.on_answer(Some((1, "a")));
        }
        // Answers for other rows say nothing of this one.
        assert!(!quarantine.on_end(Some((1, "a"))));
        quarantine.on_answer(Some((2, "a")));
        quarantine.on_answer(Some((1, "b")));
        assert!(!quarantine.on_end(Some((1, "a"))));
        quarantine.on_answer(None);
        assert!(quarantine.on_end(Some((1, "a"))));
    }

    /// A thousand rows, one of which ends the embedder whenever a request has it.
    #[test]
    fn the_one_row_among_many_is_found_and_all_others_are_answered() {
        let mut quarantine = Quarantine::default();
        let mut waiting: std::collections::VecDeque<u32> = (0..1000).collect();
        let (mut answered, mut aside, mut ends) = (Vec::new(), Vec::new(), 0);
        while !waiting.is_empty() {
            let count = quarantine.most_texts().unwrap_or(256).min(waiting.len());
            let batch: Vec<u32> = waiting.drain(..count).collect();
            if !batch.contains(&577) {
                quarantine.on_answer(None);
                answered.extend(batch);
                continue;
            }
            ends += 1;
            let key = batch[0].to_string();
            match quarantine.on_end((batch.len() == 1).then_some((1, key.as_str()))) {
                true => aside.extend(batch),
                false => batch.into_iter().rev().for_each(|row| waiting.push_front(row)),
            }
        }
        assert_eq!((aside, answered.len()), (vec![577], 999));
        assert!(ends <= 40, "{ends}");
    }
}
