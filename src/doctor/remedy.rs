//! Builds remedies: statements that can be pasted into psql as they are.

use crate::catalog::{SyncMode, VectorTable};
use crate::document::Column;
use crate::error::Error;
use crate::key::Key;
use crate::name::quote_literal;

/// The keywords that start a statement in a HINT.
const BEGINNINGS: [&str; 6] = ["SELECT ", "ALTER ", "GRANT ", "CREATE ", "DROP ", "ANALYZE "];

/// The statement in a HINT, as a remedy; None if the HINT is only a sentence.
pub fn statement_in(hint: &str) -> Option<String> {
    let begin = BEGINNINGS
        .iter()
        .flat_map(|word| hint.match_indices(word).map(|(at, _)| at))
        .filter(|at| *at == 0 || hint[..*at].ends_with([' ', '(']))
        .min()?;
    let text = &hint[begin..];
    let is_call = text.starts_with("SELECT ");
    let (mut quote, mut depth) = (None, 0);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '(') => depth += 1,
            (None, ')') => {
                depth -= 1;
                if is_call && depth == 0 {
                    return Some(format!("{};", &text[..=at]));
                }
            }
            // The end of the sentence, or of the first of two alternatives.
            (None, '.') if !is_call && text[at + 1..].starts_with([' ', '\n']) => {
                return Some(format!("{};", &text[..at]));
            }
            (None, ',') if !is_call && text[at..].starts_with(", or ") => {
                return Some(format!("{};", &text[..at]));
            }
            _ => {}
        }
    }
    (!is_call).then(|| format!("{};", text.trim_end_matches('.')))
}

/// The remedy of an error: the statement in its HINT, or the sentence.
pub fn of(error: &Error) -> Option<String> {
    error.hint().map(|hint| statement_in(&hint).unwrap_or(hint))
}

/// The message of an error, with its DETAIL.
pub fn words(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{error}. {detail}"),
        None => error.to_string(),
    }
}

/// A call of one of embedd's functions with the name of a vector table or a provider.
pub fn call(function: &str, name: &str) -> String {
    format!("SELECT embedd.{function}({});", quote_literal(name))
}

/// Changes a setting that a reload applies.
pub fn set(name: &str, value: &str) -> String {
    format!("ALTER SYSTEM SET {name} = {value}; SELECT pg_catalog.pg_reload_conf();")
}

/// Changes a setting that needs a restart.
pub fn set_and_restart(name: &str, value: &str) -> String {
    format!("ALTER SYSTEM SET {name} = {value}; -- then restart the server")
}

/// A call that creates a similar vector table, with this name, sync mode and model.
pub fn create(table: &VectorTable, name: &str, mode: SyncMode, model: &str) -> Option<String> {
    let columns: Vec<Column> = table
        .columns
        .iter()
        .map(|c| Column { name: c.source().to_string(), source_column: None, ..c.clone() })
        .collect();
    let columns = serde_json::to_string(&columns).ok()?;
    let dimensions = match model == table.model {
        true => format!(", embedding_dimensions => {}", table.dimensions),
        false => String::new(),
    };
    Some(format!(
        "SELECT embedd.create_vector_table({}, {}, {}, {}, embedding_provider => {}, embedding_model => {}{dimensions}, sync_mode => {}, start_backfill => true);",
        quote_literal(name),
        quote_literal(table.source_name.as_deref()?),
        quote_literal(&columns),
        quote_literal(&Key::shown(&table.key_names())),
        quote_literal(&table.provider),
        quote_literal(model),
        quote_literal(mode.as_str()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_in_hints_are_found() {
        for (hint, statement) in [
            (
                "Set it: SELECT embedd.update_provider('o', api_key => '...').",
                "SELECT embedd.update_provider('o', api_key => '...');",
            ),
            (
                "SELECT embedd.retry_failed('it''s. (x') tries all of them again.",
                "SELECT embedd.retry_failed('it''s. (x');",
            ),
            (
                "ALTER TABLE public.t ENABLE TRIGGER a; ALTER TABLE public.t ENABLE TRIGGER b.",
                "ALTER TABLE public.t ENABLE TRIGGER a; ALTER TABLE public.t ENABLE TRIGGER b;",
            ),
            (
                "Let the role read every row: ALTER ROLE \"r, or \" BYPASSRLS, or ALTER TABLE t NO FORCE ROW LEVEL SECURITY where it owns the table.",
                "ALTER ROLE \"r, or \" BYPASSRLS;",
            ),
            (
                "A key of the role's own: CREATE USER MAPPING FOR r SERVER s OPTIONS (api_key '...'). For a common key, ask the provider's owner.",
                "CREATE USER MAPPING FOR r SERVER s OPTIONS (api_key '...');",
            ),
            (
                "GRANT USAGE ON FOREIGN SERVER \"a\" TO \"b\".",
                "GRANT USAGE ON FOREIGN SERVER \"a\" TO \"b\";",
            ),
        ] {
            assert_eq!(statement_in(hint).as_deref(), Some(statement), "{hint}");
        }
        for hint in [
            "Raise it.",
            "SELECT name FROM embedd.providers shows the providers you may use.",
            "Create the vector table with sync_mode => 'batch'.",
            "",
        ] {
            assert_eq!(statement_in(hint), None, "{hint}");
        }
    }
}
