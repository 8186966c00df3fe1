//! What goes wrong between the steps of a batch: kills, lost answers, refusals, batches that expire or fail.

use super::*;
use support::Shutdown;
use support::fake_provider::{BatchCall, BatchTrouble};
use support::processes::kill9;

#[test]
fn no_answer_that_is_lost_pays_for_a_text_twice() {
    let cluster = SHARED.cluster();
    let troubles = [
        (BatchCall::Upload, BatchTrouble::LostAnswer),
        (BatchCall::Create, BatchTrouble::LostAnswer),
        (BatchCall::Create, BatchTrouble::Status(503)),
        (BatchCall::List, BatchTrouble::Status(500)),
        (BatchCall::Look, BatchTrouble::LostAnswer),
        (BatchCall::Content, BatchTrouble::LostAnswer),
        (BatchCall::Content, BatchTrouble::Status(429)),
    ];
    let mut runs = Vec::new();
    for (number, (call, trouble)) in troubles.into_iter().enumerate() {
        for (of, dialect) in DIALECTS.into_iter().enumerate() {
            if dialect == Dialect::Gemini && matches!(call, BatchCall::Upload | BatchCall::Content)
            {
                continue;
            }
            let db = format!("batch_price_lost_{number}_{of}");
            let (_, mut client, fake) = start(&db, dialect, 30);
            fake.trouble_batches(call, trouble);
            if call == BatchCall::List {
                fake.trouble_batches(BatchCall::Create, BatchTrouble::LostAnswer);
            }
            begin(&mut client, "t");
            runs.push((db, client, fake));
        }
    }
    for (db, mut client, fake) in runs {
        wait_synced(&cluster, &db, &mut client, &fake, (27, 0));
    }
}

#[test]
fn kills_between_the_steps_pay_for_no_text_twice() {
    let cluster = Cluster::start();
    let mut client = cluster.database("killed");
    let fake = fake(Dialect::OpenAi);
    create(&mut client, &fake, Dialect::OpenAi, "t", 200);
    // The answer to the batch never comes, and the worker is killed: only the token tells that there is one.
    fake.hold_batches();
    let gate = fake.hold();
    begin(&mut client, "t");
    cluster.wait_until(LONG, "the upload to arrive", || {
        fake.requests().iter().any(|seen| seen.path.ends_with("/files"))
    });
    kill9(cluster.sync_worker("killed"));
    gate.release();
    wait_batches(&cluster, &fake, 1);
    let named =
        "SELECT count(*) = 1 AND bool_and(provider_batch IS NOT NULL) FROM embedd.provider_batches";
    cluster.wait_for("killed", LONG, "the batch to be found or handed in", named);
    // While the provider works: the worker, the embedder, and the whole server.
    kill9(cluster.sync_worker("killed"));
    let mut embedder = None;
    cluster.wait_until(LONG, "an embedder", || {
        let client = cluster.try_connect("killed").ok();
        let sql = "SELECT pid FROM embedd.embedder_status()";
        let row = client.and_then(|mut client| client.query_one(sql, &[]).ok());
        embedder = row.and_then(|row| row.get::<_, Option<i32>>(0));
        embedder.is_some()
    });
    kill9(embedder.unwrap());
    cluster.restart(Shutdown::Immediate);
    cluster.wait_for("killed", LONG, "the batch to be known", named);
    // While its vectors are fetched.
    let gate = fake.hold();
    fake.end_batches(BatchFate::Complete);
    cluster.wait_until(LONG, "a look at the batch", || fake.concurrent() > 0);
    kill9(cluster.sync_worker("killed"));
    gate.release();
    // The kill of a worker ends every session.
    wait_status(&cluster, "killed", "t", "sync_status = 'synced'");
    wait_synced(&cluster, "killed", &mut cluster.connect("killed"), &fake, (180, 0));
}

