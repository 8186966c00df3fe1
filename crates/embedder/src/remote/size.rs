//! The limits of a batch in texts, tokens and bytes: learned from what a service rejects and what it accepts. Pure.

use std::time::{Duration, Instant};

use super::load::Load;
use crate::providers::{Measure, Stated};

/// How many batches must be answered at a limit before a larger one is tried, and the time between two such trials.
const ANSWERS: u32 = 8;
const RETRY: Duration = Duration::from_secs(60 * 60);

/// How many bisected batches are tracked, and for how long exploring counts as under way after the last.
const BISECTED_KEPT: usize = 64;
const BISECTION_TIME: Duration = Duration::from_secs(30);

/// What has been learned for one model of one account.
#[derive(Debug, Default)]
pub struct Size {
    limits: [Option<Limit>; 3],
    /// The maximum of each measure in an accepted batch.
    taken: Load,
    /// Bisected batches whose halves have not both been answered.
    bisected: Vec<Bisected>,
    last_bisected: u64,
    /// When a batch was last bisected, or rejected before the service was known to be good.
    explored: Option<Instant>,
    /// Batches in flight that are larger than anything accepted; and whether one above a limit is.
    larger: usize,
    trying: bool,
}

/// The limit of one measure.
#[derive(Debug, Clone, Copy)]
struct Limit {
    most: u64,
    /// The smallest value rejected, where this measure is known to be the cause.
    refused: Option<u64>,
    /// The rejected batch that led to this limit, where the service did not name the measure.
    guess: Option<Load>,
    answers: u32,
    /// When a larger batch may be tried.
    next: Instant,
}

#[derive(Debug)]
struct Bisected {
    number: u64,
    whole: Load,
    hint: Option<Measure>,
    answered: u32,
}

/// A learned limit, or (none) one that no longer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitChange {
    pub measure: Measure,
    pub most: Option<u64>,
    /// Whether this measure had no limit before.
    pub is_new: bool,
}

impl Size {
    /// Starts with the limits learned by an earlier run.
    pub fn with_limits(limits: &[(Measure, u64)], now: Instant) -> Size {
        let mut size = Size::default();
        for (measure, most) in limits {
            size.set(*measure, *most, None, None, now);
        }
        size
    }

    /// The most the next batch may hold, where provider and model allow `cap`.
    pub fn most(&self, cap: Load, now: Instant) -> Load {
        let mut most = cap;
        for measure in Measure::ALL {
            let Some(limit) = self.limits[measure as usize] else { continue };
            let may_try = !self.trying && limit.answers >= ANSWERS && now >= limit.next;
            let bound = if may_try { limit.larger() } else { limit.most };
            most.set(measure, cap.get(measure).min(bound));
        }
        most
    }

    /// Whether a batch has to wait: while limits are being explored, only one batch in flight may be larger than
    /// anything accepted.
    pub fn has_to_wait(&self, load: Load, now: Instant) -> bool {
        let since = self.explored.map(|at| now.saturating_duration_since(at));
        self.larger > 0 && since.is_some_and(|since| since < BISECTION_TIME) && self.is_larger(load)
    }

    /// A batch is sent; returns what [`Size::completed`] needs.
    pub fn sent(&mut self, load: Load) -> (bool, bool) {
        let mark = (self.is_larger(load), self.exceeds(load));
        self.larger += usize::from(mark.0);
        self.trying |= mark.1;
        mark
    }

    /// A batch completed, whatever the outcome.
    pub fn completed(&mut self, (larger, trying): (bool, bool)) {
        self.larger = self.larger.saturating_sub(usize::from(larger));
        self.trying &= !trying;
    }

    /// A batch was accepted; `half` is the number of the batch that it is a half of. Returns the changed limits.
    pub fn answered(
        &mut self,
        load: Load,
        cap: Load,
        half: Option<u64>,
        now: Instant,
    ) -> Vec<LimitChange> {
        // A service may truncate a text sent alone, so only the number of texts counts then.
        let shown = if load.texts == 1 { Load { texts: 1, ..Load::default() } } else { load };
        self.taken = self.taken.max(shown);
        let mut changes = Vec::new();
        for measure in Measure::ALL {
            let (got, slot) = (shown.get(measure), &mut self.limits[measure as usize]);
            let Some(limit) = slot else { continue };
            if got > limit.most {
                (limit.most, limit.answers, limit.next) = (got, ANSWERS, now);
                limit.refused = limit.refused.filter(|refused| *refused > got);
                let most = Some(got).filter(|got| *got < cap.get(measure));
                if most.is_none() {
                    *slot = None;
                }
                changes.push(LimitChange { measure, most, is_new: false });
            } else if got.saturating_mul(2) > limit.most {
                limit.answers = limit.answers.saturating_add(1);
            }
        }
        let place =
            half.and_then(|half| self.bisected.iter().position(|known| known.number == half));
        if let Some(place) = place {
            self.bisected[place].answered += 1;
            if self.bisected[place].answered == 2 {
                let Bisected { whole, hint, .. } = self.bisected.swap_remove(place);
                changes.extend(self.blame(whole, hint, load, now));
            }
        }
        changes
    }

