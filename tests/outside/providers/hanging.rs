//! A provider that never answers blocks no session, writer, other table or shutdown.

use std::thread;

use postgres::Client;

use super::{SHARED, create_provider, create_source, fake};
use support::fake_provider::{Dialect, Respond, Rule};
use support::processes::SYNC_WORKER;
use support::{Cluster, LONG, SHORT, Shutdown};

/// Longer than any timeout of these tests.
const PATIENT: &str = r#"{"timeout": 600000}"#;

#[test]
fn a_question_to_a_provider_that_hangs_is_interrupted() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("hanging_question");
    let fake = fake(Dialect::OpenAi);
    create_provider(&mut client, "fake", Dialect::OpenAi, &fake.base_url(), PATIENT);
    create_source(&mut client, "t", "fake", 5);
    cluster.wait_done("hanging_question");
    fake.script(Rule::always().respond(Respond::never()));
    client.batch_execute("SET embedd.embedder_timeout = '10min'").unwrap();

    client.batch_execute("SET statement_timeout = '200ms'").unwrap();
    let error = client.query("SELECT * FROM embedd.query('t', 'a')", &[]).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014");
    client.batch_execute("SET statement_timeout = 0").unwrap();

    for (function, code) in [("pg_cancel_backend", "57014"), ("pg_terminate_backend", "57P01")] {
        let mut asking = cluster.connect("hanging_question");
        asking.batch_execute("SET embedd.embedder_timeout = '10min'").unwrap();
        let pid: i32 = asking.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let before = fake.request_count();
        let asked = thread::spawn(move || {
            asking.query("SELECT * FROM embedd.query('t', 'b')", &[]).unwrap_err()
        });
        fake.wait_for_requests(before + 1, SHORT);
        client.execute(&format!("SELECT {function}($1)"), &[&pid]).unwrap();
        let error = asked.join().unwrap();
        assert!(error.code().is_none_or(|found| found.code() == code), "{error:?}");
    }
    // The end of a session cancels its request.
    fake.wait_until(SHORT, "the requests to be aborted", |fake| fake.concurrent() == 0);
}

#[test]
fn a_provider_that_hangs_blocks_no_writer_no_other_table_and_no_shutdown() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("hanging");
    let (hanging, good) = (fake(Dialect::OpenAi), fake(Dialect::Gemini));
    create_provider(&mut client, "hanging", Dialect::OpenAi, &hanging.base_url(), PATIENT);
    create_provider(&mut client, "good", Dialect::Gemini, &good.base_url(), "{}");
    hanging.script(Rule::always().respond(Respond::never()));
    // Far more than may be in flight.
    create_source(&mut client, "bad", "hanging", 20_000);
    hanging.wait_for_requests(1, LONG);
    create_source(&mut client, "fine", "good", 500);
    create_source(&mut client, "own", "local", 100);
    for table in ["fine", "own"] {
        let sql = format!("SELECT sync_status = 'synced' FROM embedd.sync_status('{table}')");
        cluster.wait_for("hanging", LONG, "the other tables to go on", &sql);
    }
    // No transaction and no lock is held: a writer with NOWAIT succeeds.
    assert_eq!(open_transactions(&mut client), 0);
    client
        .batch_execute(
            "SET lock_timeout = '1ms'; UPDATE bad SET title = 'changed' WHERE id % 100 = 0;
             ALTER TABLE bad ADD COLUMN more integer; RESET lock_timeout",
        )
        .unwrap();
    assert_eq!(hanging.answer_count(), 0);
    cluster.stop(Shutdown::Fast);
    assert_eq!(hanging.answer_count(), 0);
}

/// Transactions that sync workers keep open.
fn open_transactions(client: &mut Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = $1 AND xact_start < now() - interval '1 s'";
    client.query_one(sql, &[&SYNC_WORKER]).unwrap().get(0)
}
