//! Transactions that commit after later ones.

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
