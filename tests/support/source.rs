//! Sources with vector tables for tests, and the check that both are equal.

use postgres::Client;

use super::Cluster;
use super::fake_provider::FakeProvider;
use super::wait::LONG;

/// Holds when no work is left: no row in the queue and no unfinished task.
const IS_DONE: &str = "SELECT NOT EXISTS (SELECT FROM embedd.queue)
    AND NOT EXISTS (SELECT FROM embedd.tasks WHERE status IN ('pending', 'running'))";

/// The columns of sources created here: two texts, one with a prefix, and a number as metadata.
pub const COLUMNS: &str = r#"[
    {"name": "title", "role": "embedding", "ordinal": 1, "name_prefix": "Title: "},
    {"name": "body", "role": "embedding", "ordinal": 2},
    {"name": "price", "role": "metadata", "filter_type": "integer"}]"#;

/// A single text column, for the simplest sources.
pub const BODY: &str = r#"[{"name": "body", "role": "embedding"}]"#;

impl Cluster {
    /// A new database with the extension, and a session in it.
    pub fn database(&self, db: &str) -> Client {
        self.create_database(db);
        self.create_extension(db);
        self.connect(db)
    }

    /// Waits until no work is left in a database.
    pub fn wait_done(&self, db: &str) {
        self.wait_for(db, LONG, &format!("the work in \"{db}\" to be done"), IS_DONE);
    }

    /// Waits until no work is left in a database; then its vector table must equal its source.
    pub fn assert_synced(&self, db: &str, name: &str) {
        self.wait_done(db);
        assert_equal(&mut self.connect(db), name);
    }
}

/// Waits until sync_status() has this value.
pub fn wait_status(cluster: &Cluster, db: &str, name: &str, condition: &str) {
    let sql = format!("SELECT {condition} FROM embedd.sync_status('{name}')");
    cluster.wait_for(db, LONG, condition, &sql);
}

/// Waits until a vector table has status synced; then it must equal its source.
pub fn wait_synced(cluster: &Cluster, db: &str, name: &str) {
    wait_status(cluster, db, name, "sync_status = 'synced' AND rows_pending = 0");
    let sql = format!("SELECT count(*) FROM embedd.verify('{name}')");
    let differences: i64 = cluster.connect(db).query_one(&sql, &[]).unwrap().get(0);
    assert_eq!(differences, 0, "synced, and {differences} rows differ");
}

/// A table with this many rows of one text each, and a synced vector table of the same name.
pub fn synced_texts(cluster: &Cluster, db: &str, client: &mut Client, name: &str, rows: i64) {
    create_texts(client, name, rows, "");
    wait_synced(cluster, db, name);
}

/// The same with a provider, with 384 dimensions, and without waiting.
pub fn create_texts_of(client: &mut Client, provider: &FakeProvider, name: &str, rows: i64) {
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('fake', 'openai_compatible', base_url => '{}', default_model => 'm')",
            provider.base_url()
        ))
        .unwrap();
    create_texts(client, name, rows, "embedding_provider => 'fake', embedding_dimensions => 384,");
}

fn create_texts(client: &mut Client, name: &str, rows: i64, more: &str) {
    client
        .batch_execute(&format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, body text);
             INSERT INTO {name} SELECT i, 'text ' || i FROM generate_series(1, {rows}) i;
             SELECT embedd.create_vector_table('{name}', '{name}', '{BODY}', {more} start_backfill => true)"
        ))
        .unwrap();
}

/// Creates a table with this many rows and a vector table of the same name, not backfilled.
pub fn create_source(client: &mut Client, name: &str, rows: i64) {
    let sql = format!(
        "CREATE TABLE {name} (id bigint PRIMARY KEY, title text, body text, price integer);
         INSERT INTO {name} SELECT i, 'title ' || i, 'body of ' || i, i FROM generate_series(1, {rows}) i"
    );
    client.batch_execute(&sql).expect("the source can be made");
    create_vector_table(client, name);
}

/// Creates a vector table of the same name for a table with the columns of [`create_source`], not backfilled.
pub fn create_vector_table(client: &mut Client, name: &str) {
    let sql = format!("SELECT embedd.create_vector_table('{name}', '{name}', '{COLUMNS}')");
    client.batch_execute(&sql).expect("the vector table can be made");
}

