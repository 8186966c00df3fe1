//! Scans under which the source changes.

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
