//! A live vector table is changed: in place, or by a shadow that is filled and swapped in.

mod carried;
mod disk;
mod gap;
mod life;
mod reuse;
mod steps;

use postgres::Client;
use support::Cluster;
use support::source::wait_synced;

/// A database with a table `t` of this many rows, and a synced vector table of the provider kind test over its title.
fn synced(cluster: &Cluster, db: &str, rows: i64) -> Client {
    let mut client = cluster.database(db);
    client
        .batch_execute(&format!(
            "CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, n integer);
             INSERT INTO t SELECT i, 'row ' || i, CASE WHEN i % 2 = 0 THEN 'body ' || i END, i FROM generate_series(1, {rows}) i;
             SELECT embedd.create_provider('p', 'test');
             SELECT embedd.create_vector_table('t', 't', '{}', embedding_provider => 'p', embedding_dimensions => 32,
                    start_backfill => true)",
            columns("A: ")
        ))
        .unwrap();
    wait_synced(cluster, db, "t");
    client
}

/// The configured columns, with this prefix of the title.
fn columns(prefix: &str) -> String {
    format!(r#"[{{"name": "title", "role": "embedding", "name_prefix": "{prefix}"}}]"#)
}

/// Asks for a change, and for the backfill that it needs.
fn change(client: &mut Client, arguments: &str) {
    let sql = format!("SELECT needs_backfill FROM embedd.update_vector_table('t', {arguments})");
    let needs_backfill: bool = client.query_one(&sql, &[]).unwrap().get(0);
    assert!(needs_backfill, "{arguments}");
    client.batch_execute("SELECT embedd.backfill('t')").unwrap();
}

/// The dimensions of the vector table that queries read.
fn dimensions(client: &mut Client) -> i32 {
    let sql = "SELECT embedding_dimensions FROM embedd.vector_tables WHERE name = 't' AND replaces IS NULL";
    client.query_one(sql, &[]).unwrap().get(0)
}

/// Whether nothing is left of shadows and replaced tables.
const IS_CLEAN: &str = "SELECT NOT EXISTS (SELECT FROM embedd.vector_tables WHERE replaces IS NOT NULL OR old_tables <> '{}')
    AND NOT EXISTS (SELECT FROM pg_class WHERE relname ~ '(_swap|_old[0-9]*|embedd_old_.*|embedd_swap_.*)$')";
