//! Pauses during work: what was in flight, what changes meanwhile, and what ends a pause.

use super::Stage;

/// The status as shown to users.
fn status(stage: &mut Stage) -> String {
    stage.client.query_one("SELECT sync_status FROM embedd.sync_status('t')", &[]).unwrap().get(0)
}

/// A pause while texts are at the provider, changes, and then a resume before or after the answer.
#[test]
fn a_pause_while_a_row_is_embedded() {
    for answered_first in [false, true] {
        let mut stage = Stage::shared("pause");
        let gate = stage.fake.hold();
        stage.run_into_flight("UPDATE t SET title = 'older ' || id WHERE id <= 3");
        stage.run("SELECT embedd.pause_sync('t')");
        stage.run(
            "UPDATE t SET title = 'newer' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (30, 'new')",
        );
        if answered_first {
            let before = stage.fake.answer_count();
            gate.release();
            stage.fake.wait_until(super::LONG, "the answer", |fake| fake.answer_count() > before);
            assert_eq!(status(&mut stage), "paused");
            stage.run("SELECT embedd.resume_sync('t')");
        } else {
            stage.run("SELECT embedd.resume_sync('t')");
            gate.release();
        }
        stage.assert_synced();
        assert!(!stage.has_vector(2));
        assert_eq!((stage.paid("newer"), stage.paid("new"), stage.paid("older 3")), (1, 1, 1));
    }
}

/// A pause that commits while the worker is about to record the end of the backfill: the table stays paused.
#[test]
fn the_end_of_a_backfill_does_not_end_a_pause() {
    let mut stage = Stage::shared("pause_backfill");
    stage.run("SELECT embedd.pause_sync('t'); SELECT embedd.backfill('t'); UPDATE t SET title = 'changed ' || id");
    let gate = stage.fake.hold();
    stage.run_into_flight("SELECT embedd.resume_sync('t')");
    // Not committed yet: the worker cannot see it, and waits for its lock.
    stage.run("BEGIN; SELECT embedd.pause_sync('t')");
    gate.release();
    stage.wait_for_worker_at_lock();
    stage.run("COMMIT");
    assert_eq!(status(&mut stage), "paused");
    stage.run("UPDATE t SET title = 'while paused' WHERE id = 1");
    // Another vector table shows that the worker has run since, with every chance to end the pause by mistake.
    stage.run(
        "CREATE TABLE other AS SELECT * FROM t; ALTER TABLE other ADD PRIMARY KEY (id);
         SELECT embedd.create_vector_table('other', 'other', '[{\"name\": \"title\", \"role\": \"embedding\"}]',
                embedding_provider => 'fake', embedding_dimensions => 8, start_backfill => true)",
    );
    stage.wait_for(
        "another table to be synced",
        "SELECT sync_status = 'synced' AND rows_pending = 0 AND synced_rows = 10 FROM embedd.sync_status('other')",
    );
    assert_eq!(status(&mut stage), "paused");
    // The other table has texts without the prefix.
    assert_eq!(stage.fake.paid("Title: while paused"), 0);
    stage.run("SELECT embedd.resume_sync('t')");
    stage.assert_synced();
    assert_eq!(stage.paid("while paused"), 1);
}
