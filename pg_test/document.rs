//! The document of a row as PostgreSQL computes it: text, metadata and a hash that changes exactly when they do.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;
    use serde_json::json;

    use crate::document::{document_sql, parse_columns};
    use crate::key::{Key, KeyColumn};

    /// Text, metadata and hash of the only row of the table `rows_of_test`.
    fn document(columns: &serde_json::Value) -> (String, String, String) {
        let columns = parse_columns(columns).expect("columns");
        let id = KeyColumn {
            name: "id".into(),
            type_name: "integer".into(),
            equals: "operator(pg_catalog.=)".into(),
            greater: "operator(pg_catalog.>)".into(),
        };
        let sql =
            document_sql("rows_of_test", &Key { columns: vec![id] }, &columns, "true", "false");
        let sql = format!("select d.embedded_text, d.metadata::text, d.row_hash from ({sql}) d");
        let (text, metadata, hash) = Spi::get_three::<String, String, String>(&sql).expect("query");
        (text.expect("text"), metadata.expect("metadata"), hash.expect("hash"))
    }

    fn run(sql: &str) {
        Spi::run(sql).expect("statement");
    }

    #[pg_test]
    fn parts_are_joined_in_order_without_empty_ones() {
        run("create table rows_of_test (id int, a text, b text, c int, d text);
             insert into rows_of_test values (1, 'first', null, 3, '')");
        let (text, metadata, _) = document(&json!([
            {"name": "d", "role": "embedding", "ordinal": 1, "name_prefix": "D: "},
            {"name": "c", "role": "embedding", "ordinal": 2, "name_prefix": "C: "},
            {"name": "a", "role": "embedding"},
            {"name": "b", "role": "metadata"}]));
        assert_eq!(text, "C: 3\nfirst");
        assert_eq!(metadata, r#"{"a": "first", "b": null, "c": 3, "d": ""}"#);
    }

    #[pg_test]
    fn the_hash_follows_text_and_metadata_and_nothing_else() {
        run("create table rows_of_test (id int, a text, b text, other text);
             insert into rows_of_test values (1, 'x', 'y', 'z')");
        let columns = json!([
            {"name": "a", "role": "embedding"}, {"name": "b", "role": "metadata"}]);
        let (_, _, first) = document(&columns);
        run("update rows_of_test set other = 'changed'");
        assert_eq!(document(&columns).2, first);
        run("update rows_of_test set b = 'changed'");
        let second = document(&columns).2;
        assert_ne!(second, first);
        run("update rows_of_test set a = 'changed'");
        assert_ne!(document(&columns).2, second);
    }

    #[pg_test]
    fn a_row_without_text_has_the_empty_text() {
        run(
            "create table rows_of_test (id int, a text); insert into rows_of_test values (1, null)",
        );
        let (text, metadata, hash) = document(&json!([{"name": "a", "role": "embedding"}]));
        assert_eq!((text.as_str(), metadata.as_str(), hash.len()), ("", r#"{"a": null}"#, 64));
    }
}
