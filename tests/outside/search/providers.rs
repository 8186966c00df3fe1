//! Providers of questions: another one than that of the documents, and a fallback for when the first one fails.

use std::time::Duration;

use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::source::wait_synced;
use support::{Cluster, Shared};

/// No question is cached, so every call is seen.
static SHARED: Shared = Shared::of(|| {
    Cluster::builder()
        .never_polling()
        .set("max_worker_processes", "64")
        .set("embedd.query_cache_size", "0")
});

const COLUMNS: &str = r#"[{"name": "body", "role": "embedding"}]"#;

/// Two providers, `first` and `second`, of the same models, and a source `t`.
fn providers(client: &mut Client) -> [FakeProvider; 2] {
    let fakes = [(); 2].map(|()| {
        FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(32).record(false).start()
    });
    for (name, fake) in ["first", "second"].iter().zip(&fakes) {
        let create = "SELECT embedd.create_provider($1, 'openai_compatible', base_url => $2)";
        client.query(create, &[name, &fake.base_url()]).unwrap();
    }
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, body text);
             INSERT INTO t SELECT i, 'text ' || i FROM generate_series(1, 50) i",
        )
        .unwrap();
    fakes
}

/// Creates the vector table `t` with the model `m` of the first provider and further arguments.
fn create(client: &mut Client, arguments: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!(
        "SELECT embedd.create_vector_table('t', 't', '{COLUMNS}', embedding_provider => 'first', embedding_model => 'm',
                embedding_dimensions => 32, start_backfill => true{arguments})"
    ))
}

/// Whether the nearest row of a text of the source is that row.
fn finds(client: &mut Client, id: i32) -> bool {
    let sql = format!("SELECT id FROM embedd.query('t', 'text {id}', 1)");
    client.query_one(&sql, &[]).unwrap().get::<_, String>(0) == id.to_string()
}

#[test]
fn questions_go_to_a_provider_of_their_own() {
    let (cluster, db) = (&SHARED.cluster(), "own");
    let mut client = cluster.database(db);
    let [first, second] = providers(&mut client);
    create(&mut client, ", query_provider => 'second'").unwrap();
    wait_synced(cluster, db, "t");
    let before = [first.paid_total(), second.paid_total()];
    assert!((1..=20).all(|id| finds(&mut client, id)));
    assert_eq!([first.paid_total() - before[0], second.paid_total() - before[1]], [0, 20]);
    // Documents go on to the first one.
    client.batch_execute("INSERT INTO t VALUES (51, 'text 51')").unwrap();
    wait_synced(cluster, db, "t");
    assert!(finds(&mut client, 51));
    assert_eq!([first.paid_total() - before[0], second.paid_total() - before[1]], [1, 21]);
    // It is not dropped while questions need it, or only with CASCADE; then those of the documents' provider answer.
    for drop in ["SELECT embedd.drop_provider('second')", "DROP SERVER second"] {
        let error = client.batch_execute(drop).unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("2BP01"), "{drop}: {error:?}");
    }
    client.batch_execute("ALTER SERVER second RENAME TO near; DROP SERVER near CASCADE").unwrap();
    let before = first.paid_total();
    assert!(finds(&mut client, 7) && first.paid_total() > before);
}

