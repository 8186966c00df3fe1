//! A transaction that takes its queue id early and commits after later ones are processed and deleted.

use postgres::Client;

use super::Stage;

/// So many keys that a transaction writes its queue rows before it ends.
const MANY: &str = "INSERT INTO t SELECT i, NULL, '', 0 FROM generate_series(1000001, 1150000) i;
    DELETE FROM t WHERE id > 1000000";

/// The last id of the queue.
fn last_id(client: &mut Client) -> i64 {
    client.query_one("SELECT last_value FROM embedd.queue_id_seq", &[]).unwrap().get(0)
}

/// Later transactions take ids, commit and are processed, several times, so that the worker has to look behind them.
fn go_on(stage: &mut Stage) {
    for round in 0..6 {
        stage.run(&format!("UPDATE t SET title = 'round {round}' WHERE id = 10"));
        let sql = format!(
            "SELECT embedded_text = 'Title: round {round}' FROM {} WHERE pk_value = '10'",
            stage.vectors
        );
        stage.wait_for("a later change to be done", &sql);
    }
}

/// A session that has queued its changes with a low id and not committed, while others continue.
fn late(stage: &mut Stage, statements: &str) -> Client {
    go_on(stage);
    let mut late = stage.cluster.connect(&stage.db);
    let before = last_id(&mut stage.client);
    late.batch_execute(statements).unwrap();
    let taken = last_id(&mut stage.client);
    assert!(taken > before, "the writer has no row in the queue yet");
    go_on(stage);
    assert!(last_id(&mut stage.client) > taken);
    late
}

/// The plain case.
#[test]
fn a_transaction_commits_after_later_ones() {
    let mut stage = Stage::shared("late_plain");
    let begin = format!(
        "BEGIN; UPDATE t SET title = 'late' WHERE id = 1; DELETE FROM t WHERE id = 2; {MANY}"
    );
    let mut late = late(&mut stage, &begin);
    late.batch_execute("COMMIT").unwrap();
    stage.assert_synced();
    assert_eq!(stage.paid("late"), 1);
    assert!(!stage.has_vector(2));
}

/// Its changes belong to subtransactions, one of which is rolled back after its rows were written to the queue.
#[test]
fn subtransactions_commit_after_later_ones() {
    let mut stage = Stage::shared("late_sub");
    let begin = format!(
        "BEGIN; SAVEPOINT a; UPDATE t SET title = 'kept' WHERE id = 1; RELEASE a;
         SAVEPOINT b; UPDATE t SET title = 'undone' WHERE id = 2; {MANY}; ROLLBACK TO b;
         SAVEPOINT c; UPDATE t SET title = 'kept too' WHERE id = 3; {MANY}; RELEASE c"
    );
    let mut late = late(&mut stage, &begin);
    late.batch_execute("COMMIT").unwrap();
    stage.assert_synced();
    assert_eq!((stage.paid("kept"), stage.paid("kept too"), stage.paid("undone")), (1, 1, 0));
}

/// It is prepared, and ended by another session much later.
#[test]
fn prepared_transactions_commit_after_later_ones() {
    let mut stage = Stage::shared("late_prepared");
    let mut gone = late(
        &mut stage,
        "BEGIN; UPDATE t SET title = 'late' WHERE id = 1; SAVEPOINT a; UPDATE t SET title = 'late too' WHERE id = 2;
         RELEASE a; SAVEPOINT b; UPDATE t SET title = 'undone' WHERE id = 3; ROLLBACK TO b;
         PREPARE TRANSACTION 'late commit'",
    );
    gone.batch_execute(
        "BEGIN; UPDATE t SET title = 'never' WHERE id = 4; PREPARE TRANSACTION 'late rollback'",
    )
    .unwrap();
    drop(gone);
    go_on(&mut stage);
    stage.run("COMMIT PREPARED 'late commit'");
    stage.run("ROLLBACK PREPARED 'late rollback'");
    stage.assert_synced();
    assert_eq!((stage.paid("late"), stage.paid("late too")), (1, 1));
    assert_eq!((stage.paid("undone"), stage.paid("never")), (0, 0));
}

/// The writer with the low id began after the one with the high id: no snapshot lists it as running, because none that
/// began after it has ended. It commits between two reads of the queue.
#[test]
fn a_transaction_that_began_later_has_a_lower_queue_id() {
    let mut stage = Stage::alone();
    let (mut first, mut second) =
        (stage.cluster.connect(&stage.db), stage.cluster.connect(&stage.db));
    let mut lock = stage.cluster.connect(&stage.db);
    let sql = format!("BEGIN; SELECT FROM {} WHERE pk_value = '1' FOR UPDATE", stage.vectors);
    lock.batch_execute(&sql).unwrap();
    first.batch_execute("BEGIN; UPDATE t SET price = -1 WHERE id = 1").unwrap();
    let before = last_id(&mut stage.client);
    let early = format!("BEGIN; UPDATE t SET title = 'early place' WHERE id = 2; {MANY}");
    second.batch_execute(&early).unwrap();
    assert!(last_id(&mut stage.client) > before, "the writer has no row in the queue yet");
    first.batch_execute("COMMIT").unwrap();
    // It has read the queue, and reads it again after its timeout.
    stage.wait_for_worker_at_lock();
    second.batch_execute("COMMIT").unwrap();
    lock.batch_execute("COMMIT").unwrap();
    stage.assert_synced();
    assert_eq!(stage.paid("early place"), 1);
}
