//! The script of writers and faults: each step is a function of the seed and its number alone.

use std::time::Duration;

use fastrand::Rng;

/// The sources, an ordinary and a partitioned one.
pub const SOURCES: [&str; 2] = ["t", "p"];

/// Keys on which the writers conflict.
const KEYS: i64 = 300;

/// One step of a writer.
#[derive(Debug)]
pub enum Event {
    /// Statements sent one by one.
    Sql(Vec<String>),
    /// COPY of these lines.
    Copy(String, String),
    /// Ends a transaction prepared by any session, as its name says.
    EndPrepared,
}

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    SyncWorker,
    Embedder,
    Launcher,
    IndexBuilder,
    WritersBackend,
}

/// When it is killed, after the writers were released.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    After(Duration),
    /// After this time, while the provider works.
    Working(Duration),
    /// After this time, once the provider was paid.
    Paid(Duration),
}

/// The behaviour of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Calm,
    /// 429, with the milliseconds of Retry-After.
    Limited(Option<u64>),
    Status(u16),
    Hanging,
    Slow(u64),
    Closing,
    Half,
    Broken,
    OneLess,
    WrongSize,
    Down,
}

/// One round of faults.
#[derive(Debug)]
pub struct Faults {
    pub weather: Weather,
    /// For how many requests the behaviour lasts.
    pub requests: u64,
    /// What is frozen before the kill, and for how long.
    pub frozen: Option<(Victim, Duration)>,
    pub moment: Moment,
    pub victim: Victim,
    /// After the kill the whole server goes down too: by an immediate shutdown, or as in a power failure.
    pub crash: Option<Crash>,
}

/// How the server goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    ImmediateStop,
    PowerCut,
}

