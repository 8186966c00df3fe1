//! Hidden rows and changes: policies, session-dependent views, triggers that do not fire, subscriptions, locked rows.

use support::processes::SYNC_WORKER;
use support::source::relation;
use support::{Cluster, LONG, SHORT, Shutdown};

use super::{BODY, SHARED, synced, wait_status, wait_synced};

#[test]
fn policies_on_the_owner_remove_no_vector() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("policies");
    client
        .batch_execute(
            "CREATE ROLE tenant_app LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO tenant_app",
        )
        .unwrap();
    let mut app = cluster.connect_as("policies", "tenant_app");
    app.batch_execute(
        "CREATE TABLE notes (id int PRIMARY KEY, tenant int, body text);
        INSERT INTO notes SELECT i, i % 3, 'note ' || i FROM generate_series(1, 90) i",
    )
    .unwrap();
    let create = format!(
        "SELECT embedd.create_vector_table('notes', 'notes', '{BODY}', start_backfill => true)"
    );
    app.batch_execute(&create).unwrap();
    wait_synced(&cluster, "policies", "notes");
    app.batch_execute(
        "CREATE POLICY p ON notes USING (tenant = current_setting('app.tenant')::int);
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY; ALTER TABLE notes FORCE ROW LEVEL SECURITY;
         SET app.tenant = 1; UPDATE notes SET body = body || '!' WHERE id <= 10",
    )
    .unwrap();
    // Neither the policy, which raises an error without a setting, nor the rows it hides affect the status.
    wait_status(
        &cluster,
        "policies",
        "notes",
        "sync_status = 'error' AND last_error LIKE '%policies%BYPASSRLS%' AND total_rows IS NULL",
    );
    let noted = "SELECT sync_status = 'error' FROM embedd.vector_tables WHERE name = 'notes'";
    cluster.wait_for("policies", LONG, "the worker to see it", noted);
    let error = app.batch_execute("SELECT embedd.reconcile('notes')").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55000", "{error}");
    let error = app.batch_execute("SELECT * FROM embedd.verify('notes')").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55000", "{error}");
    let error = app.batch_execute(&create.replace("('notes'", "('more'")).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "55000", "{error}");
    let vectors = relation(&mut client, "notes");
    let count = format!("SELECT count(*) FROM {vectors}");
    assert_eq!(client.query_one(&count, &[]).unwrap().get::<_, i64>(0), 90);
    client.batch_execute("ALTER ROLE tenant_app BYPASSRLS").unwrap();
    wait_synced(&cluster, "policies", "notes");
    let changed = format!("SELECT count(*) FROM {vectors} WHERE embedded_text LIKE '%!'");
    assert_eq!(client.query_one(&changed, &[]).unwrap().get::<_, i64>(0), 4);
}

#[test]
fn views_that_depend_on_the_session_are_rejected() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("session_views");
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, tenant text, body text);
             INSERT INTO t SELECT i, 'postgres', 'text ' || i FROM generate_series(1, 9) i;
             CREATE VIEW plain AS SELECT * FROM t;
             CREATE VIEW setting AS SELECT * FROM t WHERE tenant = current_setting('app.tenant', true);
             CREATE VIEW of_user AS SELECT * FROM t WHERE tenant = current_user;
             CREATE VIEW nested AS SELECT * FROM setting;
             CREATE FUNCTION mine() RETURNS text LANGUAGE sql STABLE AS 'SELECT current_setting(''app.tenant'', true)';
             CREATE VIEW by_function AS SELECT * FROM t WHERE tenant = mine()",
        )
        .unwrap();
    let create = |view: &str| {
        format!(
            "SELECT embedd.create_vector_table('{view}', '{view}', '{BODY}', 'id', sync_mode => 'batch', batch_interval => '1 s',
                start_backfill => true)"
        )
    };
    for view in ["setting", "of_user", "nested", "by_function"] {
        let error = client.batch_execute(&create(view)).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "55000", "{view}: {error}");
    }
    client.batch_execute(&create("plain")).unwrap();
    wait_status(&cluster, "session_views", "plain", "sync_status = 'synced' AND synced_rows = 9");
    client
        .batch_execute("CREATE OR REPLACE VIEW plain AS SELECT * FROM t WHERE tenant = current_setting('app.tenant', true)")
        .unwrap();
    wait_status(
        &cluster,
        "session_views",
        "plain",
        "sync_status = 'error' AND last_error LIKE '%settings%' AND synced_rows = 9",
    );
    client.batch_execute("CREATE OR REPLACE VIEW plain AS SELECT * FROM t").unwrap();
    wait_status(&cluster, "session_views", "plain", "sync_status = 'synced' AND synced_rows = 9");
}

