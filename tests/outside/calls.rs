//! Client calls: waiting for a vector table, and errors that reveal nothing about how embedd was built.

mod waiting;

use std::process::Command;

use support::source::{COLUMNS, create_source, synced_source};
use support::{Cluster, LONG};

/// What no client may see in an error: Rust backtraces, and where the library or its crates were built.
const INSIDES: [&str; 6] = [
    "backtrace",
    "rust_begin_unwind",
    "/rustc/",
    ".cargo/registry",
    "pgrx-pg-sys-",
    "core::panicking",
];

/// Statements that fail in different rooms: errors of embedd, errors of PostgreSQL in statements that embedd runs, in
/// user functions and types, and in the middle of DDL.
const FAILING: [&str; 12] = [
    "SELECT embedd.query('no such table', 'x')",
    "SELECT embedd.query('t', 'x', 5000)",
    "SELECT embedd.query('t', 'x', 5, '{\"no\": 1}')",
    "SELECT embedd.query('t', 'x', 5::bigint, '{'::text)",
    "SELECT embedd.embed('t', '')",
    "SELECT embedd.create_vector_table('u', 't', '[]')",
    "SELECT embedd.create_vector_table('u', 't', '{\"a\": 1e400000}')",
    "SELECT embedd.create_provider('p', 'openai', base_url => 'nonsense')",
    "CREATE SERVER p FOREIGN DATA WRAPPER embedd OPTIONS (provider 'none')",
    "SELECT embedd.verify('broken')",
    "SELECT embedd.query('t', 'x', 1 / (SELECT count(*) FROM t WHERE false))",
    "INSERT INTO t SELECT 1, 'twice', '', 1",
];

#[test]
fn errors_show_no_backtrace_whatever_the_environment_is() {
    for preloaded in [true, false] {
        let builder = Cluster::builder()
            .environment("RUST_BACKTRACE", "full")
            .environment("RUST_LIB_BACKTRACE", "1");
        let cluster = if preloaded { builder.start() } else { builder.not_preloaded().start() };
        cluster.create_database("frames");
        cluster.psql("frames", "SET client_min_messages = error; CREATE EXTENSION embedd CASCADE");
        let mut client = cluster.connect("frames");
        create_source(&mut client, "t", 3);
        client
            .batch_execute(&format!(
                "CREATE TABLE b (id integer PRIMARY KEY, title text, body text, price integer);
                 INSERT INTO b VALUES (1, 'a', 'b', 0);
                 CREATE FUNCTION fails(integer) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN 1 / $1; END $$;
                 CREATE VIEW w AS SELECT id, title, body, fails(price) AS price FROM b;
                 SELECT embedd.create_vector_table('broken', 'w', '{COLUMNS}', 'id', sync_mode => 'batch')"
            ))
            .unwrap();
        for statement in FAILING {
            let (said, failed) = say(cluster.psql_command("frames"), statement);
            assert!(failed, "{statement} did not fail: {said}");
            assert_hides(statement, &said);
        }
        assert_hides("the log", &cluster.log());
    }
}

/// The output of psql for a statement with all verbosity settings, and whether it failed.
fn say(mut psql: Command, statement: &str) -> (String, bool) {
    let output = psql
        .args(["-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=always", "-v", "ON_ERROR_STOP=1"])
        .args(["-c", statement])
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), !output.status.success())
}

fn assert_hides(what: &str, said: &str) {
    for inside in INSIDES {
        assert!(!said.contains(inside), "{what} shows \"{inside}\":\n{said}");
    }
}

#[test]
fn the_log_names_the_database() {
    let cluster = Cluster::builder().set("log_error_verbosity", "default").start();
    let mut client = cluster.database("a named database");
    synced_source(&cluster, "a named database", &mut client, "t", 3);
    client.batch_execute("ALTER TABLE t DROP COLUMN body").unwrap();
    cluster.wait_until(LONG, "the worker to log it", || {
        let log = cluster.log();
        let after = log.split("sync of vector table \"t\" failed").nth(1);
        after.is_some_and(|rest| {
            let context = rest.lines().nth(1).unwrap_or_default();
            context.contains("embedd sync worker of database \"a named database\"")
        })
    });
}
