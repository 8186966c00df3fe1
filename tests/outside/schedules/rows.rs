//! A row is changed, moved, deleted or restored while it is being processed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Stage;
use support::Frozen;

/// The worker has read from the queue which rows have changed. Before it reads the rows, they change again: while it
/// waits for the table, and after its first lock timeout.
#[test]
fn a_row_changes_between_the_queue_and_its_document() {
    for given_up in [false, true] {
        let mut stage = Stage::shared("queue_document");
        let frozen = Frozen::new(stage.cluster.sync_worker(&stage.db));
        stage.run(
            "UPDATE t SET title = 'older' WHERE id <= 3; UPDATE t SET title = 'goes' WHERE id = 4",
        );
        // The worker needs the table for the documents only.
        stage.run("BEGIN; LOCK t IN ACCESS EXCLUSIVE MODE");
        drop(frozen);
        stage.wait_for_worker_at_lock();
        if given_up {
            stage.wait_for_worker_at_rest();
        }
        stage.run(
            "UPDATE t SET title = 'newer' WHERE id = 1; UPDATE t SET price = 77 WHERE id = 2;
             DELETE FROM t WHERE id = 4; COMMIT",
        );
        stage.assert_synced();
        assert!(!stage.has_vector(4));
        assert_eq!((stage.paid("newer"), stage.paid("older")), (1, 1));
        // The snapshot may be older than the lock that was waited for.
        assert!(stage.paid("goes") <= 1);
    }
}

/// The worker has read a row, and its text is at the provider, when the row changes: its text, its metadata, or both.
#[test]
fn a_row_changes_between_its_document_and_the_store() {
    let mut stage = Stage::shared("document_store");
    let gate = stage.fake.hold();
    stage.run_into_flight("UPDATE t SET title = 'older ' || id WHERE id <= 4");
    stage.run(
        "UPDATE t SET title = 'newer ' || id WHERE id = 1; UPDATE t SET price = 71 WHERE id = 2;
         UPDATE t SET title = 'newer ' || id, price = 72 WHERE id = 3; UPDATE t SET title = NULL WHERE id = 4",
    );
    gate.release();
    stage.assert_synced();
    for (title, times) in [("older 1", 1), ("older 2", 1), ("newer 1", 1), ("newer 3", 1)] {
        assert_eq!(stage.paid(title), times, "{title}");
    }
}

/// Vectors have arrived, and the worker waits for a lock that another session has on the row of the vector table.
#[test]
fn a_row_changes_while_its_vector_waits_to_be_stored() {
    let mut stage = Stage::shared("locked_vector");
    let mut other = stage.cluster.connect(&stage.db);
    let lock = format!("BEGIN; SELECT FROM {} WHERE pk_value = '1' FOR UPDATE", stage.vectors);
    other.batch_execute(&lock).unwrap();
    stage.run("UPDATE t SET title = 'older ' || id WHERE id <= 2");
    stage.wait_for_worker_at_lock();
    stage.run("UPDATE t SET title = 'newer' WHERE id = 1; DELETE FROM t WHERE id = 2");
    other.batch_execute("COMMIT").unwrap();
    stage.assert_synced();
    assert!(!stage.has_vector(2));
    assert_eq!(stage.paid("newer"), 1);
}

/// A row is deleted while its text is at the provider: one that had a vector, and one that never had.
#[test]
fn a_row_is_deleted_while_it_is_embedded() {
    let mut stage = Stage::shared("deleted");
    let gate = stage.fake.hold();
    stage.run_into_flight(
        "UPDATE t SET title = 'in vain' WHERE id = 1; INSERT INTO t VALUES (30, 'short life')",
    );
    stage.run("DELETE FROM t WHERE id IN (1, 30)");
    gate.release();
    stage.assert_synced();
    assert!(!stage.has_vector(1) && !stage.has_vector(30));
}