/// Requests a backfill.
pub fn backfill(client: &mut Client, name: &str) {
    client.execute("SELECT embedd.backfill($1)", &[&name]).expect("the backfill can be asked for");
}

/// A source with this many rows and its vector table, backfilled and equal.
pub fn synced_source(cluster: &Cluster, db: &str, client: &mut Client, name: &str, rows: i64) {
    create_source(client, name, rows);
    backfill(client, name);
    cluster.assert_synced(db, name);
}

/// The quoted and qualified name of the table of vectors.
pub fn relation(client: &mut Client, name: &str) -> String {
    let sql = "SELECT format('%I.%I', n.nspname, c.relname)
                 FROM embedd.vector_tables v JOIN pg_class c ON c.oid = v.vector_table
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE v.name = $1";
    client.query_one(sql, &[&name]).expect("the vector table is there").get(0)
}

/// Drops the vector index, whose maintenance would dominate a test with many rows.
pub fn drop_vector_index(client: &mut Client, name: &str) {
    let sql = "SELECT i.indexrelid::regclass::text FROM pg_index i
                 JOIN embedd.vector_tables v ON v.vector_table = i.indrelid
                WHERE v.name = $1 AND NOT i.indisprimary";
    let index: String = client.query_one(sql, &[&name]).expect("the index is there").get(0);
    client.batch_execute(&format!("DROP INDEX {index}")).expect("the index can be dropped");
}

/// The stored text of a key, if there is a row.
pub fn stored_text(client: &mut Client, name: &str, key: &str) -> Option<String> {
    let sql = format!("SELECT embedded_text FROM {} WHERE pk_value = $1", relation(client, name));
    client.query_opt(&sql, &[&key]).expect("the vectors can be read").map(|row| row.get(0))
}

/// Asserts that the vector table has exactly the source's keys, that each row has the text, the metadata and the
/// vector of the current source row, and that no row failed. The expected values are computed here, not by embedd.
pub fn assert_equal(client: &mut Client, name: &str) {
    let relation = relation(client, name);
    let documents = documents_sql(client, name);
    let sql = format!(
        "SELECT coalesce(e.key, v.pk_value) || ': ' || CASE
                    WHEN v.pk_value IS NULL THEN 'missing' WHEN e.key IS NULL THEN 'orphaned'
                    WHEN v.embedded_text IS DISTINCT FROM e.text
                        THEN format('text %L, not %L', left(v.embedded_text, 80), left(e.text, 80))
                    WHEN v.metadata IS DISTINCT FROM e.metadata
                        THEN format('metadata %s, not %s', v.metadata, e.metadata)
                    WHEN (v.embedding IS NULL) <> (e.text = '') THEN 'no vector, or one without a text'
                    ELSE 'no hash' END
           FROM ({documents}) e FULL JOIN {relation} v ON v.pk_value = e.key
          WHERE v.pk_value IS NULL OR e.key IS NULL OR v.embedded_text IS DISTINCT FROM e.text
             OR v.metadata IS DISTINCT FROM e.metadata OR (v.embedding IS NULL) <> (e.text = '')
             OR v.row_hash IS NULL
          ORDER BY 1"
    );
    let rows = in_fixed_settings(client, &sql);
    let differences: Vec<String> = rows.iter().take(10).map(|row| row.get(0)).collect();
    assert!(
        rows.is_empty(),
        "\"{name}\" differs from its source in {} rows, first {differences:#?}",
        rows.len()
    );
    assert_vectors(client, name, &relation);
    let sql = "SELECT pk_value || ': ' || reason FROM embedd.failed_rows f
                 JOIN embedd.vector_tables v ON v.id = f.table_id WHERE v.name = $1";
    let failed = client.query(sql, &[&name]).expect("failed_rows can be read");
    assert!(failed.is_empty(), "rows failed, first {}", failed[0].get::<_, String>(0));
}

