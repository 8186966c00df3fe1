//! Vectors that are paid for once.

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