#[test]
fn disabled_triggers_are_reported_and_missed_changes_are_found() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("switched");
    synced(&cluster, "switched", &mut client, "t", 20);
    client
        .batch_execute(
            "ALTER TABLE t DISABLE TRIGGER embedd_1_row; UPDATE t SET body = 'unseen' WHERE id = 1",
        )
        .unwrap();
    wait_status(
        &cluster,
        "switched",
        "t",
        "sync_status = 'error' AND last_error LIKE '%is disabled%ALTER TABLE public.t ENABLE TRIGGER embedd_1_row%'",
    );
    client.batch_execute("ALTER TABLE t ENABLE TRIGGER embedd_1_row").unwrap();
    wait_synced(&cluster, "switched", "t");
    // As pg_restore --disable-triggers does: disabled and enabled again before the worker notices.
    client
        .batch_execute("BEGIN; ALTER TABLE t DISABLE TRIGGER ALL; INSERT INTO t VALUES (100, 'restored'); ALTER TABLE t ENABLE TRIGGER ALL; COMMIT")
        .unwrap();
    wait_synced(&cluster, "switched", "t");
    // The firing mode survives a recreation of the triggers.
    client.batch_execute("ALTER TABLE t ENABLE ALWAYS TRIGGER embedd_1_row; ALTER TABLE t ENABLE ALWAYS TRIGGER embedd_1_truncate;
                          DROP TRIGGER embedd_1_truncate ON t").unwrap();
    let sql =
        "SELECT array_agg(tgenabled::text) = '{A,A}' FROM pg_trigger WHERE tgrelid = 't'::regclass";
    cluster.wait_for("switched", LONG, "both to fire always", sql);
    wait_synced(&cluster, "switched", "t");
}

#[test]
fn rows_written_without_triggers_are_not_synced() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("unseen");
    synced(&cluster, "unseen", &mut client, "t", 20);
    client
        .batch_execute("SET session_replication_role = replica; DELETE FROM t WHERE id = 1; RESET session_replication_role")
        .unwrap();
    wait_status(
        &cluster,
        "unseen",
        "t",
        "sync_status = 'error' AND last_error LIKE '%has 19 rows and the vector table 20%embedd.reconcile(''t'')%'",
    );
    client.batch_execute("SELECT embedd.reconcile('t')").unwrap();
    wait_synced(&cluster, "unseen", "t");
}

#[test]
fn the_status_of_all_is_returned_although_one_is_broken() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("stats");
    synced(&cluster, "stats", &mut client, "t", 3);
    synced(&cluster, "stats", &mut client, "u", 3);
    client
        .batch_execute(
            "CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher;
             DROP TABLE u; UPDATE embedd.vector_tables SET columns = '\"damaged\"' WHERE name = 'u'",
        )
        .unwrap();
    client.batch_execute("UPDATE t SET body = 'goes on' WHERE id = 1").unwrap();
    wait_synced(&cluster, "stats", "t");
    let mut watcher = cluster.connect_as("stats", "watcher");
    let rows = watcher
        .query("SELECT name, sync_status, worker_state, provider_state, last_error IS NULL FROM embedd.stat_vector_tables ORDER BY id", &[])
        .unwrap();
    let seen: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(seen[0], ("t".to_string(), "synced".to_string()));
    assert_eq!((seen.len(), seen[1].1.as_str()), (2, "error"));
    // The status of a locked table is returned without waiting.
    let mut locker = cluster.connect("stats");
    let mut held = locker.transaction().unwrap();
    held.batch_execute("LOCK TABLE t").unwrap();
    let sql = "SELECT total_rows IS NULL AND synced_rows = 3 FROM embedd.stat_vector_tables WHERE name = 't'";
    assert!(watcher.query_one(sql, &[]).unwrap().get::<_, bool>(0));
    held.rollback().unwrap();
    // Without a launcher nothing is done, and the status reports that.
    let worker = "SELECT worker_state FROM embedd.sync_status('t')";
    let state: String = client.query_one(worker, &[]).unwrap().get(0);
    assert!(["idle", "busy"].contains(&state.as_str()), "{state}");
}

#[test]
fn one_locked_row_blocks_no_other() {
    let cluster = Cluster::start();
    let mut client = cluster.database("locked");
    synced(&cluster, "locked", &mut client, "t", 100);
    let vectors = relation(&mut client, "t");
    let mut locker = cluster.connect("locked");
    let mut held = locker.transaction().unwrap();
    held.execute(&format!("SELECT FROM {vectors} WHERE pk_value = '7' FOR UPDATE"), &[]).unwrap();
    let pid: i32 = held.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    client
        .batch_execute("UPDATE t SET body = 'new ' || id; INSERT INTO t VALUES (1000, 'fresh')")
        .unwrap();
    let others = format!(
        "SELECT count(*) = 100 FROM {vectors} WHERE embedded_text LIKE 'new %' OR pk_value = '1000'"
    );
    cluster.wait_for("locked", SHORT, "the others to be stored", &others);
    let told = format!(
        "rows_pending > 0 AND sync_status = 'syncing' AND last_error LIKE '%row \"7\"%process {pid}%'"
    );
    wait_status(&cluster, "locked", "t", &told);
    let failed = "SELECT count(*) FROM embedd.failed_rows";
    assert_eq!(client.query_one(failed, &[]).unwrap().get::<_, i64>(0), 0);
    held.rollback().unwrap();
    wait_synced(&cluster, "locked", "t");
    wait_status(&cluster, "locked", "t", "last_error IS NULL");
    assert_eq!(cluster.pids(SYNC_WORKER).len(), 1);
}

