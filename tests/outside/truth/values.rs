//! Values or texts that change without firing row triggers, rows too large to be read, and rows of a view of which no
//! document can be made.

use postgres::Client;
use support::source::{relation, stored_text};
use support::{Cluster, LONG};

use super::{BODY, SHARED, synced, wait_status, wait_synced};

#[test]
fn a_label_and_an_attribute_are_renamed() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("types");
    client
        .batch_execute(
            "CREATE TYPE state AS ENUM ('new', 'old'); CREATE TYPE pair AS (a int, b text);
             CREATE TABLE ads (state state, id int, body text, PRIMARY KEY (state, id));
             INSERT INTO ads SELECT 'new', i, 'ad ' || i FROM generate_series(1, 20) i;
             CREATE TABLE ads2 (id int PRIMARY KEY, states state[], pair pair, body text);
             INSERT INTO ads2 SELECT id, ARRAY[state], row(id, 'x')::pair, body FROM ads;
             SELECT embedd.create_vector_table('ads', 'ads', '[{\"name\": \"body\", \"role\": \"embedding\"},
                {\"name\": \"state\", \"role\": \"embedding\"}]', start_backfill => true);
             SELECT embedd.create_vector_table('ads2', 'ads2', '[{\"name\": \"body\", \"role\": \"embedding\"},
                {\"name\": \"states\", \"role\": \"metadata\"}, {\"name\": \"pair\", \"role\": \"metadata\"}]', start_backfill => true)",
        )
        .unwrap();
    wait_synced(&cluster, "types", "ads");
    wait_synced(&cluster, "types", "ads2");
    client.batch_execute("ALTER TYPE state RENAME VALUE 'new' TO 'fresh'; ALTER TYPE pair RENAME ATTRIBUTE a TO c").unwrap();
    wait_synced(&cluster, "types", "ads");
    wait_synced(&cluster, "types", "ads2");
    client.batch_execute("UPDATE ads SET body = 'changed' WHERE id = 1").unwrap();
    wait_synced(&cluster, "types", "ads");
    let of_one = format!(
        "SELECT count(*) FROM {} WHERE pk_value LIKE '%, 1]'",
        relation(&mut client, "ads")
    );
    assert_eq!(client.query_one(&of_one, &[]).unwrap().get::<_, i64>(0), 1);
}

#[test]
fn tables_that_are_rewritten() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("rewritten");
    synced(&cluster, "rewritten", &mut client, "t", 30);
    client.batch_execute("ALTER TABLE t ALTER COLUMN body TYPE text USING upper(body)").unwrap();
    wait_synced(&cluster, "rewritten", "t");
    assert_eq!(stored_text(&mut client, "t", "1").unwrap(), "TEXT 1");
    let version: i32 =
        client.query_one("SELECT current_setting('server_version_num')::int", &[]).unwrap().get(0);
    follows(&cluster, &mut client, "people", "STORED");
    if version >= 170_000 {
        client
            .batch_execute(
                "ALTER TABLE people ALTER COLUMN body SET EXPRESSION AS ('was ' || last)",
            )
            .unwrap();
        wait_synced(&cluster, "rewritten", "people");
        assert_eq!(stored_text(&mut client, "people", "1").unwrap(), "was Jones");
    }
    if version >= 180_000 {
        follows(&cluster, &mut client, "virtual", "VIRTUAL");
    }
}

/// A generated column of this kind is updated when its inputs change.
fn follows(cluster: &Cluster, client: &mut Client, name: &str, kind: &str) {
    client
        .batch_execute(&format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, last text, body text GENERATED ALWAYS AS ('is ' || last) {kind});
             INSERT INTO {name} VALUES (1, 'Smith');
             SELECT embedd.create_vector_table('{name}', '{name}', '{BODY}', start_backfill => true)"
        ))
        .unwrap();
    wait_synced(cluster, "rewritten", name);
    client.batch_execute(&format!("UPDATE {name} SET last = 'Jones'")).unwrap();
    wait_synced(cluster, "rewritten", name);
    assert_eq!(stored_text(client, name, "1").unwrap(), "is Jones");
}

