//! Dumps in every format, restored in every way, are copies that accept writes at once and keep the vectors.

use std::path::Path;

use postgres::Client;
use support::Cluster;
use support::binaries::output_of;
use support::fake_provider::{Dialect, FakeProvider};
use support::source::relation;

use super::{BODY, goes_on, paid, wait_status, wait_synced};

/// Dumps a database into a file or a directory.
pub fn dump(cluster: &Cluster, db: &str, into: &Path, arguments: &[&str]) {
    let mut command = cluster.client("pg_dump", db);
    command.args(arguments).arg("-f").arg(into);
    output_of(command);
}

/// Restores an archive, without any error.
pub fn restore(cluster: &Cluster, db: &str, archive: &Path, how: &str) {
    cluster.create_database(db);
    let mut command = cluster.client("pg_restore", db);
    command.args(["--exit-on-error", how]).arg(archive);
    output_of(command);
}

/// Restores a script, without any error.
fn run_script(cluster: &Cluster, db: &str, script: &Path) {
    let mut psql = cluster.psql_command(db);
    psql.args(["-v", "ON_ERROR_STOP=1", "-f"]).arg(script);
    output_of(psql);
}

fn roomy() -> Cluster {
    Cluster::builder().set("max_worker_processes", "32").start()
}

#[test]
fn archives_and_scripts() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let cluster = roomy();
    drop(paid(&cluster, "origin", &fake));
    let file = |name: &str| cluster.dir().join(name);
    // One archive, one transaction.
    dump(&cluster, "origin", &file("custom"), &["-Fc"]);
    restore(&cluster, "custom", &file("custom"), "-1");
    goes_on(&cluster, "custom", &fake);
    // Several processes on both sides.
    dump(&cluster, "origin", &file("directory"), &["-Fd", "-j4"]);
    restore(&cluster, "directory", &file("directory"), "-j4");
    goes_on(&cluster, "directory", &fake);
    // Over an existing database with changed rows: it becomes equal to the dump.
    dump(&cluster, "origin", &file("clean"), &["--clean", "--if-exists"]);
    run_script(&cluster, "custom", &file("clean"));
    goes_on(&cluster, "custom", &fake);
    dump(&cluster, "origin", &file("inserts"), &["--inserts", "--no-owner", "--no-privileges"]);
    cluster.create_database("inserts");
    run_script(&cluster, "inserts", &file("inserts"));
    goes_on(&cluster, "inserts", &fake);
    // The original is unaffected.
    goes_on(&cluster, "origin", &fake);
}

#[test]
fn a_template() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let cluster = roomy();
    drop(paid(&cluster, "origin", &fake));
    cluster.psql("postgres", "CREATE DATABASE copy TEMPLATE origin");
    goes_on(&cluster, "copy", &fake);
    goes_on(&cluster, "origin", &fake);
}

#[test]
fn single_tables() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let cluster = roomy();
    let mut origin = paid(&cluster, "origin", &fake);
    let vectors = relation(&mut origin, "items");
    let file = cluster.dir().join("tables");
    dump(&cluster, "origin", &file, &["-t", "items", "-t", &vectors]);
    let mut copy = cluster.database("single");
    run_script(&cluster, "single", &file);
    copy.batch_execute("INSERT INTO items VALUES (500, 'a write before')").unwrap();
    copy.batch_execute(&format!(
        "SELECT embedd.create_vector_table('items', 'items', '{BODY}', start_backfill => true)"
    ))
    .unwrap();
    wait_status(&cluster, "single", "items", "sync_status = 'synced' AND synced_rows = 61");
    wait_synced(&cluster, "single", "items");
    // The restored trigger belongs to no vector table and was dropped; the orphaned table of vectors is reported.
    assert_eq!(triggers(&mut copy), 2);
    let mut again = cluster.psql_command("single");
    let create = format!("SELECT name FROM embedd.create_vector_table('more', 'items', '{BODY}')");
    again.args(["-c", &create]);
    let said = output_of(again);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(&format!("DROP TABLE {vectors}")), "{said}");
}

#[test]
fn the_rows_of_one_table_restored_over_others() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let cluster = roomy();
    let mut origin = paid(&cluster, "origin", &fake);
    let file = cluster.dir().join("rows");
    // With triggers disabled during the restore (--disable-triggers), so that they capture nothing.
    dump(&cluster, "origin", &file, &["--data-only", "--disable-triggers", "-t", "items"]);
    origin.batch_execute("DELETE FROM items WHERE id > 30").unwrap();
    wait_status(&cluster, "origin", "items", "sync_status = 'synced' AND synced_rows = 30");
    let text = std::fs::read_to_string(&file).unwrap();
    let rows: String = text
        .lines()
        .filter(|line| {
            line.split('\t').next().and_then(|id| id.parse::<i32>().ok()).is_none_or(|id| id > 30)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&file, rows).unwrap();
    run_script(&cluster, "origin", &file);
    wait_status(&cluster, "origin", "items", "sync_status = 'synced' AND synced_rows = 60");
    wait_synced(&cluster, "origin", "items");
}

fn triggers(client: &mut Client) -> i64 {
    let sql =
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'items'::regclass AND NOT tgisinternal";
    client.query_one(sql, &[]).unwrap().get(0)
}
