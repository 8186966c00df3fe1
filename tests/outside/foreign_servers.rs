//! Providers as foreign servers: keys stay out of the log and of other sessions' views, the worker notices every
//! change, and dumps and dropped extensions lose nothing.

use std::thread;

use postgres::Client;
use support::binaries;
use support::{Cluster, LONG};

const COLUMNS: &str = r#"[{"name": "title", "role": "embedding"}]"#;

/// A source and a vector table of one remote provider, not backfilled.
fn remote_table(client: &mut Client, provider: &str) {
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('{provider}', 'ollama', base_url => 'http://127.0.0.1:1');
             CREATE TABLE books (id integer PRIMARY KEY, title text);
             SELECT embedd.create_vector_table('books', 'books', '{COLUMNS}', embedding_provider => '{provider}',
                embedding_model => 'any', embedding_dimensions => 3)"
        ))
        .unwrap();
}

/// Waits until the vector table has this provider by name.
fn wait_for_provider(cluster: &Cluster, db: &str, name: &str) {
    let sql = format!(
        "SELECT embedding_provider = '{name}' FROM embedd.vector_tables WHERE name = 'books'"
    );
    cluster.wait_for(db, LONG, "the new name", &sql);
}

#[test]
fn no_key_is_visible_after_the_statement() {
    let cluster = Cluster::builder()
        .set("log_parameter_max_length_on_error", "-1")
        .set("log_min_error_statement", "error")
        .set("log_min_messages", "debug1")
        .start();
    let mut client = cluster.database("secrets");
    let mut other = cluster.connect("secrets");
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    client
        .batch_execute(
            "CREATE FUNCTION around(name text) RETURNS text LANGUAGE plpgsql AS
                $$ BEGIN RETURN embedd.create_provider(name, 'openai', 'sk-hush-7'); END $$;
             CREATE SERVER plain FOREIGN DATA WRAPPER embedd OPTIONS (provider 'openai')",
        )
        .unwrap();

    // Successful and failing statements, each on its own and inside others.
    let good = [
        "SELECT embedd.create_provider('a', 'openai', 'sk-hush-1')",
        "SELECT embedd.create_provider('b', 'openai', options => '{\"headers\": {\"x\": \"hush-2\"}}')",
        "SELECT embedd.update_provider('a', 'sk-hush-3')",
        "DO $$ BEGIN PERFORM embedd.update_provider('a', 'sk-hush-4'); END $$",
        "SELECT 1; SELECT embedd.update_provider('a', 'sk-hush-5'); SELECT 2",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER plain OPTIONS (api_key 'sk-hush-6')",
        "SELECT around('c')",
        "ALTER USER MAPPING FOR CURRENT_USER SERVER plain OPTIONS (SET api_key 'sk-hush-8')",
    ];
    let bad = [
        "SELECT embedd.create_provider('a', 'openai', 'sk-hush')",
        "SELECT embedd.create_provider('d', 'openai', 'sk hush')",
        "SELECT embedd.create_provider('d', 'nobody', 'sk-hush')",
        "SELECT embedd.create_provider(NULL, 'openai', 'sk-hush')",
        "SELECT embedd.create_provider('d', 'openai', 'sk-hush', options => '{\"headers\": \"hush\"}')",
        "SELECT embedd.create_provider('d', 'openai', options => '{\"headers\": {\"a\": [\"hush\"]}}')",
        "SELECT embedd.create_provider('d', 'openai', options => '{\"headers\": {\"hush hush\": \"a\"}}')",
        "SELECT embedd.update_provider('nobody', 'sk-hush')",
        "SELECT embedd.update_provider('a', 'sk-hush', options => '{\"timeout\": 1}')",
        "DO $$ BEGIN PERFORM embedd.update_provider('nobody', 'sk-hush'); END $$",
        "DO $$ BEGIN EXECUTE 'SELECT embedd.update_provider(''nobody'', ''sk-hush'')'; END $$",
        "SELECT around('a')",
        "CREATE USER MAPPING FOR PUBLIC SERVER plain OPTIONS (api_key 'sk hush')",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER plain OPTIONS (api_key 'sk-hush')",
        "ALTER USER MAPPING FOR CURRENT_USER SERVER plain OPTIONS (SET headers 'hush')",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER plian OPTIONS (api_key 'sk-hush')",
        "ALTER USER MAPPING FOR CURRENT_USER SERVER plian OPTIONS (SET api_key 'sk-hush')",
        "DO $$ BEGIN ALTER USER MAPPING FOR PUBLIC SERVER plian OPTIONS (SET api_key 'sk-hush'); END $$",
        "CREATE SERVER d FOREIGN DATA WRAPPER embedd OPTIONS (provider 'openai', api_key 'sk-hush')",
        "CREATE SERVER d FOREIGN DATA WRAPPER embedd OPTIONS (provider 'sk-hush')",
        "CREATE SERVER d FOREIGN DATA WRAPPER embedd OPTIONS (provider 'ollama', base_url 'http://a:hush@b')",
        "ALTER SERVER plain OPTIONS (ADD api_key 'sk-hush')",
        "ALTER SERVER plain OPTIONS (ADD base_url 'http://a:hush@b')",
        "DO $$ BEGIN ALTER SERVER plain OPTIONS (ADD api_key 'sk-hush'); END $$",
        "SELECT embedd.create_provider('d', 'sk-hush', 'openai')",
        "DO $$ BEGIN CREATE USER MAPPING FOR PUBLIC SERVER plain OPTIONS (api_key 'sk hush'); END $$",
        "SELECT embedd.update_provider('a', 'sk-hush'); SELECT 1 / 0",
    ];
    let seen = |other: &mut Client| -> String {
        let sql = "SELECT query FROM pg_stat_activity WHERE pid = $1";
        other.query_one(sql, &[&pid]).unwrap().get(0)
    };
    for statement in good {
        client.batch_execute(statement).unwrap();
        let shown = seen(&mut other);
        assert!(!shown.contains("hush"), "{statement}: {shown}");
    }
    for statement in bad {
        let error = client.batch_execute(statement).unwrap_err();
        let told = format!("{:?}", error.as_db_error().unwrap());
        assert!(!told.contains("hush"), "{statement}: {told}");
        let shown = seen(&mut other);
        assert!(!shown.contains("hush"), "{statement}: {shown}");
    }
    // With parameters, which the server can be configured to log with an error.
    let key = "sk-hush-bound";
    client.query("SELECT embedd.create_provider('e', 'openai', $1)", &[&key]).unwrap();
    let error = client.query("SELECT embedd.create_provider('e', 'openai', $1)", &[&key]);
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    let log = cluster.log();
    assert!(log.contains("hidden by embedd"), "{log}");
    let line = log.lines().find(|line| line.contains("hush"));
    assert_eq!(line, None);

    // Statements on servers of other wrappers are not hidden.
    client
        .batch_execute(
            "CREATE FOREIGN DATA WRAPPER other; CREATE SERVER theirs FOREIGN DATA WRAPPER other",
        )
        .unwrap();
    let theirs = "CREATE USER MAPPING FOR CURRENT_USER SERVER theirs OPTIONS (colour 'red')";
    client.batch_execute(theirs).unwrap();
    assert_eq!(seen(&mut other), theirs);

    // The next statement of the session is shown normally, and errors have their context again.
    let error = client
        .batch_execute(
            "DO $$ BEGIN PERFORM embedd.update_provider('a', 'sk-a'); PERFORM 1 / 0; END $$",
        )
        .unwrap_err();
    assert!(format!("{error:?}").contains("PL/pgSQL function inline_code_block"), "{error:?}");
    client.batch_execute("SELECT 'shown as ever'").unwrap();
    assert_eq!(seen(&mut other), "SELECT 'shown as ever'");
}

