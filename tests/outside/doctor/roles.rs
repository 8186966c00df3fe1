//! Each role sees its own vector tables, those it may read, or everything.

use support::source::{BODY, synced_texts, wait_status};

use super::{SHARED, doctor};

#[test]
fn an_ordinary_role_sees_findings_about_its_own_tables() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("d_roles");
    synced_texts(&cluster, "d_roles", &mut client, "t", 5);
    client
        .batch_execute(&format!(
            "CREATE ROLE d_watcher LOGIN; GRANT pg_monitor TO d_watcher; CREATE ROLE d_reader LOGIN; CREATE ROLE d_own LOGIN;
             GRANT CREATE ON SCHEMA public TO d_own;
             SET ROLE d_own; CREATE TABLE mine (id int PRIMARY KEY, body text); INSERT INTO mine VALUES (1, 'secret text');
             SELECT embedd.create_vector_table('mine', 'mine', '{BODY}', start_backfill => true); RESET ROLE;
             CREATE TABLE gone (id int PRIMARY KEY, body text);
             SELECT embedd.create_vector_table('gone', 'gone', '{BODY}');
             SELECT embedd.drop_vector_table('gone', keep_table => true);
             SELECT embedd.pause_sync('t')",
        ))
        .unwrap();
    wait_status(&cluster, "d_roles", "mine", "sync_status = 'synced'");
    client
        .batch_execute(
            "SET session_replication_role = replica; DELETE FROM mine; RESET session_replication_role;
             INSERT INTO embedd.failed_rows (table_id, pk_value, reason)
                SELECT id, 'secret key', 'secret reason' FROM embedd.vector_tables WHERE name = 'mine'",
        )
        .unwrap();
    let vectors = support::source::relation(&mut client, "mine");
    client.batch_execute(&format!("GRANT SELECT ON {vectors} TO d_reader")).unwrap();
    let wrong = |role: &str| -> Vec<(String, String)> {
        let told = doctor(&mut cluster.connect_as("d_roles", role));
        assert!(told.iter().all(|row| !format!("{row:?}").contains("secret")), "{told:?}");
        told.into_iter()
            .filter(|row| row.state != "ok" && row.check != "pgvector")
            .map(|row| (row.check, row.object))
            .collect()
    };
    let pair = |check: &str, object: &str| (check.to_string(), object.to_string());
    let failed = pair("failed_rows", "mine");
    assert!(wrong("d_own").contains(&failed));
    let reader = wrong("d_reader");
    assert_eq!(reader, [pair("sync", "mine"), failed.clone()]);
    let watcher = wrong("d_watcher");
    assert!(watcher.contains(&failed) && watcher.contains(&pair("paused", "t")), "{watcher:?}");
    assert!(watcher.iter().any(|(check, _)| check == "orphaned_table"), "{watcher:?}");
    client.batch_execute("CREATE ROLE d_nothing LOGIN").unwrap();
    assert_eq!(wrong("d_nothing"), []);
    // Functions with the names of PostgreSQL's own in a user's schema are not called.
    let mut own = cluster.connect_as("d_roles", "d_own");
    own.batch_execute(
        "CREATE FUNCTION public.coalesced() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION public.pg_stat_get_numscans(oid) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
         SET search_path = public, pg_catalog",
    )
    .unwrap();
    assert!(doctor(&mut own).iter().all(|row| !row.meaning.contains("trapped")));
}
