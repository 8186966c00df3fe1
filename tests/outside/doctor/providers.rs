//! Providers that cannot be used or fail, and the result of a real call.

use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::source::{create_texts_of, wait_status, wait_synced};

use super::{Patient, paste, told_by};

/// A database whose role `owner` has a vector table `p` of a provider `fake`.
fn with_provider(db: &'static str, owner: &str, fake: &FakeProvider) -> Patient {
    let mut patient = Patient::new(db);
    patient.run(&format!(
        "SELECT embedd.create_provider('fake', 'openai', api_key => 'sk-right', base_url => '{}', default_model => 'm');
         CREATE ROLE {owner} LOGIN; GRANT CREATE ON SCHEMA public TO {owner}; GRANT USAGE ON FOREIGN SERVER fake TO {owner};
         SET ROLE {owner};
         CREATE TABLE p (id int PRIMARY KEY, body text); INSERT INTO p SELECT i, 'text ' || i FROM generate_series(1, 9) i;
         SELECT embedd.create_vector_table('p', 'p', '[{{\"name\": \"body\", \"role\": \"embedding\"}}]', embedding_provider => 'fake',
             embedding_dimensions => 8, start_backfill => true);
         RESET ROLE",
        fake.base_url()
    ));
    wait_synced(&patient.cluster, db, "p");
    patient.is_healthy();
    patient
}

fn openai() -> FakeProvider {
    FakeProvider::builder(Dialect::OpenAi).key("sk-right").dimensions(8).model("m").start()
}

#[test]
fn usage_is_revoked_and_the_key_is_removed() {
    let fake = openai();
    let mut patient = with_provider("d_usage", "d_payer", &fake);
    patient.run("REVOKE USAGE ON FOREIGN SERVER fake FROM d_payer");
    let told = patient.cured("provider", "problem", "p");
    assert_eq!(told.remedy(), "GRANT USAGE ON FOREIGN SERVER \"fake\" TO \"d_payer\";");
    patient.run("DROP USER MAPPING FOR PUBLIC SERVER fake");
    patient.told("provider", "warning", "fake");
    let told = patient.told("provider", "problem", "p");
    assert_eq!(told.remedy(), "SELECT embedd.update_provider('fake', api_key => '...');");
    paste(&patient.cluster, "d_usage", &told.remedy().replace("...", "sk-right"));
    patient.is_healthy();
}

#[test]
fn a_dropped_provider() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    let mut patient = Patient::new("d_provider");
    create_texts_of(&mut patient.client, &fake, "p", 9);
    wait_synced(&patient.cluster, "d_provider", "p");
    patient.is_healthy();
    patient.run("DROP SERVER fake CASCADE");
    let told = patient.told("provider", "problem", "p");
    assert_eq!(
        told.remedy(),
        "SELECT embedd.create_provider('fake', 'openai_compatible', base_url => '...');"
    );
    paste(&patient.cluster, "d_provider", &told.remedy().replace("...", &fake.base_url()));
    patient.is_healthy();
}

#[test]
fn a_provider_that_fails_and_real_calls() {
    let fake = openai();
    let mut patient = with_provider("d_failing", "d_fails", &fake);
    let asked = fake.requests().len();
    let refused = fake.script(Rule::always().respond(Respond::status(401)));
    patient.run("UPDATE p SET body = 'changed' WHERE id = 1");
    wait_status(&patient.cluster, "d_failing", "p", "provider_state = 'failing'");
    let told = patient.told("provider", "problem", "fake");
    assert!(told.meaning.contains("\"p\""), "{told:?}");
    assert_eq!(told.remedy(), "SELECT * FROM embedd.test_provider('fake');");
    // Without the argument doctor() calls no provider.
    let before = fake.requests().len();
    let calls = |patient: &mut Patient, call: &str| {
        let mut told = told_by(&mut patient.client, call);
        told.retain(|row| row.check == "provider_call");
        told
    };
    assert_eq!(calls(&mut patient, "embedd.doctor()").len(), 1);
    let told = calls(&mut patient, "embedd.doctor(call_providers => true)");
    assert!(fake.requests().len() > before && before > asked);
    let of = |told: &[super::Told], name: &str| {
        told.iter().find(|row| row.object == name).cloned().unwrap()
    };
    let (failed, local) = (of(&told, "fake"), of(&told, "local"));
    assert_eq!((failed.state.as_str(), local.state.as_str()), ("problem", "ok"));
    assert!(failed.remedy().contains("update_provider"), "{failed:?}");
    assert!(local.meaning.contains("384 dimensions"), "{local:?}");
    fake.unscript(&refused);
    paste(&patient.cluster, "d_failing", "SELECT * FROM embedd.test_provider('fake');");
    // A new key is tried at once.
    paste(&patient.cluster, "d_failing", &failed.remedy().replace("...", "sk-right"));
    patient.is_healthy();
    let told = calls(&mut patient, "embedd.doctor(call_providers => true)");
    assert!(told.iter().all(|row| row.state == "ok") && told.len() == 2, "{told:?}");
}

#[test]
fn a_provider_without_a_key() {
    let mut patient = Patient::new("d_no_key");
    patient.run("CREATE SERVER bare FOREIGN DATA WRAPPER embedd OPTIONS (provider 'openai')");
    let told = patient.told("provider", "warning", "bare");
    paste(&patient.cluster, "d_no_key", &told.remedy().replace("...", "sk-any"));
    patient.is_healthy();
}
