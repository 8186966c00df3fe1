//! Many databases in one server: each has its worker, and no worker blocks operations on a database.

use support::processes::{SYNC_WORKER, is_alive};
use support::source::{backfill, create_source, synced_source};
use support::{Cluster, LONG, SHORT, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// Waits until a backfill of `t` is in progress.
fn wait_busy(cluster: &Cluster, db: &str) {
    let sql = "SELECT synced_rows > 50 FROM embedd.sync_status('t')";
    cluster.wait_for(db, LONG, "the backfill to be under way", sql);
}

#[test]
fn two_databases_at_once() {
    let cluster = SHARED.cluster();
    let mut clients = ["left", "right"].map(|db| {
        let mut client = cluster.database(db);
        create_source(&mut client, "t", 600);
        (db, client)
    });
    for (_, client) in &mut clients {
        backfill(client, "t");
    }
    for (db, client) in &mut clients {
        client.batch_execute(&format!("UPDATE t SET title = '{db}' WHERE id % 10 = 0")).unwrap();
    }
    let workers = ["left", "right"].map(|db| cluster.sync_worker(db));
    assert_ne!(workers[0], workers[1]);
    for db in ["left", "right"] {
        cluster.assert_synced(db, "t");
        assert_eq!(cluster.pids_in(db, SYNC_WORKER).len(), 1);
    }
}

#[test]
fn drop_database_while_its_worker_works() {
    let cluster = SHARED.cluster();
    for (db, statement) in [
        ("idle", "DROP DATABASE idle"),
        ("working", "DROP DATABASE working"),
        ("forced", "DROP DATABASE forced WITH (FORCE)"),
    ] {
        let mut client = cluster.database(db);
        let worker = cluster.sync_worker(db);
        if db != "idle" {
            create_source(&mut client, "t", 3000);
            backfill(&mut client, "t");
            wait_busy(&cluster, db);
        }
        drop(client);
        cluster.wait_for("postgres", SHORT, "the sessions to be gone", &no_sessions(db));
        cluster.psql("postgres", statement);
        cluster.wait_until(SHORT, "the worker to go", || !is_alive(worker));
    }
    // The name can be used again, and the new database gets a worker.
    let mut client = cluster.database("working");
    synced_source(&cluster, "working", &mut client, "t", 10);
}

#[test]
fn rename_database_while_its_worker_works() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("before");
    create_source(&mut client, "t", 1500);
    backfill(&mut client, "t");
    let worker = cluster.sync_worker("before");
    wait_busy(&cluster, "before");
    drop(client);
    cluster.wait_for("postgres", SHORT, "the sessions to be gone", &no_sessions("before"));
    cluster.psql("postgres", "ALTER DATABASE \"before\" RENAME TO \"after it\"");
    assert!(!is_alive(worker) || cluster.pids_in("before", SYNC_WORKER).is_empty());
    // Without any write, the backfill continues.
    cluster.assert_synced("after it", "t");
    let mut client = cluster.connect("after it");
    client.batch_execute("UPDATE t SET title = 'renamed' WHERE id = 1").unwrap();
    cluster.assert_synced("after it", "t");
}

#[test]
fn a_write_starts_the_worker_again_after_a_rename() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("old_name");
    synced_source(&cluster, "old_name", &mut client, "t", 10);
    drop(client);
    cluster.wait_for("postgres", SHORT, "the sessions to be gone", &no_sessions("old_name"));
    cluster.psql("postgres", "ALTER DATABASE old_name RENAME TO new_name");
    let mut client = cluster.connect("new_name");
    client.batch_execute("UPDATE t SET title = 'renamed' WHERE id = 1").unwrap();
    cluster.assert_synced("new_name", "t");
    cluster.psql("new_name", "VACUUM");
}

