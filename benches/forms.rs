//! The size and the recall of the forms of vectors and their index: vector, halfvec, and an index over bits.
//!
//! Over 20,000 packages of the machine's catalogue. 384 dimensions are those of the local model (`make model`), 1536 those of
//! provider kind test, whose vectors are sums of the directions of words. Promised: halfvec takes at most 0.52 of the storage
//! with a recall equal within 0.005, and bits with 200 candidates have a recall@10 of 0.98.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

use std::time::Duration;

use postgres::Client;
use support::Cluster;
use support::packages;

const ROWS: usize = 20_000;
const LOAD: Duration = Duration::from_secs(1800);

fn main() {
    let cluster = packages::cluster();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    let packages = packages::catalogue();
    let texts: Vec<&str> = packages.iter().take(ROWS).map(|(_, text)| text.as_str()).collect();
    client
        .batch_execute(
            "select embedd.create_provider('words', 'test');
             create table p (id int primary key, body text)",
        )
        .unwrap();
    let insert = "insert into p select n, t from unnest($1::text[]) with ordinality u(t, n)";
    client.execute(insert, &[&texts]).unwrap();
    println!("{} rows", texts.len());
    println!("| vectors | table MB | index MB | recall@10 | query ms | exact ms |");
    let words = "embedding_provider => 'words', embedding_dimensions => 1536";
    for (name, arguments) in [
        ("384, vector", "vector_type => 'vector'".to_string()),
        ("384, halfvec", "vector_type => 'halfvec'".to_string()),
        ("1536, vector", words.to_string()),
        ("1536, halfvec", format!("{words}, vector_type => 'halfvec'")),
        ("1536, vector, bit", format!(r#"{words}, index => '{{"quantization": "bit"}}'"#)),
        (
            "1536, halfvec, bit",
            format!(r#"{words}, vector_type => 'halfvec', index => '{{"quantization": "bit"}}'"#),
        ),
    ] {
        measure(&cluster, &mut client, name, &arguments);
    }
}

fn measure(cluster: &Cluster, client: &mut Client, name: &str, arguments: &str) {
    client
        .batch_execute(&format!(
            r#"select embedd.create_vector_table('v', 'p', '[{{"name": "body", "role": "embedding"}}]', {arguments},
                   start_backfill => true, table_name => 'v')"#
        ))
        .unwrap();
    let synced = "select sync_status = 'synced' from embedd.sync_status('v')";
    cluster.wait_for("postgres", LOAD, "the backfill", synced);
    client.batch_execute("vacuum analyze v").unwrap();
    // An index over bits is not measured.
    let measured = "select coalesce(index_options->>'quantization' = 'bit', false) or measured_recall is not null from embedd.vector_tables";
    cluster.wait_for("postgres", LOAD, "the measurement of the index", measured);
    // The texts are the same in every form, so what the vectors take is what differs.
    let sizes = "select (select sum(pg_column_size(embedding)) from v)::float8 / 1e6,
                        (select sum(pg_relation_size(i.indexrelid)) from pg_index i where i.indrelid = 'v'::regclass and not i.indisprimary)::float8 / 1e6";
    let sizes = client.query_one(sizes, &[]).unwrap();
    // Once to read the pages.
    client.query("select embedd.recall('v', 50, 10)", &[]).unwrap();
    let sql = "select recall, query_ms, exact_ms, plan, ef_search from embedd.recall('v', 300, 10)";
    let row = client.query_one(sql, &[]).unwrap();
    let number = |at: usize| row.get::<_, f64>(at);
    println!(
        "| {name} | {:.1} | {:.1} | {:.4} | {:.1} ({}, {:?}) | {:.1} |",
        sizes.get::<_, f64>(0),
        sizes.get::<_, f64>(1),
        number(0),
        number(1),
        row.get::<_, &str>(3),
        row.get::<_, Option<i32>>(4),
        number(2)
    );
    client.batch_execute("select embedd.drop_vector_table('v')").unwrap();
}
