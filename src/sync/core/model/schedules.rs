//! The schedules of tests/outside/schedules without a server: each test there has a twin of the same name here.

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
                worker.read(&self.database, self.now);
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

mod late {
    use super::*;

    fn commits_late(count: usize) {
        let mut stage = Stage::new();
        let late: Vec<u64> =
            (0..count).map(|n| stage.database.begin(&[(n, row(50 + n as u32))])).collect();
        for text in 60..64 {
            stage.write(3, row(text));
            stage.work();
            stage.answer(false);
        }
        late.into_iter().for_each(|number| stage.database.end(number, true));
        stage.assert_synced();
        assert_eq!(stage.paid(50), 1);
    }

    #[test]
    fn a_transaction_commits_after_later_ones() {
        commits_late(1);
    }

    #[test]
    fn subtransactions_commit_after_later_ones() {
        let mut stage = Stage::new();
        // A subtransaction that is undone leaves a queue row to a row that has not changed.
        let number = stage.database.begin(&[(0, row(50)), (1, row(2))]);
        stage.write(3, row(60));
        stage.assert_open();
        stage.database.end(number, true);
        stage.assert_synced();
        assert_eq!((stage.paid(50), stage.paid(2)), (1, 0));
    }

    #[test]
    fn prepared_transactions_commit_after_later_ones() {
        let mut stage = Stage::new();
        let number = stage.database.begin(&[(0, row(50))]);
        stage.write(3, row(60));
        stage.assert_open();
        stage.kill();
        stage.work();
        stage.database.end(number, true);
        stage.assert_synced();
        assert_eq!(stage.paid(50), 1);
    }

    #[test]
    fn a_transaction_that_began_later_has_a_lower_queue_id() {
        commits_late(3);
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

mod lost {
    use super::*;

    #[test]
    fn a_worker_killed_in_a_store() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (2, row(51)), (3, None)]);
        // Its transaction is rolled back.
        stage.trouble.locked = [true; ROWS];
        stage.answer(false);
        stage.work();
        stage.kill();
        stage.trouble = Trouble::default();
        stage.assert_synced();
        assert!(!stage.has_vector(3));
    }

    #[test]
    fn a_worker_killed_between_a_store_and_the_next_round() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (2, row(51))]);
        stage.write(0, row(52));
        stage.answer(false);
        let worker = &mut stage.workers[0];
        assert!(worker.act(&mut stage.database, &mut stage.trouble, stage.now));
        stage.kill();
        stage.assert_synced();
        assert_eq!((stage.paid(51), stage.paid(52)), (1, 1));
    }

    #[test]
    fn a_provider_answer_after_the_embedder_has_ended() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (2, row(51)), (4, row(53))]);
        stage.end_embedder();
        stage.write(0, row(52));
        stage.write(2, None);
        stage.assert_synced();
        assert_eq!((stage.paid(50), stage.paid(52), stage.paid(53)), (0, 1, 1));
        assert!(!stage.has_vector(2));
    }

    #[test]
    fn an_unread_answer_of_an_embedder_that_has_ended() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (2, row(51)), (4, row(53))]);
        stage.answer(false);
        stage.end_embedder();
        stage.write(0, row(52));
        stage.write(2, None);
        stage.assert_synced();
        assert_eq!((stage.paid(52), stage.paid(53)), (1, 1));
        assert!(!stage.has_vector(2));
    }

    #[test]
    fn a_worker_that_exits_after_failed_reads_of_the_queue() {
        let mut stage = Stage::new();
        stage.database.write(&[(0, row(50)), (1, row(51)), (2, row(3)), (3, row(4))]);
        // What is read in a transaction that is rolled back is read again.
        let cursors: Vec<_> = stage.workers.iter().map(|w| w.sync.cursor.clone()).collect();
        for (worker, cursor) in stage.workers.iter_mut().zip(cursors) {
            worker.read(&stage.database, stage.now);
            worker.sync.queue_read(cursor, false);
        }
        stage.work();
        stage.kill();
        stage.assert_synced();
        assert_eq!((stage.paid(50), stage.paid(3)), (1, 0));
    }
}

mod paid {
    use super::*;

