//! A backfill or a comparison is under way, a text of it is at the provider, and then there is more to do than it was begun for.

use super::{COLUMNS, LONG, Stage};
use support::fake_provider::{Gate, Respond, Rule};

/// Asks for a comparison.
const COMPARE: &str = "SELECT embedd.reconcile('t')";

/// Holds when the table that has the name of the source now is followed.
const IS_REBOUND: &str =
    "SELECT source_table = 't'::regclass FROM embedd.vector_tables WHERE name = 't'";

/// Gives every row another value in a column that is a part of its text.
const NEW_COLUMN: &str = "ALTER TABLE t DROP COLUMN body, ADD COLUMN body text DEFAULT 'x'";

/// Holds when the new column is followed.
const IS_NOTED: &str = "SELECT 5 = ANY (column_numbers) FROM embedd.vector_tables WHERE name = 't'";

/// Holds when both triggers are there.
const HAS_TRIGGERS: &str =
    "SELECT count(*) = 2 FROM pg_trigger WHERE tgrelid = 't'::regclass AND NOT tgisinternal";

/// Puts a table with these rows in the place of the source.
fn swap(rows: &str) -> String {
    format!(
        "BEGIN; CREATE TABLE t_new (LIKE t INCLUDING ALL); INSERT INTO t_new {rows};
         DROP TABLE t; ALTER TABLE t_new RENAME TO t; COMMIT"
    )
}

/// Takes the triggers of the source away and makes a change that they do not see.
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

/// Begins a task that goes over every row, and comes back when the text of row 1 is at the provider.
fn begin(stage: &mut Stage, task: &str) -> Gate {
    let gate = stage.fake.hold();
    let damage = format!(
        "UPDATE {} SET embedded_text = 'damaged', row_hash = 'damaged' WHERE pk_value = '1'",
        stage.vectors
    );
    stage.run_into_flight(&format!("{damage}; {task}"));
    gate
}

/// What a comparison has gone over is gone over again.
fn changes_under_a_comparison(db: &str, change: &str, is_followed: &str) {
    let mut stage = Stage::shared(db);
    let gate = begin(&mut stage, COMPARE);
    stage.run(change);
    stage.wait_for("the change to be followed", is_followed);
    gate.release();
    stage.assert_synced();
}

/// Every row is another one.
#[test]
fn the_source_is_swapped_during_a_comparison() {
    let change = swap("SELECT id, 'second ' || id, body, price FROM t");
    changes_under_a_comparison("scan_swap", &change, IS_REBOUND);
}

/// Every row has another value in a column that is a part of its text.
#[test]
fn a_column_is_made_anew_during_a_comparison() {
    changes_under_a_comparison("scan_column", NEW_COLUMN, IS_NOTED);
}

/// Every row was changed while nobody looked.
#[test]
fn the_triggers_are_missing_during_a_comparison() {
    let change = unseen("UPDATE t SET title = 'second ' || id");
    changes_under_a_comparison("scan_triggers", &change, HAS_TRIGGERS);
}

/// A row fails for good until the service is told otherwise, which nobody tells embedd.
fn fail(stage: &mut Stage) {
    let refused = stage.fake.script(Rule::when_text("unlucky").respond(Respond::status(400)));
    stage.run("UPDATE t SET title = 'unlucky' WHERE id = 3");
    stage.wait_for("a row to fail", "SELECT failed_rows = 1 FROM embedd.sync_status('t')");
    stage.cluster.wait_done(&stage.db);
    stage.fake.unscript(&refused);
}

/// A comparison looks at no row that has failed; a backfill does, also one into which a comparison was turned.
#[test]
fn a_backfill_is_asked_for_during_a_comparison() {
    let mut stage = Stage::shared("scan_ask");
    fail(&mut stage);
    let gate = begin(&mut stage, COMPARE);
    stage.run("SELECT embedd.backfill('t')");
    gate.release();
    stage.assert_synced();
    assert_eq!(stage.paid("unlucky"), 1);
}

/// That a row has failed is said of the row as it was. Nobody has tried what came in its place unseen.
fn a_row_that_failed_is_another_one(db: &str, change: &str, is_followed: &str, text: &str) {
    let mut stage = Stage::shared(db);
    fail(&mut stage);
    stage.run(change);
    stage.wait_for("the change to be followed", is_followed);
    stage.assert_synced();
    assert_eq!(stage.paid(text), 1);
}

/// The other one is a row of another table.
#[test]
fn a_row_that_failed_comes_from_another_source() {
    let change = swap("SELECT id, CASE id WHEN 3 THEN 'lucky' ELSE title END, body, price FROM t");
    a_row_that_failed_is_another_one("scan_failed_swap", &change, IS_REBOUND, "lucky");
}

/// The other one has another value in a column that was made anew.
#[test]
fn a_row_that_failed_has_a_new_column() {
    a_row_that_failed_is_another_one("scan_failed_column", NEW_COLUMN, IS_NOTED, "unlucky\nx");
}

/// The other one was written while the triggers were missing.
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
    stage.wait_for("the new source to be followed", IS_REBOUND);
    // Another vector table, which needs no provider, shows that the worker has been there since, and has had every chance
    // to end the comparison.
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

/// Rows go at once with a TRUNCATE, however long the provider takes for what a backfill has asked it.
#[test]
fn a_truncate_does_not_wait_for_the_end_of_a_backfill() {
    let mut stage = Stage::shared("scan_truncate");
    let gate = begin(&mut stage, "SELECT embedd.backfill('t')");
    stage.run("TRUNCATE t");
    let gone = format!("SELECT NOT EXISTS (SELECT FROM {} WHERE pk_value <> '1')", stage.vectors);
    stage.wait_for("the rows to go", &gone);
    gate.release();
    stage.assert_synced();
    assert!(!stage.has_vector(1));
}

/// The source goes in the middle of the first backfill, and comes again.
#[test]
fn a_source_is_made_anew_before_its_first_backfill_is_over() {
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
    stage.cluster.wait_for(&stage.db, LONG, "the backfill to be given up", is_over);
    stage.run(create);
    // Nobody tells the worker of new tables: it looks when it is woken for another reason.
    stage.run("ALTER TABLE t ADD COLUMN other text");
    stage.wait_for(
        "the new source to be followed",
        "SELECT source_table = 'u'::regclass FROM embedd.vector_tables WHERE name = 'u'",
    );
    gate.release();
    stage.cluster.assert_synced(&stage.db, "u");
    let status =
        "SELECT sync_status = 'synced' AND last_error IS NULL FROM embedd.sync_status('u')";
    stage.wait_for("the table to be well", status);
}
