//! Copies of a database: schema only, data later, and logical replication of every table.

use std::io::Write;
use std::process::Stdio;

use postgres::Client;
use support::source::{relation, stored_text};
use support::{Cluster, LONG, binaries};

use super::{BODY, SHARED, synced, wait_status, wait_synced};

/// Dumps a database of a cluster into another one.
fn copy(from: &Cluster, to: &Cluster, db: &str, into: &str, arguments: &[&str]) {
    let mut dump = from.client("pg_dump", db);
    dump.args(arguments);
    let text = binaries::stdout_of(dump);
    let mut psql = to.psql_command(into);
    psql.args(["-v", "ON_ERROR_STOP=1", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = psql.spawn().unwrap();
    running.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(running.wait().unwrap().success(), "the copy can be restored");
}

#[test]
fn a_schema_only_copy_works_at_once() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("shop");
    synced(&cluster, "shop", &mut client, "items", 3);
    cluster.create_database("ci");
    copy(&cluster, &cluster, "shop", "ci", &["--schema-only"]);
    let mut ci = cluster.connect("ci");
    // Writes work before and after.
    ci.batch_execute("INSERT INTO items VALUES (1, 'one')").unwrap();
    for name in ["other", "items"] {
        ci.batch_execute(&format!(
            "SELECT embedd.create_vector_table('{name}', 'items', '{BODY}', start_backfill => true)"
        ))
        .unwrap();
        wait_synced(&cluster, "ci", name);
    }
    ci.batch_execute("INSERT INTO items VALUES (2, 'two')").unwrap();
    wait_status(&cluster, "ci", "items", "sync_status = 'synced' AND synced_rows = 2");
    let triggers =
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'items'::regclass AND NOT tgisinternal";
    assert_eq!(ci.query_one(triggers, &[]).unwrap().get::<_, i64>(0), 4);
}

#[test]
fn a_schema_followed_by_its_data_is_a_full_copy() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("whole");
    synced(&cluster, "whole", &mut client, "items", 20);
    cluster.create_database("later");
    copy(&cluster, &cluster, "whole", "later", &["--schema-only"]);
    copy(&cluster, &cluster, "whole", "later", &["--data-only"]);
    cluster.connect("later").batch_execute("INSERT INTO items VALUES (1000, 'new here')").unwrap();
    wait_status(&cluster, "later", "items", "sync_status = 'synced' AND synced_rows = 21");
    wait_synced(&cluster, "later", "items");
}

/// Subscribes a session's database to a publication of the database `t` of another cluster, with options.
fn subscribe(client: &mut Client, to: &Cluster, publication: &str) {
    let (host, port) = (to.socket_dir(), to.port());
    client
        .batch_execute(&format!(
            "CREATE SUBSCRIPTION s CONNECTION 'host={} port={port} dbname=t user=postgres' PUBLICATION {publication}",
            host.display()
        ))
        .unwrap();
}

/// Drops the subscription without its publisher. Each statement must be a transaction of its own.
fn leave(client: &mut Client) {
    client.batch_execute("ALTER SUBSCRIPTION s DISABLE").unwrap();
    client.batch_execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)").unwrap();
    client.batch_execute("DROP SUBSCRIPTION s").unwrap();
}

#[test]
fn a_copy_with_sequences_behind_accepts_writes_and_new_vector_tables() {
    let publisher = Cluster::builder().set("wal_level", "logical").start();
    let subscriber = Cluster::builder().set("max_worker_processes", "20").start();
    let mut a = publisher.database("t");
    synced(&publisher, "t", &mut a, "items", 300);
    a.batch_execute("CREATE PUBLICATION everything FOR ALL TABLES").unwrap();
    subscriber.create_database("t");
    copy(&publisher, &subscriber, "t", "t", &["--schema-only"]);
    let mut b = subscriber.connect("t");
    subscribe(&mut b, &publisher, "everything");
    let ready = "SELECT count(*) > 5 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel";
    subscriber.wait_for("t", LONG, "every table to be copied", ready);
    a.batch_execute("UPDATE items SET body = 'changed ' || id WHERE id < 50; DELETE FROM items WHERE id > 290; INSERT INTO items VALUES (5000, 'from a')").unwrap();
    wait_synced(&publisher, "t", "items");
    let vectors = relation(&mut a, "items");
    let there = format!(
        "SELECT count(*) = 291 AND count(*) FILTER (WHERE embedded_text LIKE 'changed%') = 49 FROM {vectors}"
    );
    subscriber.wait_for("t", LONG, "the vectors to arrive", &there);
    // The switch: the other server accepts the writes.
    leave(&mut b);
    for id in 6000..6010 {
        b.execute("INSERT INTO items VALUES ($1, 'from b')", &[&id]).unwrap();
    }
    wait_status(&subscriber, "t", "items", "sync_status = 'synced' AND synced_rows = 301");
    wait_synced(&subscriber, "t", "items");
    b.batch_execute(&format!(
        "SELECT embedd.create_vector_table('second', 'items', '{BODY}', start_backfill => true)"
    ))
    .unwrap();
    wait_status(&subscriber, "t", "second", "sync_status = 'synced' AND synced_rows = 301");
}