/// Two rows swap their keys while the texts of both are at the provider, and a third one gets another key.
#[test]
fn keys_are_swapped_while_they_are_embedded() {
    let mut stage = Stage::shared("swapped");
    let gate = stage.fake.hold();
    stage.run_into_flight("UPDATE t SET title = 'text ' || id WHERE id <= 3");
    stage.run(
        "BEGIN; UPDATE t SET id = -1 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = -1;
         COMMIT; UPDATE t SET id = 40 WHERE id = 3",
    );
    gate.release();
    stage.assert_synced();
    assert_eq!(stage.title(1).as_deref(), Some("text 2"));
    assert!(!stage.has_vector(-1) && !stage.has_vector(3) && stage.has_vector(40));
    // A key that has another text now is embedded again, once.
    for title in ["text 1", "text 2", "text 3"] {
        assert!(stage.paid(title) <= 2, "{title} was paid for {} times", stage.paid(title));
    }
}

/// TRUNCATE while texts of the truncated rows are at the provider: they are not stored.
#[test]
fn a_truncated_row_in_flight_is_not_stored() {
    let mut stage = Stage::shared("truncated");
    let gate = stage.fake.hold();
    stage.run_into_flight(
        "UPDATE t SET title = 'in vain ' || id; INSERT INTO t VALUES (30, 'in vain')",
    );
    stage.run("TRUNCATE t");
    gate.release();
    stage.assert_synced();
    let sql = format!("SELECT count(*) FROM {}", stage.vectors);
    assert_eq!(stage.client.query_one(&sql, &[]).unwrap().get::<_, i64>(0), 0);
}

/// TRUNCATE while texts are at the provider, and the same keys are inserted again: some with the same text.
#[test]
fn keys_that_come_back_after_a_truncate_have_their_new_text() {
    let mut stage = Stage::shared("truncated_again");
    let gate = stage.fake.hold();
    stage.run_into_flight("UPDATE t SET title = 'text ' || id");
    stage.run("BEGIN; TRUNCATE t; INSERT INTO t VALUES (1, 'text 1'), (2, 'other'); COMMIT");
    stage.run("TRUNCATE t; INSERT INTO t VALUES (2, 'last'), (3, 'text 3'), (50, 'new')");
    gate.release();
    stage.assert_synced();
    assert_eq!((stage.paid("last"), stage.paid("new"), stage.paid("other")), (1, 1, 0));
    assert!(!stage.has_vector(1));
}

/// Inserted, deleted and inserted again with the same text, while the first request is at the provider.
#[test]
fn a_key_that_comes_back_with_the_same_text_is_paid_for_once() {
    let mut stage = Stage::shared("back_again");
    let gate = stage.fake.hold();
    stage.run_into_flight("INSERT INTO t VALUES (30, 'same', NULL, 1)");
    stage.run("DELETE FROM t WHERE id = 30; INSERT INTO t VALUES (30, 'same', NULL, 2)");
    gate.release();
    stage.assert_synced();
    assert!(stage.has_vector(30));
    assert_eq!(stage.paid("same"), 1);
}

/// A text goes from A to B and back while A is at the provider.
#[test]
fn a_text_changed_back_is_paid_for_once() {
    let mut stage = Stage::shared("and_back");
    let gate = stage.fake.hold();
    stage.run_into_flight("UPDATE t SET title = 'A' WHERE id = 1");
    stage.run("UPDATE t SET title = 'B' WHERE id = 1");
    stage.run("UPDATE t SET title = 'A', price = 5 WHERE id = 1");
    gate.release();
    stage.assert_synced();
    assert_eq!((stage.paid("A"), stage.paid("B")), (1, 0));
}

/// The same with a writer that changes the row all the time: the worker has one version in flight after the other.
#[test]
fn a_constantly_changing_row_ends_with_its_last_text() {
    let mut stage = Stage::shared("restless");
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let mut client = stage.cluster.connect(&stage.db);
    let writer = thread::spawn(move || {
        let mut n = 0;
        while !told.load(Ordering::SeqCst) {
            n += 1;
            client
                .batch_execute(&format!("UPDATE t SET title = 'round {n}' WHERE id = 1"))
                .unwrap();
        }
        n
    });
    let before = stage.fake.answer_count();
    stage.fake.wait_until(super::LONG, "thirty answers", |fake| fake.answer_count() >= before + 30);
    stop.store(true, Ordering::SeqCst);
    let last = writer.join().unwrap();
    stage.assert_synced();
    assert_eq!(stage.title(1), Some(format!("round {last}")));
}
