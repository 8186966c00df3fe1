//! What users have added to a vector table is there after a swap, under the same names.

use postgres::Client;
use support::fake_provider::{Dialect, FakeProvider, Respond, Rule};
use support::source::{relation, wait_status, wait_synced};
use support::{Cluster, LONG};

use super::{IS_CLEAN, change, synced};

const DB: &str = "carried";

/// Everything that belongs to a table, one line each.
const DESCRIBED: &str = "
    WITH t AS (SELECT $1::text::regclass AS oid)
    SELECT pg_get_indexdef(i.indexrelid) || coalesce(' -- ' || obj_description(i.indexrelid, 'pg_class'), '')
           || ' tablespace ' || (SELECT c.reltablespace FROM pg_class c WHERE c.oid = i.indexrelid)
      FROM pg_index i, t WHERE i.indrelid = t.oid
     UNION ALL
    SELECT format('constraint %s %s %s %s', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid), c.convalidated)
      FROM pg_constraint c, t WHERE t.oid IN (c.conrelid, c.confrelid)
     UNION ALL
    SELECT format('trigger %s %s', pg_get_triggerdef(g.oid), g.tgenabled) || coalesce(obj_description(g.oid, 'pg_trigger'), '')
      FROM pg_trigger g, t WHERE g.tgrelid = t.oid AND NOT g.tgisinternal
     UNION ALL
    SELECT format('policy %s', p) FROM pg_policies p, t, pg_class c
     WHERE c.oid = t.oid AND (p.schemaname, p.tablename) = (c.relnamespace::regnamespace::text, c.relname)
     UNION ALL
    SELECT format('grant %s %s %s to %s %s', e.privilege_type, '', e.grantor::regrole, e.grantee, e.is_grantable)
      FROM t JOIN pg_class c ON c.oid = t.oid, aclexplode(c.relacl) e
     UNION ALL
    SELECT format('grant %s (%s) to %s', e.privilege_type, a.attname, e.grantee)
      FROM t JOIN pg_attribute a ON a.attrelid = t.oid, aclexplode(a.attacl) e
     UNION ALL
    SELECT format('column %s %s %s %s %s %s', a.attname, a.attstattarget,
                  (SELECT o FROM unnest(a.attoptions) o WHERE o LIKE 'n_distinct%'), a.attstorage, a.attgenerated,
                  CASE WHEN a.attname <> 'embedding' THEN col_description(a.attrelid, a.attnum) END)
      FROM t JOIN pg_attribute a ON a.attrelid = t.oid WHERE a.attnum > 0 AND NOT a.attisdropped
     UNION ALL
    SELECT format('table %s %s %s %s %s %s %s %s %s', c.relname, c.relowner::regrole, c.reloptions, c.reltablespace,
                  c.relreplident, c.relrowsecurity, c.relforcerowsecurity, c.relpersistence, obj_description(c.oid, 'pg_class'))
      FROM t JOIN pg_class c ON c.oid = t.oid
     UNION ALL
    SELECT format('toast %s', x.reloptions) FROM t JOIN pg_class c ON c.oid = t.oid JOIN pg_class x ON x.oid = c.reltoastrelid
     UNION ALL
    SELECT format('statistics %s', pg_get_statisticsobjdef(s.oid))
      FROM pg_statistic_ext s, t WHERE s.stxrelid = t.oid
     ORDER BY 1";

