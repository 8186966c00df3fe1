//! The prefixes that models expect for queries and documents, and how models are recognised by name. Pure.

use super::Entry;

/// The prefixes of queries and documents; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    pub query: String,
    pub document: String,
}

impl Prefixes {
    /// The prefixes of a row of the catalog; None if it has none.
    pub fn of(entry: &Entry) -> Option<Prefixes> {
        let prefixes = Prefixes {
            query: entry.query_prefix.clone().unwrap_or_default(),
            document: entry.document_prefix.clone().unwrap_or_default(),
        };
        (!prefixes.are_empty()).then_some(prefixes)
    }

    /// Whether both prefixes are empty.
    pub fn are_empty(&self) -> bool {
        self.query.is_empty() && self.document.is_empty()
    }
}

/// The row that matches the name of a model, whatever it is called at a server: without its maker in front, and
/// without a tag, a size in bits or a format behind. Of several rows, the one with the longest name.
pub fn by_name<'a>(
    model: &str,
    rows: impl Iterator<Item = (&'a str, &'a Entry)>,
) -> Option<&'a Entry> {
    let wanted = bare(model);
    let wanted = wanted.strip_prefix("text-embedding-").unwrap_or(&wanted);
    rows.map(|(name, entry)| (bare(name), entry))
        .filter(|(name, _)| wanted.strip_prefix(name.as_str()).is_some_and(is_same_model))
        .max_by_key(|(name, _)| name.len())
        .map(|(_, entry)| entry)
}

/// A name in lower case without maker and tag.
fn bare(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.split(':').next().unwrap_or(name).to_lowercase()
}

/// Whether the rest of a name still denotes the same model: neither another version nor an instruction-tuned one.
fn is_same_model(rest: &str) -> bool {
    let Some(word) = rest.strip_prefix(['-', '_', '@', '.']) else { return rest.is_empty() };
    let is_version =
        word.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    !is_version && !word.starts_with("instruct")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_recognised_by_name_at_any_server() {
        let names = [
            "nomic-embed-text",
            "nomic-ai/nomic-embed-text-v1.5",
            "snowflake-arctic-embed",
            "snowflake-arctic-embed2",
            "Snowflake/snowflake-arctic-embed-l-v2.0",
            "intfloat/multilingual-e5-large",
            "intfloat/multilingual-e5-large-instruct",
            "BAAI/bge-base-en",
            "BAAI/bge-base-en-v1.5",
            "qwen3-embedding:0.6b",
        ];
        let rows: Vec<(&str, Entry)> = names
            .into_iter()
            .map(|name| {
                let query_prefix = Some(name.to_string());
                (name, Entry { query_prefix, ..Entry::default() })
            })
            .collect();
        let found = |model: &str| {
            let rows = rows.iter().map(|(name, entry)| (*name, entry));
            by_name(model, rows).and_then(|entry| entry.query_prefix.clone())
        };
        for (model, row) in [
            ("nomic-embed-text:v1.5", Some("nomic-embed-text")),
            ("library/nomic-embed-text", Some("nomic-embed-text")),
            ("text-embedding-nomic-embed-text-v1.5", Some("nomic-ai/nomic-embed-text-v1.5")),
            ("nomic-embed-text-v1.5-GGUF", Some("nomic-ai/nomic-embed-text-v1.5")),
            ("nomic-embed-text-v9", None),
            ("snowflake-arctic-embed:xs", Some("snowflake-arctic-embed")),
            ("snowflake-arctic-embed2:568m", Some("snowflake-arctic-embed2")),
            ("snowflake-arctic-embed-l-v2.0", Some("Snowflake/snowflake-arctic-embed-l-v2.0")),
            ("multilingual-e5-large", Some("intfloat/multilingual-e5-large")),
            ("multilingual-e5-large-instruct", Some("intfloat/multilingual-e5-large-instruct")),
            ("multilingual-e5-large-4bit", Some("intfloat/multilingual-e5-large")),
            ("BGE-base-en-v1.5", Some("BAAI/bge-base-en-v1.5")),
            ("bge-base-en-v2", None),
            ("bge-m3", None),
            ("Qwen/Qwen3-Embedding-8B", Some("qwen3-embedding:0.6b")),
            ("mine", None),
        ] {
            assert_eq!(found(model).as_deref(), row, "{model}");
        }
    }
}
