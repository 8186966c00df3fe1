//! An extension updated from 0.1.0 equals a fresh one, object by object, and its vector tables continue.

mod from_0_3_0;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use postgres::Client;
use support::source::{COLUMNS, backfill};
use support::{Cluster, SHORT, binaries};

/// Queries that describe an installation of the extension, one text a row and without oids.
const DESCRIPTIONS: [(&str, &str); 13] = [
    (
        "version",
        "SELECT extversion || ' ' || extrelocatable || ' ' || extnamespace::regnamespace FROM pg_extension WHERE extname = 'embedd'",
    ),
    (
        "dumped",
        "SELECT e.extconfig[i]::regclass || ': ' || e.extcondition[i] FROM pg_extension e, generate_subscripts(e.extconfig, 1) i WHERE extname = 'embedd'",
    ),
    (
        "members",
        "SELECT o.type || ' ' || o.identity FROM members m, pg_identify_object(m.classid, m.objid, 0) o",
    ),
    (
        "functions",
        "SELECT pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '') || p.proowner::regrole || p.procost || ' ' || p.prorows FROM pg_proc p, members m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid",
    ),
    (
        "relations",
        "SELECT format('%s %s %s %s %s %s %s %s', r.relname, r.relkind, r.relpersistence, r.relrowsecurity, r.relforcerowsecurity, r.reloptions, r.relacl, r.relowner::regrole) FROM relations r",
    ),
    (
        "columns",
        "SELECT format('%s.%s %s %s %s %s %s %s %s', r.relname, a.attname, row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum), format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attstorage, a.attacl, pg_get_expr(d.adbin, d.adrelid)) FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum",
    ),
    // NOT NULL is described with the column; since 18 it is a constraint too, with the name of an older column.
    (
        "constraints",
        "SELECT format('%s %s %s %s', r.relname, c.conname, pg_get_constraintdef(c.oid), c.convalidated) FROM relations r JOIN pg_constraint c ON c.conrelid = r.oid WHERE c.contype <> 'n'",
    ),
    (
        "indexes",
        "SELECT pg_get_indexdef(i.indexrelid) || i.indisvalid FROM relations r JOIN pg_index i ON i.indrelid = r.oid",
    ),
    (
        "views, sequences, triggers, policies",
        "SELECT pg_get_viewdef(r.oid) FROM relations r WHERE r.relkind = 'v' UNION ALL SELECT format('%s %s %s %s %s %s', r.relname, s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqcycle) FROM relations r JOIN pg_sequence s ON s.seqrelid = r.oid UNION ALL SELECT pg_get_triggerdef(t.oid) FROM relations r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal UNION ALL SELECT p::text FROM pg_policies p WHERE p.schemaname = 'embedd'",
    ),
    (
        "wrappers",
        "SELECT format('%s %s %s %s %s', w.fdwname, w.fdwhandler::regproc, w.fdwvalidator::regproc, w.fdwacl, w.fdwoptions) FROM pg_foreign_data_wrapper w, members m WHERE m.classid = 'pg_foreign_data_wrapper'::regclass AND m.objid = w.oid",
    ),
    (
        "comments",
        "SELECT o.identity || ': ' || d.description FROM members m JOIN pg_description d ON d.classoid = m.classid AND d.objoid = m.objid, pg_identify_object(d.classoid, d.objoid, d.objsubid) o",
    ),
    (
        "first rights",
        "SELECT o.identity || ': ' || i.initprivs::text FROM members m JOIN pg_init_privs i ON i.classoid = m.classid AND i.objoid = m.objid, pg_identify_object(i.classoid, i.objoid, i.objsubid) o",
    ),
    ("models", "SELECT m::text FROM embedd.models m WHERE m.built_in"),
];

