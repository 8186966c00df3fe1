//! A foreign table in another real cluster, which stops and restarts.

use super::{SHARED, assert_arrives, create_batch, wait_error, wait_well};
use support::source::{assert_equal, stored_text, synced_source};
use support::{Cluster, LONG, Shutdown};

#[test]
fn a_foreign_table_whose_server_stops_and_restarts() {
    let remote = Cluster::builder().not_preloaded().start();
    let mut there = remote.connect("postgres");
    there
        .batch_execute(
            "CREATE TABLE t (id integer PRIMARY KEY, title text, n integer);
             INSERT INTO t SELECT i, 'title ' || i, i FROM generate_series(1, 40) i",
        )
        .unwrap();
    let cluster = SHARED.cluster();
    let mut client = cluster.database("remote");
    client
        .batch_execute(&format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '{}', dbname 'postgres', connect_timeout '5');
             CREATE USER MAPPING FOR CURRENT_USER SERVER other OPTIONS (user 'postgres');
             CREATE FOREIGN TABLE f (id integer, title text, n integer) SERVER other OPTIONS (table_name 't')",
            remote.socket_dir().display(),
            remote.port()
        ))
        .unwrap();
    create_batch(&mut client, "f", "1 second");
    synced_source(&cluster, "remote", &mut client, "own", 10);
    assert_arrives(&cluster, "remote", "f");
    there
        .batch_execute("INSERT INTO t VALUES (41, 'inserted there', 1); UPDATE t SET title = 'changed there' WHERE id = 1; DELETE FROM t WHERE id = 2")
        .unwrap();
    assert_arrives(&cluster, "remote", "f");
    assert_eq!(stored_text(&mut client, "f", "41").unwrap(), "inserted there");

    there.batch_execute("UPDATE t SET title = 'the last before it went' WHERE id = 3").unwrap();
    drop(there);
    remote.stop(Shutdown::Fast);
    wait_error(&cluster, "remote", "f", "could not connect to server");
    // Other tables continue, and queries use the stored vectors.
    client.batch_execute("UPDATE own SET title = 'not held up' WHERE id = 1").unwrap();
    cluster.wait_for(
        "remote",
        LONG,
        "the other table",
        "SELECT NOT EXISTS (SELECT FROM embedd.queue)",
    );
    assert_equal(&mut client, "own");
    let sql = "SELECT count(*) FROM embedd.query('f', 'inserted there', 100)";
    assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, i64>(0), 40);

    remote.start_again();
    let mut there = remote.connect("postgres");
    there.batch_execute("DELETE FROM t WHERE id = 5").unwrap();
    wait_well(&cluster, "remote", "f");
    assert_arrives(&cluster, "remote", "f");
    assert_eq!(stored_text(&mut client, "f", "5"), None);
    // A lock on the remote server blocks only this table.
    let mut locking = remote.connect("postgres");
    locking.batch_execute("BEGIN; LOCK t").unwrap();
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
    remote.wait_for("postgres", LONG, "the run to wait on the remote server", waits);
    client.batch_execute("UPDATE own SET title = 'not held up either' WHERE id = 2").unwrap();
    cluster.wait_for(
        "remote",
        LONG,
        "the other table",
        "SELECT NOT EXISTS (SELECT FROM embedd.queue)",
    );
    assert_equal(&mut client, "own");
    locking.batch_execute("UPDATE t SET title = 'under the lock' WHERE id = 6; COMMIT").unwrap();
    assert_arrives(&cluster, "remote", "f");
    // Databases and server can be stopped at any time.
    client.batch_execute("SELECT embedd.drop_vector_table('f')").unwrap();
}
