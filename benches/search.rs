//! Recall and latency of query() against exact search and against a plain SELECT through pgvector, in the same run.
//!
//! Over 20,000 packages of the machine's catalogue, and over 100,000 texts of it, embedded by the local model (`make model`).
//! Filters keep parts of the rows that have nothing to do with the question, and sections, which do; readers see a part by a
//! policy on the source. Promised: recall@10 of 0.98 everywhere, no answer shorter than it could be, a reader's answer within
//! three times that of the owner, and 200 samples of recall() in 30 s.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says why")]

use std::time::{Duration, Instant};

use postgres::Client;
use support::Cluster;
use support::packages;

const QUESTIONS: [&str; 30] = [
    "tool to play music",
    "web server",
    "python library for machine learning",
    "convert images between formats",
    "chess game",
    "editor for latex documents",
    "mail transfer agent",
    "debugging symbols",
    "fonts for asian languages",
    "database driver",
    "kernel modules",
    "documentation in german",
    "astronomy planetarium",
    "password manager",
    "video player with subtitles",
    "compile rust code",
    "network packet capture",
    "geographic information system",
    "3d modelling",
    "spell checker dictionary",
    "perl module for dates",
    "desktop extension",
    "audio synthesizer",
    "bioinformatics sequence alignment",
    "printer driver",
    "bluetooth support",
    "backup to cloud",
    "calendar application",
    "terminal emulator",
    "virtual machine manager",
];

const SMALL: usize = 20_000;
const LARGE: usize = 100_000;
/// An embedding of the whole catalogue takes minutes.
const LOAD: Duration = Duration::from_secs(1800);

/// What is asked: its name, the filter, the same as a condition on the table `v`, and the role that asks by a policy.
struct Case {
    name: String,
    filter: Option<String>,
    keeps: String,
    reader: Option<String>,
}

fn main() {
    let cluster = packages::cluster();
    cluster.create_extension("postgres");
    let mut client = cluster.connect("postgres");
    let mut texts = packages::catalogue();
    let packages = texts.len();
    // The catalogue has fewer packages: their descriptions without their names are the other texts.
    for at in 0..LARGE.saturating_sub(packages) {
        let (section, text) = &texts[at % packages];
        let description =
            text.split_once('\n').map_or(text.as_str(), |(_, description)| description);
        texts.push((section.clone(), description.to_string()));
    }
    for rows in [SMALL, LARGE] {
        measure(&cluster, &mut client, &texts[..rows]);
    }
}

fn measure(cluster: &Cluster, client: &mut Client, packages: &[(String, String)]) {
    let rows = packages.len();
    client
        .batch_execute("drop table if exists p; create table p (id int primary key, body text, section text, part int)")
        .unwrap();
    for (page, chunk) in packages.chunks(5000).enumerate() {
        let ids: Vec<i32> = (0..chunk.len()).map(|at| (page * 5000 + at) as i32).collect();
        let (sections, texts): (Vec<&str>, Vec<&str>) =
            chunk.iter().map(|(section, text)| (section.as_str(), text.as_str())).unzip();
        // The parts are spread over the rows.
        client
            .execute(
                "insert into p select i, t, s, (i::bigint * 7919 % 1000)::int
                   from unnest($1::int[], $2::text[], $3::text[]) u(i, t, s)",
                &[&ids, &texts, &sections],
            )
            .unwrap();
    }
    client
        .batch_execute(
            r#"select embedd.create_vector_table('p', 'p', '[{"name": "body", "role": "embedding"},
                   {"name": "section", "role": "metadata"}, {"name": "part", "role": "metadata"}]', start_backfill => true)"#,
        )
        .unwrap();
    cluster.wait_for(
        "postgres",
        LOAD,
        "the backfill",
        "select sync_status = 'synced' from embedd.sync_status('p')",
    );
    let vectors: String = client
        .query_one("select vector_table::regclass::text from embedd.vector_tables", &[])
        .unwrap()
        .get(0);
    client.batch_execute(&format!("vacuum analyze {vectors}")).unwrap();
    let measured = "select measured_recall is not null from embedd.vector_tables";
    cluster.wait_for("postgres", LOAD, "the measurement of the index", measured);
    let cases = cases(client, &vectors);
    cluster.wait_for(
        "postgres",
        Duration::from_secs(60),
        "the readers' privileges and the policy",
        &format!(
            "select has_table_privilege('reader5', '{vectors}', 'select')
                    and exists (select from pg_policy where polrelid = '{vectors}'::regclass)"
        ),
    );
    println!("{rows} rows; recall@10 and rows, p50 and p99 in ms");
    println!("| | query() | exact | SELECT through the index |");
    let mut owner = Duration::ZERO;
    for case in &cases {
        let time = compare(client, &vectors, case);
        if case.name == "all" {
            owner = time;
        } else if case.reader.is_some() {
            println!(
                "{}: {:.2} of the owner's time",
                case.name,
                time.as_secs_f64() / owner.as_secs_f64()
            );
        }
    }
    let begin = Instant::now();
    let row = client
        .query_one("select recall, questions, query_ms, exact_ms, ef_search from embedd.recall('p', sample => 200)", &[])
        .unwrap();
    println!(
        "recall() of {} samples: {:.4}, query {:.1} ms, exact {:.1} ms, ef_search {:?}; in {:.1} s",
        row.get::<_, i32>(1),
        row.get::<_, f64>(0),
        row.get::<_, f64>(2),
        row.get::<_, f64>(3),
        row.get::<_, Option<i32>>(4),
        begin.elapsed().as_secs_f64()
    );
    client.batch_execute("select embedd.drop_vector_table('p')").unwrap();
}

