//! The model catalog: resolves a model, its dimensions and its limits.

mod prefix;
mod retirement;

use std::collections::BTreeMap;

use embedd_wire::{Kind, Model};
use pgrx::JsonB;
use pgrx::spi::SpiClient;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::name::quote_literal;
use crate::vector_column::MOST_DIMENSIONS;

pub use prefix::Prefixes;
pub use retirement::Retirement;

/// A row of embedd.models, without its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// The default dimensions.
    pub dimensions: i32,
    #[serde(default)]
    pub is_default: bool,
    /// The dimensions of a reply when the request names none; None means `dimensions`.
    #[serde(default)]
    pub native_dimensions: Option<i32>,
    #[serde(default)]
    pub can_shorten: bool,
    #[serde(default)]
    pub tokens_per_text: Option<u32>,
    #[serde(default)]
    pub texts_per_request: Option<u32>,
    #[serde(default)]
    pub tokens_per_request: Option<u32>,
    /// The prefixes of queries and documents; None is no prefix.
    #[serde(default)]
    pub query_prefix: Option<String>,
    #[serde(default)]
    pub document_prefix: Option<String>,
    /// The day on which its maker retires it, and its replacement.
    #[serde(default)]
    pub retires_on: Option<String>,
    #[serde(default)]
    pub replacement: Option<String>,
    /// Prices in US dollars; None is unknown.
    #[serde(default)]
    pub price_per_million_tokens: Option<serde_json::Number>,
    #[serde(default)]
    pub batch_price_per_million_tokens: Option<serde_json::Number>,
}

impl Entry {
    fn native(&self) -> i32 {
        self.native_dimensions.unwrap_or(self.dimensions)
    }

    /// Rejects dimensions that the model does not support.
    fn check(&self, model: &str, given: i32) -> Result<()> {
        let most = self.native().max(self.dimensions);
        let (message, hint) = match self.can_shorten {
            true if (1..=most).contains(&given) => return Ok(()),
            true => (
                format!("model \"{model}\" has 1 to {most} dimensions, not {given}"),
                format!("Omit embedding_dimensions for {}.", self.dimensions),
            ),
            false if given == self.dimensions => return Ok(()),
            false => (
                format!("model \"{model}\" has {} dimensions, not {given}", self.dimensions),
                "Omit embedding_dimensions.".to_string(),
            ),
        };
        Err(Error::BadArgument { message, detail: None, hint: Some(hint) })
    }
}

/// The models of a kind of provider by name, from the catalog.
fn of_kind(client: &SpiClient<'_>, kind: Kind) -> Result<BTreeMap<String, Entry>> {
    let rows = client.select(
        "select m.model, pg_catalog.to_jsonb(m) from embedd.models m where m.provider = $1",
        None,
        &[kind.as_str().into()],
    )?;
    let mut models = BTreeMap::new();
    for row in rows {
        if let (Some(model), Some(JsonB(entry))) = (row.get::<String>(1)?, row.get::<JsonB>(2)?) {
            models.insert(model, parse(entry)?);
        }
    }
    Ok(models)
}

/// The usual prefixes of a model: those of its row, or, for a server that runs any model, those of the row that
/// matches its name.
fn known_prefixes(
    client: &SpiClient<'_>,
    kind: Kind,
    model: &str,
    entry: Option<&Entry>,
) -> Result<Option<Prefixes>> {
    if entry.is_some() || !runs_any_model(kind) {
        return Ok(entry.and_then(Prefixes::of));
    }
    let mut rows = of_kind(client, Kind::Ollama)?;
    rows.append(&mut of_kind(client, Kind::OpenaiCompatible)?);
    let rows = rows.iter().map(|(name, entry)| (name.as_str(), entry));
    Ok(prefix::by_name(model, rows).and_then(Prefixes::of))
}

/// Whether a provider of this kind runs any model that its owner installs.
fn runs_any_model(kind: Kind) -> bool {
    matches!(kind, Kind::Ollama | Kind::OpenaiCompatible)
}

/// The row of a model; Ollama's tag "latest" may be omitted.
fn find<'a>(known: &'a BTreeMap<String, Entry>, kind: Kind, model: &str) -> Option<&'a Entry> {
    let latest = model.strip_suffix(":latest").filter(|_| kind == Kind::Ollama);
    known.get(model).or_else(|| known.get(latest?))
}

/// Parses rows of the catalog, as one jsonb, into entries by kind of provider.
pub fn parse_by_kind(rows: Option<JsonB>) -> Result<BTreeMap<String, Entry>> {
    rows.map_or_else(|| Ok(BTreeMap::new()), |JsonB(rows)| parse(rows))
}

fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|e| Error::Damaged { what: format!("embedd.models: {e}") })
}

/// The input for choosing a model.
pub struct Choice<'a> {
    pub kind: Kind,
    /// The name of the provider, for messages.
    pub provider: &'a str,
    /// The provider's default model.
    pub default_model: Option<&'a str>,
    pub model: Option<&'a str>,
    pub dimensions: Option<i32>,
    /// The prefixes for queries and documents, if the provider sets them.
    pub query_prefix: Option<&'a str>,
    pub document_prefix: Option<&'a str>,
    /// The argument that names a model.
    pub argument: &'static str,
    /// Whether the caller may set the provider's default model.
    pub may_change: bool,
}

/// The chosen model.
pub struct Chosen {
    pub model: String,
    pub dimensions: i32,
    pub prefixes: Prefixes,
    /// Whether the prefixes were guessed from the name of a model on a server that runs any model.
    pub prefixes_by_name: bool,
    pub retirement: Option<Retirement>,
    /// The row of the model in the catalog.
    pub entry: Option<Entry>,
}

impl Choice<'_> {
    /// Resolves the model, its dimensions and its prefixes.
    pub fn decide(&self, client: &SpiClient<'_>) -> Result<Chosen> {
        let known = of_kind(client, self.kind)?;
        let model = self.name(&known)?;
        let entry = find(&known, self.kind, &model);
        let dimensions = self.dimensions(&known, &model, entry)?;
        if dimensions > MOST_DIMENSIONS {
            return Err(Error::TooManyDimensions { dimensions, most: MOST_DIMENSIONS });
        }
        let (prefixes, prefixes_by_name) = self.prefixes(client, &model, entry)?;
        let retirement = entry.and_then(Retirement::of);
        let entry = entry.cloned();
        Ok(Chosen { model, dimensions, prefixes, prefixes_by_name, retirement, entry })
    }

    fn dimensions(
        &self,
        known: &BTreeMap<String, Entry>,
        model: &str,
        entry: Option<&Entry>,
    ) -> Result<i32> {
        let own = match entry {
            None if self.kind == Kind::Test => known.values().next(),
            entry => entry,
        };
        match (own, self.dimensions) {
            (None, _) if self.kind == Kind::Local => Err(Error::UnknownModel {
                provider: self.provider.to_string(),
                model: model.to_string(),
                available: list(known),
            }),
            (Some(entry), None) => Ok(entry.dimensions),
            (None, None) => Err(Error::ModelNotInCatalog {
                provider: self.provider.to_string(),
                kind: self.kind.as_str(),
                model: model.to_string(),
                available: list(known),
            }),
            (Some(entry), Some(given)) if !runs_any_model(self.kind) && self.kind != Kind::Test => {
                entry.check(model, given)?;
                Ok(given)
            }
            (_, Some(given)) if given < 1 => Err(Error::bad_argument(format!(
                "embedding_dimensions {given} is outside the range 1 to {MOST_DIMENSIONS}"
            ))),
            (_, Some(given)) => Ok(given),
        }
    }

    /// The prefixes: those of the provider, otherwise the usual ones of the model; and whether any of them is the
    /// latter.
    fn prefixes(
        &self,
        client: &SpiClient<'_>,
        model: &str,
        entry: Option<&Entry>,
    ) -> Result<(Prefixes, bool)> {
        let known = known_prefixes(client, self.kind, model, entry)?.unwrap_or_default();
        let choose = |own: Option<&str>, known: String| match own {
            Some(own) => (own.to_string(), false),
            None => {
                let is_known = !known.is_empty();
                (known, is_known)
            }
        };
        let (query, query_is_known) = choose(self.query_prefix, known.query);
        let (document, document_is_known) = choose(self.document_prefix, known.document);
        let by_name = runs_any_model(self.kind) && (query_is_known || document_is_known);
        Ok((Prefixes { query, document }, by_name))
    }

    fn name(&self, known: &BTreeMap<String, Entry>) -> Result<String> {
        let default =
            known.iter().find(|(_, entry)| entry.is_default).map(|(model, _)| model.as_str());
        let model = self.model.or(self.default_model).or(default).ok_or_else(|| Error::NoModel {
            provider: self.provider.to_string(),
            hint: match self.may_change {
                true => format!(
                    "Pass one as {}, or set a default: SELECT embedd.update_provider({}, default_model => '...').",
                    self.argument,
                    quote_literal(self.provider)
                ),
                false => format!(
                    "Pass one as {}, or ask the provider's owner to set a default_model.",
                    self.argument
                ),
            },
        })?;
        if model.trim().is_empty() || model.len() > 200 || model.chars().any(char::is_control) {
            return Err(Error::bad_argument(
                "the name of an embedding model has 1 to 200 bytes and no control characters",
            ));
        }
        Ok(model.to_string())
    }
}

