//! A key is never shown: not in views, pg_stat_activity, logs, errors, or dumps of roles without the privilege.

use std::process::Command;

use super::{KEY, SHARED, create_provider, create_source, fake, status};
use support::binaries::{client as program, output_of, stdout_of};
use support::fake_provider::{Dialect, Respond, Rule};
use support::{Cluster, SHORT};

/// A statement of the simple protocol, as psql sends it: the key is in its text.
fn statement(url: &str) -> String {
    format!(
        "SELECT embedd.create_provider('fake', 'openai', api_key => '{KEY}', default_model => 'fake-model', base_url => '{url}')"
    )
}

#[test]
fn a_key_is_never_shown() {
    let cluster = Cluster::builder()
        .never_polling()
        .set("log_min_error_statement", "error")
        .set("log_min_messages", "debug1")
        .start();
    let mut client = cluster.database("secrets");
    let fake = fake(Dialect::OpenAi);
    client.simple_query(&statement(&fake.base_url())).unwrap();
    // The session is idle now, and its last statement would still be shown.
    let mut other = cluster.connect("secrets");
    let shown: Vec<String> = other
        .query("SELECT query FROM pg_stat_activity WHERE query IS NOT NULL", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(shown.iter().any(|query| query.contains("hidden by embedd")), "{shown:?}");
    assert!(!shown.iter().any(|query| query.contains(KEY)), "{shown:?}");
    // The same statement fails now, and is logged with the error.
    client.simple_query(&statement(&fake.base_url())).unwrap_err();
    client
        .simple_query(&format!("SELECT embedd.update_provider('nobody', api_key => '{KEY}')"))
        .unwrap_err();
    // A service that repeats the key in its messages.
    let echo = Respond::key_rejected().message(&format!("Incorrect API key provided: {KEY}"));
    fake.script(Rule::always().respond(echo));
    create_source(&mut client, "t", "fake", 5);
    cluster.wait_until(SHORT, "the rejection to be reported", || {
        status(&mut client, "t", "last_error").is_some()
    });
    let error = client.query("SELECT * FROM embedd.test_provider('fake')", &[]).unwrap_err();
    assert!(!format!("{error:?}").contains(KEY), "{error:?}");
    assert!(!cluster.log().contains(KEY), "the log has the key");

    client
        .batch_execute("CREATE ROLE reader LOGIN; GRANT USAGE ON FOREIGN SERVER fake TO reader")
        .unwrap();
    let everything = "SELECT string_agg(x::text, ' ') FROM (
            SELECT p::text AS x FROM embedd.providers p UNION ALL SELECT m::text FROM pg_user_mappings m
            UNION ALL SELECT s::text FROM pg_foreign_server s UNION ALL SELECT v::text FROM embedd.vector_tables v
            UNION ALL SELECT t::text FROM embedd.tasks t UNION ALL SELECT u::text FROM embedd.provider_usage u) all_of_it";
    let seen: Option<String> =
        cluster.connect_as("secrets", "reader").query_one(everything, &[]).unwrap().get(0);
    let seen = seen.unwrap();
    assert!(seen.contains("fake") && !seen.contains(KEY), "{seen}");
}

#[test]
fn a_dump_contains_a_key_only_for_roles_that_may_read_it() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("dumped");
    let fake = fake(Dialect::OpenAi);
    create_provider(
        &mut client,
        "fake",
        Dialect::OpenAi,
        &fake.base_url(),
        r#"{"max_in_flight": 3}"#,
    );
    create_source(&mut client, "t", "fake", 30);
    cluster.wait_done("dumped");
    let dump = |role: &str| -> Command {
        let mut dump = program("pg_dump");
        dump.args(["-U", role, "-h"]).arg(cluster.socket_dir());
        dump.args(["-p", &cluster.port().to_string(), "-d", "dumped"]);
        dump
    };
    client.batch_execute("CREATE ROLE dumper LOGIN IN ROLE pg_read_all_data").unwrap();
    let mut seen = dump("dumper");
    seen.args(["--schema-only", "--exclude-schema=embedd"]);
    let seen = stdout_of(seen);
    assert!(seen.contains("CREATE SERVER fake") && !seen.contains(KEY), "{seen}");
    client.batch_execute("DROP ROLE dumper").unwrap();

    // A full dump by a superuser restores the same database, and the sync continues.
    let file = cluster.dir().join("dump.sql");
    let mut whole = dump("postgres");
    whole.arg("-f").arg(&file);
    output_of(whole);
    cluster.create_database("restored");
    let mut restore = cluster.psql_command("restored");
    restore.args(["-v", "ON_ERROR_STOP=1", "-f"]).arg(&file);
    output_of(restore);
    let mut restored = cluster.connect("restored");
    restored.batch_execute("UPDATE t SET title = 'after the restore' WHERE id = 3").unwrap();
    cluster.wait_until(SHORT, "the change to arrive", || {
        support::source::stored_text(&mut restored, "t", "3")
            .is_some_and(|text| text.contains("after the restore"))
    });
    // The provider is in use there too.
    let error = restored.batch_execute("DROP SERVER fake").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "2BP01");
}