    #[test]
    fn a_vector_that_could_not_be_stored_at_once_is_paid_for_once() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (1, row(51))]);
        stage.trouble.locked = [true; ROWS];
        stage.answer(false);
        for _ in 0..20 {
            stage.work();
        }
        stage.trouble = Trouble::default();
        stage.assert_synced();
        assert_eq!((stage.paid(50), stage.paid(51)), (1, 1));
    }

    #[test]
    fn a_partly_failed_batch_is_paid_for_once() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (2, row(51)), (4, row(52))]);
        stage.answer(true);
        stage.assert_synced();
        assert_eq!([50, 51, 52].map(|text| stage.paid(text)), [1, 1, 1]);
    }

    #[test]
    fn a_deleted_row_is_never_stored() {
        let mut stage = Stage::new();
        stage.send_off(&[(4, row(50))]);
        stage.write(4, None);
        stage.answer(false);
        // The worker that stores it says so if it was stored although it is known to be gone.
        stage.work();
        stage.assert_synced();
        assert!(!stage.has_vector(4));
    }

    #[test]
    fn a_worker_that_exits_stores_everything_that_was_paid_for() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (1, row(51))]);
        stage.answer(false);
        for worker in &mut stage.workers {
            worker.leave(&mut stage.database, &mut stage.trouble, stage.now);
        }
        stage.kill();
        stage.assert_synced();
        assert_eq!((stage.paid(50), stage.paid(51)), (1, 1));
    }
}

mod pairs {
    use super::*;

    #[test]
    fn rows_shared_between_workers_stay_queued_until_they_are_done() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (1, row(51)), (2, row(3)), (3, row(4))]);
        assert_eq!(stage.database.queue.len(), WORKERS);
        stage.kill();
        assert_eq!(stage.database.queue.len(), WORKERS);
        stage.assert_synced();
        assert_eq!((stage.paid(50), stage.paid(51)), (1, 1));
    }

    #[test]
    fn a_scan_waits_until_the_other_worker_has_acknowledged() {
        let mut stage = Stage::new();
        stage.database.bulk_change(false, &[0, 1, 2, 3]);
        for _ in 0..4 {
            let (database, trouble) = (&mut stage.database, &mut stage.trouble);
            stage.workers[0].read(database, stage.now);
            while stage.workers[0].act(database, trouble, stage.now) {}
            stage.now += STEP;
        }
        assert!(stage.has_vector(0) && stage.database.task.is_some());
        assert!(stage.workers[0].sync.is_idle(), "it gives the other worker its slot");
        stage.assert_synced();
        assert!((0..ROWS).all(|number| !stage.has_vector(number)));
    }

    #[test]
    fn a_first_backfill_ends_though_two_workers_take_turns() {
        let mut stage = Stage::unfilled();
        stage.database.ask(Kind::Backfill);
        // Only one of them runs at a time, and yields its slot after a while.
        for turn in 0..40 {
            let worker = turn % WORKERS;
            for _ in 0..4 {
                let (database, trouble) = (&mut stage.database, &mut stage.trouble);
                stage.workers[worker].read(database, stage.now);
                while stage.workers[worker].act(database, trouble, stage.now) {}
                while !stage.workers[worker].requests.is_empty() {
                    stage.workers[worker].answer(0, database, trouble, false, stage.now);
                }
                stage.now += STEP;
            }
            stage.workers[worker].leave(&mut stage.database, &mut stage.trouble, stage.now);
            stage.workers[worker] = Worker::new(&stage.database, worker);
        }
        assert!(stage.database.task.is_none() && stage.database.queue.is_empty());
        assert!((0..ROWS).all(|number| stage.database.is_equal(number)));
    }

    #[test]
    fn nothing_is_handed_over_for_a_dropped_vector_table() {
        let mut stage = Stage::unfilled();
        stage.database.ask(Kind::Backfill);
        let worker = &mut stage.workers[0];
        worker.read(&stage.database, stage.now);
        assert!(worker.act(&mut stage.database, &mut stage.trouble, stage.now));
        // Its task goes with it, and no page is read for it any more.
        stage.database.task = None;
        while worker.act(&mut stage.database, &mut stage.trouble, stage.now) {}
        assert!(stage.database.queue.is_empty());
    }
}

mod pauses {
    use super::*;

