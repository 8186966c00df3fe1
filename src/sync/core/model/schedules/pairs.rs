//! Two workers that share a table.

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
    worker.read(&mut stage.database, stage.now);
    assert!(worker.act(&mut stage.database, &mut stage.trouble, stage.now));
    // Its task goes with it, and no page is read for it any more.
    stage.database.task = None;
    while worker.act(&mut stage.database, &mut stage.trouble, stage.now) {}
    assert!(stage.database.queue.is_empty());
}