#[test]
fn tables_emptied_by_a_crash() {
    let cluster = Cluster::start();
    let mut client = cluster.database("emptied");
    client
        .batch_execute(
            "CREATE UNLOGGED TABLE t (id int PRIMARY KEY, body text); INSERT INTO t SELECT i, 'text ' || i FROM generate_series(1, 9) i",
        )
        .unwrap();
    client
        .batch_execute(&format!(
            "SELECT embedd.create_vector_table('t', 't', '{BODY}', start_backfill => true)"
        ))
        .unwrap();
    synced(&cluster, "emptied", &mut client, "u", 9);
    let vectors = relation(&mut client, "u");
    client.batch_execute(&format!("ALTER TABLE {vectors} SET UNLOGGED")).unwrap();
    wait_synced(&cluster, "emptied", "t");
    drop(client);
    cluster.crash();
    cluster.start_again();
    wait_synced(&cluster, "emptied", "t");
    wait_status(&cluster, "emptied", "t", "synced_rows = 0");
    wait_synced(&cluster, "emptied", "u");
    wait_status(&cluster, "emptied", "u", "synced_rows = 9");
}

#[test]
fn one_bad_row_of_a_view_affects_no_other() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("badview");
    client
        .batch_execute(
            "CREATE TABLE pages (id int PRIMARY KEY, body text, raw json);
             INSERT INTO pages SELECT i, 'page ' || i, CASE i WHEN 7 THEN '{\"t\": \"a\\u0000b\"}' WHEN 8 THEN '{\"n\": 1e400000}'
                ELSE '{\"t\": \"ok\"}' END::json FROM generate_series(1, 100) i;
             CREATE VIEW v AS SELECT * FROM pages;
             SELECT embedd.create_vector_table('v', 'v', '[{\"name\": \"body\", \"role\": \"embedding\"}, {\"name\": \"raw\", \"role\": \"metadata\"}]',
                'id', sync_mode => 'batch', batch_interval => '1 s', start_backfill => true)",
        )
        .unwrap();
    wait_status(
        &cluster,
        "badview",
        "v",
        "sync_status = 'synced' AND synced_rows = 98 AND failed_rows = 2",
    );
    let failed = "SELECT string_agg(pk_value, ',' ORDER BY pk_value) FROM embedd.failed_rows";
    assert_eq!(client.query_one(failed, &[]).unwrap().get::<_, String>(0), "7,8");
    let verified = "SELECT count(*) FROM embedd.verify('v')";
    assert_eq!(client.query_one(verified, &[]).unwrap().get::<_, i64>(0), 0);
    client.batch_execute("UPDATE pages SET raw = '{}' WHERE id = 7; UPDATE pages SET body = 'changed' WHERE id = 1").unwrap();
    wait_status(
        &cluster,
        "badview",
        "v",
        "sync_status = 'synced' AND synced_rows = 99 AND failed_rows = 1",
    );
    cluster.wait_for(
        "badview",
        LONG,
        "the change",
        &format!(
            "SELECT EXISTS (SELECT FROM {} WHERE embedded_text = 'changed')",
            relation(&mut client, "v")
        ),
    );
}

#[test]
fn a_row_that_is_too_large_fails_without_being_read() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("large");
    client
        .batch_execute(
            "CREATE TABLE books (id int PRIMARY KEY, body text);
             INSERT INTO books SELECT i, 'small ' || i FROM generate_series(1, 50) i;
             INSERT INTO books SELECT 100 + g, (SELECT string_agg(md5(g || ':' || i), ' ') FROM generate_series(1, 60000) i) FROM generate_series(1, 3) g;
             INSERT INTO books VALUES (9999, repeat('large text ', 4000000))",
        )
        .unwrap();
    client
        .batch_execute(&format!(
            "SELECT embedd.create_vector_table('books', 'books', '{BODY}', start_backfill => true);
             SELECT embedd.create_vector_table('compared', 'books', '{BODY}', sync_mode => 'batch',
                 batch_interval => '1 second', start_backfill => true)"
        ))
        .unwrap();
    for name in ["books", "compared"] {
        wait_status(
            &cluster,
            "large",
            name,
            "sync_status = 'synced' AND synced_rows = 53 AND failed_rows = 1 AND truncated_rows = 3",
        );
    }
    for row in
        client.query("SELECT pk_value || ': ' || reason FROM embedd.failed_rows", &[]).unwrap()
    {
        let reason: String = row.get(0);
        assert!(reason.starts_with("9999: ") && reason.contains("16 MB"), "{reason}");
    }
    client
        .batch_execute(
            "UPDATE books SET body = 'short now' WHERE id = 9999;
             UPDATE books SET body = body || ' and more' WHERE id > 100;
             DELETE FROM books WHERE id = 101",
        )
        .unwrap();
    for name in ["books", "compared"] {
        let condition = "sync_status = 'synced' AND synced_rows = 53 AND failed_rows = 0 AND truncated_rows = 2";
        wait_status(&cluster, "large", name, condition);
        wait_synced(&cluster, "large", name);
    }
}
