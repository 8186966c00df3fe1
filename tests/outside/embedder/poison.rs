//! A text that crashes the program each time: its row is found and fails, and all others continue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::processes::{EMBEDDER, kill9};
use support::source::assert_equal;
use support::{Cluster, SHORT, StopOnDrop};

const DB: &str = "poison";

#[test]
fn a_row_that_crashes_the_embedder_is_isolated() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    // Whenever the embedder works on this text it crashes: its request waits, and the test kills it.
    let poison = fake.script(Rule::when_text("poison").respond(Respond::never()));
    let cluster = Cluster::builder().set("embedd.batch_texts", "16").start();
    let mut client = cluster.database(DB);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            let mut killed = 0;
            while !stop.load(Ordering::SeqCst) {
                if poison.hits() > killed {
                    killed = poison.hits();
                    cluster.pids(EMBEDDER).into_iter().for_each(kill9);
                }
                thread::yield_now();
            }
        });
        client
            .batch_execute(&format!(
                "SELECT embedd.create_provider('fake', 'openai_compatible', base_url => '{}', default_model => 'm');
                 CREATE TABLE t (id bigint PRIMARY KEY, body text);
                 INSERT INTO t SELECT i, CASE i WHEN 77 THEN 'poison' ELSE 'row ' || i END FROM generate_series(1, 200) i;
                 SELECT embedd.create_vector_table('t', 't', '[{{\"name\": \"body\", \"role\": \"embedding\"}}]',
                        embedding_provider => 'fake', embedding_dimensions => 8, start_backfill => true)",
                fake.base_url()
            ))
            .unwrap();
        cluster.wait_done(DB);
    });
    let failed = client.query("SELECT pk_value, reason FROM embedd.failed_rows", &[]).unwrap();
    let failed: Vec<(String, String)> = failed.iter().map(|row| (row.get(0), row.get(1))).collect();
    let [(key, reason)] = failed.as_slice() else { panic!("{failed:?}") };
    assert_eq!(key, "77");
    assert!(reason.contains("the embedder ended each time"), "{reason}");
    let vectors = "SELECT synced_rows FROM embedd.sync_status('t')";
    assert_eq!(client.query_one(vectors, &[]).unwrap().get::<_, i64>(0), 199);
    // A harmless text repairs the row.
    client.batch_execute("UPDATE t SET body = 'harmless' WHERE id = 77").unwrap();
    cluster.wait_for(
        DB,
        SHORT,
        "the row to be healed",
        "SELECT NOT EXISTS (SELECT FROM embedd.failed_rows)",
    );
    cluster.wait_done(DB);
    assert_equal(&mut client, "t");
}