#[test]
fn every_change_of_a_provider_wakes_the_worker() {
    // With a poll interval of an hour, only a wake-up makes the worker check.
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("changes");
    remote_table(&mut client, "first");
    client.batch_execute("CREATE ROLE reader").unwrap();
    client.batch_execute("ALTER SERVER first RENAME TO second").unwrap();
    wait_for_provider(&cluster, "changes", "second");

    // The dependency is removed, and recreated when the worker reads the providers.
    let changes = [
        "SELECT embedd.update_provider('second', default_model => 'm')",
        "SELECT embedd.update_provider('second', api_key => 'k')",
        "SELECT embedd.create_provider('third', 'ollama')",
        "SELECT embedd.drop_provider('third')",
        "CREATE SERVER fourth FOREIGN DATA WRAPPER embedd OPTIONS (provider 'ollama')",
        "ALTER SERVER second OPTIONS (ADD timeout '1s')",
        "CREATE USER MAPPING FOR reader SERVER second OPTIONS (api_key 'k')",
        "ALTER USER MAPPING FOR reader SERVER second OPTIONS (SET api_key 'l')",
        "DROP USER MAPPING FOR reader SERVER second",
        "GRANT USAGE ON FOREIGN SERVER second TO reader",
        "REVOKE USAGE ON FOREIGN SERVER second FROM reader",
        "ALTER SERVER second OWNER TO reader",
    ];
    let depends =
        "SELECT count(*) = 1 FROM pg_depend WHERE refclassid = 'pg_foreign_server'::regclass
                      AND classid = 'pg_class'::regclass";
    for change in changes {
        client
            .batch_execute(
                "DELETE FROM pg_depend WHERE refclassid = 'pg_foreign_server'::regclass AND classid = 'pg_class'::regclass",
            )
            .unwrap();
        client.batch_execute(change).unwrap();
        cluster.wait_for("changes", LONG, &format!("the worker to notice: {change}"), depends);
    }
}

