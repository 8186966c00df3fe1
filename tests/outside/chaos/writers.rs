//! The writers of a chaos run: each follows its script, and reconnects when its connection breaks.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use postgres::Client;

use super::script::{self, Event};
use support::Cluster;

/// Errors caused by a writer or by a kill: a duplicate key, a deadlock between writers, a prepared transaction ended
/// by another session, too many prepared transactions, a server that stops or starts.
const EXPECTED: [&str; 9] =
    ["23505", "40P01", "42704", "55000", "53200", "57P01", "57P02", "57P03", "40001"];

/// Sessions that write, each a thread.
pub struct Writers {
    told: Arc<Told>,
    threads: Vec<JoinHandle<()>>,
}

/// State shared between the writers and the test.
struct Told {
    /// Up to which step each writer may go.
    released: AtomicU64,
    done: AtomicU64,
    committed: AtomicU64,
    give_up: AtomicBool,
    /// Process ids of the backends, 0 while there is none.
    backends: Vec<AtomicI32>,
    problems: Mutex<Vec<String>>,
}

impl Writers {
    /// Starts this many writers; each runs these steps once they are released.
    pub fn start(
        cluster: &Arc<Cluster>,
        db: &str,
        seed: u64,
        count: u64,
        steps: Range<u64>,
    ) -> Self {
        let told = Arc::new(Told {
            released: AtomicU64::new(steps.start),
            done: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            give_up: AtomicBool::new(false),
            backends: (0..count).map(|_| AtomicI32::new(0)).collect(),
            problems: Mutex::default(),
        });
        let threads = (0..count)
            .map(|writer| {
                let (cluster, db) = (Arc::clone(cluster), db.to_string());
                let (told, steps) = (Arc::clone(&told), steps.clone());
                thread::spawn(move || write(&cluster, &db, seed, writer, steps, &told))
            })
            .collect();
        Self { told, threads }
    }

    /// Lets every writer go on up to this step.
    pub fn release(&self, step: u64) {
        self.told.released.store(step, Ordering::SeqCst);
    }

    /// The current backend of a writer.
    pub fn backend(&self) -> Option<i32> {
        self.told.backends.iter().map(|pid| pid.load(Ordering::SeqCst)).find(|pid| *pid != 0)
    }

    /// Waits for all writers; returns how many steps had no error, and unexpected errors.
    pub fn finish(mut self) -> (u64, Vec<String>) {
        for thread in std::mem::take(&mut self.threads) {
            thread.join().expect("a writer ends well");
        }
        let problems = self.told.problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.told.committed.load(Ordering::SeqCst), problems)
    }
}

impl Drop for Writers {
    /// A failed run leaves no writer behind.
    fn drop(&mut self) {
        self.told.give_up.store(true, Ordering::SeqCst);
    }
}

/// One writer.
fn write(cluster: &Cluster, db: &str, seed: u64, writer: u64, steps: Range<u64>, told: &Told) {
    let slot = &told.backends[writer as usize];
    let mut client: Option<Client> = None;
    for step in steps {
        while told.released.load(Ordering::SeqCst) <= step {
            if told.give_up.load(Ordering::SeqCst) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        while client.as_ref().is_none_or(Client::is_closed) {
            slot.store(0, Ordering::SeqCst);
            if told.give_up.load(Ordering::SeqCst) {
                return;
            }
            client = session(cluster, db, slot);
        }
        let Some(open) = client.as_mut() else { continue };
        let event = script::event(seed, writer, step);
        let outcome = run(open, &event);
        told.done.fetch_add(1, Ordering::SeqCst);
        match outcome {
            Ok(()) => drop(told.committed.fetch_add(1, Ordering::SeqCst)),
            Err(error) => {
                let truncates =
                    matches!(&event, Event::Sql(all) if all.iter().any(|s| s.contains("TRUNCATE")));
                if !is_expected(&error, truncates) {
                    let problem = format!("writer {writer}, step {step}, {event:?}: {error:?}");
                    told.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
                }
                if open.batch_execute("ROLLBACK").is_err() {
                    client = None;
                }
            }
        }
    }
    slot.store(0, Ordering::SeqCst);
}

/// A new session; records its backend.
fn session(cluster: &Cluster, db: &str, slot: &AtomicI32) -> Option<Client> {
    let Ok(mut client) = cluster.try_connect(db) else {
        thread::sleep(Duration::from_millis(10));
        return None;
    };
    // Waits of writers for each other are far shorter, except those of a TRUNCATE.
    client.batch_execute("SET lock_timeout = '10s'").ok()?;
    let pid = client.query_one("SELECT pg_backend_pid()", &[]).ok()?.get(0);
    slot.store(pid, Ordering::SeqCst);
    Some(client)
}

/// Runs one step.
fn run(client: &mut Client, event: &Event) -> Result<(), postgres::Error> {
    match event {
        Event::Sql(statements) => {
            statements.iter().try_for_each(|statement| client.batch_execute(statement))
        }
        Event::Copy(table, lines) => {
            let mut copy = client.copy_in(&format!("COPY {table} FROM STDIN"))?;
            // finish() reports statements that fail.
            let _ = std::io::Write::write_all(&mut copy, lines.as_bytes());
            copy.finish().map(drop)
        }
        Event::EndPrepared => end_prepared(client, "ORDER BY md5(gid) LIMIT 1"),
    }
}

/// Ends prepared transactions as their names say.
pub fn end_prepared(client: &mut Client, which: &str) -> Result<(), postgres::Error> {
    let sql =
        format!("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() {which}");
    for row in client.query(&sql, &[])? {
        let name: String = row.get(0);
        let end = name.rsplit(' ').next().unwrap_or("rollback");
        client.batch_execute(&format!("{end} PREPARED '{name}'"))?;
    }
    Ok(())
}

/// Whether an error is expected, and not a bug of embedd.
fn is_expected(error: &postgres::Error, truncates: bool) -> bool {
    match error.code() {
        // The connection broke.
        None => error.is_closed() || error.to_string().contains("communicating"),
        Some(code) => EXPECTED.contains(&code.code()) || (truncates && code.code() == "55P03"),
    }
}
