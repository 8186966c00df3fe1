//! The sync of vector tables: paused, not backfilled, too slow, in error, with failed rows.

use support::processes::Frozen;
use support::source::{BODY, wait_status};

use super::{Patient, paste};

#[test]
fn a_pause_and_a_vector_table_that_was_never_backfilled() {
    let mut patient = Patient::new("d_paused");
    patient.run("SELECT embedd.pause_sync('t')");
    assert_eq!(patient.cured("paused", "warning", "t").remedy(), "SELECT embedd.resume_sync('t');");
    patient.run(&format!("SELECT embedd.create_vector_table('new', 't', '{BODY}')"));
    let told = patient.cured("backfill", "warning", "new");
    assert_eq!(told.remedy(), "SELECT embedd.backfill('new');");
}

#[test]
fn failed_rows_and_truncated_texts() {
    let mut patient = Patient::new("d_failed");
    patient.run(
        "INSERT INTO embedd.failed_rows (table_id, pk_value, reason) VALUES (1, '7', 'planted')",
    );
    let told = patient.cured("failed_rows", "warning", "t");
    assert_eq!(told.remedy(), "SELECT embedd.retry_failed('t');");
    patient.run("UPDATE t SET body = repeat('long ', 1000) WHERE id = 7");
    let told = patient.told("truncated_rows", "warning", "t");
    paste(&patient.cluster, "d_failed", told.remedy());
    assert_eq!(patient.text(told.remedy().trim_end_matches(';')), "7");
    patient.run("UPDATE t SET body = 'short' WHERE id = 7");
    patient.is_healthy();
}

#[test]
fn a_change_that_waits_too_long() {
    let mut patient = Patient::new("d_queue");
    let worker = patient.cluster.sync_worker("d_queue");
    {
        let _worker = Frozen::new(worker);
        patient.run("UPDATE t SET body = 'waits' WHERE id = 1");
        patient.run("UPDATE embedd.queue SET noted_at = now() - interval '400 seconds'");
        let told = patient.told("queue", "problem", "t");
        assert!(told.remedy().contains("pg_terminate_backend"), "{told:?}");
        paste(&patient.cluster, "d_queue", told.remedy());
    }
    patient.cluster.wait_until(support::LONG, "another worker", || {
        patient.cluster.pids_in("d_queue", "embedd sync worker").iter().any(|pid| *pid != worker)
    });
    patient.is_healthy();
}

#[test]
fn rows_written_without_triggers() {
    let mut patient = Patient::new("d_error");
    patient.run("SET session_replication_role = replica; DELETE FROM t WHERE id = 1; RESET session_replication_role");
    wait_status(&patient.cluster, "d_error", "t", "sync_status = 'error'");
    let told = patient.cured("sync", "problem", "t");
    assert_eq!(told.remedy(), "SELECT embedd.reconcile('t');");
    assert!(told.meaning.contains("29 rows and the vector table 30"), "{told:?}");
}

#[test]
fn one_invalid_row_and_one_locked_table_hide_no_other_table() {
    let mut patient = Patient::new("d_damaged");
    patient.run(&format!(
        "CREATE TABLE u (id int PRIMARY KEY, body text);
         SELECT embedd.create_vector_table('u', 'u', '{BODY}');
         SELECT embedd.pause_sync('t');
         UPDATE embedd.vector_tables SET columns = '\"damaged\"' WHERE name = 'u'"
    ));
    let told = patient.told("vector_table", "problem", "2");
    assert!(told.meaning.contains("row 2 of embedd.vector_tables cannot be read"), "{told:?}");
    let mut locker = patient.cluster.connect("d_damaged");
    let mut held = locker.transaction().unwrap();
    held.batch_execute("LOCK TABLE t").unwrap();
    patient.told("paused", "warning", "t");
    // What cannot be checked is reported, after a short lock timeout.
    held.batch_execute("LOCK TABLE embedd.tasks").unwrap();
    let told = patient.told("sync", "warning", "t");
    assert!(
        told.meaning.contains("could not be read") && told.meaning.contains("lock timeout"),
        "{told:?}"
    );
    patient.told("vector_table", "problem", "2");
    held.batch_execute("LOCK TABLE embedd.vector_tables").unwrap();
    patient.told("vector_table", "warning", "");
    held.rollback().unwrap();
    patient.told("paused", "warning", "t");
}
