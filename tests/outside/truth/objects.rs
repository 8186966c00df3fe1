//! Keys longer than an index entry, keys no longer unique, event triggers and renamed operator classes, frozen rows.

use std::io::Write;

use support::LONG;
use support::fake_provider::{Dialect, FakeProvider};
use support::source::{backfill, create_texts_of, relation, stored_text};

use super::{BODY, SHARED, synced, wait_status, wait_synced};

#[test]
fn keys_longer_than_an_index_entry_affect_no_other_row() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("long_keys");
    // As JSON, each quote and backslash of the key takes two bytes: the key fits into the index of the source, but its
    // JSON does not fit into another one.
    client
        .batch_execute(
            "CREATE FUNCTION noise(n int, length int) RETURNS text LANGUAGE sql AS
                $$ SELECT left(string_agg(translate(md5(n || '.' || i), '0123', '\"\\\"\\'), ''), length) FROM generate_series(1, length / 32 + 1) i $$;
             CREATE TABLE pairs (a text, b text, body text, PRIMARY KEY (a, b));
             INSERT INTO pairs SELECT noise(i, 1300), noise(-i, 1300), 'text ' || i FROM generate_series(1, 3) i;
             INSERT INTO pairs SELECT 'a' || i, 'b', 'text ' || i FROM generate_series(4, 20) i;
             CREATE TABLE base (id text, body text);
             INSERT INTO base SELECT noise(i, 9000), 'text ' || i FROM generate_series(1, 3) i;
             INSERT INTO base SELECT 'a' || i, 'text ' || i FROM generate_series(4, 20) i;
             CREATE VIEW seen AS SELECT * FROM base",
        )
        .unwrap();
    client
        .batch_execute(&format!(
            "SELECT embedd.create_vector_table('pairs', 'pairs', '{BODY}', start_backfill => true);
             SELECT embedd.create_vector_table('seen', 'seen', '{BODY}', 'id', sync_mode => 'batch',
                 batch_interval => '1 second', start_backfill => true)"
        ))
        .unwrap();
    for name in ["pairs", "seen"] {
        wait_synced(&cluster, "long_keys", name);
        wait_status(
            &cluster,
            "long_keys",
            name,
            "synced_rows + failed_rows = 20 AND synced_rows >= 17",
        );
    }
    client
        .batch_execute("UPDATE pairs SET body = 'changed ' || body; DELETE FROM pairs WHERE body LIKE '%text 1'; UPDATE base SET body = 'changed ' || body")
        .unwrap();
    wait_synced(&cluster, "long_keys", "pairs");
    wait_status(&cluster, "long_keys", "pairs", "synced_rows + failed_rows = 19");
    assert_eq!(stored_text(&mut client, "pairs", r#"["a4", "b"]"#).unwrap(), "changed text 4");
}

#[test]
fn event_triggers_of_others_see_the_statements_of_workers() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("audited");
    client
        .batch_execute(
            "CREATE TABLE audit (tag text NOT NULL, query text NOT NULL, process text NOT NULL);
             CREATE FUNCTION audit() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$ BEGIN INSERT INTO public.audit VALUES (tg_tag, current_query(), (SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid())); END $$;
             CREATE EVENT TRIGGER starts ON ddl_command_start EXECUTE FUNCTION audit();
             CREATE EVENT TRIGGER ends ON ddl_command_end EXECUTE FUNCTION audit();
             CREATE EVENT TRIGGER drops ON sql_drop EXECUTE FUNCTION audit()",
        )
        .unwrap();
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    create_texts_of(&mut client, &fake, "t", MANY);
    wait_synced(&cluster, "audited", "t");
    client.batch_execute("DROP TRIGGER embedd_1_row ON t").unwrap();
    cluster.wait_for(
        "audited",
        LONG,
        "the trigger to come back, seen by others",
        "SELECT count(DISTINCT tag) = 3 FROM audit
         WHERE tag IN ('CREATE TRIGGER', 'CREATE INDEX', 'DROP INDEX') AND query ~* ('^ *' || tag) AND process LIKE 'embedd%'",
    );
    client.batch_execute("UPDATE t SET body = 'changed' WHERE id = 1").unwrap();
    wait_synced(&cluster, "audited", "t");
    assert_eq!(stored_text(&mut client, "t", "1").unwrap(), "changed");
}

