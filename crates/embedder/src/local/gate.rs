//! Lets questions pass documents: while a question runs, a thread that works on documents stands still.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::job::lock;

/// How much longer than its share a thread may stand still before it works beside the questions.
const MOST_OWED: Duration = Duration::from_millis(200);

/// A thread does not stand still for less than this, so that it does not sleep and wake all the time.
const LEAST_STAND: Duration = Duration::from_millis(5);

/// Each moment of work pays for so many moments of standing still: documents keep a tenth of the time at least.
const PAID_BY_WORK: u32 = 9;

/// Counts the questions that run and the threads that stand still for them: as many of the one as of the other.
///
/// A question runs on a thread of its own, so that it never waits for this; standing still leaves it the processor and
/// its caches, and keeps the number of busy threads to what the administrator set.
pub struct Gate {
    most_owed: Duration,
    /// How many more threads should stand still; what a thread at work looks at.
    wanted: AtomicUsize,
    counts: Mutex<Counts>,
    /// A thread that stands still may have to go on.
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    questions: usize,
    standing: usize,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::of_patience(MOST_OWED)
    }
}

/// A question that runs, until this is dropped.
pub struct Precedence<'a>(&'a Gate);

impl Gate {
    /// A gate at which a thread may stand still so much longer than its share.
    pub fn of_patience(most_owed: Duration) -> Gate {
        let (wanted, counts, changed) = Default::default();
        Gate { most_owed, wanted, counts, changed }
    }

    /// Says that a question runs.
    pub fn enter(&self) -> Precedence<'_> {
        self.change(|counts| counts.questions += 1);
        Precedence(self)
    }

    /// Threads that stand still.
    #[cfg(test)]
    pub fn standing(&self) -> usize {
        lock(&self.counts).standing
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = lock(&self.counts);
        change(&mut counts);
        self.publish(&counts);
    }

    fn publish(&self, counts: &Counts) {
        let wanted = counts.questions.saturating_sub(counts.standing);
        // Relaxed, because a thread that sees it late only stands still a little later.
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Stands still until there are fewer questions than threads that do, or so long.
    fn stand(&self, most: Duration) {
        let mut counts = lock(&self.counts);
        if counts.standing >= counts.questions {
            return;
        }
        counts.standing += 1;
        self.publish(&counts);
        let stays = |counts: &mut Counts| counts.standing <= counts.questions;
        let waited = self.changed.wait_timeout_while(counts, most, stays);
        let (mut counts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        counts.standing -= 1;
        self.publish(&counts);
    }
}

impl Drop for Precedence<'_> {
    fn drop(&mut self) {
        self.0.change(|counts| counts.questions -= 1);
        self.0.changed.notify_one();
    }
}

/// A thread's way through a gate. The default leads through one that no question ever enters.
#[derive(Default)]
pub struct Passage {
    gate: Arc<Gate>,
    debt: Debt,
}

impl Passage {
    /// A way through this gate.
    pub fn new(gate: Arc<Gate>) -> Passage {
        Passage { gate, debt: Debt::default() }
    }

    /// Stands still if a question runs; to be called between pieces of work of far less than a millisecond.
    #[inline(always)]
    pub fn check(&mut self) {
        if self.gate.wanted.load(Ordering::Relaxed) > 0 {
            self.stand();
        }
    }

    #[cold]
    #[inline(never)]
    fn stand(&mut self) {
        let begin = Instant::now();
        let most = self.gate.most_owed.saturating_sub(self.debt.left(begin));
        if most >= LEAST_STAND {
            self.gate.stand(most);
            self.debt.stood(begin, Instant::now());
        }
    }
}

/// How long a thread has stood still beyond what its work has paid for.
#[derive(Default)]
struct Debt {
    owed: Duration,
    /// Since when it has worked.
    since: Option<Instant>,
}

impl Debt {
    /// What is still owed.
    fn left(&mut self, now: Instant) -> Duration {
        let worked =
            self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.owed = self.owed.saturating_sub(worked.saturating_mul(PAID_BY_WORK));
        self.since = Some(now);
        self.owed
    }

    /// The thread has stood still so long.
    fn stood(&mut self, from: Instant, to: Instant) {
        self.owed += to.saturating_duration_since(from);
        self.since = Some(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread::{scope, yield_now};

    /// Waits until so many threads stand still.
    fn wait_for(gate: &Gate, standing: usize) {
        while gate.standing() != standing {
            yield_now();
        }
    }

    #[test]
    fn a_thread_without_questions_passes() {
        Passage::default().check();
        let gate = Arc::new(Gate::default());
        drop(gate.enter());
        Passage::new(gate.clone()).check();
        assert_eq!(gate.standing(), 0);
    }

    #[test]
    fn as_many_threads_stand_still_as_questions_run() {
        let gate = Gate::default();
        let (sender, ends) = mpsc::channel();
        scope(|scope| {
            let [first, second] = [gate.enter(), gate.enter()];
            for _ in 0..3 {
                let (gate, sender) = (&gate, sender.clone());
                scope.spawn(move || {
                    gate.stand(Duration::MAX);
                    sender.send("document").unwrap();
                });
            }
            // The third passes, since as many stand still as questions run.
            assert_eq!(ends.recv().unwrap(), "document");
            wait_for(&gate, 2);
            assert_eq!(gate.wanted.load(Ordering::Relaxed), 0);
            sender.send("question").unwrap();
            drop(first);
            assert_eq!(ends.recv().unwrap(), "question");
            assert_eq!(ends.recv().unwrap(), "document");
            wait_for(&gate, 1);
            drop(second);
            assert_eq!(ends.recv().unwrap(), "document");
        });
        assert_eq!(gate.standing(), 0);
    }

    #[test]
    fn documents_keep_a_share_of_the_time() {
        let begin = Instant::now();
        let millis = Duration::from_millis;
        let (mut debt, mut now, mut worked) = (Debt::default(), begin, Duration::ZERO);
        while now < begin + millis(10_000) {
            // There is always a question.
            let most = MOST_OWED.saturating_sub(debt.left(now));
            if most >= LEAST_STAND {
                debt.stood(now, now + most);
                now += most;
            }
            now += millis(1) / 4;
            worked += millis(1) / 4;
        }
        assert!(worked > millis(900) && worked < millis(1100), "{worked:?}");
    }

    #[test]
    fn questions_at_a_normal_pace_are_always_stood_still_for() {
        let millis = Duration::from_millis;
        let (mut debt, mut now) = (Debt::default(), Instant::now());
        for _ in 0..1000 {
            assert!(debt.left(now) < MOST_OWED / 2);
            debt.stood(now, now + millis(10));
            now += millis(20);
        }
    }
}
