//! The speed of an import of vectors, compared with plain SQL that writes the same rows of a table of the same shape.
//!
//! Texts of about 50 words with a column of metadata, vectors of 384 and of 1536 dimensions, a vector table that was never
//! filled, so without its vector index. The baselines write finished rows: COPY from a file, and INSERT .. SELECT. The import
//! also looks up the source rows, compares their texts, and makes metadata and hashes. Promised: 20,000 rows/s.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot go on says why"
)]

use std::time::Instant;

use postgres::Client;
use support::Cluster;
use support::source::relation;

/// Each is measured so often, in turns; the best time counts, since the machine is shared.
const ROUNDS: usize = 3;

fn main() {
    let cluster = Cluster::builder()
        .set("shared_buffers", "256MB")
        .set("max_wal_size", "8GB")
        .set("autovacuum", "off")
        .start();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    client
        .batch_execute(
            "select embedd.create_provider('nothing', 'openai_compatible', default_model => 'm', base_url => 'http://127.0.0.1:1/v1')",
        )
        .unwrap();
    let file = cluster.data().join("rows").display().to_string();
    for (rows, dimensions) in [(100_000, 384), (40_000, 1536)] {
        measure(&mut client, &file, rows, dimensions);
    }
}

fn measure(client: &mut Client, file: &str, rows: i32, dimensions: i32) {
    let run = |client: &mut Client, sql: &str| {
        let begin = Instant::now();
        client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        begin.elapsed().as_secs_f64()
    };
    let name = format!("of_{dimensions}");
    run(
        client,
        &format!(
            "create table {name} (id bigint primary key, body text, price numeric);
             insert into {name}
             select i, (select string_agg(left(md5((i * 50 + w)::text), 6), ' ' order by w) from generate_series(1, 50) w), i * 1.25
               from generate_series(1, {rows}) i;
             create table old_{name} (id bigint, content text, embedding vector({dimensions}));
             create table pool as select p, (select array_agg(sin(p * 7919 + n)::real order by n) from generate_series(1, {dimensions}) n)::vector as v
               from generate_series(0, 99) p;
             insert into old_{name} select s.id, s.body, p.v from {name} s join pool p on p.p = s.id % 100 order by s.id;
             drop table pool"
        ),
    );
    for table in [name.clone(), format!("old_{name}")] {
        client.execute(&format!("vacuum analyze {table}"), &[]).unwrap();
    }
    let (mut import, mut copy, mut insert) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        run(
            client,
            &format!(
                "select embedd.create_vector_table('{name}', '{name}',
                        '[{{\"name\": \"body\", \"role\": \"embedding\"}}, {{\"name\": \"price\", \"role\": \"metadata\"}}]',
                        embedding_provider => 'nothing', embedding_dimensions => {dimensions})"
            ),
        );
        client.batch_execute("checkpoint").unwrap();
        let sql = format!(
            "do $$ declare counts record; begin
                 select * into counts from embedd.import_vectors('{name}', 'select id, content, embedding from old_{name}');
                 assert counts.imported = {rows}, counts::text;
             end $$"
        );
        import = import.min(run(client, &sql));
        let vectors = relation(client, &name);
        let fresh = format!(
            "drop table if exists plain;
             create table plain (pk_value text primary key, embedding vector({dimensions}), embedded_text text, metadata jsonb default '{{}}', row_hash text)
                    with (fillfactor = 50)"
        );
        run(client, &format!("{fresh}; copy {vectors} to '{file}' (format binary); checkpoint"));
        copy = copy.min(run(client, &format!("copy plain from '{file}' (format binary)")));
        run(client, &format!("{fresh}; checkpoint"));
        insert = insert.min(run(client, &format!("insert into plain select * from {vectors}")));
        run(client, &format!("select embedd.drop_vector_table('{name}')"));
    }
    let rate = |seconds: f64| f64::from(rows) / seconds;
    println!(
        "{rows} vectors of {dimensions} dimensions: import {:.0} rows/s; COPY of the finished rows {:.0} rows/s, INSERT .. SELECT {:.0} rows/s",
        rate(import),
        rate(copy),
        rate(insert)
    );
    println!(
        "{dimensions} dimensions, import of plain SQL: {:.2} of COPY, {:.2} of INSERT .. SELECT",
        copy / import,
        insert / import
    );
}