/// A query for the expected content of a vector table: key, text and metadata of every source row.
fn documents_sql(client: &mut Client, name: &str) -> String {
    let sql = "
        WITH configured AS (
            SELECT c.name AS field, coalesce(c.source_column, c.name) AS source_column, c.role, c.ordinal,
                   c.name_prefix, c.place, v.source_table::text AS source
              FROM embedd.vector_tables v
             CROSS JOIN ROWS FROM (jsonb_to_recordset(v.columns)
                        AS (name text, role text, ordinal integer, name_prefix text, source_column text))
                        WITH ORDINALITY c(name, role, ordinal, name_prefix, source_column, place)
             WHERE v.name = $1)
        SELECT 'concat_ws(E''\\n'', ' || string_agg(format('%L || nullif(s.%I::text, %L)', coalesce(name_prefix, ''),
                    source_column, ''), ', ' ORDER BY ordinal NULLS LAST, place) FILTER (WHERE role = 'embedding') || ')',
               'jsonb_build_object(' || string_agg(format('%L, s.%I', field, source_column), ', ') || ')', source
          FROM configured GROUP BY source";
    let row = client.query_one(sql, &[&name]).expect("the vector table is configured");
    let (text, metadata, source): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let key = key_sql(client, name);
    format!("SELECT {key} AS key, {text} AS text, {metadata} AS metadata FROM {source} s")
}

/// The expected pk_value of a row `s`: the text of a single column, or a JSON array of several, with numbers and
/// booleans as they are and everything else as text.
fn key_sql(client: &mut Client, name: &str) -> String {
    // The base type decides, so that a domain over integer is a number too.
    let sql = "
        WITH RECURSIVE part AS (
            SELECT k.n, a.attname, a.atttypid AS type
              FROM embedd.vector_tables v
             CROSS JOIN jsonb_array_elements_text(CASE cardinality(v.key_types)
                            WHEN 1 THEN jsonb_build_array(v.primary_key_column)
                            ELSE v.primary_key_column::jsonb END) WITH ORDINALITY k(name, n)
              JOIN pg_attribute a ON a.attrelid = v.source_table AND a.attname = k.name
             WHERE v.name = $1
            UNION ALL
            SELECT p.n, p.attname, t.typbasetype FROM part p JOIN pg_type t ON t.oid = p.type WHERE t.typtype = 'd')
        SELECT format('s.%I', p.attname), t.typname::text, t.typname IN ('int2', 'int4', 'int8', 'numeric', 'bool')
          FROM part p JOIN pg_type t ON t.oid = p.type WHERE t.typtype <> 'd' ORDER BY p.n";
    let columns = client.query(sql, &[&name]).expect("the key can be found");
    let text = |column: &str, kind: &str| match kind {
        "bpchar" => format!("rtrim(format('%s', {column}), ' ')"),
        _ => format!("format('%s', {column})"),
    };
    let element = |row: &postgres::Row| {
        let (column, kind, is_scalar): (String, String, bool) =
            (row.get(0), row.get(1), row.get(2));
        match is_scalar && columns.len() > 1 {
            true => format!("{column}::{kind}"),
            false => text(&column, &kind),
        }
    };
    let elements: Vec<String> = columns.iter().map(element).collect();
    match elements.as_slice() {
        [one] => one.clone(),
        _ => format!("jsonb_build_array({})::text", elements.join(", ")),
    }
}

/// Runs a query with the settings that embedd uses for texts, whatever the session has set.
fn in_fixed_settings(client: &mut Client, sql: &str) -> Vec<postgres::Row> {
    let mut transaction = client.transaction().expect("a transaction can be begun");
    transaction
        .batch_execute(
            "SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL timezone = 'UTC';
             SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'",
        )
        .expect("the settings can be set");
    let rows = transaction.query(sql, &[]).expect("source and vectors can be compared");
    transaction.commit().expect("nothing was changed");
    rows
}

/// Asserts that some of the vectors are those of their texts.
fn assert_vectors(client: &mut Client, name: &str, relation: &str) {
    let sql = format!(
        "SELECT pk_value FROM (SELECT pk_value, embedding, embedded_text FROM {relation}
                                WHERE embedding IS NOT NULL ORDER BY md5(pk_value) LIMIT 5) v
          WHERE v.embedding <=> embedd.embed($1, v.embedded_text) > 0.0001"
    );
    let wrong = client.query(&sql, &[&name]).expect("vectors can be computed");
    assert!(wrong.is_empty(), "the vector of {} is of another text", wrong[0].get::<_, String>(0));
}
