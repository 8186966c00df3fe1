//! Random writers and a misbehaving provider, while processes are killed and the server crashes: in the end everything
//! is in sync, and little was paid for twice.
//!
//! All randomness comes from one seed: what each writer does and which faults occur, step by step. Only the
//! interleaving of the steps depends on the machine.
//!
//!     EMBEDD_CHAOS_SEED=..    the seed of a run that is to be repeated; the time of day otherwise
//!     EMBEDD_CHAOS_KILLS=..   how many processes are killed
//!     EMBEDD_CHAOS_EVENTS=..  how many steps all writers go

mod check;
mod script;
mod strike;
mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use check::Account;
use postgres::Client;
use script::{Victim, Weather};
use support::fake_provider::{Dialect, FakeProvider};
use support::processes::kill9;
use support::wait::until;
use support::{Cluster, LONG};
use writers::Writers;

const DB: &str = "chaos";

/// Writing sessions.
const WRITERS: u64 = 4;

/// Kills between two full checks.
const KILLS_PER_CHECK: u64 = 20;

/// Settings of the worker that bound the cost of a kill.
const BATCH_TEXTS: u64 = 8;
const TEXTS_IN_FLIGHT: u64 = 16;

/// Texts that the worker may have in flight when it is killed: changes and a scan have the limit each, and the last
/// batch may exceed it.
const IN_FLIGHT: u64 = 2 * (TEXTS_IN_FLIGHT + BATCH_TEXTS);

/// The size of a run.
#[derive(Clone, Copy)]
struct Size {
    seed: u64,
    kills: u64,
    events: u64,
    /// Rows at the start; from 5,000 on the indexes are deferred.
    rows: i64,
    /// Parallel runs that share kills and events.
    runs: u64,
}

/// Prints how to repeat a failed run.
struct Repeat(Size);

impl Drop for Repeat {
    fn drop(&mut self) {
        if thread::panicking() {
            let Size { seed, runs, .. } = self.0;
            let (kills, events) = (self.0.kills * runs, self.0.events * runs);
            eprintln!(
                "to repeat: EMBEDD_CHAOS_SEED={seed} EMBEDD_CHAOS_KILLS={kills} EMBEDD_CHAOS_EVENTS={events}"
            );
        }
    }
}

/// A run: its cluster, its provider, and the history so far.
struct Run {
    size: Size,
    cluster: Arc<Cluster>,
    fake: FakeProvider,
    account: Account,
    killed: BTreeMap<Victim, u64>,
    crashes: u64,
    committed: u64,
    begin: Instant,
}

impl Run {
    fn start(size: Size) -> Self {
        println!("chaos: seed {}, {} kills, {} events", size.seed, size.kills, size.events);
        let cluster = Cluster::builder()
            .never_polling()
            .set("embedd.batch_texts", &BATCH_TEXTS.to_string())
            .set("embedd.texts_in_flight", &TEXTS_IN_FLIGHT.to_string())
            .set("max_prepared_transactions", "40")
            .start();
        let cluster = Arc::new(cluster);
        let fake = FakeProvider::builder(Dialect::OpenAiCompatible)
            .dimensions(check::DIMENSIONS)
            .model(check::MODEL)
            .start();
        let mut client = cluster.database(DB);
        check::set_up(&mut client, &fake.base_url(), size.rows);
        Self {
            size,
            cluster,
            fake,
            account: Account::default(),
            killed: BTreeMap::new(),
            crashes: 0,
            committed: 0,
            begin: Instant::now(),
        }
    }

    /// Several rounds, and a check.
    fn stretch(&mut self, rounds: std::ops::Range<u64>) {
        let per_round = (self.size.events / self.size.kills.max(1) / WRITERS).max(1);
        let steps = rounds.start * per_round..rounds.end * per_round;
        let writers = Writers::start(&self.cluster, DB, self.size.seed, WRITERS, steps);
        let mut losses = Vec::new();
        for round in rounds {
            self.round(round, (round + 1) * per_round, &writers, &mut losses);
        }
        strike::clear(&self.fake);
        let (committed, problems) = writers.finish();
        self.committed += committed;
        assert!(problems.is_empty(), "seed {}: writers failed: {problems:#?}", self.size.seed);
        self.breathe(&losses);
    }

    /// One round: writers continue, the provider's behaviour changes, a process is killed.
    fn round(&mut self, round: u64, step: u64, writers: &Writers, losses: &mut Vec<Instant>) {
        let faults = script::faults(self.size.seed, round);
        if faults.weather == Weather::Down {
            // An answer may be in flight.
            losses.push(Instant::now());
            self.account.lost += IN_FLIGHT;
        }
        strike::weather(&self.fake, faults.weather, faults.requests);
        // This flushes what the worker has committed so far, so that a crash loses only later commits.
        let mut client = self.connect();
        let paid = self.fake.paid_total();
        let _ = client.batch_execute("INSERT INTO mark VALUES (now())");
        writers.release(step);
        if let Some((who, time)) = faults.frozen {
            strike::freeze(&self.cluster, writers, who, time);
        }
        strike::await_moment(&self.fake, faults.moment);
        let mut killed = None;
        until(LONG, || {
            killed = strike::kill(&self.cluster, writers, &faults);
            killed.is_some()
        });
        let (victim, at) = killed.expect("there is a sync worker to be killed");
        *self.killed.entry(victim).or_default() += 1;
        losses.push(at);
        let mut times = 1;
        if let Some(how) = faults.crash {
            strike::crash(&self.cluster, how);
            losses.push(Instant::now());
            self.crashes += 1;
            times = 2;
        }
        if victim == Victim::Embedder && faults.crash.is_none() {
            // The embedder is not a child of the postmaster: sessions do not notice its end.
            let felt = client.simple_query("SELECT 1").err();
            assert!(felt.is_none(), "a session felt the end of the embedder: {felt:?}");
        } else {
            // The postmaster needs a moment to notice that a process has died; a session notices it first.
            until(LONG, || client.simple_query("SELECT 1").is_err());
            drop(self.connect());
        }
        // What was in flight at the mark, and everything paid since, may be lost.
        self.account.lost += times * IN_FLIGHT + (self.fake.paid_total() - paid);
    }

