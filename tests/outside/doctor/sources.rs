//! Sources and vector tables that were dropped, hidden or changed.

use support::processes::Frozen;
use support::source::{BODY, wait_synced};

use super::Patient;

#[test]
fn triggers_that_do_not_fire() {
    let mut patient = Patient::new("d_triggers");
    for how in ["DISABLE", "ENABLE REPLICA"] {
        patient.run(&format!("ALTER TABLE t {how} TRIGGER embedd_1_row"));
        let told = patient.cured("triggers", "problem", "t");
        assert_eq!(told.remedy(), "ALTER TABLE public.t ENABLE TRIGGER embedd_1_row;");
        assert!(told.meaning.contains("trigger embedd_1_row of public.t"), "{told:?}");
    }
}

#[test]
fn a_missing_trigger() {
    let mut patient = Patient::new("d_missing");
    {
        // The worker would recreate the trigger by itself.
        let _worker = Frozen::new(patient.cluster.sync_worker("d_missing"));
        patient.run("DROP TRIGGER embedd_1_truncate ON t");
        let told = patient.told("triggers", "problem", "t");
        assert_eq!(
            told.remedy(),
            "create trigger embedd_1_truncate after truncate on public.t for each statement execute function embedd.note_change('1'); SELECT embedd.reconcile('t');"
        );
        super::paste(&patient.cluster, "d_missing", told.remedy());
    }
    patient.is_healthy();
}

#[test]
fn policies_that_hide_rows() {
    let mut patient = Patient::new("d_policies");
    patient.run(
        "CREATE ROLE d_owner LOGIN; CREATE ROLE d_tenant LOGIN; GRANT CREATE ON SCHEMA public TO d_owner, d_tenant;
         SET ROLE d_owner; CREATE TABLE notes (id int PRIMARY KEY, body text);
         INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 9) i;
         GRANT SELECT, TRIGGER ON notes TO d_tenant",
    );
    for (role, name) in [("d_owner", "own"), ("d_tenant", "of another")] {
        patient.run(&format!(
            "SET ROLE {role}; SELECT embedd.create_vector_table('{name}', 'notes', '{BODY}', start_backfill => true); RESET ROLE"
        ));
        wait_synced(&patient.cluster, "d_policies", name);
    }
    patient.run(
        "CREATE POLICY p ON notes USING (id < 5); ALTER TABLE notes ENABLE ROW LEVEL SECURITY; ALTER TABLE notes FORCE ROW LEVEL SECURITY",
    );
    let told = patient.told("policies", "problem", "own");
    assert_eq!(told.remedy(), "ALTER TABLE public.notes NO FORCE ROW LEVEL SECURITY;");
    super::paste(&patient.cluster, "d_policies", told.remedy());
    let told = patient.cured("policies", "problem", "of another");
    assert_eq!(told.remedy(), "ALTER ROLE \"d_tenant\" BYPASSRLS;");
}

#[test]
fn children_of_a_source() {
    let mut patient = Patient::new("d_children");
    patient.run("CREATE TABLE child () INHERITS (t); INSERT INTO child VALUES (100, 'of a child')");
    let told = patient.cured("children", "problem", "t");
    assert!(told.remedy().contains("sync_mode => 'batch'"), "{told:?}");
    wait_synced(&patient.cluster, "d_children", "t");
    let synced = "SELECT synced_rows::text FROM embedd.sync_status('t')";
    assert_eq!(patient.text(synced), "31");
}

#[test]
fn a_view_that_depends_on_the_session() {
    let mut patient = Patient::new("d_view");
    patient.run(&format!(
        "CREATE VIEW v AS SELECT * FROM t;
         SELECT embedd.create_vector_table('v', 'v', '{BODY}', 'id', sync_mode => 'batch', start_backfill => true)"
    ));
    wait_synced(&patient.cluster, "d_view", "v");
    patient.is_healthy();
    patient.run(
        "CREATE OR REPLACE VIEW v AS SELECT * FROM t WHERE body <> current_setting('app.x', true)",
    );
    let told = patient.told("view", "problem", "v");
    assert!(told.remedy().contains("Use a view without current_setting()"), "{told:?}");
    patient.run("CREATE OR REPLACE VIEW v AS SELECT * FROM t");
    patient.is_healthy();
}

#[test]
fn a_dropped_column() {
    let mut patient = Patient::new("d_columns");
    patient.run("ALTER TABLE t DROP COLUMN body");
    let told = patient.cured("columns", "problem", "t");
    assert_eq!(told.remedy(), "ALTER TABLE public.t ADD COLUMN \"body\" text;");
}

#[test]
fn a_key_of_another_type_and_one_that_is_not_unique() {
    let mut patient = Patient::new("d_key");
    patient.run("ALTER TABLE t ALTER COLUMN id TYPE bigint");
    let told = patient.cured("key", "problem", "t");
    assert_eq!(told.remedy(), "SELECT embedd.reconcile('t');");
    patient.run("ALTER TABLE t DROP CONSTRAINT t_pkey");
    let told = patient.cured("key", "warning", "t");
    assert_eq!(told.remedy(), "ALTER TABLE public.t ADD PRIMARY KEY (\"id\");");
}

#[test]
fn a_dropped_source_and_a_dropped_vector_table() {
    let mut patient = Patient::new("d_gone");
    patient.run(&format!(
        "CREATE TABLE \"Odd ' \"\" name\" (id int PRIMARY KEY, body text);
         SELECT embedd.create_vector_table('it''s odd', '\"Odd '' \"\" name\"', '{BODY}', start_backfill => true)"
    ));
    wait_synced(&patient.cluster, "d_gone", "it''s odd");
    patient.is_healthy();
    patient.run("DROP TABLE \"Odd ' \"\" name\"");
    let told = patient.cured("source", "problem", "it's odd");
    assert_eq!(told.remedy(), "SELECT embedd.drop_vector_table('it''s odd');");
    let vectors = patient.vectors();
    patient.run(&format!("DROP TABLE {vectors}"));
    let told = patient.cured("vector_table", "problem", "t");
    assert_eq!(told.remedy(), "SELECT embedd.drop_vector_table('t');");
}

#[test]
fn unlogged_tables() {
    let mut patient = Patient::new("d_unlogged");
    patient.run("ALTER TABLE t SET UNLOGGED");
    let told = patient.cured("unlogged", "warning", "t");
    assert_eq!(told.remedy(), "ALTER TABLE public.t SET LOGGED;");
}