/// The random generator of one step.
fn chance(seed: u64, who: u64, step: u64) -> Rng {
    let mut mixed = Rng::with_seed(seed ^ who.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Rng::with_seed(mixed.u64(..) ^ step.wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

/// The n-th round of faults.
pub fn faults(seed: u64, n: u64) -> Faults {
    let mut rng = chance(seed, u64::MAX, n);
    let weather = match rng.u32(..100) {
        0..40 => Weather::Calm,
        40..47 => Weather::Limited(None),
        47..55 => Weather::Limited(Some(rng.u64(20..400))),
        55..60 => Weather::Status(500),
        60..65 => Weather::Status(503),
        65..70 => Weather::Hanging,
        70..80 => Weather::Slow(rng.u64(10..300)),
        80..85 => Weather::Closing,
        85..88 => Weather::Half,
        88..90 => Weather::Broken,
        90..92 => Weather::OneLess,
        92..94 => Weather::WrongSize,
        _ => Weather::Down,
    };
    let few = |rng: &mut Rng, most| Duration::from_millis(rng.u64(0..most));
    let moment = match rng.u32(..10) {
        0..3 => Moment::After(few(&mut rng, 250)),
        3..6 => Moment::Working(few(&mut rng, 5)),
        _ => Moment::Paid(few(&mut rng, 20)),
    };
    let victim = match rng.u32(..20) {
        0..8 => Victim::SyncWorker,
        8..14 => Victim::Embedder,
        14..16 => Victim::Launcher,
        16..17 => Victim::IndexBuilder,
        _ => Victim::WritersBackend,
    };
    let frozen = match rng.u32(..8) {
        0 => Some(Victim::SyncWorker),
        1 => Some(Victim::Embedder),
        2 => Some(Victim::WritersBackend),
        _ => None,
    };
    let frozen = frozen.map(|who| (who, few(&mut rng, 300)));
    let crash = match rng.u32(..24) {
        0 => Some(Crash::ImmediateStop),
        1 => Some(Crash::PowerCut),
        _ => None,
    };
    Faults { weather, requests: rng.u64(1..5), frozen, moment, victim, crash }
}

/// The n-th step of a writer.
pub fn event(seed: u64, writer: u64, n: u64) -> Event {
    let mut rng = chance(seed, writer, n);
    let table = SOURCES[rng.usize(..2)];
    let id = rng.i64(1..=KEYS);
    let other = rng.i64(1..=KEYS);
    let few = rng.i64(1..8);
    // No two steps write the same text, so that double payments show; a few shared texts test deduplication.
    let text = format!("w{writer} e{n}");
    let shared = format!("shared {}", rng.u32(..4));
    // Keys that no other writer uses.
    let own = 100_000 * (1 + writer as i64) + (n as i64 % 2000) * 10;
    let upsert = |id: i64, title: &str| {
        format!(
            "INSERT INTO {table} VALUES ({id}, '{title}', 'upsert', {n})
             ON CONFLICT (id) DO UPDATE SET title = excluded.title, body = excluded.body"
        )
    };
    let rows = |first: i64, count: i64| {
        format!(
            "INSERT INTO {table} SELECT i, '{text} r' || i, 'many', {n} FROM generate_series({first}, {first} + {count}) i
             ON CONFLICT DO NOTHING"
        )
    };
    let sql = match rng.u32(..128) {
        0..14 => vec![format!(
            "INSERT INTO {table} VALUES ({id}, '{text}', 'one', {n}) ON CONFLICT DO NOTHING"
        )],
        14..30 => vec![format!("UPDATE {table} SET title = '{text}' WHERE id = {id}")],
        30..36 => vec![format!(
            "UPDATE {table} SET title = '{text} r' || id WHERE id BETWEEN {id} AND {id} + {few}"
        )],
        36..44 => vec![format!(
            "UPDATE {table} SET price = {n} WHERE id BETWEEN {id} AND {id} + {few}"
        )],
        44..50 => vec![format!(
            "UPDATE {table} SET title = title, price = price WHERE id BETWEEN {id} AND {id} + {few}"
        )],
        50..60 => vec![format!("DELETE FROM {table} WHERE id = {id}")],
        60..66 => vec![format!("UPDATE {table} SET id = {other} WHERE id = {id}")],
        66..71 => vec![
            "BEGIN".into(),
            format!("UPDATE {table} SET id = -{own} WHERE id = {id}"),
            format!("UPDATE {table} SET id = {id} WHERE id = {other}"),
            format!("UPDATE {table} SET id = {other} WHERE id = -{own}"),
            "COMMIT".into(),
        ],
        71..79 => vec![upsert(id, &text)],
        79..84 => vec![rows(id, few)],
        84..88 => {
            let line = |i| format!("{}\t{text} c{i}\tcopied\t{n}\n", own + i);
            return Event::Copy(table.into(), (0..few).map(line).collect());
        }
        88..96 => {
            let inner = match rng.u32(..3) {
                0 => format!("DELETE FROM {table} WHERE id < {id}"),
                1 => format!("UPDATE {table} SET title = '{text} undone' WHERE id = {id}"),
                _ => rows(own, few),
            };
            vec![
                "BEGIN".into(),
                format!("UPDATE {table} SET body = '{text} outer' WHERE id = {id}"),
                "SAVEPOINT a".into(),
                inner,
                "ROLLBACK TO a".into(),
                upsert(other, &text),
                "SAVEPOINT b".into(),
                format!("UPDATE {table} SET price = {n} WHERE id = {id}"),
                "RELEASE b".into(),
                "COMMIT".into(),
            ]
        }
        96..102 => vec![
            "BEGIN".into(),
            format!("UPDATE {table} SET title = '{text} r' || id WHERE id BETWEEN {id} AND {id} + 20"),
            format!("DELETE FROM {table} WHERE id = {other}"),
            rows(own, few),
            "ROLLBACK".into(),
        ],
        102..109 => {
            let end = ["commit", "commit", "rollback"][rng.usize(..3)];
            let name = format!("w{writer} e{n} {end}");
            let mut statements = vec!["BEGIN".to_string(), upsert(own, &text)];
            if rng.bool() {
                statements.extend(["SAVEPOINT a".into(), upsert(own + 1, &text), "RELEASE a".into()]);
            }
            statements.push(format!("PREPARE TRANSACTION '{name}'"));
            if rng.bool() {
                statements.push(format!("{end} PREPARED '{name}'"));
            }
            statements
        }
        109..115 => return Event::EndPrepared,
        115..116 => {
            let mut statements = vec![
                "BEGIN".to_string(),
                // An open prepared transaction blocks the others, so it has to end.
                "SET LOCAL lock_timeout = '150ms'".into(),
                format!("TRUNCATE {table}"),
            ];
            if rng.bool() {
                statements.push(rows(1, 20));
            }
            statements.push(["COMMIT", "COMMIT", "ROLLBACK"][rng.usize(..3)].into());
            statements
        }
        116..119 => vec![format!("UPDATE {table} SET title = '{shared}', body = NULL WHERE id = {id}")],
        119..122 => vec![
            format!("DELETE FROM {table} WHERE id = {id}"),
            format!("INSERT INTO {table} VALUES ({id}, '{shared}', NULL, {n}) ON CONFLICT DO NOTHING"),
        ],
        122..124 => vec![format!("UPDATE {table} SET title = NULL, body = '' WHERE id = {id}")],
        _ => vec![format!(
            "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE id > {KEYS} ORDER BY id LIMIT 20
                                              FOR UPDATE SKIP LOCKED)"
        )],
    };
    Event::Sql(sql)
}