#[test]
fn a_dump_contains_providers_and_their_vector_tables() {
    // Rows copied by a restore do not wake the worker.
    let cluster = Cluster::builder().set("embedd.poll_interval", "200ms").start();
    let mut client = cluster.database("before");
    remote_table(&mut client, "mine");
    client
        .batch_execute(
            "SELECT embedd.update_provider('mine', 'sk-kept', options => '{\"timeout\": \"9s\"}');
             INSERT INTO embedd.models (provider, model, dimensions) VALUES ('ollama', 'own', 7);
             UPDATE embedd.models SET tokens_per_text = 1 WHERE built_in",
        )
        .unwrap();
    cluster.create_database("after");
    let script = binaries::stdout_of(cluster.client("pg_dump", "before"));
    let file = cluster.dir().join("dump.sql");
    std::fs::write(&file, script).unwrap();
    let mut psql = cluster.psql_command("after");
    psql.args(["-v", "ON_ERROR_STOP=1", "-f"]).arg(&file);
    binaries::stdout_of(psql);

    let mut restored = cluster.connect("after");
    let row = restored
        .query_one("SELECT options::text, has_key, created_at IS NOT NULL FROM embedd.providers WHERE name = 'mine'", &[])
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "{\"timeout\": \"9s\"}");
    assert!(row.get::<_, bool>(1) && row.get::<_, bool>(2));
    let models = restored
        .query_one("SELECT count(*) FILTER (WHERE NOT built_in), count(*) FILTER (WHERE tokens_per_text = 1) FROM embedd.models", &[])
        .unwrap();
    assert_eq!((models.get::<_, i64>(0), models.get::<_, i64>(1)), (1, 0));
    let error = restored.batch_execute("SELECT embedd.drop_provider('mine')").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "2BP01");
    // The restored table depends on the restored server as soon as the worker has read it.
    cluster.wait_for("after", LONG, "the dependency", "SELECT count(*) = 1 FROM pg_depend WHERE refclassid = 'pg_foreign_server'::regclass AND classid = 'pg_class'::regclass");
    restored.batch_execute("ALTER SERVER mine RENAME TO yours").unwrap();
    wait_for_provider(&cluster, "after", "yours");
}