fn described(client: &mut Client, table: &str) -> Vec<String> {
    client.query(DESCRIBED, &[&table]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn everything_that_users_have_added() {
    let cluster = Cluster::builder().set("allow_in_place_tablespaces", "on").start();
    let mut client = cluster.connect("postgres");
    client.batch_execute("CREATE TABLESPACE space LOCATION ''").unwrap();
    client
        .batch_execute("CREATE ROLE app; CREATE ROLE \"the owner\" LOGIN; CREATE ROLE monitor")
        .unwrap();
    let mut client = synced(&cluster, DB, 200);
    let table = relation(&mut client, "t");
    client
        .batch_execute(&format!(
            r#"ALTER TABLE {table} SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_enabled = off);
               ALTER TABLE {table} SET TABLESPACE space;
               ALTER TABLE {table} ADD COLUMN length integer GENERATED ALWAYS AS (length(embedded_text)) STORED;
               ALTER TABLE {table} ADD CONSTRAINT "short text" CHECK (length(embedded_text) < 100000);
               ALTER TABLE {table} ALTER COLUMN pk_value SET STATISTICS 500;
               ALTER TABLE {table} ALTER COLUMN row_hash SET (n_distinct = -1);
               ALTER TABLE {table} ADD CONSTRAINT "one hash" UNIQUE (row_hash, pk_value);
               CREATE INDEX "by Title" ON {table} USING btree ((metadata ->> 'title') text_pattern_ops) WITH (fillfactor = 60) TABLESPACE space;
               COMMENT ON INDEX "by Title" IS 'for the listing';
               CREATE INDEX ON {table} USING gin (metadata jsonb_path_ops);
               CREATE UNIQUE INDEX one_text ON {table} (pk_value, md5(embedded_text)) INCLUDE (length) WHERE embedding IS NOT NULL;
               CREATE INDEX l2 ON {table} USING hnsw (embedding vector_l2_ops) WITH (m = 8);
               CREATE STATISTICS "pairs" (dependencies, ndistinct) ON pk_value, row_hash FROM {table};
               CREATE TABLE liked (key text REFERENCES {table} ON DELETE CASCADE, who text);
               INSERT INTO liked SELECT i::text, 'me' FROM generate_series(1, 50) i;
               CREATE TABLE allowed (key text PRIMARY KEY);
               INSERT INTO allowed SELECT i::text FROM generate_series(1, 1000) i;
               ALTER TABLE {table} ADD CONSTRAINT listed FOREIGN KEY (pk_value) REFERENCES allowed;
               CREATE TABLE seen (key text);
               CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen VALUES (new.pk_value); RETURN NULL; END';
               CREATE TRIGGER note AFTER INSERT OR UPDATE OF embedded_text ON {table} FOR EACH ROW EXECUTE FUNCTION note();
               COMMENT ON TRIGGER note ON {table} IS 'an audit';
               CREATE TRIGGER off BEFORE DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION note();
               ALTER TABLE {table} ENABLE ALWAYS TRIGGER note; ALTER TABLE {table} DISABLE TRIGGER off;
               COMMENT ON TABLE {table} IS 'it''s mine';
               COMMENT ON COLUMN {table}.length IS 'in characters';
               ALTER TABLE {table} REPLICA IDENTITY FULL;
               ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
               CREATE POLICY "only even" ON {table} AS RESTRICTIVE FOR SELECT TO app, monitor USING (pk_value::bigint % 2 = 0);
               CREATE POLICY everything ON {table} TO app USING (EXISTS (SELECT FROM allowed a WHERE a.key = pk_value)) WITH CHECK (true);
               ALTER TABLE {table} OWNER TO "the owner";
               ALTER TABLE t OWNER TO "the owner"; ALTER TABLE allowed OWNER TO "the owner";
               GRANT USAGE ON FOREIGN SERVER p TO "the owner";
               GRANT CREATE ON SCHEMA public TO "the owner"; GRANT CREATE ON TABLESPACE space TO "the owner";
               GRANT INSERT ON seen TO "the owner";
               GRANT SELECT, UPDATE ON {table} TO app WITH GRANT OPTION;
               GRANT SELECT (pk_value, metadata) ON {table} TO PUBLIC;
               REVOKE TRUNCATE ON {table} FROM "the owner""#
        ))
        .unwrap();
    let before = described(&mut client, &table);
    change(&mut client, "embedding_dimensions => 64");
    wait_synced(&cluster, DB, "t");
    cluster.wait_for(DB, LONG, "the replaced table to be dropped", IS_CLEAN);
    let after = described(&mut client, &table);
    let missing: Vec<&String> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    assert_eq!((missing, new), (Vec::new(), Vec::new()));
    // The trigger fires for changes, and not for the rows of the swap.
    let seen = "SELECT count(*) FROM seen";
    assert_eq!(client.query_one(seen, &[]).unwrap().get::<_, i64>(0), 0);
    client.batch_execute("UPDATE t SET title = 'other' WHERE id = 7").unwrap();
    wait_synced(&cluster, DB, "t");
    assert_eq!(client.query_one(seen, &[]).unwrap().get::<_, i64>(0), 1);
}

#[test]
fn what_the_vector_table_gets_before_the_swap() {
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 50);
    let table = relation(&mut client, "t");
    let keep = "SELECT embedd.update_vector_table('t', embedding_dimensions => 64);
        SELECT embedd.backfill('t', auto_swap => false)";
    let filled =
        "SELECT sync_status = 'synced' FROM embedd.vector_tables WHERE replaces IS NOT NULL";
    client
        .batch_execute(
            "CREATE ROLE heir; GRANT CREATE ON SCHEMA public TO heir; GRANT SELECT ON t TO heir;
             GRANT USAGE ON FOREIGN SERVER p TO heir",
        )
        .unwrap();
    for statement in [
        "ADD CHECK (length(embedded_text) < 1000)",
        "ADD COLUMN size integer GENERATED ALWAYS AS (length(embedded_text)) STORED",
        "SET (autovacuum_enabled = off)",
        "OWNER TO heir",
    ] {
        client.batch_execute(keep).unwrap();
        cluster.wait_for(DB, LONG, "the shadow to be filled", filled);
        client
            .batch_execute(&format!("ALTER TABLE {table} {statement}; SELECT embedd.swap('t')"))
            .unwrap();
        wait_status(
            &cluster,
            DB,
            "t",
            "last_error LIKE '%has changed since its shadow was created%'",
        );
        client.batch_execute("SELECT embedd.discard('t')").unwrap();
        wait_synced(&cluster, DB, "t");
        cluster.wait_for(DB, LONG, "nothing to be left", IS_CLEAN);
    }
    // Asked for again it is carried over; and so are another schema, and an index that was created and rebuilt.
    client.batch_execute(keep).unwrap();
    cluster.wait_for(DB, LONG, "the shadow to be filled", filled);
    client
        .batch_execute(&format!(
            "CREATE SCHEMA elsewhere AUTHORIZATION heir; CREATE TABLE elsewhere.embedd_vt_00000001_t_old (mine text);
             CREATE INDEX again ON {table} USING hnsw (embedding vector_cosine_ops);
             SELECT embedd.update_vector_table('t', table_schema => 'elsewhere')"
        ))
        .unwrap();
    client.batch_execute("REINDEX INDEX CONCURRENTLY elsewhere.again").unwrap();
    client.batch_execute("SELECT embedd.swap('t')").unwrap();
    wait_synced(&cluster, DB, "t");
    assert_eq!(relation(&mut client, "t"), "elsewhere.embedd_vt_00000001_t");
    let sql = "SELECT c.relowner::regrole::text,
                      (SELECT count(*) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam
                        WHERE i.indrelid = c.oid AND a.amname = 'hnsw'),
                      (SELECT count(*) FROM elsewhere.embedd_vt_00000001_t_old)
                 FROM pg_class c JOIN embedd.vector_tables v ON v.vector_table = c.oid";
    let row = client.query_one(sql, &[]).unwrap();
    let found = (row.get::<_, String>(0), row.get::<_, i64>(1), row.get::<_, i64>(2));
    assert_eq!(found, ("heir".to_string(), 2, 0));
    let gone = "SELECT old_tables = '{}' FROM embedd.vector_tables";
    cluster.wait_for(DB, LONG, "the replaced table to be dropped", gone);
}

#[test]
fn rows_that_fail_in_the_shadow_hold_the_swap() {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible).dimensions(8).start();
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 50);
    fake.script(Rule::when_text("row 7").respond(Respond::status(400)));
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('strict', 'openai_compatible', base_url => '{}', default_model => 'm')",
            fake.base_url()
        ))
        .unwrap();
    change(&mut client, "embedding_provider => 'strict', embedding_dimensions => 8");
    let held =
        "last_error LIKE 're-backfill: 1 rows failed%' AND sync_status = 'pending_rebackfill'";
    wait_status(&cluster, DB, "t", held);
    client.batch_execute("SELECT embedd.swap('t')").unwrap();
    let swapped =
        "SELECT embedding_dimensions = 8 FROM embedd.vector_tables WHERE replaces IS NULL";
    cluster.wait_for(DB, LONG, "the swap", swapped);
}

#[test]
fn privileges_by_default_open_no_shadow() {
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 50);
    client
        .batch_execute(
            "CREATE ROLE anyone; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO anyone",
        )
        .unwrap();
    client
        .batch_execute("SELECT embedd.update_vector_table('t', embedding_dimensions => 64)")
        .unwrap();
    let sql = "SELECT has_table_privilege('anyone', vector_table::oid, 'SELECT') FROM embedd.vector_tables
                WHERE replaces IS NOT NULL";
    assert!(!client.query_one(sql, &[]).unwrap().get::<_, bool>(0));
}