#[test]
fn texts_of_batches_that_expire_or_fail_are_handed_in_again() {
    let cluster = SHARED.cluster();
    for (number, dialect) in DIALECTS.into_iter().enumerate() {
        let db = format!("batch_price_again_{number}");
        let (_, mut client, fake) = start(&db, dialect, 40);
        fake.hold_batches();
        fake.refuse_in_batches("text of 3 ");
        client.batch_execute("UPDATE t SET body = 'text of 3 is bad' WHERE id = 3").unwrap();
        wait_forgotten(&cluster, &db);
        begin(&mut client, "t");
        wait_batches(&cluster, &fake, 1);
        fake.end_next_batch(BatchFate::Fail);
        fake.end_next_batch(BatchFate::Expire);
        fake.end_batches(BatchFate::Complete);
        cluster
            .wait_until(LONG, "three batches", || fake.batches().len() + fake.deleted().len() >= 3);
        // The text that the batch API rejects is asked for once more outside of it, which says whether its row fails.
        wait_synced(&cluster, &db, &mut client, &fake, (36, 1));
    }
}

#[test]
fn a_key_that_is_rejected_and_a_batch_that_is_unknown_are_told_and_nothing_is_lost() {
    let db = "batch_price_key";
    let (cluster, mut client, fake) = start(db, Dialect::OpenAi, 20);
    fake.hold_batches();
    begin(&mut client, "t");
    wait_named(&cluster, db);
    fake.set_key("another");
    let says = |client: &mut Client, what: &str| {
        cluster.wait_until(LONG, what, || {
            status(client, "t", "last_error").is_some_and(|error| error.contains(what))
        });
    };
    says(&mut client, "rejects the key");
    fake.set_key(KEY);
    fake.trouble_batches(BatchCall::Look, BatchTrouble::Status(404));
    fake.trouble_batches(BatchCall::Look, BatchTrouble::Status(404));
    client.execute("SELECT embedd.update_provider('t', api_key => $1)", &[&KEY]).unwrap();
    says(&mut client, "does not know batch");
    // Another copy of this database may have fetched it, and have deleted its files.
    fake.trouble_batches(BatchCall::Content, BatchTrouble::Status(404));
    fake.end_batches(BatchFate::Complete);
    says(&mut client, "its file");
    wait_synced(&cluster, db, &mut client, &fake, (18, 0));
}

#[test]
fn a_cap_bounds_batches_too() {
    let db = "batch_price_capped";
    let (cluster, mut client, fake) = start(db, Dialect::OpenAi, 20);
    client
        .batch_execute(
            r#"SELECT embedd.update_provider('t', options => '{"max_tokens_per_day": 40}')"#,
        )
        .unwrap();
    begin(&mut client, "t");
    let said = "has reached max_tokens_per_day";
    cluster.wait_until(LONG, said, || {
        status(&mut client, "t", "last_error").is_some_and(|error| error.contains(said))
    });
    let sent: usize = fake.batches().iter().map(|batch| batch.texts.len()).sum();
    assert!(sent > 0 && sent < 18, "{sent} texts for 40 tokens");
    client
        .batch_execute(
            r#"SELECT embedd.update_provider('t', options => '{"max_tokens_per_day": null}')"#,
        )
        .unwrap();
    wait_synced(&cluster, db, &mut client, &fake, (18, 0));
}

#[test]
fn a_row_that_cannot_be_read_leaves_the_others_the_batch_price() {
    let db = "batch_price_bad_row";
    let (cluster, mut client, fake) = start(db, Dialect::OpenAi, 0);
    client
        .batch_execute(
            "CREATE TYPE odd AS (value text);
             CREATE FUNCTION odd_text(odd) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 IF $1.value LIKE 'bad%' THEN RAISE EXCEPTION 'cannot be read: %', $1.value; END IF;
                 RETURN $1.value;
             END $$;
             CREATE CAST (odd AS text) WITH FUNCTION odd_text(odd);
             CREATE TABLE o (id bigint PRIMARY KEY, title odd);
             INSERT INTO o SELECT i, row(CASE WHEN i % 100 = 7 THEN 'bad ' || i ELSE 'fine ' || i END)::odd FROM generate_series(1, 300) i;
             SELECT embedd.create_vector_table('o', 'o', '[{\"name\": \"title\", \"role\": \"embedding\"}]',
                    embedding_provider => 't', embedding_dimensions => 8)",
        )
        .unwrap();
    begin(&mut client, "o");
    wait_status(&cluster, db, "o", "sync_status = 'synced' AND failed_rows = 3");
    assert_eq!((fake.paid_total(), ordinary(&fake), noted(&mut client)), (297, 0, (0, 0)));
}
