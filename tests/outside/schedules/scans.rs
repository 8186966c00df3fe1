//! During a backfill or a comparison, with a text at the provider, more work arises than it was started for.

use super::{COLUMNS, LONG, Stage};
use support::fake_provider::{Gate, Respond, Rule};

/// Requests a comparison.
const COMPARE: &str = "SELECT embedd.reconcile('t')";

/// Holds when embedd has accepted the table that now has the name of the source.
const IS_REBOUND: &str =
    "SELECT source_table = 't'::regclass FROM embedd.vector_tables WHERE name = 't'";

/// Changes every row's value in a column that is part of its text.
const NEW_COLUMN: &str = "ALTER TABLE t DROP COLUMN body, ADD COLUMN body text DEFAULT 'x'";

/// Holds when embedd uses the new column.
const IS_NOTED: &str = "SELECT 5 = ANY (column_numbers) FROM embedd.vector_tables WHERE name = 't'";

/// Holds when both triggers exist.
const HAS_TRIGGERS: &str =
    "SELECT count(*) = 2 FROM pg_trigger WHERE tgrelid = 't'::regclass AND NOT tgisinternal";

/// Replaces the source by a table with these rows.
fn swap(rows: &str) -> String {
    format!(
        "BEGIN; CREATE TABLE t_new (LIKE t INCLUDING ALL); INSERT INTO t_new {rows};
         DROP TABLE t; ALTER TABLE t_new RENAME TO t; COMMIT"
    )
}

/// Drops the triggers of the source and makes a change that they miss.
fn unseen(change: &str) -> String {
    format!(
        "BEGIN;
         DO $$ DECLARE trigger name; BEGIN
             FOR trigger IN SELECT tgname FROM pg_trigger WHERE tgrelid = 't'::regclass AND NOT tgisinternal LOOP
                 EXECUTE format('DROP TRIGGER %I ON t', trigger);
             END LOOP;
         END $$;
         {change}; COMMIT"
    )
}

/// Starts a task that scans every row, and returns when the text of row 1 is at the provider.
fn begin(stage: &mut Stage, task: &str) -> Gate {
    let gate = stage.fake.hold();
    let damage = format!(
        "UPDATE {} SET embedded_text = 'damaged', row_hash = 'damaged' WHERE pk_value = '1'",
        stage.vectors
    );
    stage.run_into_flight(&format!("{damage}; {task}"));
    gate
}

/// Rows that a comparison has scanned are scanned again.
fn changes_under_a_comparison(db: &str, change: &str, is_followed: &str) {
    let mut stage = Stage::shared(db);
    let gate = begin(&mut stage, COMPARE);
    stage.run(change);
    stage.wait_for("the change to be noticed", is_followed);
    gate.release();
    stage.assert_synced();
}

/// Every row is replaced.
#[test]
fn the_source_is_swapped_during_a_comparison() {
    let change = swap("SELECT id, 'second ' || id, body, price FROM t");
    changes_under_a_comparison("scan_swap", &change, IS_REBOUND);
}

/// Every row has another value in a column that is part of its text.
#[test]
fn a_column_is_recreated_during_a_comparison() {
    changes_under_a_comparison("scan_column", NEW_COLUMN, IS_NOTED);
}

/// Every row was changed without triggers.
#[test]
fn the_triggers_are_missing_during_a_comparison() {
    let change = unseen("UPDATE t SET title = 'second ' || id");
    changes_under_a_comparison("scan_triggers", &change, HAS_TRIGGERS);
}

/// A row fails permanently until the service accepts it, of which embedd is not notified.
fn fail(stage: &mut Stage) {
    let refused = stage.fake.script(Rule::when_text("unlucky").respond(Respond::status(400)));
    stage.run("UPDATE t SET title = 'unlucky' WHERE id = 3");
    stage.wait_for("a row to fail", "SELECT failed_rows = 1 FROM embedd.sync_status('t')");
    stage.cluster.wait_done(&stage.db);
    stage.fake.unscript(&refused);
}

/// A comparison skips failed rows; a backfill does not, even if it began as a comparison.
#[test]
fn a_backfill_is_requested_during_a_comparison() {
    let mut stage = Stage::shared("scan_ask");
    fail(&mut stage);
    let gate = begin(&mut stage, COMPARE);
    stage.run("SELECT embedd.backfill('t')");
    gate.release();
    stage.assert_synced();
    assert_eq!(stage.paid("unlucky"), 1);
}

