//! The schedules of tests/outside/schedules without a server: each test there has a twin of the same name here.

mod late;
mod lost;
mod paid;
mod pairs;
mod pauses;
mod rows;
mod scans;

use std::time::Instant;

use super::database::{Database, Flaw, ROWS, SourceRow, WORKERS};
use super::worker::{STEP, Trouble, Worker};
use crate::task::Kind;

/// A database with a source of some rows that is synced, and its workers.
struct Stage {
    database: Database,
    workers: [Worker; WORKERS],
    trouble: Trouble,
    now: Instant,
    paid: Vec<u32>,
}

/// A row with this text, whose metadata is the same number.
fn row(text: u32) -> Option<SourceRow> {
    Some(SourceRow { text, metadata: text, flaw: Flaw::None })
}

impl Stage {
    /// Rows 0 to 3 have the texts 1 to 4.
    fn new() -> Self {
        let mut stage = Self::unfilled();
        stage.database.ask(Kind::Backfill);
        stage.assert_synced();
        stage.paid.clear();
        stage
    }

    fn unfilled() -> Self {
        let mut database = Database::default();
        for number in 0..ROWS - 1 {
            database.source[number] = row(number as u32 + 1);
        }
        let workers = std::array::from_fn(|number| Worker::new(&database, number));
        let (trouble, now) = (Trouble::default(), Instant::now());
        Self { database, workers, trouble, now, paid: Vec::new() }
    }

    fn write(&mut self, number: usize, written: Option<SourceRow>) {
        self.database.write(&[(number, written)]);
    }

    /// The workers do what they can without an answer of the embedder.
    fn work(&mut self) {
        for _ in 0..4 {
            for worker in &mut self.workers {
                worker.read(&mut self.database, self.now);
                while worker.act(&mut self.database, &mut self.trouble, self.now) {}
            }
            self.now += STEP;
        }
    }

    /// Changes that are at the embedder when this returns.
    fn send_off(&mut self, writes: &[(usize, Option<SourceRow>)]) {
        self.database.write(writes);
        self.work();
        assert!(
            self.workers.iter().any(|worker| !worker.requests.is_empty()),
            "nothing is in flight"
        );
    }

    fn answer(&mut self, is_part: bool) {
        for worker in &mut self.workers {
            while !worker.requests.is_empty() {
                worker.answer(0, &self.database, &self.trouble, is_part, self.now);
            }
        }
    }

    /// All workers are killed.
    fn kill(&mut self) {
        self.collect_paid();
        let database = &self.database;
        self.workers = std::array::from_fn(|number| Worker::new(database, number));
    }

    fn end_embedder(&mut self) {
        self.workers.iter_mut().for_each(Worker::end_embedder);
    }

    fn collect_paid(&mut self) {
        for worker in &mut self.workers {
            assert_eq!(worker.broken, None);
            self.paid.append(&mut worker.paid);
        }
    }

    /// How often a text was paid for.
    fn paid(&self, text: u32) -> usize {
        self.paid.iter().filter(|paid| **paid == text).count()
    }

    fn has_vector(&self, number: usize) -> bool {
        self.database.vectors[number].is_some()
    }

    /// Lets the workers go on until nothing is left; then source and vector table have to be equal.
    fn assert_synced(&mut self) {
        for _ in 0..200 {
            self.work();
            self.answer(false);
            let due = self.workers.iter().filter_map(|worker| worker.sync.due(self.now)).min();
            self.now = due.unwrap_or(self.now).max(self.now);
            let is_done = self.workers.iter().all(|worker| worker.sync.is_idle());
            if is_done && self.database.queue.is_empty() && self.database.task.is_none() {
                self.collect_paid();
                let differs = |number: &usize| {
                    !self.database.is_equal(*number) && !self.database.failed[*number]
                };
                assert_eq!((0..ROWS).find(differs), None, "{:?}", self.database);
                return;
            }
        }
        panic!("the workers do not come to an end: {:?}", self.database);
    }
}

impl Stage {
    /// What is committed is brought in while a transaction is open.
    fn assert_open(&mut self) {
        for _ in 0..4 {
            self.work();
            self.answer(false);
        }
        self.work();
        assert!(self.database.is_equal(3));
    }
}