/// A model of another vector space is refused before it could answer a question.
#[test]
fn providers_of_other_vectors_are_refused() {
    let (cluster, db) = (&SHARED.cluster(), "other");
    let mut client = cluster.database(db);
    let [_first, second] = providers(&mut client);
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('third', 'openai_compatible', base_url => '{}', default_model => 'another');
             CREATE ROLE asker; GRANT USAGE ON SCHEMA embedd TO asker",
            second.base_url()
        ))
        .unwrap();
    for (arguments, code) in [
        (", query_provider => 'second', query_model => 'another'", "22023"),
        (", query_model => 'another'", "22023"),
        (", query_provider => 'third'", "22023"),
        (", fallback => 'third'", "22023"),
        (", fallback => 'no such provider'", "42704"),
        (", recall_target => 0.4", "22023"),
    ] {
        let error = create(&mut client, arguments).unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some(code), "{arguments}: {error:?}");
    }
    create(&mut client, ", fallback => 'second'").unwrap();
    wait_synced(cluster, db, "t");
    // Nor can the documents move away from the questions.
    for (change, code) in [
        ("fallback => 'third'", "22023"),
        ("embedding_model => 'another', embedding_dimensions => 32, query_model => 'm'", "22023"),
    ] {
        let sql = format!("SELECT embedd.update_vector_table('t', {change})");
        let error = client.query(&sql, &[]).unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some(code), "{change}: {error:?}");
    }
    let changed =
        "SELECT changed FROM embedd.update_vector_table('t', recall_target => 0.9, fallback => '')";
    let changed: Vec<String> = client.query_one(changed, &[]).unwrap().get(0);
    assert_eq!(changed, ["recall_target", "fallback"]);
}

/// The first provider fails in several ways under questions from two sessions, and no question does.
#[test]
fn a_fallback_answers_while_the_first_provider_fails() {
    let (cluster, db) = (&SHARED.cluster(), "fallback");
    let mut client = cluster.database(db);
    let [first, second] = providers(&mut client);
    create(&mut client, ", fallback => 'second'").unwrap();
    wait_synced(cluster, db, "t");
    assert!(finds(&mut client, 1));
    assert_eq!(second.paid_total(), 1, "only the text that was compared at creation");

    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut client = cluster.connect(db);
            (1..=6).all(|id| finds(&mut client, id))
        });
        let broken = first.script(Rule::always().respond(Respond::status(500)));
        assert!((1..=4).all(|id| finds(&mut client, id)));
        first.unscript(&broken);
        first.down();
        assert!((21..=40).all(|id| finds(&mut client, id)));
        assert!(other.join().unwrap());
    });
    assert!(second.paid_total() > 20, "{}", second.paid_total());
    // Where both fail, the error is that of the first one.
    let down = "SELECT embedd.query('t', 'text 1')";
    second.down();
    let error = client.query(down, &[]).unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("first"), "{error:?}");
}

/// A provider that hangs delays a question, and does not fail it.
#[test]
fn a_fallback_answers_while_the_first_provider_hangs() {
    let (cluster, db) = (&SHARED.cluster(), "hangs");
    let mut client = cluster.database(db);
    let [first, _second] = providers(&mut client);
    create(&mut client, ", fallback => 'second'").unwrap();
    wait_synced(cluster, db, "t");
    let _slow = first.script(Rule::always().respond(Respond::delay(Duration::from_secs(600))));
    assert!((1..=3).all(|id| finds(&mut client, id)));
}

/// Another session gives the documents another model while the vectors of a fallback are compared: what was compared is not
/// stored.
#[test]
fn a_change_by_another_session_makes_a_comparison_void() {
    let (cluster, db) = (&SHARED.cluster(), "meanwhile");
    let mut client = cluster.database(db);
    let [_first, second] = providers(&mut client);
    create(&mut client, "").unwrap();
    wait_synced(cluster, db, "t");
    let gate = second.hold();
    let sql = "SELECT embedd.update_vector_table('t', fallback => 'second')";
    std::thread::scope(|scope| {
        let change = scope.spawn(|| cluster.connect(db).batch_execute(sql));
        let waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ 'fallback =>' AND wait_event_type = 'Extension'";
        cluster.wait_for(db, support::LONG, "the comparison", waits);
        client
            .batch_execute("SELECT embedd.update_vector_table('t', embedding_model => 'another', embedding_dimensions => 32)")
            .unwrap();
        drop(gate);
        let error = change.join().unwrap().unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{error:?}");
    });
    let settings = "SELECT bool_and(question_settings IS NULL) FROM embedd.vector_tables";
    assert!(client.query_one(settings, &[]).unwrap().get::<_, bool>(0));
}