fn cases(client: &mut Client, vectors: &str) -> Vec<Case> {
    let case = |name: &str, filter: Option<String>, keeps: String, reader: Option<String>| Case {
        name: name.to_string(),
        filter,
        keeps,
        reader,
    };
    let mut cases = vec![case("all", None, "true".to_string(), None)];
    for (name, part) in [("50 %", 500), ("5 %", 50), ("1 %", 10), ("0.1 %", 1)] {
        let filter = format!(r#"{{"part": {{"lt": {part}}}}}"#);
        cases.push(case(
            name,
            Some(filter),
            format!("(v.metadata->>'part')::numeric < {part}"),
            None,
        ));
    }
    let sections = client
        .query(
            &format!(
                "select metadata->>'section', count(*) from {vectors} group by 1 having count(*) > 20 order by 2 desc"
            ),
            &[],
        )
        .unwrap();
    let step = (sections.len() / 6).max(1);
    for row in sections.iter().step_by(step) {
        let (section, count): (String, i64) = (row.get(0), row.get(1));
        cases.push(case(
            &format!("section {section}, {count} rows"),
            Some(format!(r#"{{"section": "{section}"}}"#)),
            format!("v.metadata->>'section' = '{section}'"),
            None,
        ));
    }
    for (name, part) in [("50 %", 500), ("5 %", 50), ("0.5 %", 5)] {
        let role = format!("reader{part}");
        client
            .batch_execute(&format!(
                "do $$ begin create role {role}; exception when duplicate_object then null; end $$;
                 grant usage on schema embedd to {role}; grant select on p to {role};
                 alter table p enable row level security; create policy {role} on p to {role} using (part < {part})"
            ))
            .unwrap();
        let keeps = format!("(v.metadata->>'part')::int < {part}");
        cases.push(case(&format!("reader of {name}"), None, keeps, Some(role)));
    }
    cases
}

/// Keys and times of one way to ask, for every question.
fn timed(client: &mut Client, statements: &[String]) -> (Vec<Vec<String>>, Vec<Duration>) {
    let (mut answers, mut times) = (Vec::new(), Vec::new());
    for statement in statements {
        // The first time the question is embedded, and pages are read.
        client.query(statement, &[]).unwrap();
        for turn in 0..3 {
            let begin = Instant::now();
            let rows = client.query(statement, &[]).unwrap();
            times.push(begin.elapsed());
            if turn == 0 {
                answers.push(rows.iter().map(|row| row.get(0)).collect());
            }
        }
    }
    times.sort();
    (answers, times)
}

/// Prints recall and times of a case; the median of query()'s times.
fn compare(client: &mut Client, vectors: &str, case: &Case) -> Duration {
    let filter = case.filter.as_ref().map(|f| format!(", filters => '{f}'")).unwrap_or_default();
    let queries: Vec<String> =
        QUESTIONS.map(|q| format!("select id from embedd.query('p', '{q}'{filter})")).into();
    let vector = |client: &mut Client, q: &str| -> String {
        client.query_one("select embedd.embed('p', $1)::text", &[&q]).unwrap().get(0)
    };
    let select = |client: &mut Client, order: &str| -> Vec<String> {
        QUESTIONS
            .map(|q| {
                let vector = vector(client, q);
                let keeps = &case.keeps;
                format!(
                    "select v.pk_value from {vectors} v where v.embedding is not null and {keeps}
                      order by (v.embedding <=> '{vector}'){order} limit 10"
                )
            })
            .into()
    };
    let (exact, raw) = (select(client, " + 0.0::float8"), select(client, ""));
    if let Some(role) = &case.reader {
        client.batch_execute(&format!("set role {role}")).unwrap();
    }
    let (found, times) = timed(client, &queries);
    client.batch_execute("reset role").unwrap();
    let (right, exact_times) = timed(client, &exact);
    let (indexed, index_times) = timed(client, &raw);
    println!(
        "| {} | {} {} | {} | {} {} |",
        case.name,
        recall(&found, &right),
        spread(&times),
        spread(&exact_times),
        recall(&indexed, &right),
        spread(&index_times)
    );
    times[times.len() / 2]
}

/// The part of the right rows that were found, and how many of them there were.
fn recall(found: &[Vec<String>], right: &[Vec<String>]) -> String {
    let all: usize = right.iter().map(Vec::len).sum();
    let rows: usize = found.iter().map(Vec::len).sum();
    let same: usize = found
        .iter()
        .zip(right)
        .map(|(found, right)| found.iter().filter(|id| right.contains(id)).count())
        .sum();
    format!("{:.3} ({rows} of {all})", same as f64 / all.max(1) as f64)
}

fn spread(times: &[Duration]) -> String {
    let at =
        |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    format!("{:.1} {:.1}", at(50), at(99))
}
