//! One bad row, one locked table, one owner without privileges or one terminated process does not stop the others.

use postgres::Client;
use support::processes::{EMBEDDER, LAUNCHER, SYNC_WORKER};
use support::source::{assert_equal, backfill, create_source, relation, synced_source};
use support::{Cluster, LONG, SHORT, Shared};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// The type of the processes that build indexes.
const INDEX_BUILDER: &str = "embedd index builder";

/// Waits until a vector table has as many rows as its source.
fn wait_for_rows(cluster: &Cluster, db: &str, client: &mut Client, name: &str) {
    let vectors = relation(client, name);
    let sql = format!("SELECT (SELECT count(*) FROM {name}) = (SELECT count(*) FROM {vectors})");
    cluster.wait_for(db, LONG, &format!("the rows of \"{name}\""), &sql);
}

#[test]
fn a_row_that_cannot_be_read_is_isolated() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("badrow");
    client
        .batch_execute(
            "CREATE TYPE odd AS (value text);
             CREATE FUNCTION odd_text(odd) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 IF $1.value LIKE 'bad%' THEN RAISE EXCEPTION 'cannot be read: %', $1.value; END IF;
                 RETURN $1.value;
             END $$;
             CREATE CAST (odd AS text) WITH FUNCTION odd_text(odd);
             CREATE TABLE t (id bigint PRIMARY KEY, title odd, body text, price integer);
             INSERT INTO t SELECT i, row(CASE WHEN i % 100 = 7 THEN 'bad ' || i ELSE 'fine ' || i END)::odd, '', i
               FROM generate_series(1, 300) i;
             SELECT embedd.create_vector_table('t', 't', '[{\"name\": \"title\", \"role\": \"embedding\"}]')",
        )
        .unwrap();
    backfill(&mut client, "t");
    cluster.wait_done("badrow");
    let sql = "SELECT string_agg(pk_value || ' ' || reason, ', ' ORDER BY pk_value::bigint) FROM embedd.failed_rows";
    let failed: String = client.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(
        failed,
        "7 cannot be read: bad 7, 107 cannot be read: bad 107, 207 cannot be read: bad 207"
    );
    let sql = "SELECT sync_status, failed_rows, synced_rows FROM embedd.sync_status('t')";
    let row = client.query_one(sql, &[]).unwrap();
    assert_eq!((row.get::<_, i64>(1), row.get::<_, i64>(2)), (3, 297));
    assert_eq!(row.get::<_, String>(0), "synced");
    client
        .batch_execute(
            "UPDATE t SET title = row('mended')::odd WHERE id IN (7, 107); DELETE FROM t WHERE id = 207;
             UPDATE t SET title = row('new')::odd WHERE id = 1",
        )
        .unwrap();
    cluster.assert_synced("badrow", "t");
}

#[test]
fn a_locked_table_blocks_only_itself() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("locked");
    for table in ["a", "b"] {
        synced_source(&cluster, "locked", &mut client, table, 10);
    }
    let mut holder = cluster.connect("locked");
    let vectors = relation(&mut client, "a");
    for locked in ["a".to_string(), vectors] {
        client.batch_execute("UPDATE a SET title = 'behind a lock'").unwrap();
        holder.batch_execute(&format!("BEGIN; LOCK {locked} IN ACCESS EXCLUSIVE MODE")).unwrap();
        client
            .batch_execute("INSERT INTO b SELECT max(id) + 1, 'not held up', '', 0 FROM b")
            .unwrap();
        wait_for_rows(&cluster, "locked", &mut client, "b");
        holder.batch_execute("UPDATE a SET body = 'by the holder'; COMMIT").unwrap();
        cluster.assert_synced("locked", "a");
        assert_equal(&mut client, "b");
    }
}

#[test]
fn an_owner_without_privileges_blocks_only_its_own_table() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("rights");
    client
        .batch_execute(
            "CREATE ROLE owner LOGIN; GRANT CREATE ON SCHEMA public TO owner;
             CREATE TABLE a (id bigint PRIMARY KEY, title text, body text, price integer);
             INSERT INTO a SELECT i, 'title ' || i, '', i FROM generate_series(1, 10) i;
             GRANT SELECT, TRIGGER ON a TO owner",
        )
        .unwrap();
    let mut owner = cluster.connect_as("rights", "owner");
    support::source::create_vector_table(&mut owner, "a");
    backfill(&mut owner, "a");
    synced_source(&cluster, "rights", &mut client, "b", 10);
    client
        .batch_execute("REVOKE SELECT ON a FROM owner; UPDATE a SET title = 'not for his eyes'")
        .unwrap();
    let denied =
        "SELECT sync_status = 'error' AND last_error LIKE '%permission denied for table a%'
                    FROM embedd.vector_tables WHERE name = 'a'";
    cluster.wait_for("rights", SHORT, "the table to be in error", denied);
    client.batch_execute("INSERT INTO b VALUES (11, 'not held up', '', 0)").unwrap();
    wait_for_rows(&cluster, "rights", &mut client, "b");
    client.batch_execute("GRANT SELECT ON a TO owner").unwrap();
    cluster.assert_synced("rights", "a");
    let well = "SELECT sync_status = 'synced' AND last_error IS NULL FROM embedd.vector_tables WHERE name = 'a'";
    cluster.wait_for("rights", SHORT, "the error to be over", well);
}

