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
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let run = |client: &mut Client, sql: &str| {
        let (begin, before) = (Instant::now(), processor_time(pid));
        client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        Took { elapsed: begin.elapsed().as_secs_f64(), processor: processor_time(pid) - before }
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
    let (mut import, mut copy, mut insert) = (Took::MAX, Took::MAX, Took::MAX);
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
    for (what, took) in [
        ("import", import),
        ("COPY of the finished rows", copy),
        ("INSERT .. SELECT of the finished rows", insert),
    ] {
        println!(
            "{dimensions} dimensions, {what}: {:.0} rows/s, {:.0} in a second of the processor",
            rate(took.elapsed),
            rate(took.processor)
        );
    }
    println!(
        "{dimensions} dimensions, import of plain SQL: {:.2} of COPY, {:.2} of INSERT .. SELECT; by the processor {:.2} and {:.2}",
        copy.elapsed / import.elapsed,
        insert.elapsed / import.elapsed,
        copy.processor / import.processor,
        insert.processor / import.processor
    );
}

/// Seconds that a statement took, and those of the processor.
#[derive(Clone, Copy)]
struct Took {
    elapsed: f64,
    processor: f64,
}

impl Took {
    const MAX: Self = Self { elapsed: f64::MAX, processor: f64::MAX };

    fn min(self, other: Self) -> Self {
        Self {
            elapsed: self.elapsed.min(other.elapsed),
            processor: self.processor.min(other.processor),
        }
    }
}

/// Seconds of the processor that a process has used; the kernel counts hundredths.
fn processor_time(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<f64> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap())
        .collect();
    fields.iter().sum::<f64>() / 100.0
}
