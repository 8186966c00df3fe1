//! Gives questions priority over documents: while a question runs, one thread that embeds documents yields to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::job::lock;

/// How far a thread may exceed its share of yielding before it runs beside the questions.
const MAX_DEBT: Duration = Duration::from_millis(200);

/// The shortest time worth yielding: below it a thread would only sleep and wake all the time.
const LEAST_YIELD: Duration = Duration::from_millis(5);

/// Each moment of work pays for this many moments of yielding, so documents keep at least a tenth of the time.
const PAID_BY_WORK: u32 = 9;

/// Counts the questions that run and the threads that yield to them; the second number follows the first.
///
/// A question has a thread of its own, so it never waits here. Yielding leaves it the processor and its caches, and
/// keeps the number of busy threads at the configured one.
pub struct Gate {
    max_debt: Duration,
    /// How many more threads should yield; working threads poll it.
    wanted: AtomicUsize,
    counts: Mutex<Counts>,
    /// Signalled when a yielding thread may have to continue.
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    questions: usize,
    yielding: usize,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::with_max_debt(MAX_DEBT)
    }
}

/// A running question; it ends when this is dropped.
pub struct RunningQuestion<'a>(&'a Gate);

impl Gate {
    /// A gate at which a thread may exceed its share of yielding by `max_debt`.
    pub fn with_max_debt(max_debt: Duration) -> Gate {
        let (wanted, counts, changed) = Default::default();
        Gate { max_debt, wanted, counts, changed }
    }

    /// Registers a running question.
    pub fn enter(&self) -> RunningQuestion<'_> {
        self.change(|counts| counts.questions += 1);
        RunningQuestion(self)
    }

    /// How many threads are yielding.
    #[cfg(test)]
    pub fn yielding(&self) -> usize {
        lock(&self.counts).yielding
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = lock(&self.counts);
        change(&mut counts);
        self.publish(&counts);
    }

    fn publish(&self, counts: &Counts) {
        let wanted = counts.questions.saturating_sub(counts.yielding);
        // Relaxed: a thread that sees the change late only yields a little later.
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Yields until fewer questions run than threads yield, for at most this time.
    fn yield_for(&self, most: Duration) {
        let mut counts = lock(&self.counts);
        if counts.yielding >= counts.questions {
            return;
        }
        counts.yielding += 1;
        self.publish(&counts);
        let stays = |counts: &mut Counts| counts.yielding <= counts.questions;
        let waited = self.changed.wait_timeout_while(counts, most, stays);
        let (mut counts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        counts.yielding -= 1;
        self.publish(&counts);
    }
}

impl Drop for RunningQuestion<'_> {
    fn drop(&mut self) {
        self.0.change(|counts| counts.questions -= 1);
        self.0.changed.notify_one();
    }
}

/// A thread's view of the gate. The default is a gate without questions.
#[derive(Default)]
pub struct Yielder {
    gate: Arc<Gate>,
    debt: Debt,
}

impl Yielder {
    /// Yields at this gate.
    pub fn new(gate: Arc<Gate>) -> Yielder {
        Yielder { gate, debt: Debt::default() }
    }

    /// Yields if a question runs; called between pieces of work far shorter than a millisecond.
    #[inline(always)]
    pub fn check(&mut self) {
        if self.gate.wanted.load(Ordering::Relaxed) > 0 {
            self.yield_now();
        }
    }

    #[cold]
    #[inline(never)]
    fn yield_now(&mut self) {
        let begin = Instant::now();
        let most = self.gate.max_debt.saturating_sub(self.debt.left(begin));
        if most >= LEAST_YIELD {
            self.gate.yield_for(most);
            self.debt.yielded(begin, Instant::now());
        }
    }
}

/// How long a thread has yielded beyond what its work has paid for.
#[derive(Default)]
struct Debt {
    time: Duration,
    /// When the debt was last updated.
    since: Option<Instant>,
}

impl Debt {
    /// The debt left at this time.
    fn left(&mut self, now: Instant) -> Duration {
        let worked =
            self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.time = self.time.saturating_sub(worked.saturating_mul(PAID_BY_WORK));
        self.since = Some(now);
        self.time
    }

    /// Adds the time that the thread yielded.
    fn yielded(&mut self, from: Instant, to: Instant) {
        self.time += to.saturating_duration_since(from);
        self.since = Some(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread::{scope, yield_now};

    /// Waits until this many threads yield.
    fn wait_for(gate: &Gate, yielding: usize) {
        while gate.yielding() != yielding {
            yield_now();
        }
    }

    #[test]
    fn a_thread_continues_without_questions() {
        Yielder::default().check();
        let gate = Arc::new(Gate::default());
        drop(gate.enter());
        Yielder::new(gate.clone()).check();
        assert_eq!(gate.yielding(), 0);
    }

    #[test]
    fn as_many_threads_yield_as_questions_run() {
        let gate = Gate::default();
        let (sender, ends) = mpsc::channel();
        scope(|scope| {
            let [first, second] = [gate.enter(), gate.enter()];
            for _ in 0..3 {
                let (gate, sender) = (&gate, sender.clone());
                scope.spawn(move || {
                    gate.yield_for(Duration::MAX);
                    sender.send("document").unwrap();
                });
            }
            // The third continues, because two threads already yield to the two questions.
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
        assert_eq!(gate.yielding(), 0);
    }

    #[test]
    fn documents_keep_a_share_of_the_time() {
        let begin = Instant::now();
        let millis = Duration::from_millis;
        let (mut debt, mut now, mut worked) = (Debt::default(), begin, Duration::ZERO);
        while now < begin + millis(10_000) {
            // A question is always running.
            let most = MAX_DEBT.saturating_sub(debt.left(now));
            if most >= LEAST_YIELD {
                debt.yielded(now, now + most);
                now += most;
            }
            now += millis(1) / 4;
            worked += millis(1) / 4;
        }
        assert!(worked > millis(900) && worked < millis(1100), "{worked:?}");
    }

    #[test]
    fn documents_always_yield_to_questions_at_a_normal_pace() {
        let millis = Duration::from_millis;
        let (mut debt, mut now) = (Debt::default(), Instant::now());
        for _ in 0..1000 {
            assert!(debt.left(now) < MAX_DEBT / 2);
            debt.yielded(now, now + millis(10));
            now += millis(20);
        }
    }
}