/// A source with its vector table, backfilled while it was empty, as created by 0.1.0.
const OLD_TABLE: &str = "
    CREATE TABLE t (id bigint PRIMARY KEY, title text, body text, price integer);
    CREATE TABLE embedd_vt_00000001_t (pk_value text PRIMARY KEY, embedding vector(384), embedded_text text,
        metadata jsonb DEFAULT '{}', row_hash text);
    CREATE INDEX ON embedd_vt_00000001_t USING hnsw (embedding vector_cosine_ops);
    CREATE TRIGGER embedd_1_row AFTER INSERT OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION embedd.note_change('1', 'id');
    CREATE TRIGGER embedd_1_update AFTER UPDATE ON t FOR EACH ROW WHEN (old IS DISTINCT FROM new)
        EXECUTE FUNCTION embedd.note_change('1', 'id');
    CREATE TRIGGER embedd_1_truncate AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION embedd.note_change('1', 'id');
    INSERT INTO embedd.vector_tables (name, source_table, primary_key_column, key_type, vector_table, embedding_provider,
            embedding_model, embedding_dimensions, columns, owner, sync_status, system_id)
        SELECT 't', 't', 'id', 'bigint', 'embedd_vt_00000001_t', 'local', 'all-MiniLM-L6-v2', 384, 'COLUMNS',
               current_user::regrole, 'synced', system_identifier FROM pg_control_system();
    INSERT INTO embedd.tasks (task_type, target_id, status) VALUES ('backfill', 1, 'completed');";

/// Objects of the extension, and those among them that have columns.
const OBJECTS: &str = "WITH members AS (
        SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
         WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'embedd'),
    relations AS (SELECT c.* FROM pg_class c, members m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid)";

/// The results of DESCRIPTIONS, as sorted lines.
fn describe(client: &mut Client) -> Vec<String> {
    let mut lines = Vec::new();
    for (what, query) in DESCRIPTIONS {
        let rows = client
            .query(&format!("{OBJECTS} {query}"), &[])
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert!(!rows.is_empty(), "there is nothing to compare: {what}");
        lines.extend(rows.iter().map(|row| {
            let line = row.get::<_, Option<String>>(0);
            format!("{what}: {}", line.expect("a description is not null"))
        }));
    }
    lines.sort();
    lines
}

/// A script of an older version, temporarily installed in the server.
struct OldScript {
    path: PathBuf,
    before: Option<Vec<u8>>,
}

impl OldScript {
    fn install(name: &str) -> Self {
        let path = binaries::pg_config_says("--sharedir").join("extension").join(name);
        let before = fs::read(&path).ok();
        let old = Self { path, before };
        put(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name), &old.path);
        old
    }
}

impl Drop for OldScript {
    fn drop(&mut self) {
        match &self.before {
            Some(bytes) => {
                let copy = std::env::temp_dir().join(format!("embedd-old-{}", std::process::id()));
                fs::write(&copy, bytes).expect("the old script can be kept for a moment");
                put(&copy, &self.path);
                let _ = fs::remove_file(copy);
            }
            None => {
                if fs::remove_file(&self.path).is_err() {
                    run(Command::new("sudo").args(["-n", "rm"]).arg(&self.path));
                }
            }
        }
    }
}

/// Copies a file, with the permissions of `make install`.
fn put(from: &Path, to: &Path) {
    if fs::copy(from, to).is_err() {
        run(Command::new("sudo").args(["-n", "install", "-m", "644"]).args([from, to]));
    }
}

fn run(command: &mut Command) {
    let status = command.status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?} failed");
}

