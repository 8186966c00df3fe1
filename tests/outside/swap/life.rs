//! A shadow that is compared, kept, discarded, dropped with its vector table, paused, or whose provider dies.

use std::time::Duration;

use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::source::{wait_status, wait_synced};
use support::{Cluster, LONG, Shutdown};

use super::{IS_CLEAN, change, columns, dimensions, synced};

const DB: &str = "life";

fn code(client: &mut Client, sql: &str) -> String {
    let error = client.batch_execute(sql).unwrap_err();
    error.code().map(|code| code.code().to_string()).unwrap_or_default()
}

/// Fills a shadow and keeps it.
fn keep_shadow(cluster: &Cluster, client: &mut Client) {
    client
        .batch_execute(
            "SELECT embedd.update_vector_table('t', embedding_dimensions => 64);
             SELECT embedd.backfill('t', auto_swap => false)",
        )
        .unwrap();
    wait_status(cluster, DB, "t", "sync_status = 'pending_rebackfill'");
    let filled =
        "SELECT sync_status = 'synced' FROM embedd.vector_tables WHERE replaces IS NOT NULL";
    cluster.wait_for(DB, LONG, "the shadow to be filled", filled);
}

#[test]
fn a_shadow_is_compared_and_swapped_in() {
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 300);
    assert_eq!(code(&mut client, "SELECT embedd.swap('t')"), "55000");
    keep_shadow(&cluster, &mut client);
    client.batch_execute("UPDATE t SET title = 'found late' WHERE id = 5").unwrap();
    let current = "SELECT EXISTS (SELECT FROM embedd.compare('t', ARRAY['found late', NULL], 3) c
                   WHERE c.live_ids[1] = '5' AND c.shadow_ids[1] = '5' AND c.overlap > 0)";
    cluster.wait_for(DB, LONG, "both to have the change", current);
    assert_eq!(dimensions(&mut client), 32);
    client.batch_execute("SELECT embedd.swap('t')").unwrap();
    wait_synced(&cluster, DB, "t");
    assert_eq!(dimensions(&mut client), 64);
    cluster.wait_for(DB, LONG, "the replaced table to be dropped", IS_CLEAN);
}

#[test]
fn a_shadow_is_discarded_before_in_and_after_its_load() {
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 300);
    client
        .batch_execute("SELECT embedd.update_vector_table('t', embedding_dimensions => 64)")
        .unwrap();
    client.batch_execute("SELECT embedd.discard('t')").unwrap();
    wait_synced(&cluster, DB, "t");
    change(&mut client, "embedding_dimensions => 64");
    client.batch_execute("SELECT embedd.discard('t')").unwrap();
    wait_synced(&cluster, DB, "t");
    keep_shadow(&cluster, &mut client);
    client.batch_execute("SELECT embedd.discard('t')").unwrap();
    wait_synced(&cluster, DB, "t");
    assert_eq!(dimensions(&mut client), 32);
    cluster.wait_for(DB, LONG, "nothing to be left", IS_CLEAN);
    // A change back to what is in force discards too.
    client
        .batch_execute("SELECT embedd.update_vector_table('t', embedding_dimensions => 64)")
        .unwrap();
    client
        .batch_execute("SELECT embedd.update_vector_table('t', embedding_dimensions => 32)")
        .unwrap();
    wait_synced(&cluster, DB, "t");
    cluster.wait_for(DB, LONG, "nothing to be left", IS_CLEAN);
    client.batch_execute("UPDATE t SET title = 'still synced' WHERE id = 7").unwrap();
    wait_synced(&cluster, DB, "t");
}

#[test]
fn a_vector_table_or_its_source_is_dropped_in_a_load() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 300);
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('slow', 'openai_compatible', base_url => '{}', default_model => 'm')",
            fake.base_url()
        ))
        .unwrap();
    fake.script(Rule::always().respond(Respond::delay(Duration::from_secs(60))));
    let slowly = "embedding_provider => 'slow', embedding_dimensions => 8";
    change(&mut client, slowly);
    fake.wait_for_requests(1, LONG);
    client.batch_execute("SELECT embedd.drop_vector_table('t')").unwrap();
    cluster.wait_for(DB, LONG, "nothing to be left", IS_CLEAN);
    let nothing = "SELECT NOT EXISTS (SELECT FROM embedd.vector_tables) AND NOT EXISTS (SELECT FROM embedd.queue)
        AND NOT EXISTS (SELECT FROM embedd.tasks) AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgname LIKE 'embedd%')";
    cluster.wait_for(DB, LONG, "nothing to be left", nothing);
    let create = format!(
        "SELECT embedd.create_vector_table('t', 't', '{}', embedding_provider => 'p', embedding_dimensions => 32,
                start_backfill => true, on_source_drop => 'drop')",
        columns("A: ")
    );
    client.batch_execute(&create).unwrap();
    wait_synced(&cluster, DB, "t");
    change(&mut client, slowly);
    fake.wait_for_requests(2, LONG);
    client.batch_execute("DROP TABLE t").unwrap();
    cluster.wait_for(DB, LONG, "nothing to be left", nothing);
    cluster.wait_for(DB, LONG, "nothing to be left", IS_CLEAN);
}

#[test]
fn a_provider_that_dies_in_a_load_stops_no_query_and_a_pause_stops_the_load() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 300);
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('other', 'openai_compatible', base_url => '{}', default_model => 'm')",
            fake.base_url()
        ))
        .unwrap();
    fake.down();
    change(&mut client, "embedding_provider => 'other', embedding_dimensions => 8");
    wait_status(
        &cluster,
        DB,
        "t",
        "last_error LIKE 're-backfill: %' AND provider_state = 'failing'",
    );
    client.batch_execute("UPDATE t SET title = 'fresh' WHERE id = 5").unwrap();
    let fresh = "SELECT EXISTS (SELECT FROM embedd.query('t', 'fresh', 1) WHERE id = '5' AND embedded_text = 'A: fresh')";
    cluster.wait_for(DB, LONG, "the live table to have the change", fresh);
    client.batch_execute("SELECT embedd.pause_sync('t')").unwrap();
    fake.up();
    wait_status(&cluster, DB, "t", "sync_status = 'paused'");
    assert_eq!(dimensions(&mut client), 32);
    client.batch_execute("SELECT embedd.resume_sync('t')").unwrap();
    wait_synced(&cluster, DB, "t");
    assert_eq!(dimensions(&mut client), 8);
}

#[test]
fn a_restart_and_a_view_as_the_source() {
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 200);
    client
        .batch_execute(&format!(
            "SELECT embedd.drop_vector_table('t'); CREATE VIEW v AS SELECT id, title FROM t;
             SELECT embedd.create_vector_table('t', 'v', '{}', primary_key_column => 'id', embedding_provider => 'p',
                    embedding_dimensions => 32, sync_mode => 'batch', batch_interval => '1 s', start_backfill => true)",
            columns("A: ")
        ))
        .unwrap();
    wait_synced(&cluster, DB, "t");
    change(&mut client, "embedding_dimensions => 64");
    cluster.restart(Shutdown::Fast);
    wait_synced(&cluster, DB, "t");
    let mut client = cluster.connect(DB);
    assert_eq!(dimensions(&mut client), 64);
    cluster.wait_for(DB, LONG, "the replaced table to be dropped", IS_CLEAN);
}