#[test]
fn terminated_processes_are_restarted() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("ended");
    create_source(&mut client, "t", 1000);
    backfill(&mut client, "t");
    for kind in [SYNC_WORKER, EMBEDDER, LAUNCHER, SYNC_WORKER] {
        let pid =
            if kind == SYNC_WORKER { cluster.sync_worker("ended") } else { cluster.pid(kind) };
        // SAFETY: kill has no memory to harm; the id is that of one process of the cluster.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        client
            .batch_execute(&format!("UPDATE t SET title = 'without {kind}' WHERE id % 50 = 1"))
            .unwrap();
        cluster.successor(kind, pid);
        // The session survives: this is not a crash.
        client.query("SELECT * FROM embedd.query('t', 'a question', 1)", &[]).unwrap();
    }
    cluster.assert_synced("ended", "t");
}

/// Two vector tables of a new database, synced.
fn two(db: &str) -> (std::sync::Arc<Cluster>, Client) {
    let cluster = SHARED.cluster();
    let mut client = cluster.database(db);
    for table in ["x", "y"] {
        synced_source(&cluster, db, &mut client, table, 10);
    }
    (cluster, client)
}

/// A session has requested a backfill without committing, so the task that the worker is about to begin is locked.
#[test]
fn a_task_locked_by_a_session_blocks_only_its_table() {
    let (cluster, mut client) = two("held_task");
    // A comparison that cannot begin before the column exists again.
    client.batch_execute("SELECT embedd.pause_sync('x'); SELECT embedd.reconcile('x')").unwrap();
    client.batch_execute("ALTER TABLE x DROP COLUMN body; SELECT embedd.resume_sync('x')").unwrap();
    let told = "SELECT last_error LIKE '%\"body\"%' FROM embedd.sync_status('x')";
    cluster.wait_for("held_task", LONG, "the column to be missed", told);
    let mut holder = cluster.connect("held_task");
    holder.batch_execute("BEGIN; SELECT embedd.backfill('x')").unwrap();
    client.batch_execute("ALTER TABLE x ADD COLUMN body text").unwrap();
    client.batch_execute("INSERT INTO y VALUES (11, 'not held up', '', 0)").unwrap();
    wait_for_rows(&cluster, "held_task", &mut client, "y");
    holder.batch_execute("COMMIT").unwrap();
    cluster.assert_synced("held_task", "x");
    assert_equal(&mut client, "y");
}

/// A source that was dropped before its name was stored cannot be found.
#[test]
fn a_source_without_a_name_blocks_only_its_table() {
    let (cluster, mut client) = two("no_name");
    client.batch_execute("DROP TABLE x").unwrap();
    let told = "SELECT sync_status = 'error' FROM embedd.sync_status('x')";
    cluster.wait_for("no_name", LONG, "the source to be missed", told);
    client
        .batch_execute("UPDATE embedd.vector_tables SET source_name = '' WHERE name = 'x'")
        .unwrap();
    // Makes the worker read the tables again.
    client.batch_execute("SELECT embedd.pause_sync('y'); SELECT embedd.resume_sync('y')").unwrap();
    client.batch_execute("INSERT INTO y VALUES (11, 'not held up', '', 0)").unwrap();
    wait_for_rows(&cluster, "no_name", &mut client, "y");
    assert_equal(&mut client, "y");
    client.batch_execute("SELECT embedd.drop_vector_table('x')").unwrap();
    cluster.assert_synced("no_name", "y");
}

/// The owner of a vector table may attach any code to it, including code that never ends.
#[test]
fn a_trigger_that_hangs_blocks_only_its_table() {
    let (cluster, mut client) = two("hanging");
    let vectors = relation(&mut client, "x");
    client
        .batch_execute(&format!(
            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1e6); RETURN new; END $$;
             CREATE TRIGGER hang BEFORE INSERT ON {vectors} FOR EACH ROW EXECUTE FUNCTION hang()"
        ))
        .unwrap();
    client.batch_execute("INSERT INTO x VALUES (11, 'hangs', '', 0)").unwrap();
    let hangs = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE datname = 'hanging' AND backend_type = 'embedd sync worker' AND wait_event = 'PgSleep')";
    cluster.wait_for("hanging", LONG, "the worker to be in the trigger", hangs);
    client.batch_execute("INSERT INTO y VALUES (11, 'not held up', '', 0)").unwrap();
    wait_for_rows(&cluster, "hanging", &mut client, "y");
    client.batch_execute(&format!("DROP TRIGGER hang ON {vectors}")).unwrap();
    cluster.assert_synced("hanging", "x");
    assert_equal(&mut client, "y");
}

#[test]
fn an_index_that_cannot_be_built_is_logged_once() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("unbuilt");
    synced_source(&cluster, "unbuilt", &mut client, "unbuilt", 10);
    client
        .batch_execute(
            "UPDATE embedd.vector_tables SET held_indexes = ARRAY['i', ' USING hnsw (no_such_column)'];
             SELECT embedd.backfill('unbuilt')",
        )
        .unwrap();
    let mut last = String::from("-infinity");
    for _ in 0..2 {
        let failed = format!(
            "SELECT last_error_at > '{last}' FROM embedd.vector_tables WHERE last_error LIKE '%no_such_column%'"
        );
        cluster.wait_for("unbuilt", LONG, "an attempt that fails", &failed);
        cluster.wait_until(SHORT, "its end", || cluster.pids(INDEX_BUILDER).is_empty());
        let at = "SELECT last_error_at::text FROM embedd.vector_tables";
        last = client.query_one(at, &[]).unwrap().get(0);
        // The next worker retries without waiting.
        let worker = cluster.sync_worker("unbuilt");
        client.execute("SELECT pg_terminate_backend($1)", &[&worker]).unwrap();
    }
    let told = "could not build the index of vector table \"unbuilt\": ";
    assert_eq!(cluster.log().matches(told).count(), 1);
}
