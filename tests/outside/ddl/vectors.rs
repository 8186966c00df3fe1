//! The table of vectors is recreated under its name, by its owner and by another role.

use postgres::Client;
use support::source::relation;

use super::{SHARED, answers, synced, wait_error, wait_noted, wait_well};

/// The unqualified name of the vectors of `t`, which needs no quotes.
fn vectors(client: &mut Client) -> String {
    let name = relation(client, "t");
    name.rsplit_once('.').map_or(name.clone(), |(_, bare)| bare.to_string())
}

#[test]
fn vectors_recreated_by_their_owner_are_accepted() {
    let (cluster, mut client) = synced("vectors_anew", 50);
    client.batch_execute("CREATE SCHEMA \"O\"").unwrap();
    let old = vectors(&mut client);
    client
        .batch_execute(&format!(
            "ALTER TABLE {old} SET SCHEMA \"O\"; ALTER TABLE \"O\".{old} RENAME TO \"the \"\"vectors\"\"\""
        ))
        .unwrap();
    wait_noted(&cluster, "vectors_anew", r#"vectors_name = '"O"."the ""vectors"""'"#);
    // One row is wrong, one is missing and one is extra.
    client
        .batch_execute(
            r#"BEGIN;
             CREATE TABLE "O".other (LIKE "O"."the ""vectors""" INCLUDING ALL);
             INSERT INTO "O".other SELECT * FROM "O"."the ""vectors""" WHERE pk_value <> '1';
             INSERT INTO "O".other SELECT 'x', embedding, embedded_text, metadata, row_hash FROM "O"."the ""vectors""" WHERE pk_value = '1';
             UPDATE "O".other SET row_hash = 'none', embedded_text = 'none' WHERE pk_value = '2';
             DROP TABLE "O"."the ""vectors""";
             ALTER TABLE "O".other RENAME TO "the ""vectors""";
             COMMIT"#,
        )
        .unwrap();
    // Queries find it at once.
    assert_eq!(answers(&mut client, "{}"), 50);
    wait_noted(&cluster, "vectors_anew", r#"vector_table = '"O"."the ""vectors"""'::regclass"#);
    wait_well(&cluster, "vectors_anew", "t");
    cluster.assert_synced("vectors_anew", "t");
    client.batch_execute("UPDATE t SET title = 'changed' WHERE id = 3").unwrap();
    cluster.assert_synced("vectors_anew", "t");
}

#[test]
fn vectors_recreated_by_another_role_are_rejected() {
    let (cluster, mut client) = synced("vectors_of_another", 10);
    let name = vectors(&mut client);
    client
        .batch_execute(&format!(
            "CREATE ROLE stranger; GRANT CREATE ON SCHEMA public TO stranger;
             CREATE TABLE kept (LIKE {name} INCLUDING ALL); INSERT INTO kept SELECT * FROM {name};
             CREATE TABLE bare (pk_value text PRIMARY KEY);
             ALTER TABLE kept OWNER TO stranger;
             BEGIN; DROP TABLE {name}; ALTER TABLE kept RENAME TO {name}; COMMIT"
        ))
        .unwrap();
    wait_error(&cluster, "vectors_of_another", "t", "does not exist");
    let question = "SELECT * FROM embedd.query('t', 'title')";
    assert!(client.batch_execute(question).is_err());
    // A table of the owner with other columns is rejected too.
    client
        .batch_execute(&format!(
            "BEGIN; DROP TABLE {name}; ALTER TABLE bare RENAME TO {name}; COMMIT"
        ))
        .unwrap();
    assert!(client.batch_execute(question).is_err());
    drop(client);
    let mut client = SHARED.cluster().connect("vectors_of_another");
    client
        .batch_execute(
            "SELECT embedd.drop_vector_table('t');
             DROP OWNED BY stranger; DROP ROLE stranger",
        )
        .unwrap();
}

#[test]
fn a_new_owner_of_the_vectors_is_recorded() {
    let (cluster, mut client) = synced("vectors_given_away", 10);
    let name = vectors(&mut client);
    client
        .batch_execute(&format!(
            "CREATE ROLE successor; GRANT SELECT, TRIGGER ON t TO successor; ALTER TABLE {name} OWNER TO successor"
        ))
        .unwrap();
    wait_noted(&cluster, "vectors_given_away", "owner = 'successor'::regrole");
    client
        .batch_execute(&format!(
            "BEGIN; CREATE TABLE other (LIKE {name} INCLUDING ALL); ALTER TABLE other OWNER TO successor;
             DROP TABLE {name}; ALTER TABLE other RENAME TO {name}; COMMIT;
             INSERT INTO t VALUES (100, 'new', 'row', 1)"
        ))
        .unwrap();
    wait_well(&cluster, "vectors_given_away", "t");
    cluster.assert_synced("vectors_given_away", "t");
    client
        .batch_execute(
            "SELECT embedd.drop_vector_table('t'); DROP OWNED BY successor; DROP ROLE successor",
        )
        .unwrap();
}
