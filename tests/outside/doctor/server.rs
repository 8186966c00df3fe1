//! Faults of the server: not preloaded, no worker slots, no embedder, no model, settings, versions; and a standby.

use support::processes::{EMBEDDER, Frozen, kill9};
use support::source::{BODY, synced_texts, wait_synced};
use support::{Cluster, LONG, SHORT, Shutdown};

use super::{Patient, doctor, faults, paste, wait_healthy, wait_told};

const DB: &str = "postgres";

#[test]
fn a_server_without_embedd() {
    let cluster = Cluster::builder().not_preloaded().start();
    let mut client = cluster.database("d");
    client.batch_execute(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, body text); SELECT embedd.create_vector_table('t', 't', '{BODY}', start_backfill => true)"
    ))
    .unwrap();
    let told = wait_told(&cluster, &mut client, "preload", "problem", "shared_preload_libraries");
    assert_eq!(
        told.remedy(),
        "ALTER SYSTEM SET shared_preload_libraries = 'embedd'; -- then restart the server"
    );
    for check in ["worker_slots", "launcher", "embedder"] {
        let row = wait_told(&cluster, &mut client, check, "warning", "");
        assert!(row.meaning.contains("unknown"), "{row:?}");
    }
    paste(&cluster, "d", told.remedy());
    cluster.restart(Shutdown::Fast);
    wait_healthy(&cluster, &mut cluster.connect("d"));
}

#[test]
fn no_slots_for_workers() {
    // With one slot the launcher cannot start, with three no sync worker can.
    for (places, check, object) in
        [("1", "launcher", "embedd launcher"), ("3", "worker_slots", "max_worker_processes")]
    {
        let cluster = Cluster::builder().set("max_worker_processes", places).start();
        let mut client = cluster.database("d");
        let told = wait_told(&cluster, &mut client, check, "problem", object);
        assert_eq!(
            told.remedy(),
            "ALTER SYSTEM SET max_worker_processes = 8; -- then restart the server"
        );
        paste(&cluster, "d", told.remedy());
        cluster.restart(Shutdown::Fast);
        let mut client = cluster.connect("d");
        synced_texts(&cluster, "d", &mut client, "t", 5);
        wait_healthy(&cluster, &mut client);
    }
}

#[test]
fn more_databases_than_slots() {
    let cluster = Cluster::builder().set("embedd.max_sync_workers", "1").start();
    let mut first = cluster.database("first");
    synced_texts(&cluster, "first", &mut first, "t", 5);
    let _worker = Frozen::new(cluster.sync_worker("first"));
    let mut second = cluster.database("second");
    second
        .batch_execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, body text); INSERT INTO t VALUES (1, 'text');
             SELECT embedd.create_vector_table('t', 't', '{BODY}', start_backfill => true)"
        ))
        .unwrap();
    let told =
        wait_told(&cluster, &mut second, "worker_slots", "warning", "embedd.max_sync_workers");
    assert!(told.remedy().starts_with("ALTER SYSTEM SET embedd.max_sync_workers = "), "{told:?}");
    paste(&cluster, "second", told.remedy());
    wait_synced(&cluster, "second", "t");
    wait_healthy(&cluster, &mut second);
}

#[test]
fn an_embedder_that_is_missing_hangs_or_keeps_crashing() {
    let cluster = Cluster::start();
    let mut client = cluster.database("d");
    synced_texts(&cluster, "d", &mut client, "t", 5);
    wait_healthy(&cluster, &mut client);
    let before = cluster.pid(EMBEDDER);
    {
        let _embedder = Frozen::new(before);
        let told = wait_told(&cluster, &mut client, "embedder", "problem", "embedd-embedder");
        assert!(told.meaning.contains("does not answer"), "{told:?}");
        paste(&cluster, "d", told.remedy());
        cluster.wait_until(LONG, "another embedder", || {
            cluster.pids(EMBEDDER).iter().any(|pid| *pid != before)
        });
    }
    wait_healthy(&cluster, &mut client);
    paste(
        &cluster,
        "d",
        "ALTER SYSTEM SET embedd.embedder_path = '/nonexistent'; SELECT pg_reload_conf();",
    );
    let shown = "SELECT current_setting('embedd.embedder_path') = '/nonexistent'";
    cluster.wait_for("d", SHORT, "the setting to be read", shown);
    kill9(cluster.pid(EMBEDDER));
    // Until the launcher sees that it has ended, it only does not answer.
    let mut told = None;
    cluster.wait_until(LONG, "an embedder that cannot be started", || {
        let found = wait_told(&cluster, &mut client, "embedder", "problem", "embedd-embedder");
        told = Some(found).filter(|told| told.meaning.contains("cannot be started"));
        told.is_some()
    });
    let told = told.unwrap();
    paste(&cluster, "d", told.remedy());
    // A worker whose text was in flight at the crash reports it until its next attempt.
    wait_healthy(&cluster, &mut client);
    for _ in 0..3 {
        kill9(cluster.pid(EMBEDDER));
        let before =
            client.query_one("SELECT restarts FROM embedd.embedder_status()", &[]).unwrap();
        let more = format!(
            "SELECT restarts > {} OR pid IS NOT NULL FROM embedd.embedder_status()",
            before.get::<_, i64>(0)
        );
        cluster.wait_for("d", LONG, "it to restart", &more);
    }
    let told = wait_told(&cluster, &mut client, "embedder", "warning", "embedd-embedder");
    assert!(told.meaning.contains("it has restarted"), "{told:?}");
}

