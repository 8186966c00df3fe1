//! An installation of 0.3.0 is updated during a backfill, and loses nothing.

use std::time::Duration;

use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::source::{assert_equal, synced_source};
use support::{Cluster, LONG, Shutdown};

/// Removes what later versions have added: what is left is an installation of 0.3.0.
const AS_0_3_0: &str = "DO $$
    DECLARE
        object record;
    BEGIN
        FOR object IN
            SELECT (pg_identify_object(d.classid, d.objid, 0)).*
              FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'embedd'
             WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
        LOOP
            -- From PostgreSQL 17 on an array type is one too, and goes with its type.
            CONTINUE WHEN object.identity LIKE '%[]' OR object.identity !~ '[.](to_|wait_|import_|adopt_|verify.pg_catalog.text,|backfill.pg_catalog.text,|update_vector|rename_|swap|discard|compare|\"similar|search|recall|may_read|explain_|utc_|\\w*argument)';
            EXECUTE format('ALTER EXTENSION embedd DROP %s %s', object.type, object.identity);
        END LOOP;
    END
    $$;
    DROP TYPE embedd.argument, embedd.number_argument, embedd.interval_argument, embedd.relation_argument CASCADE;
    DROP FUNCTION embedd.to_integer(text, text), embedd.to_options(text), embedd.wait_until_synced(text, interval),
        embedd.verify(text, integer), embedd.backfill(text, boolean),
        embedd.backfill(text, text, boolean), embedd.update_vector_table, embedd.rename_vector_table,
        embedd.swap, embedd.discard, embedd.compare, embedd.similar(text, text, integer, jsonb), embedd.similar(text, text[], integer, jsonb),
        embedd.search, embedd.recall, embedd.may_read_source, embedd.explain_query, embedd.utc_datetime, embedd.import_vectors(text, text), embedd.adopt_column(text, text),
        embedd.adopt_pgai(text, text), embedd.adopt_pgedge(text, text), embedd.adopt_vectorize(text, text);
    DROP INDEX embedd.vector_tables_name_key, embedd.vector_tables_replaces_key;
    ALTER TABLE embedd.vector_tables ADD CONSTRAINT vector_tables_name_key UNIQUE (name);
    ALTER TABLE embedd.vector_tables DROP COLUMN origin_id, DROP COLUMN replaces, DROP COLUMN awaits_transactions,
        DROP COLUMN auto_swap, DROP COLUMN on_shadow, DROP COLUMN old_tables;
    ALTER TABLE embedd.vector_tables DROP COLUMN query_prefix, DROP COLUMN document_prefix, DROP COLUMN vector_type,
        DROP COLUMN index_options, DROP COLUMN question_settings, DROP COLUMN mirrored_readers, DROP COLUMN measured_recall;
    ALTER EXTENSION embedd DROP FUNCTION embedd.create_vector_table(
        text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text, text, jsonb, text, text, double precision, text, text, text, text);
    DROP FUNCTION embedd.create_vector_table;
    CREATE FUNCTION embedd.create_vector_table(
        name text, source_table regclass, columns jsonb, primary_key_column text DEFAULT NULL,
        embedding_provider text DEFAULT 'local', embedding_model text DEFAULT NULL, embedding_dimensions integer DEFAULT NULL,
        sync_mode text DEFAULT 'trigger', start_backfill boolean DEFAULT false, batch_interval interval DEFAULT NULL,
        on_source_drop text DEFAULT 'keep')
        RETURNS TABLE (id integer, name text, provider text, source_table text, mode text, sync_status text, model text,
            dimensions integer, platform_vector_ref text, columns jsonb, created_at timestamp with time zone)
        SET search_path FROM CURRENT LANGUAGE c AS '$libdir/embedd', 'make_vector_table_wrapper';
    ALTER EXTENSION embedd ADD FUNCTION embedd.create_vector_table;
    ALTER EXTENSION embedd DROP FUNCTION embedd.query(
        text, text, integer, jsonb, double precision, integer, vector, integer, text, jsonb, jsonb, jsonb);
    DROP FUNCTION embedd.query;
    CREATE FUNCTION embedd.query(
        vector_table text, query text, \"limit\" integer DEFAULT 10, filters jsonb DEFAULT NULL,
        min_similarity_score double precision DEFAULT NULL, ef_search integer DEFAULT NULL)
        RETURNS TABLE (id text, score double precision, metadata jsonb, embedded_text text)
        STABLE SET search_path FROM CURRENT LANGUAGE c AS '$libdir/embedd', 'query_wrapper';
    ALTER EXTENSION embedd ADD FUNCTION embedd.query;
    ALTER EXTENSION embedd DROP VIEW embedd.stat_progress_backfill;
    DROP VIEW embedd.stat_progress_backfill;
    ALTER EXTENSION embedd DROP FUNCTION embedd.cancel_backfill(text);
    DROP FUNCTION embedd.cancel_backfill(text);
    ALTER TABLE embedd.tasks DROP COLUMN rows_done, DROP COLUMN eta, DROP COLUMN rows_total, DROP COLUMN rate,
        DROP COLUMN checkpoint_at, DROP COLUMN stalled_attempts, DROP COLUMN owes_comparison, DROP COLUMN price;
    ALTER EXTENSION embedd DROP TABLE embedd.provider_batches;
    ALTER EXTENSION embedd DROP TABLE embedd.provider_batch_texts;
    DROP TABLE embedd.provider_batches, embedd.provider_batch_texts;
    DROP TRIGGER models_replace_built_in ON embedd.models;
    ALTER EXTENSION embedd DROP FUNCTION embedd.replace_built_in_model();
    DROP FUNCTION embedd.replace_built_in_model();
    ALTER TABLE embedd.models DROP COLUMN query_prefix, DROP COLUMN document_prefix, DROP COLUMN retires_on,
        DROP COLUMN replacement, DROP COLUMN price_per_million_tokens, DROP COLUMN batch_price_per_million_tokens;
    ALTER EXTENSION embedd DROP FUNCTION embedd.estimate(text, jsonb);
    DROP FUNCTION embedd.estimate(text, jsonb);
    ALTER EXTENSION embedd DROP FUNCTION embedd.doctor(boolean);
    DROP FUNCTION embedd.doctor(boolean);
    ALTER EXTENSION embedd DROP VIEW embedd.stat_vector_tables;
    DROP VIEW embedd.stat_vector_tables;
    ALTER EXTENSION embedd DROP FUNCTION embedd.all_sync_status();
    DROP FUNCTION embedd.all_sync_status();
    ALTER TABLE embedd.vector_tables DROP COLUMN unseen_since, DROP COLUMN compared_in, DROP COLUMN error_kind,
        DROP COLUMN error_since, DROP COLUMN vectors_name;
    ALTER TABLE embedd.queue DROP CONSTRAINT queue_pkey, ADD PRIMARY KEY (table_id, portions, portion, id);
    ALTER TABLE embedd.sync_state ADD FOREIGN KEY (table_id) REFERENCES embedd.vector_tables (id) ON DELETE CASCADE;
    ALTER TABLE embedd.tasks ADD FOREIGN KEY (target_id) REFERENCES embedd.vector_tables (id) ON DELETE CASCADE;
    DROP INDEX embedd.failed_rows_table_id_idx, embedd.failed_rows_pk_value_idx;
    DROP INDEX embedd.truncated_rows_table_id_idx, embedd.truncated_rows_pk_value_idx;
    ALTER TABLE embedd.failed_rows ADD PRIMARY KEY (table_id, pk_value), REPLICA IDENTITY DEFAULT;
    ALTER TABLE embedd.truncated_rows ADD PRIMARY KEY (table_id, pk_value), REPLICA IDENTITY DEFAULT;
    ALTER TABLE embedd.failed_rows ADD FOREIGN KEY (table_id) REFERENCES embedd.vector_tables (id) ON DELETE CASCADE;
    ALTER TABLE embedd.truncated_rows ADD FOREIGN KEY (table_id) REFERENCES embedd.vector_tables (id) ON DELETE CASCADE;
    ALTER EXTENSION embedd DROP FUNCTION embedd.embedder_status();
    DROP FUNCTION embedd.embedder_status();
    UPDATE pg_extension SET extversion = '0.3.0' WHERE extname = 'embedd'";