    /// Connects, however long the server takes to restart.
    fn connect(&self) -> Client {
        self.cluster.connect(DB)
    }

    /// The provider recovers, prepared transactions are ended, the queue drains: now everything has to be correct.
    fn breathe(&mut self, losses: &[Instant]) {
        let mut client = self.connect();
        // The last kill may take effect only now.
        let ended = until(LONG, || {
            let is_ended = writers::end_prepared(&mut client, "").is_ok();
            if !is_ended {
                client = self.connect();
            }
            is_ended
        });
        assert!(ended.is_some(), "prepared transactions can be ended");
        // Any change of the provider makes the worker retry at once, which avoids a long backoff.
        let timeout = 3000 + self.begin.elapsed().as_millis() % 100;
        let sql = format!(
            "SELECT embedd.update_provider('fake', options => '{{\"timeout\": {timeout}}}')"
        );
        client.batch_execute(&sql).expect("the provider can be changed");
        let waited = Instant::now();
        self.cluster.wait_done(DB);
        // A text sent alone while the answers had wrong dimensions has failed for that reason. A retry succeeds.
        let retry = "SELECT sum(embedd.retry_failed(name)) FROM embedd.vector_tables";
        client.query(retry, &[]).expect("rows that have failed can be tried again");
        self.cluster.wait_done(DB);
        let drained = waited.elapsed();
        self.account.settle(&mut client, &self.fake, losses);
        check::check(&mut client);
        self.account.close(&mut client, &self.fake);
        println!(
            "chaos: seed {}, {:.0?}: {} killed, {} crashes, {} steps committed; {}; drained in {drained:.1?}",
            self.size.seed,
            self.begin.elapsed(),
            self.killed.values().sum::<u64>(),
            self.crashes,
            self.committed,
            self.account,
        );
    }

    /// Kills the index builder twice, if the source is large enough to have one.
    fn kill_index_builders(&mut self) -> Vec<Instant> {
        let mut losses = Vec::new();
        for _ in 0..2 {
            let mut found = None;
            self.cluster.wait_until(LONG, "a process that builds the index", || {
                found = self.cluster.pids(strike::INDEX_BUILDER).first().copied();
                found.is_some()
            });
            kill9(found.expect("just found"));
            losses.push(Instant::now());
            *self.killed.entry(Victim::IndexBuilder).or_default() += 1;
            self.account.lost += IN_FLIGHT;
            drop(self.connect());
        }
        losses
    }
}

/// A whole run; panics if a check fails.
fn run(size: Size) {
    let _repeat = Repeat(size);
    let mut run = Run::start(size);
    if size.rows >= 5000 {
        let losses = run.kill_index_builders();
        run.breathe(&losses);
    }
    let mut round = 0;
    while round < size.kills {
        let end = (round + KILLS_PER_CHECK).min(size.kills);
        run.stretch(round..end);
        round = end;
    }
    println!(
        "chaos: done, seed {}: {} events, {} committed; killed {:?}, {} in all; server crashes {}; {}; {:.0?}",
        size.seed,
        size.events,
        run.committed,
        run.killed,
        run.killed.values().sum::<u64>(),
        run.crashes,
        run.account,
        run.begin.elapsed()
    );
}

/// A number from the environment.
fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// The requested seed, or a new one.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    from_environment("EMBEDD_CHAOS_SEED").unwrap_or(now.as_micros() as u64 % 1_000_000_000)
}

#[test]
fn a_short_run() {
    let kills = from_environment("EMBEDD_CHAOS_KILLS").unwrap_or(12);
    let events = from_environment("EMBEDD_CHAOS_EVENTS").unwrap_or(480);
    run(Size { seed: seed(), kills, events, rows: 300, runs: 1 });
}

#[test]
#[ignore = "takes long; make soak"]
fn a_long_run() {
    let kills = from_environment("EMBEDD_CHAOS_KILLS").unwrap_or(1000);
    let events = from_environment("EMBEDD_CHAOS_EVENTS").unwrap_or(40 * kills);
    // Two clusters in parallel: while one of them recovers, the other one works.
    let half = move |seed| {
        let (kills, events) = (kills.div_ceil(2), events / 2);
        Size { seed, kills, events, rows: 6000, runs: 2 }
    };
    let seed = seed();
    let runs = [seed, seed + 1].map(|seed| thread::spawn(move || run(half(seed))));
    let failed = runs.map(|run| run.join().is_err());
    assert_eq!(failed, [false, false], "runs that failed, of seeds {seed} and {}", seed + 1);
}