#[test]
fn a_feedback_loop_is_slowed_down_and_reported() {
    let cluster = Cluster::start();
    let mut client = cluster.database("loops");
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, body text, stored_at timestamptz); INSERT INTO t VALUES (1, 'text');
             SELECT embedd.create_vector_table('t', 't', '[{\"name\": \"body\", \"role\": \"embedding\"},
                {\"name\": \"stored_at\", \"role\": \"metadata\"}]', start_backfill => true)",
        )
        .unwrap();
    wait_synced(&cluster, "loops", "t");
    let vectors = relation(&mut client, "t");
    client
        .batch_execute(&format!(
            "CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                UPDATE public.t SET stored_at = clock_timestamp() WHERE id = new.pk_value::int; RETURN null; END $$;
             CREATE TRIGGER mark AFTER INSERT OR UPDATE ON {vectors} FOR EACH ROW EXECUTE FUNCTION mark();
             UPDATE t SET body = 'it begins'"
        ))
        .unwrap();
    wait_status(&cluster, "loops", "t", "last_error LIKE '%row \"1\"%a loop%'");
    client.batch_execute(&format!("DROP TRIGGER mark ON {vectors}")).unwrap();
    wait_synced(&cluster, "loops", "t");
    client.batch_execute("INSERT INTO t VALUES (2, 'goes on')").unwrap();
    wait_status(&cluster, "loops", "t", "sync_status = 'synced' AND synced_rows = 2");
}

#[test]
fn few_locks_for_many_partitions() {
    let cluster = Cluster::builder()
        .set("max_connections", "20")
        .set("max_prepared_transactions", "0")
        .set("max_worker_processes", "8")
        .start();
    let mut client = cluster.database("t");
    client.batch_execute("CREATE TABLE ev (id bigint, day int, body text, PRIMARY KEY (id, day)) PARTITION BY LIST (day)").unwrap();
    for day in 0..600 {
        let create = format!("CREATE TABLE ev_{day} PARTITION OF ev FOR VALUES IN ({day})");
        client.batch_execute(&create).unwrap();
    }
    client
        .batch_execute(
            "INSERT INTO ev SELECT i, i % 600, 'event ' || i FROM generate_series(1, 1200) i",
        )
        .unwrap();
    client
        .batch_execute(&format!(
            "SELECT embedd.create_vector_table('ev', 'ev', '{BODY}', start_backfill => true)"
        ))
        .unwrap();
    wait_status(&cluster, "t", "ev", "sync_status = 'synced' AND synced_rows = 1200");
    client.batch_execute("ALTER SYSTEM SET max_locks_per_transaction = 10").unwrap();
    drop(client);
    cluster.restart(Shutdown::Fast);
    // Locking the whole source would exceed the limit, but writes work.
    let mut client = cluster.connect("t");
    assert!(client.batch_execute("SELECT count(*) FROM ev").is_err());
    client.batch_execute("UPDATE ev SET body = 'changed' WHERE id = 7 AND day = 7").unwrap();
    // From PostgreSQL 17 on the worker needs fewer locks; before, it reports what is missing.
    wait_status(
        &cluster,
        "t",
        "ev",
        "(sync_status = 'synced' AND last_error IS NULL) OR (sync_status = 'error' AND last_error LIKE '%max_locks_per_transaction%')",
    );
    let vectors = relation(&mut client, "ev");
    // Either way the differences are found.
    client.batch_execute(&format!("UPDATE {vectors} SET row_hash = 'x' WHERE pk_value = '[7, 7]'; DELETE FROM {vectors} WHERE pk_value = '[8, 8]'; UPDATE {vectors} SET pk_value = '[0, 0]' WHERE pk_value = '[9, 9]'")).unwrap();
    let found: Vec<String> = client
        .query("SELECT pk_value || ' ' || problem FROM embedd.verify('ev') ORDER BY 1", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(found, ["[0, 0] orphaned", "[7, 7] stale", "[8, 8] missing", "[9, 9] missing"]);
    client.batch_execute("ALTER SYSTEM RESET max_locks_per_transaction").unwrap();
    drop(client);
    cluster.restart(Shutdown::Fast);
    cluster.connect("t").batch_execute("SELECT embedd.reconcile('ev')").unwrap();
    wait_synced(&cluster, "t", "ev");
}