    #[test]
    fn a_pause_while_a_row_is_embedded() {
        for is_killed in [false, true] {
            let mut stage = Stage::new();
            stage.send_off(&[(0, row(50)), (1, row(51))]);
            stage.database.is_paused = true;
            stage.work();
            stage.answer(false);
            stage.write(0, row(52));
            stage.write(2, None);
            stage.work();
            if is_killed {
                stage.kill();
            }
            stage.database.is_paused = false;
            stage.assert_synced();
            assert_eq!((stage.paid(51), stage.paid(52)), (1, 1));
        }
    }

    #[test]
    fn the_end_of_a_backfill_does_not_end_a_pause() {
        let mut stage = Stage::unfilled();
        stage.database.ask(Kind::Backfill);
        stage.work();
        stage.database.is_paused = true;
        for _ in 0..20 {
            stage.work();
            stage.answer(false);
        }
        // What was in flight is stored, and the task waits.
        assert!(stage.has_vector(0) && stage.database.task.is_some());
        stage.database.is_paused = false;
        stage.assert_synced();
    }
}

mod rows {
    use super::*;

    #[test]
    fn a_row_changes_between_the_queue_and_its_document() {
        let mut stage = Stage::new();
        stage.write(0, row(50));
        stage.workers[0].read(&stage.database, stage.now);
        stage.write(0, row(51));
        stage.assert_synced();
        assert_eq!((stage.paid(50), stage.paid(51)), (0, 1));
    }

    #[test]
    fn a_row_changes_between_its_document_and_the_store() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (1, row(51))]);
        stage.write(0, row(52));
        stage.write(1, Some(SourceRow { metadata: 99, ..row(51).unwrap() }));
        stage.assert_synced();
        assert_eq!((stage.paid(51), stage.paid(52)), (1, 1));
    }

    #[test]
    fn a_row_changes_while_its_vector_waits_to_be_stored() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50))]);
        stage.trouble.locked[0] = true;
        stage.answer(false);
        stage.work();
        stage.write(0, row(51));
        stage.work();
        stage.trouble = Trouble::default();
        stage.assert_synced();
        assert_eq!(stage.paid(51), 1);
    }

    #[test]
    fn a_row_is_deleted_while_it_is_embedded() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (4, row(51))]);
        stage.database.write(&[(0, None), (4, None)]);
        stage.assert_synced();
        assert!(!stage.has_vector(0) && !stage.has_vector(4));
    }

    #[test]
    fn keys_are_swapped_while_they_are_embedded() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (1, row(51))]);
        stage.database.write(&[(0, row(51)), (1, row(50)), (3, None), (4, row(4))]);
        stage.assert_synced();
    }

    #[test]
    fn a_truncated_row_in_flight_is_not_stored() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (1, row(51))]);
        stage.database.bulk_change(false, &[0, 1, 2, 3]);
        stage.work();
        stage.answer(false);
        stage.work();
        assert!((0..ROWS).all(|number| !stage.has_vector(number)));
        stage.assert_synced();
    }

    #[test]
    fn keys_that_come_back_after_a_truncate_have_their_new_text() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50)), (1, row(51))]);
        stage.database.bulk_change(false, &[0, 1, 2, 3]);
        stage.database.write(&[(0, row(50)), (1, row(60)), (2, row(3))]);
        stage.assert_synced();
        assert!(stage.paid(50) <= 2);
    }

    #[test]
    fn a_key_that_comes_back_with_the_same_text_is_paid_for_once() {
        let mut stage = Stage::new();
        stage.send_off(&[(4, row(50))]);
        stage.write(4, None);
        stage.write(4, row(50));
        stage.assert_synced();
        assert_eq!(stage.paid(50), 1);
    }

    #[test]
    fn a_text_changed_back_is_paid_for_once() {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50))]);
        stage.write(0, row(51));
        stage.write(0, row(50));
        stage.assert_synced();
        assert_eq!((stage.paid(50), stage.paid(51)), (1, 0));
    }

    #[test]
    fn a_constantly_changing_row_ends_with_its_last_text() {
        let mut stage = Stage::new();
        for text in 50..90 {
            stage.write(0, row(text));
            stage.work();
            stage.answer(false);
        }
        stage.assert_synced();
        assert_eq!(stage.database.vectors[0].and_then(|stored| stored.vector), Some(89));
    }
}

