//! Indexes that are built after a load: with the owner's settings, in parallel, with progress that others see, and with
//! less shared memory than a parallel build needs.

use postgres::Client;
use support::source::{relation, wait_synced};
use support::{Cluster, LONG};

const DB: &str = "builds";

/// A cluster with a source of this many rows whose owner has these settings, and no vector table yet.
fn cluster(rows: i64, settings: &[&str]) -> (Cluster, Client) {
    let cluster = Cluster::builder()
        .never_polling()
        .set("max_worker_processes", "32")
        // Even a small table is worth parallel workers.
        .set("min_parallel_table_scan_size", "0")
        .set("log_min_messages", "debug1")
        .start();
    let mut client = cluster.database(DB);
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('p', 'test');
             CREATE ROLE app; GRANT USAGE ON FOREIGN SERVER p TO app; GRANT CREATE ON SCHEMA public TO app;
             CREATE TABLE t (id integer PRIMARY KEY, body text);
             INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, {rows}) i;
             ALTER TABLE t OWNER TO app"
        ))
        .unwrap();
    for setting in settings {
        client.batch_execute(&format!("ALTER ROLE app SET {setting}")).unwrap();
    }
    (cluster, client)
}

fn start(client: &mut Client, dimensions: i32) {
    client
        .batch_execute(&format!(
            "SET ROLE app;
             SELECT embedd.create_vector_table('t', 't', '[{{\"name\": \"body\", \"role\": \"embedding\"}}]',
                    embedding_provider => 'p', embedding_dimensions => {dimensions}, start_backfill => true);
             RESET ROLE"
        ))
        .unwrap();
}

fn has_index(client: &mut Client) -> bool {
    let vectors = relation(client, "t");
    let sql = format!(
        "SELECT bool_and(indisvalid) AND count(*) = 2 FROM pg_index WHERE indrelid = '{vectors}'::regclass"
    );
    client.query_one(&sql, &[]).unwrap().get(0)
}

#[test]
fn parallel_workers_and_their_progress() {
    // 32 MB for each process, and one worker more than the server's default.
    let settings = ["maintenance_work_mem = '128MB'", "max_parallel_maintenance_workers = 3"];
    let (cluster, mut client) = cluster(6000, &settings);
    start(&mut client, 384);
    let progress = "SELECT EXISTS (SELECT FROM pg_stat_progress_create_index p
              JOIN pg_stat_activity a ON a.pid = p.pid AND a.backend_type = 'embedd index builder'
             WHERE p.datname = current_database() AND p.relid = (SELECT vector_table FROM embedd.vector_tables)
               AND p.tuples_done > 0
               AND EXISTS (SELECT FROM pg_stat_activity w WHERE w.leader_pid = p.pid))";
    cluster.wait_for(DB, LONG, "progress of the build and its workers", progress);
    wait_synced(&cluster, DB, "t");
    assert!(has_index(&mut client));
    assert!(cluster.log_contains("using 3 parallel workers"));
}

#[test]
fn a_graph_larger_than_the_memory_is_logged() {
    let (cluster, mut client) = cluster(5000, &["maintenance_work_mem = '1MB'"]);
    start(&mut client, 64);
    wait_synced(&cluster, DB, "t");
    assert!(has_index(&mut client));
    assert!(cluster.log_contains("hnsw graph no longer fits into maintenance_work_mem"));
}

#[test]
fn without_shared_memory_one_process_builds_the_index() {
    // A parallel build asks for all of it at once, which no machine has.
    let (cluster, mut client) = cluster(5000, &["maintenance_work_mem = '1900GB'"]);
    start(&mut client, 64);
    wait_synced(&cluster, DB, "t");
    assert!(has_index(&mut client));
    assert!(
        cluster.log_contains("is built without parallel workers: could not resize shared memory")
    );
}
