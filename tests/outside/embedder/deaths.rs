//! The program is killed repeatedly under load: every session continues, every question is answered, and only what was
//! in flight is paid for twice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use postgres::Client;

use super::{lasting, next_after, serving};
use support::fake_provider::{Dialect, FakeProvider};
use support::processes::{EMBEDDER, Frozen, SUPERVISOR, is_alive, kill9};
use support::source::{assert_equal, synced_source};
use support::{Cluster, LONG, StopOnDrop};

const DB: &str = "deaths";
/// Sessions that write and query meanwhile.
const SESSIONS: usize = 20;
/// How often the program is killed.
const DEATHS: usize = 20;
/// Texts that a worker may have in flight for one account.
const IN_FLIGHT: u64 = 64;
/// Rows of the concurrent backfill.
const ROWS: i64 = 60_000;

#[test]
fn killed_by_the_operating_system() {
    under_load("9", |_, _, program| signal(program, libc::SIGKILL));
}

#[test]
fn with_a_segmentation_fault() {
    under_load("11", |cluster, _, program| {
        // The first signal is taken by Rust's handler, which detects stack overflows, and the next one by the kernel.
        cluster.wait_until(LONG, "the program to end", || {
            signal(program, libc::SIGSEGV);
            !is_alive(program)
        });
    });
}

#[test]
fn out_of_memory() {
    under_load("6", |_, client, _| {
        // More than the limit, however it is split. The text crashes each program that receives it, so it is rejected.
        let sql = "SELECT embedd.embed('asked', repeat('too much for the embedder ', 5000000))";
        let error = client.execute(sql, &[]).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "08006", "{error:?}");
    });
}

fn signal(pid: i32, number: i32) {
    // SAFETY: kill has no memory to harm; the id is that of the cluster's embedder.
    unsafe { libc::kill(pid, number) };
}

/// Kills the program twenty times in this way, with busy sessions, a backfill and questions.
fn under_load(signal_number: &str, strike: impl Fn(&Cluster, &mut Client, i32)) {
    let fake = FakeProvider::builder(Dialect::OpenAiCompatible)
        .dimensions(8)
        .latency(Duration::from_millis(20))
        .start();
    let cluster = Cluster::builder()
        .set("embedd.embedder_memory_limit", "96MB")
        .set("embedd.texts_in_flight", &IN_FLIGHT.to_string())
        .start();
    let mut client = cluster.database(DB);
    synced_source(&cluster, DB, &mut client, "asked", 50);
    client
        .batch_execute(&format!(
            "SELECT embedd.create_provider('fake', 'openai_compatible', base_url => '{}', default_model => 'm',
                    options => '{{\"texts_per_request\": 16}}');
             CREATE TABLE filled (id bigint PRIMARY KEY, body text);
             INSERT INTO filled SELECT i, 'row ' || i FROM generate_series(1, {ROWS}) i;
             SELECT embedd.create_vector_table('filled', 'filled', '[{{\"name\": \"body\", \"role\": \"embedding\"}}]',
                    embedding_provider => 'fake', embedding_dimensions => 8, start_backfill => true)",
            fake.base_url()
        ))
        .unwrap();
    let mark = cluster.log_mark();
    let before = lasting_but_sessions(&cluster);
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut deaths = 0;
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for session in 0..SESSIONS {
            let (mut client, stop, answered) = (cluster.connect(DB), &stop, &answered);
            scope.spawn(move || write_and_ask(&mut client, session, stop, answered));
        }
        while deaths < DEATHS {
            let program =
                serving(&mut client).unwrap_or_else(|| next_after(&cluster, &mut client, 0));
            let so_far = answered.load(Ordering::SeqCst);
            strike(&cluster, &mut client, program);
            let next = next_after(&cluster, &mut client, program);
            assert_ne!(program, next);
            deaths = ended(&cluster, mark, signal_number);
            cluster.wait_until(LONG, "questions to be answered after it", || {
                answered.load(Ordering::SeqCst) >= so_far + SESSIONS as u64
            });
        }
        let (backfill, left) =
            ("SELECT status FROM embedd.tasks WHERE target_id = $1", fake.paid_total());
        let id: i32 = client
            .query_one("SELECT id FROM embedd.vector_tables WHERE name = 'filled'", &[])
            .unwrap()
            .get(0);
        let status: String = client.query_one(backfill, &[&id]).unwrap().get(0);
        assert_eq!(
            status, "running",
            "the backfill was to last as long as the deaths: {left} texts are done"
        );
    });
    assert_eq!(lasting_but_sessions(&cluster), before, "another process has come or gone");
    let log = cluster.log_since(mark);
    for crash in
        ["terminating any other active server processes", "server process", "reinitializing"]
    {
        assert!(!log.contains(crash), "the postmaster saw a crash: {crash}");
    }
    // The rest need not be awaited: only what was in flight at a kill may be paid for twice.
    client.batch_execute("SELECT embedd.pause_sync('filled')").unwrap();
    let twice: u64 = fake.paid_more_than_once().iter().map(|(_, times)| times - 1).sum();
    let bound = deaths as u64 * 2 * IN_FLIGHT;
    assert!(
        twice <= bound,
        "{twice} texts were paid for twice, and at most {bound} were in flight"
    );
    cluster.wait_for(
        DB,
        LONG,
        "the sessions' changes to be done",
        "SELECT rows_pending = 0 AND sync_status = 'synced' FROM embedd.sync_status('asked')",
    );
    assert_equal(&mut client, "asked");
}