/// Operators for two types that pg_catalog covers only for other types, in the schema of pgvector, which is in the
/// search_path of a script. An operator that runs raises a notice, and objects that use one depend on it.
const TRAPS: &str = r#"
    DO $$
    DECLARE
        types constant text[] := '{text,name,oid,regclass,regrole,smallint,integer,bigint,double precision,boolean,jsonb,timestamptz}';
        l text; r text; o text;
    BEGIN
        FOREACH l IN ARRAY types LOOP
            FOREACH r IN ARRAY types LOOP
                EXECUTE format('CREATE FUNCTION traps.trap(%s, %s) RETURNS boolean LANGUAGE plpgsql AS
                    $f$ BEGIN RAISE EXCEPTION ''trapped by %1$s and %2$s''; END $f$', l, r);
                FOREACH o IN ARRAY '{=,<>,<,>,<=,>=,+,-,*,/,||,~,->,->>}'::text[] LOOP
                    EXECUTE format('CREATE OPERATOR traps.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = traps.trap)', o, l, r);
                END LOOP;
            END LOOP;
        END LOOP;
    END $$"#;

/// Objects that use an operator of [`TRAPS`].
const TRAPPED: &str = "SELECT pg_describe_object(d.classid, d.objid, d.objsubid) || ' has ' || o.oid::regoperator
       FROM pg_depend d JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND d.refobjid = o.oid
       JOIN pg_proc p ON p.oid = o.oprcode WHERE p.proname = 'trap'";

/// Neither CREATE EXTENSION nor an update uses operators of a role that may create objects in pgvector's schema, and
/// comments on old objects are kept.
fn assert_updates_safely(cluster: &Cluster) {
    let with_vector = |db: &str| {
        cluster.create_database(db);
        cluster.psql(db, "CREATE SCHEMA traps; CREATE EXTENSION vector SCHEMA traps");
        cluster.connect(db)
    };
    let mut fresh = with_vector("fresh among traps");
    fresh.batch_execute(TRAPS).unwrap();
    cluster.psql("fresh among traps", "CREATE EXTENSION embedd");

    let mut old = with_vector("old among traps");
    old.batch_execute("CREATE EXTENSION embedd VERSION '0.1.0'").unwrap();
    old.batch_execute("SET search_path = public, traps").unwrap();
    old.batch_execute(&OLD_TABLE.replace("COLUMNS", COLUMNS)).unwrap();
    let functions = "embedd.create_vector_table, embedd.sync_status";
    old.batch_execute(&format!(
        "RESET search_path; {TRAPS}; CREATE ROLE app; CREATE ROLE stranger;
         REVOKE EXECUTE ON FUNCTION {functions} FROM public; GRANT EXECUTE ON FUNCTION {functions} TO app;
         UPDATE embedd.vector_tables SET last_synced_at = '2026-01-31 12:00 UTC'"
    ))
    .unwrap();
    cluster.psql("old among traps", "ALTER EXTENSION embedd UPDATE");

    for client in [&mut fresh, &mut old] {
        let trapped: Vec<String> =
            client.query(TRAPPED, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        assert!(trapped.is_empty(), "{trapped:#?}");
    }
    let rights = "SELECT bool_and(has_function_privilege('app', f, 'EXECUTE') AND NOT has_function_privilege('stranger', f, 'EXECUTE'))
                         AND count(*) = 2
                    FROM pg_proc p CROSS JOIN LATERAL CAST(p.oid AS regprocedure) f
                   WHERE p.pronamespace = 'embedd'::regnamespace AND p.proname IN ('create_vector_table', 'sync_status')
                     AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c')";
    assert!(old.query_one(rights, &[]).unwrap().get::<_, bool>(0));
    // The second form calls the first one, with the rights of the role.
    let call = "SET ROLE stranger; SELECT embedd.create_vector_table('x', 't', '[]'::json)";
    let error = old.batch_execute(call).unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}");
    old.batch_execute("RESET ROLE").unwrap();
    let error = old.batch_execute("DROP ROLE app").unwrap_err();
    let detail = error.as_db_error().and_then(|error| error.detail()).unwrap_or_default();
    for function in ["embedd.create_vector_table(", "embedd.sync_status("] {
        assert!(detail.contains(&format!("privileges for function {function}")), "{detail}");
    }
    let synced = "SELECT last_synced_at = '2026-01-31 12:00 UTC' FROM embedd.sync_status('t')";
    assert!(old.query_one(synced, &[]).unwrap().get::<_, bool>(0));
}

#[test]
fn an_updated_extension_is_the_same_as_a_fresh_one() {
    let _script = OldScript::install("embedd--0.1.0.sql");
    let cluster = Cluster::start();
    assert_updates_safely(&cluster);
    let mut fresh = cluster.database("fresh");
    cluster.create_database("old");
    cluster.psql(
        "old",
        "SET client_min_messages = warning; CREATE EXTENSION embedd VERSION '0.1.0' CASCADE",
    );
    let mut old = cluster.connect("old");

    // A vector table as created by 0.1.0. Until the update, the new library queues its changes.
    old.batch_execute(&OLD_TABLE.replace("COLUMNS", COLUMNS)).unwrap();
    let create = format!("SELECT embedd.create_vector_table('x', 't', '{COLUMNS}')");
    for call in [&create, "SELECT * FROM embedd.sync_status('t')"] {
        let error = old.batch_execute(call).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "55000", "{error:?}");
        assert_eq!(error.hint(), Some("ALTER EXTENSION embedd UPDATE."));
    }
    old.batch_execute(
        "INSERT INTO t SELECT i, 'title ' || i, '', i FROM generate_series(1, 20) i;
         UPDATE t SET title = 'changed' WHERE id = 3; UPDATE t SET id = 40 WHERE id = 4; DELETE FROM t WHERE id = 5",
    )
    .unwrap();
    let log = "extension \"embedd\" must be updated";
    cluster.wait_until(SHORT, "the worker to log it", || cluster.log_contains(log));
    let noted = "SELECT sum(cardinality(keys)) = 24 AND (SELECT count(*) = 0 FROM embedd_vt_00000001_t) FROM embedd.queue";
    assert!(old.query_one(noted, &[]).unwrap().get::<_, bool>(0));
    old.batch_execute(
        "INSERT INTO embedd.models VALUES ('openai', 'mine', 7, true), ('openai', 'text-embedding-3-large', 9, false)",
    )
    .unwrap();

    // What CREATE EXTENSION rejects, the update rejects too.
    cluster.psql("old", "CREATE ROLE squatter; ALTER SCHEMA embedd OWNER TO squatter");
    let update = |encoding: &str| {
        let sql = format!(
            "UPDATE pg_database SET encoding = pg_char_to_encoding('{encoding}') WHERE datname = 'old'"
        );
        cluster.psql("postgres", &sql);
        let error = cluster.connect("old").batch_execute("ALTER EXTENSION embedd UPDATE");
        error.unwrap_err().code().unwrap().code().to_string()
    };
    assert_eq!(update("LATIN1"), "0A000");
    assert_eq!(update("UTF8"), "55000");
    cluster.psql("old", "ALTER SCHEMA embedd OWNER TO CURRENT_USER");

    cluster.psql("old", "ALTER EXTENSION embedd UPDATE");
    // Functions and plans of the session are those of the old version.
    let mut old = cluster.connect("old");
    let (is, shall) = (describe(&mut old), describe(&mut fresh));
    let missing: Vec<&String> = shall.iter().filter(|line| !is.contains(line)).collect();
    let more: Vec<&String> = is.iter().filter(|line| !shall.contains(line)).collect();
    assert!(
        missing.is_empty() && more.is_empty(),
        "a fresh one has, and the updated one has not: {missing:#?}\nthe other way round: {more:#?}"
    );
    assert_eq!(is.len(), shall.len());

    // Existing data is unchanged.
    let mine = old
        .query_one("SELECT dimensions, is_default FROM embedd.models WHERE NOT built_in", &[])
        .unwrap();
    assert_eq!((mine.get::<_, i32>(0), mine.get::<_, bool>(1)), (7, false));
    cluster.assert_synced("old", "t");
    old.batch_execute(
        "UPDATE t SET title = 'after the update' WHERE id = 1; DELETE FROM t WHERE id = 2;
         ALTER TABLE t RENAME COLUMN id TO nr; UPDATE t SET nr = 50 WHERE nr = 6",
    )
    .unwrap();
    cluster.wait_done("old");
    let verify = "SELECT count(*) FROM embedd.verify('t')";
    assert_eq!(old.query_one(verify, &[]).unwrap().get::<_, i64>(0), 0);
    let moved = "SELECT count(*) FROM embedd_vt_00000001_t WHERE pk_value IN ('6', '50')";
    assert_eq!(old.query_one(moved, &[]).unwrap().get::<_, i64>(0), 1);
    backfill(&mut old, "t");
    cluster.wait_done("old");
    old.batch_execute(
        "SELECT embedd.create_provider('o', 'ollama', base_url => 'http://127.0.0.1:1');
         SELECT embedd.create_vector_table('o', 't', '[{\"name\": \"title\", \"role\": \"embedding\"}]',
            embedding_provider => 'o', embedding_model => 'any', embedding_dimensions => 5);
         SELECT embedd.drop_vector_table('o');
         SELECT embedd.drop_provider('o');",
    )
    .unwrap();
}
