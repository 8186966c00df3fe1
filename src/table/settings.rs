//! What two configurations of a vector table differ in, and whether that needs new vectors. Pure.

use crate::catalog::QuestionSettings;
use crate::document::{self, Column};
use crate::vector_column::{ColumnType, IndexOptions};

/// A configuration, as far as a change can alter it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub provider: String,
    pub model: String,
    pub dimensions: i32,
    pub query_prefix: String,
    pub document_prefix: String,
    pub columns: Vec<Column>,
    pub vector_type: ColumnType,
    pub index: Option<IndexOptions>,
    pub batch_interval: Option<f64>,
    pub on_source_drop: &'static str,
    pub on_shadow: Option<String>,
    pub questions: QuestionSettings,
}

/// What a change needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nothing but a note.
    Note,
    /// Rows are compared and rewritten where they are, without a provider.
    Rewrite,
    /// A table of its own, in which texts that did not change keep their vectors.
    Table,
}

/// The arguments in which two configurations differ, each with what its change needs.
pub fn differences(before: &Settings, after: &Settings) -> Vec<(&'static str, Need)> {
    let text = |settings: &Settings| document::expressions(&settings.columns, "s").text;
    let without_indexes = |settings: &Settings| {
        let columns = settings.columns.iter().cloned();
        columns.map(|column| Column { index: false, ..column }).collect::<Vec<_>>()
    };
    let columns = match text(before) == text(after) {
        true if without_indexes(before) == without_indexes(after) => Need::Note,
        true => Need::Rewrite,
        false => Need::Table,
    };
    // Only questions have this prefix.
    let prefix = match before.document_prefix == after.document_prefix {
        true => Need::Note,
        false => Need::Table,
    };
    let (one, other) = (&before.questions, &after.questions);
    let has_other_prefix = before.query_prefix != after.query_prefix
        || before.document_prefix != after.document_prefix;
    [
        (before.columns != after.columns, "columns", columns),
        (before.provider != after.provider, "embedding_provider", Need::Note),
        (before.model != after.model, "embedding_model", Need::Table),
        (before.dimensions != after.dimensions, "embedding_dimensions", Need::Table),
        (has_other_prefix, "prefixes", prefix),
        (before.batch_interval != after.batch_interval, "batch_interval", Need::Note),
        (before.on_source_drop != after.on_source_drop, "on_source_drop", Need::Note),
        (before.vector_type != after.vector_type, "vector_type", Need::Table),
        (before.index != after.index, "index", Need::Table),
        (before.on_shadow != after.on_shadow, "on_shadow", Need::Note),
        (one.recall_target != other.recall_target, "recall_target", Need::Note),
        (one.query_provider != other.query_provider, "query_provider", Need::Note),
        (one.query_model != other.query_model, "query_model", Need::Note),
        (one.fallback != other.fallback, "fallback", Need::Note),
        (one.row_security != other.row_security, "row_security", Need::Note),
    ]
    .into_iter()
    .filter(|(differs, ..)| *differs)
    .map(|(_, name, need)| (name, need))
    .collect()
}

/// Whether vectors of one configuration can be used in another for the same text.
pub fn has_same_vectors(one: &Settings, other: &Settings) -> bool {
    (&one.model, one.dimensions, &one.document_prefix)
        == (&other.model, other.dimensions, &other.document_prefix)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn columns(value: serde_json::Value) -> Vec<Column> {
        document::parse_columns(&value).unwrap()
    }

    fn settings() -> Settings {
        Settings {
            provider: "p".to_string(),
            model: "m".to_string(),
            dimensions: 8,
            query_prefix: String::new(),
            document_prefix: String::new(),
            columns: columns(json!([
                {"name": "a", "role": "embedding"},
                {"name": "b", "role": "metadata"}
            ])),
            vector_type: ColumnType::Vector,
            index: None,
            batch_interval: None,
            on_source_drop: "keep",
            on_shadow: None,
            questions: QuestionSettings::default(),
        }
    }

    #[test]
    fn what_leaves_the_vectors_as_they_are_needs_no_table() {
        let before = settings();
        assert_eq!(differences(&before, &before), []);
        let provider = Settings { provider: "q".to_string(), ..settings() };
        assert_eq!(differences(&before, &provider), [("embedding_provider", Need::Note)]);
        let indexed = Settings {
            columns: columns(json!([
                {"name": "a", "role": "embedding"},
                {"name": "b", "role": "metadata", "index": true}
            ])),
            ..settings()
        };
        assert_eq!(differences(&before, &indexed), [("columns", Need::Note)]);
        let metadata = Settings {
            columns: columns(json!([
                {"name": "a", "role": "embedding", "filter_type": "keyword"},
                {"name": "c", "role": "metadata"}
            ])),
            ..settings()
        };
        assert_eq!(differences(&before, &metadata), [("columns", Need::Rewrite)]);
        let question = Settings { query_prefix: "query: ".to_string(), ..settings() };
        assert_eq!(differences(&before, &question), [("prefixes", Need::Note)]);
    }

    #[test]
    fn what_changes_texts_vectors_or_index_needs_a_table() {
        let before = settings();
        for (after, name) in [
            (Settings { model: "n".to_string(), ..settings() }, "embedding_model"),
            (Settings { dimensions: 9, ..settings() }, "embedding_dimensions"),
            (Settings { document_prefix: "d: ".to_string(), ..settings() }, "prefixes"),
            (Settings { vector_type: ColumnType::Halfvec, ..settings() }, "vector_type"),
            (Settings { index: Some(IndexOptions::default()), ..settings() }, "index"),
            (
                Settings {
                    columns: columns(json!([
                        {"name": "a", "role": "embedding", "name_prefix": "A: "},
                        {"name": "b", "role": "metadata"}
                    ])),
                    ..settings()
                },
                "columns",
            ),
        ] {
            assert_eq!(differences(&before, &after), [(name, Need::Table)]);
        }
    }

    #[test]
    fn vectors_are_those_of_a_model_with_its_dimensions_and_prefix() {
        let one = settings();
        let other =
            Settings { provider: "q".to_string(), query_prefix: "x".to_string(), ..settings() };
        assert!(has_same_vectors(&one, &other));
        assert!(!has_same_vectors(&one, &Settings { dimensions: 9, ..settings() }));
        assert!(!has_same_vectors(&one, &Settings { model: "n".to_string(), ..settings() }));
        let prefixed = Settings { document_prefix: "x".to_string(), ..settings() };
        assert!(!has_same_vectors(&one, &prefixed));
    }
}
