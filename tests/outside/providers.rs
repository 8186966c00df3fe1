//! Providers in real clusters, with scripted services.

mod batch_price;
mod costs;
mod fairness;
mod hanging;
mod limits;
mod network;
mod prefixes;
mod secrets;
mod services;
mod failures;

use postgres::Client;
use support::Shared;
use support::fake_provider::{Dialect, FakeProvider};
use support::source::COLUMNS;

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

/// The key that every fake requires.
const KEY: &str = "sk-test-0123456789abcdef";

/// The model that every fake has.
const MODEL: &str = "fake-model";

/// A fake that requires the key and has one model of eight dimensions.
fn fake(dialect: Dialect) -> FakeProvider {
    FakeProvider::builder(dialect).key(KEY).dimensions(8).model(MODEL).start()
}

/// embedd's name for the API of a fake.
fn kind(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi => "openai",
        Dialect::OpenAiCompatible => "openai_compatible",
        Dialect::Gemini => "gemini",
        Dialect::Voyage => "voyage",
        Dialect::Ollama => "ollama",
    }
}

/// Creates a provider of this name for the fake; options are a JSON object.
fn create_provider(client: &mut Client, name: &str, dialect: Dialect, url: &str, options: &str) {
    client
        .execute(
            "SELECT embedd.create_provider($1, $2, api_key => $3, default_model => $4, base_url => $5,
                    options => $6::text::jsonb)",
            &[&name, &kind(dialect), &KEY, &MODEL, &url, &options],
        )
        .expect("the provider can be made");
}

/// Creates a table of this many rows and a vector table of the same name with this provider, and backfills it.
fn create_source(client: &mut Client, name: &str, provider: &str, rows: i64) {
    let dimensions = if provider == "local" { "NULL" } else { "8" };
    let sql = format!(
        "CREATE TABLE {name} (id bigint PRIMARY KEY, title text, body text, price integer);
         INSERT INTO {name} SELECT i, 'title ' || i, 'body of ' || i, i FROM generate_series(1, {rows}) i;
         SELECT embedd.create_vector_table('{name}', '{name}', '{COLUMNS}', embedding_provider => '{provider}',
                embedding_dimensions => {dimensions}, start_backfill => true)"
    );
    client.batch_execute(&sql).expect("the vector table can be made");
}

/// One column of sync_status() as text.
fn status(client: &mut Client, table: &str, column: &str) -> Option<String> {
    let sql = format!("SELECT {column}::text FROM embedd.sync_status($1)");
    client.query_one(&sql, &[&table]).expect("the status can be read").get(0)
}