#[test]
fn a_copy_of_a_database_is_kept_in_sync_too() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("original");
    create_source(&mut client, "t", 1500);
    backfill(&mut client, "t");
    wait_busy(&cluster, "original");
    drop(client);
    cluster.wait_for("postgres", SHORT, "the sessions to be gone", &no_sessions("original"));
    cluster.psql("postgres", "CREATE DATABASE copy TEMPLATE original");
    cluster.wait_until(LONG, "a worker for the copy", || {
        !cluster.pids_in("copy", SYNC_WORKER).is_empty()
    });
    let mut copy = cluster.connect("copy");
    copy.batch_execute("UPDATE t SET title = 'in the copy' WHERE id = 1").unwrap();
    let mut original = cluster.connect("original");
    original.batch_execute("UPDATE t SET title = 'in the original' WHERE id = 2").unwrap();
    cluster.assert_synced("copy", "t");
    cluster.assert_synced("original", "t");
}

#[test]
fn a_role_that_may_not_drop_a_database_does_not_move_its_worker() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("precious");
    synced_source(&cluster, "precious", &mut client, "t", 10);
    let worker = cluster.sync_worker("precious");
    client.batch_execute("CREATE ROLE stranger LOGIN CREATEDB").unwrap();
    let mut stranger = cluster.connect_as("postgres", "stranger");
    for refused in [
        "DROP DATABASE precious",
        "ALTER DATABASE precious RENAME TO mine",
        "CREATE DATABASE mine TEMPLATE precious",
    ] {
        let error = stranger.batch_execute(refused).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{refused}: {error:?}");
    }
    client.batch_execute("UPDATE t SET title = 'still served'").unwrap();
    cluster.assert_synced("precious", "t");
    assert_eq!(cluster.sync_worker("precious"), worker);
}

#[test]
fn a_database_with_another_encoding_is_rejected() {
    let cluster = SHARED.cluster();
    let create = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'";
    cluster.psql("postgres", create);
    let mut client = cluster.connect("latin");
    let error = client.batch_execute("CREATE EXTENSION embedd CASCADE").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000", "{error:?}");
    assert!(error.as_db_error().unwrap().hint().is_some());

    // A database that had the extension before the check existed: text that is not UTF-8 is read without harm.
    cluster.database("turned");
    let turn =
        "UPDATE pg_database SET encoding = pg_char_to_encoding('LATIN1') WHERE datname = 'turned'";
    cluster.psql("postgres", turn);
    let mut client = cluster.connect("turned");
    let odd = "SELECT embedd.check_provider_options(array['provider=ollama', 'timeout=5' || chr(247)], 1417)";
    let error = client.batch_execute(odd).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22023", "{error:?}");
    client
        .batch_execute(
            "CREATE TABLE t (id text PRIMARY KEY, title text);
             SELECT embedd.create_vector_table('t', 't', '[{\"name\": \"title\", \"role\": \"embedding\"}]');
             SELECT embedd.backfill('t')",
        )
        .unwrap();
    cluster.wait_done("turned");
    client.batch_execute("INSERT INTO t VALUES ('a' || chr(247), 'odd'), ('b', 'plain')").unwrap();
    let queue = "SELECT count(*) = 0 FROM embedd.queue";
    cluster.wait_for("turned", LONG, "the queue to be read", queue);
}

#[test]
fn a_schema_of_another_role_is_rejected() {
    let cluster = SHARED.cluster();
    cluster.create_database("prepared");
    let mut client = cluster.connect("prepared");
    client
        .batch_execute("CREATE ROLE squatter; CREATE SCHEMA embedd AUTHORIZATION squatter")
        .unwrap();
    // The script runs with this schema before all others but pg_catalog.
    client
        .batch_execute(
            "CREATE FUNCTION embedd.never(oid, regrole) RETURNS boolean LANGUAGE sql AS 'SELECT false';
             CREATE OPERATOR embedd.<> (leftarg = oid, rightarg = regrole, function = embedd.never);
             CREATE FUNCTION embedd.never(name, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
             CREATE OPERATOR embedd.= (leftarg = name, rightarg = text, function = embedd.never)",
        )
        .unwrap();
    let error = client.batch_execute("CREATE EXTENSION embedd CASCADE").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55000", "{error:?}");
    client.batch_execute("ALTER SCHEMA embedd OWNER TO CURRENT_USER").unwrap();
    client.batch_execute("CREATE EXTENSION embedd CASCADE").unwrap();
}

/// Whether no client is connected to a database; a closed connection takes a moment to disappear.
fn no_sessions(db: &str) -> String {
    format!(
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
                             WHERE datname = '{db}' AND backend_type = 'client backend')"
    )
}
