//! Nothing is paid for twice because a table is locked or a part of a batch fails, and a deleted row is not stored.

use super::{LONG, Stage};
use support::fake_provider::{Respond, Rule};

/// Vectors have arrived, and the worker times out on a lock that another session has on a row of the vector table.
/// They are paid for once, however often it has to retry.
#[test]
fn a_vector_that_could_not_be_stored_at_once_is_paid_for_once() {
    let mut stage = Stage::shared("given_up");
    let mut other = stage.cluster.connect(&stage.db);
    let lock = format!("BEGIN; SELECT FROM {} WHERE pk_value = '1' FOR UPDATE", stage.vectors);
    other.batch_execute(&lock).unwrap();
    stage.run("UPDATE t SET title = 'text ' || id WHERE id <= 3");
    for _ in 0..3 {
        stage.wait_for_worker_at_lock();
        stage.wait_for_worker_at_rest();
    }
    other.batch_execute("COMMIT").unwrap();
    stage.assert_synced();
    for title in ["text 1", "text 2", "text 3"] {
        assert_eq!(stage.paid(title), 1, "{title}");
    }
}

/// Of the texts of one batch some are answered, and the request with the others fails because the service is down.
#[test]
fn a_partly_failed_batch_is_paid_for_once() {
    let mut stage = Stage::shared("part");
    stage.run("SELECT embedd.update_provider('fake', options => '{\"texts_per_request\": 1}')");
    let refused = stage.fake.script(Rule::when_text("unlucky").respond(Respond::status(503)));
    stage.run(
        "UPDATE t SET title = CASE id WHEN 3 THEN 'unlucky' ELSE 'lucky ' || id END WHERE id <= 3",
    );
    // Enough failures that the worker is notified.
    let told = "SELECT last_error IS NOT NULL FROM embedd.sync_status('t')";
    stage.cluster.wait_for(&stage.db, LONG, "the failure to be reported", told);
    stage.fake.unscript(&refused);
    stage.assert_synced();
    for title in ["lucky 1", "lucky 2", "unlucky"] {
        assert_eq!(stage.paid(title), 1, "{title}");
    }
}

/// A row is inserted and deleted while its text is at the provider: it never appears in the vector table.
#[test]
fn a_deleted_row_is_never_stored() {
    let mut stage = Stage::shared("moment");
    let log = format!(
        "CREATE TABLE seen (pk_value text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN INSERT INTO public.seen VALUES (new.pk_value); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT ON {} FOR EACH ROW EXECUTE FUNCTION note()",
        stage.vectors
    );
    stage.run(&log);
    let gate = stage.fake.hold();
    stage.run_into_flight("INSERT INTO t VALUES (30, 'short life')");
    stage.run("DELETE FROM t WHERE id = 30");
    gate.release();
    stage.assert_synced();
    let seen = stage.client.query_one("SELECT count(*) FROM seen", &[]).unwrap();
    assert_eq!(seen.get::<_, i64>(0), 0);
}

/// The worker is asked to exit, because the database is to have two, while a row of the vector table is locked.
#[test]
fn a_worker_that_exits_stores_everything_that_was_paid_for() {
    let mut stage = Stage::alone();
    let mut other = stage.cluster.connect(&stage.db);
    let lock = format!("BEGIN; SELECT FROM {} WHERE pk_value = '1' FOR UPDATE", stage.vectors);
    other.batch_execute(&lock).unwrap();
    stage.run("UPDATE t SET title = 'text ' || id WHERE id <= 3");
    stage.wait_for_worker_at_lock();
    stage.cluster.configure(&[("embedd.workers_per_database", "2")]);
    stage.cluster.reload();
    // Longer than the launcher needs to ask, and to start another worker.
    for _ in 0..4 {
        stage.wait_for_worker_at_lock();
        stage.wait_for_worker_at_rest();
    }
    other.batch_execute("COMMIT").unwrap();
    stage.assert_synced();
    for title in ["text 1", "text 2", "text 3"] {
        assert_eq!(stage.paid(title), 1, "{title}");
    }
}
