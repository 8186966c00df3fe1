//! Tasks: a backfill can be watched and cancelled, and only a page that ends the worker again and again makes it fail.

mod attempts;
mod cancel;

use postgres::Client;
use support::fake_provider::FakeProvider;
use support::source::BODY;

/// A provider for `fake`, and a source `t` with so many rows that are embedded by it, not backfilled.
fn create_source(client: &mut Client, fake: &FakeProvider, rows: i64) {
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('fake', 'openai_compatible', base_url => '{}', default_model => 'm',
                    options => '{{\"texts_per_request\": 16, \"max_in_flight\": 2}}');
             CREATE TABLE t (id int PRIMARY KEY, body text);
             INSERT INTO t SELECT i, 'text ' || i FROM generate_series(1, {rows}) i;
             SELECT embedd.create_vector_table('t', 't', '{BODY}', embedding_provider => 'fake', embedding_dimensions => 8)",
            fake.base_url()
        ))
        .unwrap();
}

/// The first column of the only row.
fn one<T: for<'a> postgres::types::FromSql<'a>>(client: &mut Client, sql: &str) -> T {
    client.query_one(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

/// The status of `t`.
fn status(client: &mut Client) -> String {
    one(client, "SELECT sync_status FROM embedd.sync_status('t')")
}
