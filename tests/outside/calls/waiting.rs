//! wait_until_synced(): it ends when everything is stored, reports progress, and can be cancelled.

use std::sync::{Arc, Mutex};
use std::thread;

use postgres::{Client, NoTls};
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::source::{assert_equal, backfill, create_source, create_texts_of, synced_source};
use support::{Cluster, LONG, SHORT, Shared};

static SHARED: Shared = Shared::new();

/// A connection that collects notices, with their DETAIL.
fn with_notices(cluster: &Cluster, db: &str) -> (Client, Arc<Mutex<Vec<String>>>) {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let kept = notices.clone();
    let mut config = cluster.config(db);
    config.notice_callback(move |notice| {
        let detail = notice.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        kept.lock().unwrap().push(format!("{}{detail}", notice.message()));
    });
    (config.connect(NoTls).unwrap(), notices)
}

/// SQLSTATE, message with DETAIL, and HINT of a failing statement.
fn refusal(client: &mut Client, sql: &str) -> (String, String, String) {
    let error = client.batch_execute(sql).unwrap_err();
    let error = error.as_db_error().unwrap();
    let said = format!("{} {}", error.message(), error.detail().unwrap_or_default());
    (error.code().code().to_string(), said, error.hint().unwrap_or_default().to_string())
}

#[test]
fn it_ends_when_all_is_stored() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("ends");
    create_source(&mut client, "t", 200);
    backfill(&mut client, "t");
    client.batch_execute("SELECT embedd.wait_until_synced('t')").unwrap();
    assert_equal(&mut client, "t");
    client
        .batch_execute("UPDATE t SET title = 'changed ' || id; DELETE FROM t WHERE id < 10")
        .unwrap();
    client.batch_execute("SELECT embedd.wait_until_synced('t', '1 min')").unwrap();
    assert_equal(&mut client, "t");
    // A number of seconds works too, and if all is done there is no wait.
    client.batch_execute("SELECT embedd.wait_until_synced('t'::varchar, 0)").unwrap();
}

#[test]
fn it_reports_progress_and_can_be_cancelled() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("cancelled");
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let hangs = fake.script(Rule::always().respond(Respond::never()));
    create_texts_of(&mut client, &fake, "t", 20);

    let (mut waiting, notices) = with_notices(&cluster, "cancelled");
    let pid: i32 = waiting.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let wait = thread::spawn(move || {
        let outcome = waiting.batch_execute("SELECT embedd.wait_until_synced('t')");
        outcome.unwrap_err().code().unwrap().code().to_string()
    });
    cluster.wait_until(LONG, "a notice", || !notices.lock().unwrap().is_empty());
    let first = notices.lock().unwrap()[0].clone();
    assert_eq!(first, "vector table \"t\" is backfilling: 0 of 20 rows, 20 waiting");
    client.execute("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
    cluster.wait_until(SHORT, "the wait to end", || wait.is_finished());
    assert_eq!(wait.join().unwrap(), "57014");

    let (code, said, hint) = refusal(&mut client, "SELECT embedd.wait_until_synced('t', '300 ms')");
    assert_eq!(
        (code.as_str(), said.trim()),
        ("55000", "vector table \"t\" is not synced after 0.3 s")
    );
    assert!(hint.contains("embedd.sync_status('t')"), "{hint}");
    fake.unscript(&hangs);
    drop(fake);
}

/// While the provider is down nothing moves, and the reason is told; a wait without trouble says nothing.
#[test]
fn the_error_is_told_when_nothing_moves() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("told");
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let down = fake.script(Rule::always().respond(Respond::status(500).message("overloaded")));
    create_texts_of(&mut client, &fake, "t", 20);
    let (mut waiting, notices) = with_notices(&cluster, "told");
    let wait = thread::spawn(move || {
        waiting.batch_execute("SELECT embedd.wait_until_synced('t')").map(|()| waiting)
    });
    cluster.wait_until(LONG, "the reason", || {
        notices.lock().unwrap().iter().any(|notice| notice.contains("overloaded"))
    });
    assert!(
        notices.lock().unwrap()[0].starts_with("vector table \"t\" is backfilling: 0 of 20 rows")
    );
    fake.unscript(&down);
    client
        .batch_execute("SELECT embedd.update_provider('fake', options => '{\"timeout\": 3001}')")
        .unwrap();
    let mut waiting = wait.join().unwrap().unwrap();
    notices.lock().unwrap().clear();
    waiting.batch_execute("SELECT embedd.wait_until_synced('t')").unwrap();
    assert_eq!(*notices.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn it_gives_up_if_waiting_does_not_help() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("hopeless");
    create_source(&mut client, "pending", 5);
    synced_source(&cluster, "hopeless", &mut client, "t", 5);
    let cases = [
        (
            "SELECT embedd.wait_until_synced('pending')",
            "55000",
            "has not been backfilled",
            "embedd.backfill('pending')",
        ),
        (
            "SELECT embedd.wait_until_synced('none')",
            "42704",
            "does not exist",
            "embedd.vector_tables",
        ),
        ("SELECT embedd.wait_until_synced(NULL)", "22004", "must not be null", ""),
        ("SELECT embedd.wait_until_synced('t', '-1 s')", "22023", "must not be negative", ""),
        ("SELECT embedd.wait_until_synced('t', 'soon'::text)", "22007", "invalid input syntax", ""),
        (
            "BEGIN; UPDATE t SET price = 7; SELECT embedd.wait_until_synced('t')",
            "25001",
            "has written",
            "Commit first",
        ),
        (
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT embedd.wait_until_synced('t')",
            "25001",
            "snapshot",
            "READ COMMITTED",
        ),
    ];
    for (sql, code, words, hint_words) in cases {
        let (is, said, hint) = refusal(&mut client, sql);
        assert!(
            is == code && said.contains(words) && hint.contains(hint_words),
            "{sql}: {is} {said} {hint}"
        );
        client.batch_execute("ROLLBACK").unwrap();
    }
    client.batch_execute("SELECT embedd.pause_sync('t'); UPDATE t SET title = 'later'").unwrap();
    let (_, said, hint) = refusal(&mut client, "SELECT embedd.wait_until_synced('t')");
    assert!(
        said.contains("is paused") && hint.contains("embedd.resume_sync('t')"),
        "{said} {hint}"
    );

    // A lasting error is reported with its reason; a role that may only read the vectors does not see the content of a
    // row.
    client.batch_execute("SELECT embedd.resume_sync('t'); ALTER TABLE t DROP COLUMN body").unwrap();
    let (code, said, _) = refusal(&mut client, "SELECT embedd.wait_until_synced('t')");
    assert!(
        code == "55000" && said.contains("has status error") && said.contains("body"),
        "{said}"
    );
}

#[test]
fn failed_rows_are_reported() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("with_failed_rows");
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    fake.script(Rule::when_text("text 7").respond(Respond::status(400).message("not this text")));
    create_texts_of(&mut client, &fake, "t", 20);
    let (mut waiting, notices) = with_notices(&cluster, "with_failed_rows");
    waiting.batch_execute("SELECT embedd.wait_until_synced('t')").unwrap();
    let notices = notices.lock().unwrap();
    assert!(
        notices.contains(&"rows of vector table \"t\" have failed: 1".to_string()),
        "{notices:?}"
    );
}