/// A failure refers to the row as it was. The changed row has not been tried, although no trigger has seen it.
fn a_row_that_failed_is_another_one(db: &str, change: &str, is_followed: &str, text: &str) {
    let mut stage = Stage::shared(db);
    fail(&mut stage);
    stage.run(change);
    stage.wait_for("the change to be noticed", is_followed);
    stage.assert_synced();
    assert_eq!(stage.paid(text), 1);
}

/// The other row is one of another table.
#[test]
fn a_row_that_failed_comes_from_another_source() {
    let change = swap("SELECT id, CASE id WHEN 3 THEN 'lucky' ELSE title END, body, price FROM t");
    a_row_that_failed_is_another_one("scan_failed_swap", &change, IS_REBOUND, "lucky");
}

/// The other row has another value in a recreated column.
#[test]
fn a_row_that_failed_has_a_new_column() {
    a_row_that_failed_is_another_one("scan_failed_column", NEW_COLUMN, IS_NOTED, "unlucky\nx");
}

/// The other row was written while the triggers were missing.
#[test]
fn a_row_that_failed_was_changed_unseen() {
    let change = unseen("UPDATE t SET title = 'lucky' WHERE id = 3");
    a_row_that_failed_is_another_one("scan_failed_unseen", &change, HAS_TRIGGERS, "lucky");
}

/// The text of a new row is at the provider when another table without this row becomes the source.
#[test]
fn a_row_in_flight_is_not_in_the_new_source() {
    let mut stage = Stage::shared("scan_orphan");
    let gate = stage.fake.hold();
    stage.run_into_flight("INSERT INTO t VALUES (30, 'short life')");
    stage.run(&swap("SELECT * FROM t WHERE id <= 10"));
    stage.wait_for("the new source to be accepted", IS_REBOUND);
    // Another vector table, which needs no provider, shows that the worker has run since, with every chance to end the
    // comparison.
    stage.run(
        "CREATE TABLE other AS SELECT * FROM t; ALTER TABLE other ADD PRIMARY KEY (id);
         SELECT embedd.create_vector_table('other', 'other', '[{\"name\": \"title\", \"role\": \"embedding\"}]',
                embedding_provider => 'local', start_backfill => true)",
    );
    for rows in 11..14 {
        stage.run(&format!("INSERT INTO other VALUES ({rows}, 'new', NULL, 0)"));
        let sql = format!(
            "SELECT sync_status = 'synced' AND synced_rows = {rows} AND rows_pending = 0 FROM embedd.sync_status('other')"
        );
        stage.wait_for("another table to be synced", &sql);
    }
    gate.release();
    stage.assert_synced();
    assert!(!stage.has_vector(30));
}

/// TRUNCATE deletes rows at once, however long the provider takes for the requests of a backfill.
#[test]
fn a_truncate_does_not_wait_for_the_end_of_a_backfill() {
    let mut stage = Stage::shared("scan_truncate");
    let gate = begin(&mut stage, "SELECT embedd.backfill('t')");
    stage.run("TRUNCATE t");
    let gone = format!("SELECT NOT EXISTS (SELECT FROM {} WHERE pk_value <> '1')", stage.vectors);
    stage.wait_for("the rows to be deleted", &gone);
    gate.release();
    stage.assert_synced();
    assert!(!stage.has_vector(1));
}

/// The source is dropped during the first backfill, and recreated.
#[test]
fn a_source_is_recreated_before_its_first_backfill_ends() {
    let mut stage = Stage::shared("scan_first");
    let gate = stage.fake.hold();
    let create = "CREATE TABLE u (id bigint PRIMARY KEY, title text, body text, price integer);
        INSERT INTO u SELECT i, 'of u ' || i, NULL, i FROM generate_series(1, 10) i";
    stage.run_into_flight(&format!(
        "{create};
         SELECT embedd.create_vector_table('u', 'u', '{COLUMNS}', embedding_provider => 'fake',
                embedding_dimensions => 8, start_backfill => true)"
    ));
    stage.run("DROP TABLE u");
    let is_over = "SELECT EXISTS (SELECT FROM embedd.tasks WHERE status = 'failed')";
    stage.cluster.wait_for(&stage.db, LONG, "the backfill to be abandoned", is_over);
    stage.run(create);
    // The worker is not notified of new tables: it checks when it is woken for another reason.
    stage.run("ALTER TABLE t ADD COLUMN other text");
    stage.wait_for(
        "the new source to be followed",
        "SELECT source_table = 'u'::regclass FROM embedd.vector_tables WHERE name = 'u'",
    );
    gate.release();
    stage.cluster.assert_synced(&stage.db, "u");
    let status =
        "SELECT sync_status = 'synced' AND last_error IS NULL FROM embedd.sync_status('u')";
    stage.wait_for("the table to be synced", status);
}
