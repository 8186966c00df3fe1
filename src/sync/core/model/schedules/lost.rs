//! Workers and embedders that end at the worst moment.

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
        worker.read(&mut stage.database, stage.now);
        worker.sync.queue_read(cursor, false);
    }
    stage.work();
    stage.kill();
    stage.assert_synced();
    assert_eq!((stage.paid(50), stage.paid(3)), (1, 0));
}