#[test]
fn a_file_of_the_model_is_missing() {
    let cluster = Cluster::start();
    let mut client = cluster.database("d");
    synced_texts(&cluster, "d", &mut client, "t", 5);
    let file = cluster.dir().join("model/vocab.txt");
    let aside = cluster.dir().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    let path = file.display().to_string();
    let told = wait_told(&cluster, &mut client, "local_model", "problem", &path);
    assert!(told.remedy().contains("embedd.local_model_path"), "{told:?}");
    std::fs::rename(&aside, &file).unwrap();
    wait_healthy(&cluster, &mut client);
}

#[test]
fn unsuitable_settings() {
    let cluster = Cluster::builder()
        .set("autovacuum", "off")
        .set("track_counts", "off")
        .set("embedd.max_sync_workers", "2")
        .set("embedd.workers_per_database", "3")
        .start();
    let mut client = cluster.database("d");
    for name in ["autovacuum", "track_counts", "embedd.workers_per_database"] {
        let told = wait_told(&cluster, &mut client, "settings", "warning", name);
        paste(&cluster, "d", told.remedy());
    }
    wait_healthy(&cluster, &mut cluster.connect("d"));
}

#[test]
fn too_few_locks_for_the_partitions() {
    let cluster = Cluster::builder()
        .set("max_connections", "20")
        .set("max_prepared_transactions", "0")
        .set("max_worker_processes", "8")
        .start();
    let mut client = cluster.database("d");
    client.batch_execute("CREATE TABLE ev (id bigint, day int, body text, PRIMARY KEY (id, day)) PARTITION BY LIST (day)").unwrap();
    for day in 0..300 {
        let create = format!("CREATE TABLE ev_{day} PARTITION OF ev FOR VALUES IN ({day})");
        client.batch_execute(&create).unwrap();
    }
    client
        .batch_execute(&format!(
            "SELECT embedd.create_vector_table('ev', 'ev', '{BODY}', start_backfill => true)"
        ))
        .unwrap();
    wait_synced(&cluster, "d", "ev");
    wait_healthy(&cluster, &mut client);
    client.batch_execute("ALTER SYSTEM SET max_locks_per_transaction = 10").unwrap();
    cluster.restart(Shutdown::Fast);
    let mut client = cluster.connect("d");
    let told = wait_told(&cluster, &mut client, "locks", "warning", "ev");
    paste(&cluster, "d", told.remedy());
    cluster.restart(Shutdown::Fast);
    wait_healthy(&cluster, &mut cluster.connect("d"));
}

#[test]
fn outdated_versions() {
    let mut patient = Patient::new("d_versions");
    let on_disk =
        patient.text("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'");
    patient.run("UPDATE pg_extension SET extversion = '0.8.0' WHERE extname = 'vector'");
    let told = doctor(&mut patient.client);
    let told = told.iter().find(|row| row.check == "pgvector" && row.state == "warning").unwrap();
    assert!(
        told.meaning.contains("CVE-2026-3172") && told.meaning.contains("fixed in 0.8.4"),
        "{told:?}"
    );
    assert!(told.remedy().starts_with("ALTER EXTENSION vector UPDATE;"), "{told:?}");
    paste(&patient.cluster, "d_versions", told.remedy());
    patient.is_healthy();
    let now = patient.text("SELECT extversion FROM pg_extension WHERE extname = 'vector'");
    assert_eq!(now, on_disk);

    let version = patient.text("SELECT extversion FROM pg_extension WHERE extname = 'embedd'");
    patient.run("UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'embedd'");
    let told = patient.told("extension", "problem", "embedd");
    assert_eq!(told.remedy(), "ALTER EXTENSION embedd UPDATE;");
    patient
        .run(&format!("UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'embedd'"));
    patient.is_healthy();
}

#[test]
fn a_standby_is_healthy() {
    let primary = Cluster::start();
    primary.create_extension(DB);
    let mut client = primary.connect(DB);
    synced_texts(&primary, DB, &mut client, "t", 1200);
    wait_healthy(&primary, &mut client);
    let standby = primary.standby();
    let lsn: String =
        client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).unwrap().get(0);
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn");
    standby.wait_for(DB, LONG, "the standby to catch up", &caught_up);
    let mut reader = standby.connect(DB);
    wait_healthy(&standby, &mut reader);
    let told = doctor(&mut reader);
    let launcher = told.iter().find(|row| row.check == "launcher").unwrap();
    assert!(launcher.meaning.contains("standby"), "{launcher:?}");
    client.batch_execute("SELECT embedd.pause_sync('t')").unwrap();
    wait_told(&standby, &mut reader, "paused", "warning", "t");
    assert_eq!(faults(&mut reader).len(), 1);
}
