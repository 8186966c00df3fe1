//! Pauses while something is in flight.

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
