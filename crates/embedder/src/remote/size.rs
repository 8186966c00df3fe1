//! How much one request may hold, in texts, tokens and bytes: learned from what a service refuses and what it takes. Pure.

use std::time::{Duration, Instant};

use super::load::Load;
use crate::providers::{Measure, Stated};

/// Requests that are answered at a limit before a larger one is tried, and the time between two tries.
const ANSWERS: u32 = 8;
const RETRY: Duration = Duration::from_secs(60 * 60);

/// Requests whose halves are watched at a time, and for how long after the last.
const HALVED: usize = 64;
const WATCHED: Duration = Duration::from_secs(30);

/// What has been learned for one model of one account.
#[derive(Debug, Default)]
pub struct Size {
    limits: [Option<Limit>; 3],
    /// The most of each measure in a request that was answered.
    taken: Load,
    /// Requests that were refused and halved: what is still to come of their halves.
    halved: Vec<Halved>,
    last_halved: u64,
    /// When a request was last halved, or refused before anything was known to be taken.
    explored: Option<Instant>,
    /// Requests on their way that are larger than anything taken, and larger than a limit.
    larger: usize,
    trying: bool,
}

/// The most of one measure.
#[derive(Debug, Clone, Copy)]
struct Limit {
    most: u64,
    /// The least that was refused, where that is known to be too much.
    refused: Option<u64>,
    /// The refused request that this measure is blamed for without a word of the service.
    guess: Option<Load>,
    answers: u32,
    /// When a larger request is tried.
    next: Instant,
}

#[derive(Debug)]
struct Halved {
    number: u64,
    whole: Load,
    hint: Option<Measure>,
    answered: u32,
}

/// A limit that is known now, or (none) is one no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lesson {
    pub measure: Measure,
    pub most: Option<u64>,
    /// Whether there was no limit of this measure before.
    pub is_new: bool,
}

impl Size {
    /// One that knows limits from earlier on.
    pub fn knowing(limits: &[(Measure, u64)], now: Instant) -> Size {
        let mut size = Size::default();
        for (measure, most) in limits {
            size.set(*measure, *most, None, None, now);
        }
        size
    }

    /// What the next request may hold, where provider and model take `cap`.
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

    /// Whether a request has to wait: while it is found out what a service takes, one at a time is larger than all it has taken.
    pub fn has_to_wait(&self, load: Load, now: Instant) -> bool {
        let since = self.explored.map(|at| now.saturating_duration_since(at));
        self.larger > 0 && since.is_some_and(|since| since < WATCHED) && self.is_larger(load)
    }

    /// A request goes out; returns what [`Size::landed`] is to be told.
    pub fn sent(&mut self, load: Load) -> (bool, bool) {
        let mark = (self.is_larger(load), self.exceeds(load));
        self.larger += usize::from(mark.0);
        self.trying |= mark.1;
        mark
    }

    /// A request has come to its end, whichever.
    pub fn landed(&mut self, (larger, trying): (bool, bool)) {
        self.larger = self.larger.saturating_sub(usize::from(larger));
        self.trying &= !trying;
    }

