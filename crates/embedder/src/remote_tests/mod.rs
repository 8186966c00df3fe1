//! Tests of the embedder against scripted services, over its socket as sessions and workers use it.

mod allowance;
mod answers;
mod connections;
mod limits;
mod loading;
mod pacing;
mod refusals;

use std::time::Duration;

use super::tests::{BlockingClient, Fixture};
use embedd_wire::{
    Embeddings, Failure, InputType, Kind, Model, Priority, Provider, Request, Secret,
};
use support::fake_provider::{Dialect, FakeProvider};

/// The key that every fake requires.
const KEY: &str = "sk-test-0123456789";

/// The dimensions of every fake.
const DIMENSIONS: u32 = 8;

/// A fake that requires the key.
fn fake(dialect: Dialect) -> FakeProvider {
    FakeProvider::builder(dialect).key(KEY).dimensions(DIMENSIONS as usize).start()
}

/// The provider that is this fake.
fn provider(kind: Kind, base_url: String) -> Provider {
    let api_key = Some(Secret::new(KEY));
    let mut provider = Provider { kind, api_key, base_url: Some(base_url), ..Provider::local() };
    (provider.name, provider.database, provider.server) = ("fake".to_string(), 7, 8);
    provider.limits.timeout_ms = 5000;
    provider
}

/// A request for changed documents.
fn documents<T: ToString>(id: u64, provider: &Provider, texts: &[T]) -> Request {
    Request {
        id,
        provider: provider.clone(),
        model: Model::of_unknown_limits("text-embedding-3-small", DIMENSIONS),
        input_type: InputType::Document,
        priority: Priority::Change,
        more: false,
        timeout_ms: 0,
        is_test: false,
        texts: texts.iter().map(T::to_string).collect(),
    }
}

/// A request for one question, with a timeout of ten seconds.
fn question(id: u64, provider: &Provider, text: &str) -> Request {
    let (input_type, priority) = (InputType::Query, Priority::Question);
    Request { input_type, priority, timeout_ms: 10_000, ..documents(id, provider, &[text]) }
}

/// This many different texts.
fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("text {number}")).collect()
}

/// The replies to requests that were sent, in the order of their ids.
fn replies(client: &mut BlockingClient, count: u64) -> Vec<Result<Embeddings, Failure>> {
    let mut replies: Vec<_> = (0..count).map(|_| client.receive()).collect();
    replies.sort_by_key(|reply| reply.id);
    replies.into_iter().map(|reply| reply.outcome).collect()
}

/// Sends a request to an embedder of its own.
fn ask(request: &Request) -> Result<Embeddings, Failure> {
    Fixture::new(|_| {}).client().ask(request)
}

/// A timeout for what takes only moments when nothing is wrong.
const SOON: Duration = Duration::from_secs(15);