#[test]
fn an_operator_class_has_another_name() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("classes");
    client
        .batch_execute("ALTER OPERATOR CLASS vector_cosine_ops USING hnsw RENAME TO \"Cosine ops\"")
        .unwrap();
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(384).start();
    create_texts_of(&mut client, &fake, "t", MANY);
    wait_synced(&cluster, "classes", "t");
    let of_t = relation(&mut client, "t");
    cluster.wait_for("classes", LONG, "the index", &indexes(&of_t, "= '{\"Cosine ops\"}'"));

    // The names change again while the indexes of another table are deferred.
    client
        .batch_execute(&format!(
            "CREATE TABLE u (LIKE t INCLUDING ALL);
             INSERT INTO u SELECT * FROM t;
             SELECT embedd.create_vector_table('u', 'u', '{BODY}', embedding_provider => 'fake', embedding_dimensions => 384)"
        ))
        .unwrap();
    let of_u = relation(&mut client, "u");
    client
        .batch_execute(&format!(
            "CREATE INDEX own ON {of_u} USING hnsw (embedding vector_l2_ops) WITH (m = 8) WHERE pk_value <> '7'"
        ))
        .unwrap();
    let gate = fake.hold();
    backfill(&mut client, "u");
    cluster.wait_for("classes", LONG, "the load", &indexes(&of_u, "IS NULL"));
    client
        .batch_execute(
            "ALTER OPERATOR CLASS \"Cosine ops\" USING hnsw RENAME TO cosine;
             ALTER OPERATOR CLASS vector_l2_ops USING hnsw RENAME TO euclid",
        )
        .unwrap();
    drop(gate);
    wait_synced(&cluster, "classes", "u");
    cluster.wait_for("classes", LONG, "the indexes", &indexes(&of_u, "= '{cosine,euclid}'"));
    let own = client.query_one("SELECT pg_get_indexdef('own'::regclass)", &[]).unwrap();
    assert_eq!(
        own.get::<_, &str>(0),
        format!(
            "CREATE INDEX own ON {of_u} USING hnsw (embedding euclid) WITH (m='8') WHERE (pk_value <> '7'::text)"
        )
    );
    for name in ["t", "u"] {
        let sql = format!("SELECT * FROM embedd.query('{name}', 'text 7', 3)");
        assert_eq!(client.query(&sql, &[]).unwrap().len(), 3);
    }
}

/// Whether these are the operator classes of a table's valid vector indexes, in order.
fn indexes(relation: &str, are: &str) -> String {
    format!(
        "SELECT array_agg(o.opcname::text ORDER BY o.opcname) {are}
           FROM pg_index i JOIN pg_opclass o ON o.oid = i.indclass[0] JOIN pg_am a ON a.oid = o.opcmethod
          WHERE i.indrelid = '{relation}'::regclass AND a.amname = 'hnsw' AND i.indisvalid"
    )
}

/// Rows of a table loaded without the index: a worker drops it before and builds it after.
const MANY: i64 = 6000;

#[test]
fn rows_are_written_frozen() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("frozen");
    synced(&cluster, "frozen", &mut client, "t", 30);
    let mut transaction = client.transaction().unwrap();
    transaction.batch_execute("TRUNCATE t").unwrap();
    let mut copy = transaction.copy_in("COPY t FROM STDIN (FREEZE)").unwrap();
    for n in 21..=50 {
        writeln!(copy, "{n}\tfrozen {n}").unwrap();
    }
    copy.finish().unwrap();
    transaction.commit().unwrap();
    wait_synced(&cluster, "frozen", "t");
    wait_status(&cluster, "frozen", "t", "synced_rows = 30");
    assert_eq!(stored_text(&mut client, "t", "21").unwrap(), "frozen 21");
}

#[test]
fn rows_written_between_two_triggers() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("between");
    synced(&cluster, "between", &mut client, "t", 10);
    let definition: String = client
        .query_one(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'embedd_1_row'",
            &[],
        )
        .unwrap()
        .get(0);
    client
        .batch_execute(&format!(
            "BEGIN; DROP TRIGGER embedd_1_row ON t; UPDATE t SET body = 'hidden' WHERE id = 3; {definition}; COMMIT"
        ))
        .unwrap();
    cluster.wait_for(
        "between",
        LONG,
        "the change to be found",
        &format!(
            "SELECT embedded_text = 'hidden' FROM {} WHERE pk_value = '3'",
            relation(&mut client, "t")
        ),
    );
    wait_synced(&cluster, "between", "t");
}

#[test]
fn a_source_loses_the_unique_index_on_its_key() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("lost_key");
    synced(&cluster, "lost_key", &mut client, "t", 10);
    client
        .batch_execute("ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (1, 'again')")
        .unwrap();
    let condition = "sync_status = 'error' AND last_error LIKE '%unique index no longer exists%reconcile(''t'')%'";
    wait_status(&cluster, "lost_key", "t", condition);
    client
        .batch_execute(
            "DELETE FROM t WHERE body = 'again'; ALTER TABLE t ADD PRIMARY KEY (id) DEFERRABLE;
             BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE t SET id = 11 - id; COMMIT",
        )
        .unwrap();
    wait_synced(&cluster, "lost_key", "t");
    assert_eq!(stored_text(&mut client, "t", "10").unwrap(), "text 1");
}
