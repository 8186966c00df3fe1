//! Processes that end at the worst moment: during a store, right after it, and with an answer in flight.

use super::Stage;
use support::processes::{EMBEDDER, SYNC_WORKER, kill9, terminate};
use support::source::{COLUMNS, relation};
use support::wait::until;
use support::{Frozen, LONG};

/// The worker is killed inside the transaction that stores vectors.
#[test]
fn a_worker_killed_in_a_store() {
    let mut stage = Stage::alone();
    // The rows that the worker has written are not visible, but its wait for this lock is.
    let mut other = stage.cluster.connect(&stage.db);
    let lock = format!("BEGIN; SELECT FROM {} WHERE pk_value = '3' FOR UPDATE", stage.vectors);
    other.batch_execute(&lock).unwrap();
    stage.run("UPDATE t SET title = 'text ' || id WHERE id <= 5; DELETE FROM t WHERE id = 6");
    stage.wait_for_worker_at_lock();
    let worker = stage.cluster.sync_worker(&stage.db);
    kill9(worker);
    stage.cluster.successor(SYNC_WORKER, worker);
    stage.assert_synced();
    assert!(!stage.has_vector(6));
}

/// The worker is killed as soon as its vectors are visible, before it does anything else: once before they are on
/// disk, which the worker does not wait for, and once after.
#[test]
fn a_worker_killed_between_a_store_and_the_next_round() {
    let mut stage = Stage::alone();
    for round in 0..4 {
        let gate = stage.fake.hold();
        stage.run_into_flight(&format!("UPDATE t SET title = 'text {round} ' || id WHERE id <= 5"));
        // Waits until the texts in flight are done.
        stage.run(&format!("UPDATE t SET title = 'next {round}' WHERE id = 1"));
        let worker = stage.cluster.sync_worker(&stage.db);
        let stored = format!(
            "SELECT count(*) = 4 FROM {} WHERE embedded_text LIKE 'Title: text {round}%' AND pk_value <> '1'",
            stage.vectors
        );
        gate.release();
        let seen = until(LONG, || stage.client.query_one(&stored, &[]).unwrap().get(0));
        assert!(seen.is_some(), "nothing was stored in round {round}");
        let on_disk = round % 2 == 1;
        if on_disk {
            // A synchronous commit flushes all earlier ones.
            stage.run(&format!("CREATE TABLE flushed{round} ()"));
        }
        kill9(worker);
        stage.cluster.successor(SYNC_WORKER, worker);
        stage.assert_synced();
        let most = if on_disk { 1 } else { 2 };
        for id in 2..=5 {
            let paid = stage.paid(&format!("text {round} {id}"));
            assert!((1..=most).contains(&paid), "round {round}, row {id}: paid for {paid} times");
        }
    }
}

/// The embedder ends while texts are at the provider, the row changes, and the answer arrives without a receiver.
#[test]
fn a_provider_answer_after_the_embedder_has_ended() {
    let mut stage = Stage::alone();
    let gate = stage.fake.hold();
    stage.run_into_flight("UPDATE t SET title = 'older ' || id WHERE id <= 3");
    let embedder = stage.cluster.pid(EMBEDDER);
    terminate(embedder);
    stage.cluster.successor(EMBEDDER, embedder);
    stage.run("UPDATE t SET title = 'newer' WHERE id = 1; DELETE FROM t WHERE id = 2");
    gate.release();
    stage.assert_synced();
    assert_eq!(stage.paid("newer"), 1);
    assert!(stage.paid("older 3") <= 2, "paid for {} times", stage.paid("older 3"));
    assert!(!stage.has_vector(2));
}

/// The answer has arrived unread when the embedder ends and the row changes; the worker reads it after that.
#[test]
fn an_unread_answer_of_an_embedder_that_has_ended() {
    let mut stage = Stage::alone();
    let gate = stage.fake.hold();
    stage.run_into_flight("UPDATE t SET title = 'older ' || id WHERE id <= 3");
    let frozen = Frozen::new(stage.cluster.sync_worker(&stage.db));
    let before = stage.fake.answer_count();
    gate.release();
    stage.fake.wait_until(LONG, "the answer", |fake| fake.answer_count() > before);
    let embedder = stage.cluster.pid(EMBEDDER);
    terminate(embedder);
    stage.cluster.successor(EMBEDDER, embedder);
    stage.run("UPDATE t SET title = 'newer' WHERE id = 1; DELETE FROM t WHERE id = 2");
    drop(frozen);
    stage.assert_synced();
    assert_eq!(stage.paid("newer"), 1);
    assert!(stage.paid("older 3") <= 2, "paid for {} times", stage.paid("older 3"));
    assert!(!stage.has_vector(2));
}

/// Reads of the queue fail repeatedly, because a session locks another vector table's rows in it. Then most of it is
/// done, the rest is at the provider, and the worker exits: the rest is still in the queue.
#[test]
fn a_worker_that_exits_after_failed_reads_of_the_queue() {
    let mut stage = Stage::alone();
    // Vector tables are read in the order of their creation.
    stage.run(&format!(
        "SELECT embedd.drop_vector_table('t');
         INSERT INTO t SELECT i, 'first ' || i, NULL, i FROM generate_series(11, 400) i;
         CREATE TABLE other (LIKE t INCLUDING ALL);
         SELECT embedd.create_vector_table('other', 'other', '{COLUMNS}');
         SELECT embedd.create_vector_table('t', 't', '{COLUMNS}', embedding_provider => 'fake',
                embedding_dimensions => 8, start_backfill => true)"
    ));
    stage.cluster.wait_done(&stage.db);
    stage.vectors = relation(&mut stage.client, "t");
    let gate = stage.fake.hold();
    let frozen = Frozen::new(stage.cluster.sync_worker(&stage.db));
    stage.run("INSERT INTO other SELECT * FROM t");
    stage.run(
        "UPDATE t SET price = -id, title = CASE WHEN id <= 10 THEN 'second ' || id ELSE title END",
    );
    let mut holder = stage.cluster.connect(&stage.db);
    holder.batch_execute("BEGIN; SELECT embedd.drop_vector_table('other')").unwrap();
    drop(frozen);
    let is_done = format!(
        "(SELECT count(*) = 390 FROM {} WHERE (metadata ->> 'price')::integer < 0)",
        stage.vectors
    );
    let is_held_up = format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{}' AND backend_type = '{SYNC_WORKER}'
                                                AND wait_event_type = 'Lock')",
        stage.db
    );
    for _ in 0..2 {
        let sql = format!("SELECT {is_held_up} OR {is_done}");
        stage.wait_for("the worker to be blocked, or done anyway", &sql);
        stage.wait_for_worker_at_rest();
    }
    holder.batch_execute("ROLLBACK").unwrap();
    stage.wait_for("all that needs no provider", &format!("SELECT {is_done}"));
    stage.fake.wait_until(LONG, "the rest at the provider", |fake| fake.concurrent() > 0);
    let worker = stage.cluster.sync_worker(&stage.db);
    terminate(worker);
    stage.cluster.successor(SYNC_WORKER, worker);
    gate.release();
    stage.run("SELECT embedd.drop_vector_table('other')");
    stage.assert_synced();
}
