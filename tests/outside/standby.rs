//! A hot standby answers queries; after promotion it starts its sync worker and continues where the primary was.

use support::processes::{EMBEDDER, LAUNCHER, SYNC_WORKER};
use support::source::{assert_equal, stored_text, synced_source};
use support::{Cluster, Frozen, LONG, Shutdown};

#[test]
fn a_standby_answers_queries_and_is_promoted() {
    let primary = Cluster::start();
    let mut client = primary.database("shop");
    synced_source(&primary, "shop", &mut client, "t", 50);
    let standby = primary.standby();
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{}'::pg_lsn", lsn(&mut client));
    standby.wait_for("shop", LONG, "the standby to catch up", &caught_up);

    let mut reader = standby.connect("shop");
    let question = "SELECT id, score FROM embedd.query('t', 'Title: title 7', 5, filters => '{\"price\": {\"lte\": 40}}')";
    let there = reader.query(question, &[]).unwrap();
    let here = client.query(question, &[]).unwrap();
    let ids =
        |rows: &[postgres::Row]| -> Vec<String> { rows.iter().map(|row| row.get(0)).collect() };
    assert_eq!(ids(&there).len(), 5);
    assert_eq!(ids(&there), ids(&here));
    let dimensions: i32 =
        reader.query_one("SELECT vector_dims(embedd.embed('t', 'anything'))", &[]).unwrap().get(0);
    assert_eq!(dimensions, 384);
    let row = reader
        .query_one("SELECT sync_status, synced_rows, total_rows, rows_pending FROM embedd.sync_status('t')", &[])
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "synced");
    assert_eq!((row.get::<_, i64>(1), row.get::<_, i64>(2), row.get::<_, i64>(3)), (50, 50, 0));
    assert_equal(&mut reader, "t");
    standby.pid(EMBEDDER);
    assert!(standby.pids(LAUNCHER).is_empty() && standby.pids(SYNC_WORKER).is_empty());

    // Changes that the primary has not synced are left to the promoted standby.
    {
        let _worker = Frozen::new(primary.sync_worker("shop"));
        client.batch_execute("UPDATE t SET title = 'left behind' WHERE id = 1").unwrap();
        let caught_up =
            format!("SELECT pg_last_wal_replay_lsn() >= '{}'::pg_lsn", lsn(&mut client));
        standby.wait_for("shop", LONG, "the standby to catch up", &caught_up);
        drop(client);
        primary.stop(Shutdown::Immediate);
    }
    standby.promote();
    let mut client = standby.connect("shop");
    client.batch_execute("INSERT INTO t VALUES (51, 'after the promotion', '', 1)").unwrap();
    standby.sync_worker("shop");
    standby.assert_synced("shop", "t");
    assert_eq!(stored_text(&mut client, "t", "1").unwrap(), "Title: left behind\nbody of 1");
}

#[test]
fn a_standby_rejects_writes() {
    let primary = Cluster::start();
    let mut client = primary.database("shop");
    synced_source(&primary, "shop", &mut client, "t", 5);
    let standby = primary.standby();
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{}'::pg_lsn", lsn(&mut client));
    standby.wait_for("shop", LONG, "the standby to catch up", &caught_up);
    let mut reader = standby.connect("shop");
    for refused in [
        "SELECT embedd.backfill('t')",
        "SELECT embedd.pause_sync('t')",
        "SELECT embedd.resume_sync('t')",
        "SELECT embedd.drop_vector_table('t')",
    ] {
        let error = reader.query(refused, &[]).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "25006", "{refused}: {error:?}");
    }
}

/// The current WAL position of the primary.
fn lsn(client: &mut postgres::Client) -> String {
    client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).unwrap().get(0)
}
