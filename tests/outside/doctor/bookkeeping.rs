//! Orphans, retiring models, and sequences of embedd.

use support::LONG;
use support::fake_provider::{Dialect, FakeProvider};
use support::source::{create_texts_of, wait_synced};

use super::Patient;

#[test]
fn an_orphaned_table_and_orphaned_triggers() {
    let mut patient = Patient::new("d_orphans");
    let vectors = patient.vectors();
    patient.run("SELECT embedd.drop_vector_table('t', keep_table => true)");
    let told = patient.cured("orphaned_table", "warning", &vectors);
    assert_eq!(told.remedy(), format!("DROP TABLE {vectors};"));
    patient.run("CREATE TRIGGER embedd_77_row AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION embedd.note_change('77')");
    let told = patient.cured("orphaned_trigger", "warning", "embedd_77_row on public.t");
    assert_eq!(told.remedy(), "DROP TRIGGER embedd_77_row ON public.t;");
}

#[test]
fn sequences_that_are_behind_or_near_their_maximum() {
    let mut patient = Patient::new("d_sequences");
    for (name, set) in
        [("embedd.vector_tables_id_seq", "1, false"), ("embedd.tasks_task_id_seq", "1, false")]
    {
        patient.run(&format!("SELECT setval('{name}', {set})"));
        let told = patient.cured("sequence", "warning", name);
        assert_eq!(told.remedy(), format!("SELECT pg_catalog.setval('{name}', 1);"));
    }
    patient.run("SELECT setval('embedd.vector_tables_id_seq', 2147483000)");
    patient.cured("sequence", "problem", "embedd.vector_tables_id_seq");
    // The worker records its progress every few seconds.
    let mut client = patient.cluster.connect("d_sequences");
    patient.cluster.wait_until(LONG, "the position to be recorded", || {
        let noted = "SELECT coalesce(max(done_id), 0) > 1 FROM embedd.sync_state";
        client.batch_execute("UPDATE t SET body = clock_timestamp()::text WHERE id = 1").unwrap();
        client.query_one(noted, &[]).unwrap().get(0)
    });
    patient.is_healthy();
    patient.run("SELECT setval('embedd.queue_id_seq', 1)");
    patient.cured("sequence", "problem", "embedd.queue_id_seq");
    patient.run("UPDATE t SET body = 'newer' WHERE id = 1");
    wait_synced(&patient.cluster, "d_sequences", "t");
}

#[test]
fn a_model_that_retires() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let mut patient = Patient::new("d_models");
    create_texts_of(&mut patient.client, &fake, "p", 5);
    wait_synced(&patient.cluster, "d_models", "p");
    patient.run(
        "ALTER TABLE embedd.models ADD COLUMN IF NOT EXISTS retires_on date, ADD COLUMN IF NOT EXISTS replacement text;
         INSERT INTO embedd.models (provider, model, dimensions, retires_on, replacement)
         VALUES ('openai_compatible', 'm', 384, current_date + 400, 'next'), ('openai_compatible', 'next', 384, null, null)",
    );
    patient.is_healthy();
    for (days, state) in [(30, "warning"), (-1, "problem")] {
        patient.run(&format!(
            "UPDATE embedd.models SET retires_on = current_date + {days} WHERE model = 'm'"
        ));
        patient.told("model", state, "p");
    }
    let told = patient.told("model", "problem", "p");
    super::paste(&patient.cluster, "d_models", told.remedy());
    let model = "SELECT embedding_model FROM embedd.vector_tables WHERE name = 'p-next'";
    assert_eq!(patient.text(model), "next");
    patient.run("SELECT embedd.drop_vector_table('p')");
    wait_synced(&patient.cluster, "d_models", "p-next");
    patient.is_healthy();
}