    /// A request was answered; `half` is the number of the one that it is a half of. Returns what follows from it.
    pub fn answered(
        &mut self,
        load: Load,
        cap: Load,
        half: Option<u64>,
        now: Instant,
    ) -> Vec<Lesson> {
        // A text alone may be cut by the service: only its number says what a request may hold.
        let shown = if load.texts == 1 { Load { texts: 1, ..Load::default() } } else { load };
        self.taken = self.taken.max(shown);
        let mut lessons = Vec::new();
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
                lessons.push(Lesson { measure, most, is_new: false });
            } else if got.saturating_mul(2) > limit.most {
                limit.answers = limit.answers.saturating_add(1);
            }
        }
        let place = half.and_then(|half| self.halved.iter().position(|known| known.number == half));
        if let Some(place) = place {
            self.halved[place].answered += 1;
            if self.halved[place].answered == 2 {
                let Halved { whole, hint, .. } = self.halved.swap_remove(place);
                lessons.extend(self.blame(whole, hint, load, now));
            }
        }
        lessons
    }

    /// A request was refused by a service that names the limit; returns it where the request is indeed larger.
    pub fn stated(&mut self, load: Load, stated: &Stated, now: Instant) -> Option<Lesson> {
        let measure = stated.measure;
        let named = stated.numbers.iter().find(|number| **number < load.get(measure))?;
        // The bytes of a request are more than those of its texts.
        let most = if measure == Measure::Bytes { named - named / 8 } else { *named };
        self.taken.set(measure, self.taken.get(measure).min(most));
        self.set(measure, most, None, None, now)
    }

    /// Whether a request is larger than all that was taken; a text alone is not too many of anything.
    fn is_larger(&self, load: Load) -> bool {
        load.texts > 1 && !load.is_within(self.taken)
    }

    /// Whether a request is larger than what is known to be taken: then it is cut to that.
    pub fn exceeds(&self, load: Load) -> bool {
        self.limits
            .iter()
            .zip(Measure::ALL)
            .any(|(limit, measure)| limit.is_some_and(|limit| load.get(measure) > limit.most))
    }

    /// A request larger than the limits was refused: the next one is tried later.
    pub fn tried_in_vain(&mut self, load: Load, now: Instant) {
        for (limit, measure) in self.limits.iter_mut().zip(Measure::ALL) {
            let got = load.get(measure);
            if let Some(limit) = limit.as_mut().filter(|limit| got > limit.most) {
                limit.refused = Some(limit.refused.map_or(got, |refused| refused.min(got)));
                (limit.answers, limit.next) = (0, now + RETRY);
            }
        }
    }

    /// A request was refused before the service was known to take anything.
    pub fn suspected(&mut self, now: Instant) {
        self.explored = Some(now);
    }

    /// A request was refused and is halved: returns the number of its halves. The halves of what is itself a half show
    /// more than it does.
    pub fn halve(
        &mut self,
        load: Load,
        hint: Option<Measure>,
        half: Option<u64>,
        now: Instant,
    ) -> u64 {
        self.explored = Some(now);
        self.found(half);
        self.last_halved += 1;
        let number = self.last_halved;
        // The halves of some are not answered: their askers have gone.
        self.halved.drain(..self.halved.len().saturating_sub(HALVED));
        self.halved.push(Halved { number, whole: load, hint, answered: 0 });
        number
    }

    /// A half was refused itself, which explains why the whole was.
    pub fn found(&mut self, half: Option<u64>) {
        self.halved.retain(|known| Some(known.number) != half);
    }

    /// Forgets halves that will not be answered.
    pub fn forget(&mut self) {
        self.halved.clear();
    }

    /// Both halves were taken where the whole was not: it was too much of something.
    fn blame(
        &mut self,
        whole: Load,
        hint: Option<Measure>,
        half: Load,
        now: Instant,
    ) -> Option<Lesson> {
        let is_more = |measure: &Measure| whole.get(*measure) > self.taken.get(*measure);
        let measure = match hint.filter(is_more).or(Measure::ALL.into_iter().find(is_more)) {
            Some(measure) => measure,
            None => {
                // It has taken as much before: it takes less now.
                self.taken = half;
                hint.unwrap_or(Measure::Texts)
            }
        };
        let most = self.taken.get(measure).max(half.get(measure));
        let guess = (hint != Some(measure)).then_some(whole);
        let lesson = self.set(measure, most, Some(whole.get(measure)), guess, now);
        // What was blamed without a word may have been this all the time.
        for other in Measure::ALL.into_iter().filter(|other| *other != measure) {
            let explained =
                |limit: &mut Limit| limit.guess.is_some_and(|refused| refused.get(measure) > most);
            self.limits[other as usize].take_if(explained);
        }
        lesson
    }

    /// Notes a limit, unless a smaller one is known.
    fn set(
        &mut self,
        measure: Measure,
        most: u64,
        refused: Option<u64>,
        guess: Option<Load>,
        now: Instant,
    ) -> Option<Lesson> {
        let slot = &mut self.limits[measure as usize];
        if slot.is_some_and(|known| known.most <= most) {
            return None;
        }
        let is_new = slot.is_none();
        *slot = Some(Limit { most, refused, guess, answers: 0, next: now + RETRY });
        Some(Lesson { measure, most: Some(most), is_new })
    }
}

impl Limit {
    /// What is tried next: between what was taken and what was refused, or twice as much where that says nothing more.
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
