//! Vector indexes that are missing, invalid, unused or deferred; tables without analyze or vacuum.

use support::LONG;
use support::source::drop_vector_index;

use super::Patient;

/// The qualified name of the vector index of `t`.
fn index_of(patient: &mut Patient) -> String {
    let vectors = patient.vectors();
    patient.text(&format!(
        "SELECT 'public.' || indexrelid::regclass FROM pg_index WHERE indrelid = '{vectors}'::regclass AND NOT indisprimary"
    ))
}

#[test]
fn a_missing_index() {
    let mut patient = Patient::new("d_index");
    drop_vector_index(&mut patient.client, "t");
    let told = patient.cured("vector_index", "warning", "t");
    let vectors = patient.vectors();
    let end = format!(
        "CREATE INDEX ON {vectors} USING hnsw (embedding \"public\".\"vector_cosine_ops\");"
    );
    assert!(told.remedy().replace('"', "").ends_with(&end.replace('"', "")), "{told:?}");
}

#[test]
fn an_invalid_index_and_an_unused_one() {
    let mut patient = Patient::new("d_invalid");
    let index = index_of(&mut patient);
    patient.run(&format!(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass"
    ));
    let told = patient.cured("invalid_index", "warning", &index);
    assert_eq!(told.remedy(), format!("REINDEX INDEX {index};"));
    let vectors = patient.vectors();
    patient.run(&format!("CREATE INDEX l2 ON {vectors} USING hnsw (embedding vector_l2_ops)"));
    let told = patient.cured("unused_index", "warning", "public.l2");
    assert_eq!(told.remedy(), "DROP INDEX public.l2;");
    // A scanned index is not reported.
    patient.run(&format!("CREATE INDEX l2 ON {vectors} USING hnsw (embedding vector_l2_ops)"));
    patient.told("unused_index", "warning", "public.l2");
    patient.run(&format!(
        "SET enable_seqscan = off; SELECT pk_value FROM {vectors} ORDER BY embedding <-> (SELECT embedding FROM {vectors} LIMIT 1) LIMIT 1;
         SELECT pg_stat_force_next_flush()"
    ));
    patient.is_healthy();
}

#[test]
fn a_deferred_index() {
    let mut patient = Patient::new("d_deferred");
    patient.run(
        "UPDATE embedd.vector_tables SET held_indexes = ARRAY['later',
            '{\"method\": \"hnsw\", \"key\": \"embedding\", \"type\": \"vector\", \"operator\": \"<=>\"}'] WHERE name = 't'",
    );
    drop_vector_index(&mut patient.client, "t");
    let told = patient.cured("deferred_index", "warning", "t");
    assert_eq!(told.remedy(), "SELECT embedd.backfill('t');");
    patient.cluster.wait_for(
        "d_deferred",
        LONG,
        "it to be built",
        "SELECT to_regclass('later') IS NOT NULL",
    );
    patient.is_healthy();
    assert_eq!(index_of(&mut patient), "public.later");
}

#[test]
fn tables_without_autovacuum() {
    let mut patient = Patient::with_rows("d_vacuum", 1200);
    patient.run("ALTER TABLE t SET (autovacuum_enabled = off)");
    let told = patient.cured("statistics", "warning", "public.t");
    assert_eq!(told.remedy(), "ANALYZE public.t;");
    // Columns that are not configured: these changes need no embedding.
    patient.run("ALTER TABLE t ADD COLUMN n int");
    for n in 0..3 {
        patient.run(&format!("UPDATE t SET n = {n}"));
    }
    patient.run("SELECT pg_stat_force_next_flush()");
    let told = patient.cured("dead_rows", "warning", "public.t");
    assert_eq!(told.remedy(), "VACUUM (ANALYZE) public.t;");
}