mod scans {
    use super::*;

    /// Every row changes unseen while a comparison is under way.
    fn changes_under_a_comparison(unseen: impl Fn(&mut Database)) {
        let mut stage = Stage::new();
        stage.send_off(&[(0, row(50))]);
        stage.database.ask(Kind::Reconcile);
        stage.work();
        unseen(&mut stage.database);
        stage.database.ask(Kind::Reconcile);
        stage.assert_synced();
    }

    #[test]
    fn the_source_is_swapped_during_a_comparison() {
        changes_under_a_comparison(|database| {
            database.source = [row(60), None, row(3), row(61), row(62)];
        });
    }

    #[test]
    fn a_column_is_recreated_during_a_comparison() {
        changes_under_a_comparison(|database| {
            database.source.iter_mut().flatten().for_each(|row| row.text += 60);
        });
    }

    #[test]
    fn the_triggers_are_missing_during_a_comparison() {
        changes_under_a_comparison(|database| (0..ROWS).for_each(|n| database.change_unseen(n)));
    }

    /// A row has failed, and is another one that nothing is known of.
    fn a_row_that_failed_is_another_one(kind: Kind) -> Stage {
        let mut stage = Stage::new();
        stage.write(0, Some(SourceRow { flaw: Flaw::Refused, ..row(50).unwrap() }));
        stage.assert_synced();
        assert!(stage.database.failed[0]);
        stage.database.source[0] = row(51);
        if kind == Kind::Reconcile {
            // Rows that have failed are forgotten where the source may be another one.
            stage.database.failed[0] = false;
        }
        stage.database.ask(kind);
        stage.assert_synced();
        stage
    }

    #[test]
    fn a_backfill_is_requested_during_a_comparison() {
        let stage = a_row_that_failed_is_another_one(Kind::Rebackfill);
        assert!(stage.database.is_equal(0));
    }

    #[test]
    fn a_row_that_failed_comes_from_another_source() {
        let stage = a_row_that_failed_is_another_one(Kind::Reconcile);
        assert_eq!((stage.database.is_equal(0), stage.paid(51)), (true, 1));
    }

    #[test]
    fn a_row_that_failed_has_a_new_column() {
        let mut stage = a_row_that_failed_is_another_one(Kind::Reconcile);
        stage.database.bulk_change(true, &[0, 1, 2, 3]);
        stage.assert_synced();
        assert_eq!(stage.paid(51), 1);
    }

    #[test]
    fn a_row_that_failed_was_changed_unseen() {
        let mut stage = a_row_that_failed_is_another_one(Kind::Reconcile);
        stage.database.change_unseen(0);
        stage.database.ask(Kind::Reconcile);
        stage.assert_synced();
        assert!(stage.database.is_equal(0));
    }

    #[test]
    fn a_row_in_flight_is_not_in_the_new_source() {
        let mut stage = Stage::new();
        stage.send_off(&[(4, row(50))]);
        stage.database.source = [row(1), row(2), None, None, None];
        stage.database.ask(Kind::Reconcile);
        stage.work();
        stage.assert_synced();
        assert!(!stage.has_vector(4));
    }

    #[test]
    fn a_truncate_does_not_wait_for_the_end_of_a_backfill() {
        let mut stage = Stage::new();
        stage.database.source[4] = row(50);
        stage.database.ask(Kind::Rebackfill);
        stage.trouble.provider_is_down = true;
        stage.work();
        stage.answer(false);
        stage.database.bulk_change(false, &[0, 1, 2, 3]);
        for _ in 0..60 {
            stage.work();
            stage.answer(false);
        }
        assert!((0..4).all(|number| !stage.has_vector(number)));
        stage.trouble = Trouble::default();
        stage.assert_synced();
    }

    #[test]
    fn a_source_is_recreated_before_its_first_backfill_ends() {
        let mut stage = Stage::unfilled();
        stage.database.ask(Kind::Backfill);
        stage.work();
        stage.database.source = [row(60), None, row(3), row(61), None];
        stage.database.ask(Kind::Backfill);
        stage.assert_synced();
    }
}