#[test]
fn an_installation_of_0_3_0_is_updated_in_the_middle_of_a_backfill() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    let cluster = Cluster::builder()
        .set("embedd.poll_interval", "500ms")
        .set("embedd.texts_in_flight", "128")
        .start();
    let mut client = cluster.database("old");
    synced_source(&cluster, "old", &mut client, "t", 50);
    let slow = fake.script(Rule::always().respond(Respond::delay(Duration::from_millis(100))));
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('fake', 'openai_compatible', base_url => '{}', default_model => 'm',
                    options => '{{\"texts_per_request\": 16, \"max_in_flight\": 2}}');
             CREATE TABLE filled (id bigint PRIMARY KEY, body text);
             INSERT INTO filled SELECT i, 'row ' || i FROM generate_series(1, 2000) i;
             SELECT embedd.create_vector_table('filled', 'filled', '[{{\"name\": \"body\", \"role\": \"embedding\"}}]',
                    embedding_provider => 'fake', embedding_dimensions => 8, start_backfill => true)",
            fake.base_url()
        ))
        .unwrap();
    fake.wait_until(LONG, "the backfill to be under way", |fake| fake.paid_total() > 200);
    // The library is replaced while the server is down.
    client.batch_execute(AS_0_3_0).unwrap();
    // A default that an administrator has chosen, and a user's row for a model that is built in later.
    client
        .batch_execute(
            "DELETE FROM embedd.models WHERE provider = 'ollama';
             INSERT INTO embedd.models (provider, model, dimensions, texts_per_request) VALUES ('ollama', 'bge-m3', 1024, 7);
             UPDATE embedd.models SET is_default = false WHERE provider = 'openai';
             UPDATE embedd.models SET is_default = true WHERE model = 'text-embedding-3-large'",
        )
        .unwrap();
    client
        .batch_execute("CREATE VIEW asked AS SELECT id FROM embedd.query('t', 'a title', 3)")
        .unwrap();
    cluster.restart(Shutdown::Fast);
    let log = "extension \"embedd\" must be updated";
    cluster.wait_until(LONG, "the worker to log it", || cluster.log_contains(log));
    let mut client = cluster.connect("old");
    let running = "SELECT count(*) FROM embedd.tasks WHERE status = 'running'";
    assert_eq!(client.query_one(running, &[]).unwrap().get::<_, i64>(0), 1);
    // Writes continue, and are queued.
    client
        .batch_execute(
            "UPDATE t SET title = 'changed' WHERE id <= 10; DELETE FROM t WHERE id = 11;
             UPDATE filled SET body = 'changed ' || id WHERE id IN (1, 2000); INSERT INTO filled VALUES (5000, 'new')",
        )
        .unwrap();
    let noted = "SELECT sum(cardinality(keys)) >= 14 FROM embedd.queue";
    assert!(client.query_one(noted, &[]).unwrap().get::<_, bool>(0));
    let before = fake.paid_total();

    fake.unscript(&slow);
    cluster.psql("old", "ALTER EXTENSION embedd UPDATE");
    cluster.wait_done("old");
    let mut client = cluster.connect("old");
    // The view keeps the form of query() that it was made with, which a dump contains.
    let view = "SELECT (SELECT count(*) FROM asked), pg_get_viewdef('asked'::regclass) LIKE '%query_up_to_0_7%',
                       (SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND objid = 'embedd.query_up_to_0_7'::regproc)";
    let row = client.query_one(view, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (3i64, true, 0i64));
    let kept = "SELECT count(*) FROM embedd.models WHERE is_default AND model = 'text-embedding-3-large'
                       OR NOT built_in AND model = 'bge-m3' AND provider = 'ollama' AND texts_per_request = 7";
    assert_eq!(client.query_one(kept, &[]).unwrap().get::<_, i64>(0), 2);
    assert_equal(&mut client, "t");
    for table in ["t", "filled"] {
        let sql = "SELECT count(*) FROM embedd.verify($1)";
        assert_eq!(client.query_one(sql, &[&table]).unwrap().get::<_, i64>(0), 0, "{table}");
    }
    assert!(before < 2000, "the backfill had ended before the update");
    // Only what was in flight when the server stopped may be paid for twice.
    let twice: u64 = fake.paid_more_than_once().iter().map(|(_, times)| times - 1).sum();
    assert!(twice <= 128, "{twice} texts were paid for twice");
    let status = "SELECT pid IS NOT NULL FROM embedd.embedder_status()";
    assert!(client.query_one(status, &[]).unwrap().get::<_, bool>(0));
}