    /// A batch was rejected by a service that names the limit; returns it if the batch is above that limit.
    pub fn stated(&mut self, load: Load, stated: &Stated, now: Instant) -> Option<LimitChange> {
        let measure = stated.measure;
        let named = stated.numbers.iter().find(|number| **number < load.get(measure))?;
        // The request body has more bytes than its texts.
        let most = if measure == Measure::Bytes { named - named / 8 } else { *named };
        self.taken.set(measure, self.taken.get(measure).min(most));
        self.set(measure, most, None, None, now)
    }

    /// Whether a batch is larger than anything accepted; a single text never is.
    fn is_larger(&self, load: Load) -> bool {
        load.texts > 1 && !load.is_within(self.taken)
    }

    /// Whether a batch is above a learned limit, so that it has to be split.
    pub fn exceeds(&self, load: Load) -> bool {
        self.limits
            .iter()
            .zip(Measure::ALL)
            .any(|(limit, measure)| limit.is_some_and(|limit| load.get(measure) > limit.most))
    }

    /// A batch above a limit was rejected: the next trial has to wait.
    pub fn larger_refused(&mut self, load: Load, now: Instant) {
        for (limit, measure) in self.limits.iter_mut().zip(Measure::ALL) {
            let got = load.get(measure);
            if let Some(limit) = limit.as_mut().filter(|limit| got > limit.most) {
                limit.refused = Some(limit.refused.map_or(got, |refused| refused.min(got)));
                (limit.answers, limit.next) = (0, now + RETRY);
            }
        }
    }

    /// A batch was rejected before the service was known to be good.
    pub fn refused_untested(&mut self, now: Instant) {
        self.explored = Some(now);
    }

    /// A rejected batch is bisected; returns the number of its halves. If the batch is itself a half, its own halves
    /// replace it as evidence.
    pub fn bisect(
        &mut self,
        load: Load,
        hint: Option<Measure>,
        half: Option<u64>,
        now: Instant,
    ) -> u64 {
        self.explored = Some(now);
        self.half_explained(half);
        self.last_bisected += 1;
        let number = self.last_bisected;
        // Some halves are never answered, because their clients have gone.
        self.bisected.drain(..self.bisected.len().saturating_sub(BISECTED_KEPT));
        self.bisected.push(Bisected { number, whole: load, hint, answered: 0 });
        number
    }

    /// A half was rejected too, which explains why the whole was.
    pub fn half_explained(&mut self, half: Option<u64>) {
        self.bisected.retain(|known| Some(known.number) != half);
    }

    /// Forgets halves that will not be answered.
    pub fn forget(&mut self) {
        self.bisected.clear();
    }

    /// Both halves were accepted but not the whole: it was above the limit of some measure.
    fn blame(
        &mut self,
        whole: Load,
        hint: Option<Measure>,
        half: Load,
        now: Instant,
    ) -> Option<LimitChange> {
        let is_more = |measure: &Measure| whole.get(*measure) > self.taken.get(*measure);
        let measure = match hint.filter(is_more).or(Measure::ALL.into_iter().find(is_more)) {
            Some(measure) => measure,
            None => {
                // The service accepted as much before, so its limit is lower now.
                self.taken = half;
                hint.unwrap_or(Measure::Texts)
            }
        };
        let most = self.taken.get(measure).max(half.get(measure));
        let guess = (hint != Some(measure)).then_some(whole);
        let change = self.set(measure, most, Some(whole.get(measure)), guess, now);
        // A limit guessed before may have had this cause.
        for other in Measure::ALL.into_iter().filter(|other| *other != measure) {
            let explained =
                |limit: &mut Limit| limit.guess.is_some_and(|refused| refused.get(measure) > most);
            self.limits[other as usize].take_if(explained);
        }
        change
    }

    /// Sets a limit, unless a smaller one is known.
    fn set(
        &mut self,
        measure: Measure,
        most: u64,
        refused: Option<u64>,
        guess: Option<Load>,
        now: Instant,
    ) -> Option<LimitChange> {
        let slot = &mut self.limits[measure as usize];
        if slot.is_some_and(|known| known.most <= most) {
            return None;
        }
        let is_new = slot.is_none();
        *slot = Some(Limit { most, refused, guess, answers: 0, next: now + RETRY });
        Some(LimitChange { measure, most: Some(most), is_new })
    }
}

impl Limit {
    /// The next size to try: between what was accepted and what was rejected, or twice the limit if nothing in between
    /// is known.
    fn larger(&self) -> u64 {
        match self.refused {
            Some(refused) if refused > self.most + (self.most / 8).max(1) => {
                self.most.midpoint(refused)
            }
            _ => self.most.saturating_mul(2),
        }
    }
}

#[cfg(test)]
mod tests;