/// The model for a test of a provider; if the catalog does not know it, its vectors may have any dimensions.
pub fn for_test(client: &SpiClient<'_>, choice: &Choice<'_>) -> Result<Model> {
    let known = of_kind(client, choice.kind)?;
    let name = choice.name(&known)?;
    let entry = find(&known, choice.kind, &name);
    let (prefixes, _) = choice.prefixes(client, &name, entry)?;
    // A server that runs any model may run one with fewer dimensions.
    let sure = entry.filter(|_| !runs_any_model(choice.kind));
    let dimensions = sure.map_or(0, |entry| entry.dimensions as u32);
    let mut model = match entry {
        Some(entry) => self::model(choice.kind, &name, dimensions, Some(entry)),
        None => Model::of_unknown_limits(&name, 0),
    };
    model.ask_dimensions &= dimensions > 0;
    (model.query_prefix, model.document_prefix) = (prefixes.query, prefixes.document);
    Ok(model)
}

/// The model with this name at a provider of this kind, as the embedder sees it, without its prefixes.
pub fn of_name(client: &SpiClient<'_>, kind: Kind, name: &str, dimensions: u32) -> Result<Model> {
    let known = of_kind(client, kind)?;
    Ok(model(kind, name, dimensions, find(&known, kind, name)))
}

/// A model as the embedder sees it, without its prefixes.
pub fn model(kind: Kind, name: &str, dimensions: u32, entry: Option<&Entry>) -> Model {
    let Some(entry) = entry else {
        // The caller has named the dimensions of a model that the catalog does not know.
        let ask_dimensions = matches!(kind, Kind::Openai | Kind::Gemini | Kind::Voyage);
        return Model { ask_dimensions, ..Model::of_unknown_limits(name, dimensions) };
    };
    Model {
        dimensions,
        ask_dimensions: entry.can_shorten && i64::from(dimensions) != i64::from(entry.native()),
        tokens_per_text: entry.tokens_per_text,
        texts_per_request: entry.texts_per_request,
        tokens_per_request: entry.tokens_per_request,
        replacement: entry.replacement.clone(),
        ..Model::of_unknown_limits(name, dimensions)
    }
}

fn list(known: &BTreeMap<String, Entry>) -> String {
    known.keys().cloned().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(dimensions: i32, native: Option<i32>, can_shorten: bool) -> Entry {
        Entry { dimensions, native_dimensions: native, can_shorten, ..Entry::default() }
    }

    #[test]
    fn only_other_dimensions_than_the_default_are_requested() {
        let asked = |entry: &Entry, n| model(Kind::Voyage, "m", n, Some(entry)).ask_dimensions;
        let lite = entry(512, Some(1024), true);
        assert!(asked(&lite, 512) && asked(&lite, 256) && !asked(&lite, 1024));
        assert!(!asked(&entry(512, None, false), 512));
        assert!(!asked(&entry(1536, None, true), 1536));
        for (kind, asks) in [
            (Kind::Openai, true),
            (Kind::Gemini, true),
            (Kind::Voyage, true),
            (Kind::Ollama, false),
            (Kind::OpenaiCompatible, false),
            (Kind::Local, false),
            (Kind::Test, false),
        ] {
            assert_eq!(model(kind, "m", 8, None).ask_dimensions, asks, "{kind:?}");
        }
    }

    #[test]
    fn a_model_supports_its_own_dimensions_or_fewer_if_it_can_shorten() {
        let large = entry(1024, Some(2048), true);
        assert!([1, 1024, 2048].iter().all(|n| large.check("m", *n).is_ok()));
        assert!([-1, 0, 2049].iter().all(|n| large.check("m", *n).is_err()));
        let fixed = entry(768, None, false);
        assert!(fixed.check("m", 768).is_ok() && fixed.check("m", 512).is_err());
    }

    #[test]
    fn rows_of_any_version_are_parsed() {
        let old = serde_json::json!({"provider": "local", "model": "m", "dimensions": 3, "is_default": true});
        let read: Entry = parse(old).unwrap();
        assert_eq!(read, Entry { dimensions: 3, is_default: true, ..Entry::default() });
        let new = serde_json::json!({"dimensions": 3, "native_dimensions": null, "can_shorten": true, "tokens_per_text": 512});
        let read: Entry = parse(new).unwrap();
        assert!(read.can_shorten && read.tokens_per_text == Some(512));
    }
}
