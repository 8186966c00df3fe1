//! The end of an interleaving: what is open ends, and the workers run until source and vector table are equal.

use super::database::{ROWS, WORKERS};
use super::worker::{STEP, Trouble};
use super::{Run, is_traced};
use crate::task::Kind;

impl Run {
    /// The rest of it: transactions end, and all but what is broken for good is brought in.
    pub fn rest(&mut self) -> Option<&'static str> {
        while !self.database.open.is_empty() {
            let number = self.database.open[0].number;
            self.database.end(number, true);
        }
        self.database.is_paused = false;
        if self.database.is_pending || self.database.is_unknown {
            self.database.ask(Kind::Rebackfill);
        }
        self.trouble.next = None;
        self.forget_answers();
        if !self.trouble.provider_is_down && self.random.one_in(2) {
            // Rows that are locked or flawed hold up no others.
            // A slow table rests for half a minute, while a swap is tried every 20 ms.
            self.settle(400, Self::is_equal_but_held);
            if !self.is_equal_but_held() {
                if is_traced() {
                    eprintln!("event {:?} {:?}", self.database, self.trouble);
                    self.workers.iter().for_each(|worker| eprintln!("event {:?}", worker.sync));
                }
                return self.broken().or(Some("6: a row holds up others"));
            }
        }
        self.trouble = Trouble::default();
        self.settle(400, Self::has_ended);
        if self.broken().is_some() {
            return self.broken();
        }
        // A row that has failed waits for the user.
        let differs = |row: usize| !self.database.is_equal(row) && !self.database.failed[row];
        if (0..ROWS).any(differs) {
            return Some("1: source and vector table are not equal");
        }
        if !self.has_ended() {
            if is_traced() {
                eprintln!("event {:?}", self.database);
                self.workers.iter().for_each(|worker| eprintln!("event {:?}", worker.sync));
            }
            return Some("1: the worker does not come to an end");
        }
        match self.database.has_error {
            true => Some("11: the status says that it is not in sync"),
            false => None,
        }
    }

    /// Whether all rows are equal but those that are locked or have failed.
    fn is_equal_but_held(&self) -> bool {
        let is_held = |row: usize| self.trouble.locked[row] || self.database.failed[row];
        (0..ROWS).all(|row| is_held(row) || self.database.is_equal(row))
    }

    /// Whether nothing is left to do.
    fn has_ended(&self) -> bool {
        let is_done = self.workers.iter().all(|worker| worker.sync.is_idle());
        is_done && self.database.queue.is_empty() && self.database.task.is_none()
    }

    /// Lets the workers run until that is so, or for so many rounds.
    fn settle(&mut self, rounds: usize, is_over: impl Fn(&Self) -> bool) {
        for _ in 0..rounds {
            for worker in 0..WORKERS {
                self.workers[worker].read(&mut self.database, self.now);
                while self.workers[worker].act(&mut self.database, &mut self.trouble, self.now) {
                    self.check();
                    if self.broken().is_some() {
                        return;
                    }
                }
                while !self.workers[worker].requests.is_empty() {
                    self.workers[worker].answer(0, &self.database, &self.trouble, false, self.now);
                }
            }
            if is_over(self) {
                return;
            }
            let due = self.workers.iter().filter_map(|worker| worker.sync.due(self.now)).min();
            self.now = due.unwrap_or(self.now).max(self.now + STEP);
        }
    }
}