#[test]
fn a_source_filled_by_a_subscription_is_reported() {
    let publisher = Cluster::builder().set("wal_level", "logical").start();
    let subscriber = Cluster::start();
    let table = "CREATE TABLE items (id int PRIMARY KEY, body text)";
    publisher.create_database("t");
    let mut a = publisher.connect("t");
    a.batch_execute(table).unwrap();
    a.batch_execute("INSERT INTO items SELECT i, 'text ' || i FROM generate_series(1, 20) i; CREATE PUBLICATION p FOR TABLE items").unwrap();
    let mut b = subscriber.database("t");
    b.batch_execute(table).unwrap();
    b.batch_execute(&format!(
        "SELECT embedd.create_vector_table('items', 'items', '{BODY}', start_backfill => true)"
    ))
    .unwrap();
    subscribe(&mut b, &publisher, "p");
    wait_status(
        &subscriber,
        "t",
        "items",
        "sync_status = 'error' AND last_error LIKE '%ENABLE ALWAYS TRIGGER embedd_1_row; ALTER TABLE public.items ENABLE ALWAYS TRIGGER embedd_1_truncate%'",
    );
    b.batch_execute("ALTER TABLE items ENABLE ALWAYS TRIGGER embedd_1_row; ALTER TABLE public.items ENABLE ALWAYS TRIGGER embedd_1_truncate").unwrap();
    wait_status(&subscriber, "t", "items", "sync_status = 'synced' AND synced_rows = 20");
    a.batch_execute("UPDATE items SET body = body || ' b' WHERE id < 10; DELETE FROM items WHERE id = 20; TRUNCATE items; INSERT INTO items VALUES (1, 'one')").unwrap();
    wait_status(&subscriber, "t", "items", "sync_status = 'synced' AND synced_rows = 1");
    wait_synced(&subscriber, "t", "items");
}

#[test]
fn a_failover_of_named_tables_is_compared() {
    let publisher = Cluster::builder().set("wal_level", "logical").start();
    let subscriber = Cluster::builder().set("max_worker_processes", "20").start();
    let mut a = publisher.database("t");
    synced(&publisher, "t", &mut a, "items", 40);
    subscriber.create_database("t");
    copy(&publisher, &subscriber, "t", "t", &[]);
    let mut b = subscriber.connect("t");
    wait_synced(&subscriber, "t", "items");
    let vectors = relation(&mut a, "items");
    a.batch_execute(&format!("CREATE PUBLICATION p FOR TABLE items, {vectors}")).unwrap();
    subscribe(&mut b, &publisher, "p WITH (copy_data = false)");
    wait_status(
        &subscriber,
        "t",
        "items",
        "sync_status = 'error' AND last_error LIKE '%filled by a subscription%'",
    );
    // The publisher fails between changes and their vectors.
    a.batch_execute(
        "SELECT embedd.pause_sync('items');
         UPDATE items SET body = 'changed ' || id WHERE id <= 10;
         DELETE FROM items WHERE id > 35;
         INSERT INTO items VALUES (100, 'new')",
    )
    .unwrap();
    let arrived =
        "SELECT count(*) = 36 AND count(*) FILTER (WHERE body LIKE 'changed%') = 10 FROM items";
    subscriber.wait_for("t", LONG, "the changes to arrive", arrived);
    drop(a);
    publisher.crash();
    leave(&mut b);
    wait_status(&subscriber, "t", "items", "sync_status = 'synced' AND synced_rows = 36");
    wait_synced(&subscriber, "t", "items");
    assert_eq!(stored_text(&mut b, "items", "1").unwrap(), "changed 1");
}