/// The processes that must outlive the program. Sessions are identified by their connections, which must not break.
fn lasting_but_sessions(cluster: &Cluster) -> Vec<(i32, String)> {
    let mut processes = lasting(cluster);
    processes.retain(|(_, title)| title.starts_with("embedd") || title.ends_with("writer"));
    processes
}

/// How often the log reports since the mark that the program was terminated by a signal.
fn ended(cluster: &Cluster, mark: usize, signal: &str) -> usize {
    let words = format!("was terminated by signal {signal}:");
    let log = cluster.log_since(mark);
    log.lines().filter(|line| line.contains("embedder process") && line.contains(&words)).count()
}

/// A busy session until it is stopped: a change, and a question that is not cached.
fn write_and_ask(client: &mut Client, session: usize, stop: &AtomicBool, answered: &AtomicU64) {
    let backend = "SELECT pg_backend_pid()";
    let pid: i32 = client.query_one(backend, &[]).unwrap().get(0);
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let (id, title) = ((session * 2 + 1) as i64, format!("{session} wrote {round}"));
        client.execute("UPDATE asked SET title = $2 WHERE id = $1", &[&id, &title]).unwrap();
        let question = format!("session {session} asks for {round}");
        let sql = "SELECT count(*) FROM embedd.query('asked', $1, 5)";
        let found: i64 = client
            .query_one(sql, &[&question])
            .unwrap_or_else(|error| panic!("{question}: {error:?}"))
            .get(0);
        assert_eq!(found, 5);
        answered.fetch_add(1, Ordering::SeqCst);
    }
    assert_eq!(client.query_one(backend, &[]).unwrap().get::<_, i32>(0), pid);
}

/// The death of the supervisor is a crash of the server, as with every background worker. The program ends with it,
/// and there are never two on the socket.
#[test]
fn the_supervisor_dies() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database(DB);
    synced_source(&cluster, DB, &mut client, "t", 20);
    let (mut supervisor, mut program) = (cluster.pid(SUPERVISOR), cluster.pid(EMBEDDER));
    for round in 0..3 {
        // A frozen program does not outlive the supervisor either.
        let frozen = (round == 1).then(|| Frozen::new(program));
        kill9(supervisor);
        cluster.wait_until(LONG, "the program to go", || !is_alive(program));
        drop(frozen);
        supervisor = cluster.successor(SUPERVISOR, supervisor);
        program = cluster.successor(EMBEDDER, program);
        // The worker does not wait for the disk: what the crash has lost is synced again first.
        cluster.assert_synced(DB, "t");
        let mut client = cluster.connect(DB);
        let sql = "SELECT count(*) FROM embedd.query('t', $1, 5)";
        let question = format!("round {round}");
        assert_eq!(client.query_one(sql, &[&question]).unwrap().get::<_, i64>(0), 5);
        assert_eq!(serving(&mut client), Some(program));
        assert_eq!(cluster.pids(EMBEDDER).len(), 1);
    }
    cluster.assert_synced(DB, "t");
}
