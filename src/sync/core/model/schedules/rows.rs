//! Rows that change while they are on their way.

use super::*;

#[test]
fn a_row_changes_between_the_queue_and_its_document() {
    let mut stage = Stage::new();
    stage.write(0, row(50));
    stage.workers[0].read(&mut stage.database, stage.now);
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
