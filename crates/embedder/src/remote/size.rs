//! How many texts one request may hold: fewer once a service has taken only halves, and more again after a while. Pure.

use std::time::{Duration, Instant};

/// Full requests that are answered before a larger one is tried.
const ANSWERS: u32 = 8;

/// The first and the longest time before a larger one is tried; it doubles with each that is refused.
const WAIT: (Duration, Duration) = (Duration::from_secs(5 * 60), Duration::from_secs(60 * 60));

/// Requests whose halves are watched at a time.
const HALVED: usize = 64;

/// The number of texts that is learned for one model of one account.
#[derive(Debug, Default)]
pub struct Size {
    /// None while nothing smaller than the model's own limit was learned.
    learned: Option<Learned>,
    /// Requests that were refused and halved, by number: what is still to come of their halves.
    halved: Vec<Halved>,
    last_halved: u64,
}

#[derive(Debug)]
struct Learned {
    most: usize,
    /// When a larger request is tried.
    next: Instant,
    wait: Duration,
    answers: u32,
    /// One that is larger is on its way.
    is_trying: bool,
}

#[derive(Debug)]
struct Halved {
    number: u64,
    /// Texts of the larger half.
    texts: usize,
    answered: u32,
}

impl Size {
    /// Texts that the next request may hold, where the model takes `cap`.
    pub fn most(&self, cap: usize, now: Instant) -> usize {
        match &self.learned {
            None => cap,
            Some(learned) if learned.is_due(now) => cap.min(learned.most.saturating_mul(2)),
            Some(learned) => cap.min(learned.most),
        }
    }

    /// A request of so many texts goes out.
    pub fn sent(&mut self, texts: usize) {
        if let Some(learned) = &mut self.learned {
            learned.is_trying |= texts > learned.most;
        }
    }

    /// A request of so many texts has come to its end, whichever.
    pub fn landed(&mut self, texts: usize) {
        if let Some(learned) = &mut self.learned {
            learned.is_trying &= texts <= learned.most;
        }
    }

    /// A request of so many texts was answered; `half` is the number of the one that it is a half of.
    pub fn answered(&mut self, texts: usize, cap: usize, half: Option<u64>, now: Instant) {
        if let Some(learned) = &mut self.learned {
            if texts > learned.most {
                (learned.most, learned.answers) = (texts, 0);
                (learned.next, learned.wait) = (now, WAIT.0);
            } else if texts == learned.most {
                learned.answers = learned.answers.saturating_add(1);
            }
        }
        self.learned.take_if(|learned| learned.most >= cap);
        let place = half.and_then(|half| self.halved.iter().position(|known| known.number == half));
        let Some(place) = place else { return };
        self.halved[place].answered += 1;
        if self.halved[place].answered == 2 {
            let texts = self.halved.swap_remove(place).texts;
            self.lower(texts, now);
        }
    }

    /// A request of so many texts was refused and is halved: returns the number of its halves. The halves of what is
    /// itself a half show more than it does.
    pub fn halve(&mut self, texts: usize, half: Option<u64>, now: Instant) -> u64 {
        // What was on its way when the limit was learned is no new attempt.
        let is_attempt = |known: &&mut Learned| texts > known.most && now >= known.next;
        if let Some(learned) = self.learned.as_mut().filter(is_attempt) {
            (learned.wait, learned.answers) = ((learned.wait * 2).min(WAIT.1), 0);
            learned.next = now + learned.wait;
        }
        self.halved.retain(|known| Some(known.number) != half);
        self.last_halved += 1;
        let (number, texts) = (self.last_halved, texts.div_ceil(2));
        // The halves of some are not answered: their askers have gone.
        self.halved.drain(..self.halved.len().saturating_sub(HALVED));
        self.halved.push(Halved { number, texts, answered: 0 });
        number
    }

    /// Forgets halves that will not be answered.
    pub fn forget(&mut self) {
        self.halved.clear();
    }

    /// Both halves were taken where the whole was not: it is the size.
    fn lower(&mut self, texts: usize, now: Instant) {
        let wait = self.learned.as_ref().map_or(WAIT.0, |known| known.wait);
        if self.learned.as_ref().is_none_or(|known| texts < known.most) {
            let next = now + wait;
            self.learned = Some(Learned { most: texts, next, wait, answers: 0, is_trying: false });
        }
    }
}

impl Learned {
    fn is_due(&self, now: Instant) -> bool {
        !self.is_trying && self.answers >= ANSWERS && now >= self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// One request of a service that takes so many texts; false when it was refused.
    fn ask(size: &mut Size, limit: usize, cap: usize, now: Instant) -> bool {
        fn send(
            size: &mut Size,
            texts: usize,
            limit: usize,
            cap: usize,
            half: Option<u64>,
            now: Instant,
        ) -> bool {
            size.sent(texts);
            size.landed(texts);
            if texts <= limit {
                size.answered(texts, cap, half, now);
                return true;
            }
            let number = size.halve(texts, half, now);
            for texts in [texts / 2, texts.div_ceil(2)] {
                send(size, texts, limit, cap, Some(number), now);
            }
            false
        }
        let most = size.most(cap, now);
        send(size, most, limit, cap, None, now)
    }

    #[test]
    fn what_only_halves_pass_of_is_lowered_and_tried_again_seldom() {
        let (begin, mut size) = (Instant::now(), Size::default());
        assert!(!ask(&mut size, 10, 64, begin));
        assert_eq!(size.most(64, begin), 8);
        let mut refused = Vec::new();
        for second in 0..3 * 3600 {
            let now = begin + Duration::from_secs(second);
            if !ask(&mut size, 10, 64, now) {
                refused.push(second / 60);
            }
        }
        let hour = |hour: u64| refused.iter().filter(|minute| **minute / 60 == hour).count();
        assert!(hour(0) <= 4 && hour(1) <= 1 && hour(2) <= 1, "{refused:?}");
        assert!(!refused.is_empty());
    }

    #[test]
    fn a_limit_that_has_gone_is_forgotten() {
        let (begin, mut size) = (Instant::now(), Size::default());
        ask(&mut size, 8, 64, begin);
        assert_eq!(size.most(64, begin), 8);
        let mut now = begin + 6 * MINUTE;
        for _ in 0..40 {
            now += Duration::from_secs(1);
            assert!(ask(&mut size, 64, 64, now));
        }
        assert_eq!(size.most(64, now), 64);
        assert!(size.learned.is_none());
    }

    #[test]
    fn a_text_that_is_refused_says_nothing_about_the_size() {
        let (now, mut size) = (Instant::now(), Size::default());
        // 64 texts, one of which is bad: one half of each pair passes.
        let mut half = None;
        for texts in [64, 32, 16, 8, 4, 2] {
            let number = size.halve(texts, half, now);
            size.answered(texts / 2, 64, Some(number), now);
            half = Some(number);
        }
        assert_eq!(size.most(64, now), 64);
        size.forget();
        assert!(size.halved.is_empty());
    }
}