#[test]
fn dropping_the_extension_keeps_the_vectors() {
    let cluster = Cluster::start();
    for (db, statement) in [
        ("extension", "DROP EXTENSION embedd CASCADE"),
        ("schema", "DROP SCHEMA embedd CASCADE"),
        ("both", "DROP EXTENSION vector CASCADE"),
    ] {
        let mut client = cluster.database(db);
        remote_table(&mut client, "mine");
        let table: String = client
            .query_one("SELECT vector_table::text FROM embedd.vector_tables", &[])
            .unwrap()
            .get(0);
        client
            .batch_execute(&format!(
                "INSERT INTO {table} (pk_value, embedded_text) VALUES ('1', 'paid for')"
            ))
            .unwrap();
        // Rejected and rolled-back statements change nothing.
        let error = client.batch_execute(statement.trim_end_matches(" CASCADE")).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "2BP01", "{statement}");
        client.batch_execute(&format!("BEGIN; {statement}; ROLLBACK")).unwrap();
        let error = client.batch_execute("DROP SERVER mine").unwrap_err();
        assert_eq!(error.code().unwrap().code(), "2BP01", "{statement}");

        client.batch_execute(statement).unwrap();
        let kept: i64 =
            client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).unwrap().get(0);
        assert_eq!(kept, 1, "{statement}");
    }
}

/// The result of `second` in a second session, after `first`, whose transaction commits while the second one waits.
fn outcome_of(cluster: &Cluster, db: &str, first: &str, second: &str) -> Option<String> {
    let mut client = cluster.connect(db);
    client.batch_execute(&format!("BEGIN; {first}")).unwrap();
    let mut other = cluster.connect(db);
    let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    thread::scope(|scope| {
        let waiting = scope.spawn(move || other.batch_execute(second));
        let sql = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock')"
        );
        cluster.wait_for("postgres", LONG, &format!("\"{second}\" to wait"), &sql);
        client.batch_execute("COMMIT").unwrap();
        let outcome = waiting.join().unwrap();
        outcome.err().map(|error| error.code().unwrap().code().to_string())
    })
}

#[test]
fn concurrent_changes_of_a_provider_are_serialized() {
    let cluster = Cluster::start();
    let mut client = cluster.database("turns");
    let make = |name: &str| {
        format!(
            "SELECT embedd.create_provider('{name}', 'ollama', base_url => 'http://127.0.0.1:1')"
        )
    };
    let table = |name: &str, provider: &str| {
        format!(
            "SELECT embedd.create_vector_table('{name}', 'books', '{COLUMNS}', embedding_provider => '{provider}',
                embedding_model => 'any', embedding_dimensions => 3)"
        )
    };
    client.batch_execute("CREATE TABLE books (id integer PRIMARY KEY, title text)").unwrap();
    client.batch_execute(&make("a")).unwrap();
    let (model, timeout) = (
        "SELECT embedd.update_provider('a', 'sk-a', default_model => 'm')",
        "SELECT embedd.update_provider('a', 'sk-b', options => '{\"timeout\": \"9s\"}')",
    );
    let drop = "SELECT embedd.drop_provider('a')";
    let code = |first: &str, second: &str| outcome_of(&cluster, "turns", first, second);
    assert_eq!(code(model, timeout), None);
    let sql = "SELECT default_model || ' ' || (options ->> 'timeout') FROM embedd.providers WHERE name = 'a'";
    assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, String>(0), "m 9s");
    assert_eq!(code(&make("b"), &make("b")).as_deref(), Some("42710"));
    assert_eq!(code(&table("t", "a"), drop).as_deref(), Some("2BP01"));
    client.batch_execute("SELECT embedd.drop_vector_table('t')").unwrap();
    assert_eq!(code(drop, timeout).as_deref(), Some("42704"));
    client.batch_execute(&make("a")).unwrap();
    assert_eq!(code(drop, drop).as_deref(), Some("42704"));
    client.batch_execute(&make("a")).unwrap();
    assert_eq!(code(drop, &table("t", "a")).as_deref(), Some("42704"));
    // By then another provider has the name.
    client.batch_execute(&make("a")).unwrap();
    let swap = "SELECT embedd.update_provider('a', default_model => 'm'); ALTER SERVER a RENAME TO c; ALTER SERVER b RENAME TO a";
    assert_eq!(code(swap, timeout), None);
    let sql = "SELECT string_agg(name || coalesce(options ->> 'timeout', ''), ' ' ORDER BY name) FROM embedd.providers WHERE name <> 'local'";
    assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, String>(0), "a9s c");
}
