//! Tests of the providers: requests against the published APIs, replies and refusals as the services send them.

mod batches;
mod compatible;
mod limits;
mod pace;
mod published;
mod refusals;
mod replies;
mod requests;
mod tokens;
mod waits;
mod words;

use embedd_wire::{Encoding, Kind, Model, Provider};

/// A provider of a kind with defaults.
fn provider(kind: Kind) -> Provider {
    Provider { kind, name: "test".to_string(), ..Provider::local() }
}

/// A provider of a kind at another address.
fn provider_at(kind: Kind, base_url: &str) -> Provider {
    Provider { base_url: Some(base_url.to_string()), ..provider(kind) }
}

/// A provider of a kind with another encoding.
fn provider_with(kind: Kind, encoding: Encoding) -> Provider {
    Provider { encoding, ..provider(kind) }
}

/// A model of which only the name is known.
fn model(name: &str) -> Model {
    Model::of_unknown_limits(name, 0)
}

/// A model whose dimensions are part of the request.
fn model_asked(name: &str, dimensions: u32) -> Model {
    Model { dimensions, ask_dimensions: true, ..model(name) }
}

/// A model that reads this many tokens of a text.
fn model_reading(name: &str, tokens: u32) -> Model {
    Model { tokens_per_text: Some(tokens), ..model(name) }
}

/// Looks up headers in a list.
fn headers<'a>(list: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    move |name| list.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
}
