//! The launcher: starts the sync workers of every database with embedd, without a list to maintain.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{check_for_interrupts, pg_sys};

use super::signals::{self, Terminate};
use super::sync_worker::{FAIR_TIME, pack};
use super::{SYNC_WORKER, databases};
use crate::guc;
use crate::latch;
use crate::process::Process;
use crate::shared::slots::{self, TakenSlot};
use crate::shared::{self, LeaveRequest, SlotState, WorkerIndex};
use crate::transaction;

/// How often the list of databases is read without a request: a copy of a database with embedd needs a worker too.
const ROUND: Duration = Duration::from_secs(10);
/// The same while a worker waits for a slot.
const WAITING_ROUND: Duration = Duration::from_secs(1);
/// The shortest time between two rounds while a worker waits for a slot, because each commit of its database requests
/// it again.
const MIN_ROUND: Duration = Duration::from_millis(10);
/// The most workers starting at the same time.
const MAX_STARTING: usize = 2;
/// How long the launcher waits for a worker to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before a worker returns to a database that it was asked to leave.
const AFTER_LEAVING: Duration = Duration::from_secs(10);
/// First and longest pause before a failed worker is restarted; it doubles with each failure.
const AFTER_FAILURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// After how long an idle worker is started again without a request.
const RECHECK_AFTER: Duration = Duration::from_secs(600);
/// How long an idle worker has to release its slot before another one is asked.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// A sync worker: its database and its index there.
type Key = (pg_sys::Oid, u16);

/// When to restart a worker, and the pause that led to it.
#[derive(Clone, Copy)]
struct Restart {
    at: Instant,
    pause: Duration,
}

/// The entry point of the launcher.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_launcher_main(_arg: pg_sys::Datum) {
    signals::accept(Terminate::AtOnce);
    // Without a database: it reads shared catalogs only, and blocks no DROP DATABASE.
    BackgroundWorker::connect_worker_to_spi(None, None);
    slots::launcher_started();
    // SAFETY: the function is static and guarded.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0usize)) };
    let mut launcher = Launcher::default();
    loop {
        check_for_interrupts!();
        signals::reload_if_asked();
        launcher.round();
        if launcher.waiting > 0 {
            std::thread::sleep(MIN_ROUND);
        }
        latch::wait(launcher.pause(), None);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: i32, _arg: pg_sys::Datum) {
    slots::launcher_stopped();
}

#[derive(Default)]
struct Launcher {
    /// Workers with a time before which they are not started.
    later: HashMap<Key, Restart>,
    /// Databases without embedd; CREATE EXTENSION requests a worker there.
    without: HashSet<pg_sys::Oid>,
    /// Databases with embedd, which get all their workers, not only the first.
    with: HashSet<pg_sys::Oid>,
    /// Workers that were requested while they were exiting, so they have to be started again.
    asked: HashSet<Key>,
    /// Workers to start, in order.
    queue: VecDeque<Key>,
    processes: HashMap<Key, Process>,
    /// Processes that have released their slots and have not exited yet.
    ending: Vec<Process>,
    /// How many workers wait for a slot.
    waiting: usize,
    /// Whether the log mentions that max_worker_processes is reached.
    has_reported_full: bool,
}

impl Launcher {
    /// Handles exited workers, and starts missing ones.
    fn round(&mut self) {
        if shared::worker_count() != guc::workers_per_database() {
            slots::set_worker_count(guc::workers_per_database());
        }
        let asking = slots::take_requests();
        match &asking {
            Some(databases) => {
                self.later.retain(|(database, _), _| !databases.contains(database));
                self.without.retain(|database| !databases.contains(database));
            }
            None => {
                self.later.clear();
                self.without.clear();
            }
        }
        let is_asking = |database| asking.as_ref().is_none_or(|all| all.contains(&database));
        self.reconcile_slots(Instant::now(), is_asking);
        let databases = match transaction::run(|| Ok(databases::all())) {
            Ok(databases) => databases.into_iter().collect::<HashMap<_, _>>(),
            Err(failure) => {
                log!("could not read the list of databases: {}", failure.message);
                return;
            }
        };
        self.later.retain(|(database, _), _| databases.contains_key(database));
        self.asked.retain(|(database, _)| databases.contains_key(database));
        self.without.retain(|database| databases.contains_key(database));
        self.with.retain(|database| databases.contains_key(database));
        let taken = slots::taken();
        self.update_queue(&databases, &taken);
        self.start_queued(&databases, taken.len() + self.ending.len());
        self.request_slots();
    }

    /// Frees the slots of exited workers, and schedules their restart.
    fn reconcile_slots(&mut self, now: Instant, is_asking: impl Fn(pg_sys::Oid) -> bool) {
        for slot in slots::taken() {
            let key = (slot.database, slot.portion.index);
            match slot.state {
                SlotState::Starting if self.may_still_start(&slot, key) => {
                    self.asked.remove(&key);
                    continue;
                }
                SlotState::Running => {
                    self.asked.remove(&key);
                    if slot.found {
                        self.later.remove(&key);
                        self.with.insert(slot.database);
                    }
                    continue;
                }
                SlotState::Leaving => {
                    if is_asking(slot.database) {
                        self.asked.insert(key);
                    }
                    continue;
                }
                _ => {}
            }
            let is_asked = self.asked.remove(&key) || is_asking(slot.database);
            self.has_ended(&slot, key, is_asked, now);
            self.ending.extend(self.processes.remove(&key));
            slot.free();
        }
        self.ending.retain(|process| !process.has_ended());
        slots::taken().iter().for_each(|slot| self.request_leave_if_outdated(slot));
    }

    /// Whether a worker may still start.
    fn may_still_start(&mut self, slot: &TakenSlot, key: Key) -> bool {
        let waited = Duration::from_millis(slot.since);
        let has_ended = self.processes.get(&key).is_some_and(Process::has_ended);
        if !(has_ended || waited > START_TIMEOUT) || !slot.cancel_start() {
            return true;
        }
        if let Some(process) = self.processes.remove(&key) {
            process.terminate();
        }
        false
    }

    /// Asks a worker to exit if the number of workers has changed or its database has no embedd.
    fn request_leave_if_outdated(&self, slot: &TakenSlot) {
        let fits = slot.portion.count == shared::worker_count();
        if (!fits || self.without.contains(&slot.database))
            && !slot.is_asked(LeaveRequest::WhenDrained)
        {
            slot.ask(LeaveRequest::WhenDrained);
        }
    }

    /// Schedules the restart of an exited worker.
    fn has_ended(&mut self, slot: &TakenSlot, key: Key, is_asked: bool, now: Instant) {
        let (first, longest) = AFTER_FAILURE;
        match slot.state {
            SlotState::NoExtension => {
                self.with.remove(&slot.database);
                if !is_asked {
                    self.without.insert(slot.database);
                }
            }
            SlotState::Idle if !is_asked => {
                let pause =
                    slot.due.map_or(RECHECK_AFTER, Duration::from_millis).min(RECHECK_AFTER);
                self.later.insert(key, Restart { at: now + pause, pause: first });
            }
            // The other workers of the database stay away too, even if one was requested just now.
            SlotState::Left => {
                for index in 0..shared::worker_count() {
                    let restart = Restart { at: now + AFTER_LEAVING, pause: first };
                    self.later.insert((slot.database, index), restart);
                }
            }
            SlotState::Starting | SlotState::Failed => {
                let before = self.later.get(&key).map(|restart| restart.pause);
                let pause = before.map_or(first, |pause| (pause * 2).min(longest));
                self.later.insert(key, Restart { at: now + pause, pause });
            }
            _ => {}
        }
    }

    /// Appends missing workers to the queue, and removes those no longer needed.
    fn update_queue(&mut self, databases: &HashMap<pg_sys::Oid, String>, taken: &[TakenSlot]) {
        let now = Instant::now();
        let count = shared::worker_count();
        let mut wanted = Vec::new();
        for database in databases.keys().copied().filter(|oid| !self.without.contains(oid)) {
            let there = taken.iter().filter(|slot| slot.database == database);
            if there.clone().any(|slot| slot.portion.count != count) {
                continue;
            }
            let indexes = if self.with.contains(&database) { 0..count } else { 0..1 };
            wanted.extend(indexes.map(|index| (database, index)).filter(|key| {
                !there.clone().any(|slot| slot.portion.index == key.1)
                    && self.later.get(key).is_none_or(|restart| restart.at <= now)
            }));
        }
        self.queue.retain(|key| wanted.contains(key));
        let new: Vec<Key> = wanted.into_iter().filter(|key| !self.queue.contains(key)).collect();
        self.queue.extend(new);
    }

    /// Starts workers while there are free slots, and records how many have to wait.
    fn start_queued(&mut self, databases: &HashMap<pg_sys::Oid, String>, mut running: usize) {
        let most = guc::max_sync_workers();
        let starts = slots::taken().iter().filter(|p| p.state == SlotState::Starting).count();
        let mut server_is_full = false;
        for _ in starts..MAX_STARTING {
            let Some(key) = self.queue.front().copied().filter(|_| running < most) else { break };
            let name = databases.get(&key.0).map_or("", String::as_str);
            if !self.start(key, name) {
                server_is_full = true;
                break;
            }
            self.queue.pop_front();
            running += 1;
        }
        let free = if server_is_full { 0 } else { most.saturating_sub(running) };
        self.waiting = self.queue.len().saturating_sub(free) + running.saturating_sub(most);
        slots::set_waiting(self.waiting);
        if server_is_full {
            self.report_full(databases);
        } else if self.queue.is_empty() {
            self.has_reported_full = false;
        }
    }

    /// Asks the postmaster for a worker; false if max_worker_processes is reached.
    fn start(&mut self, key: Key, name: &str) -> bool {
        let portion = WorkerIndex { index: key.1, count: shared::worker_count() };
        if !slots::take(key.0, portion) {
            return false;
        }
        let title = match portion.count {
            1 => format!("{SYNC_WORKER} for {name}"),
            count => format!("{SYNC_WORKER} for {name} {}/{count}", portion.index + 1),
        };
        let argument = pack(key.0, portion);
        let process = Process::start(SYNC_WORKER, &title, "embedd_sync_worker_main", argument);
        let Some(process) = process else {
            let taken = slots::taken();
            taken
                .iter()
                .filter(|p| (p.database, p.portion) == (key.0, portion))
                .for_each(TakenSlot::free);
            return false;
        };
        self.ending.extend(self.processes.insert(key, process));
        true
    }

    /// Logs that max_worker_processes is reached, unless an idle or exiting worker will make room.
    fn report_full(&mut self, databases: &HashMap<pg_sys::Oid, String>) {
        let one_is_idle = slots::taken().iter().any(|slot| slot.is_idle);
        if self.has_reported_full || one_is_idle || !self.ending.is_empty() {
            return;
        }
        let name = self.queue.front().and_then(|key| databases.get(&key.0));
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!(
                "no free background worker slot for the embedd sync worker of database \"{}\"",
                name.map_or("", String::as_str)
            ),
            pgrx::function_name!(),
        )
        .set_detail("Changes stay in embedd.queue until the worker can start.")
        .set_hint("Increase max_worker_processes.")
        .report(PgLogLevel::LOG);
        self.has_reported_full = true;
    }

    /// Asks workers to yield their slots, as many as are waiting: first those idle for longest, then those that have
    /// run for their fair time.
    fn request_slots(&self) {
        let taken = slots::taken();
        if self.waiting == 0 {
            taken.iter().filter(|slot| slot.asked.is_some()).for_each(TakenSlot::keep);
            return;
        }
        let is_leaving = |slot: &&TakenSlot| {
            let to_leave = if slot.is_idle { LEAVE_TIMEOUT } else { FAIR_TIME };
            slot.asked.is_some_and(|asked| Duration::from_millis(asked) < to_leave)
        };
        let leaving = taken.iter().filter(is_leaving).count() + self.ending.len();
        let mut candidates: Vec<&TakenSlot> = taken
            .iter()
            .filter(|slot| slot.state == SlotState::Running && slot.asked.is_none())
            .filter(|slot| slot.is_idle || Duration::from_millis(slot.since) >= FAIR_TIME)
            .collect();
        candidates.sort_by_key(|slot| (!slot.is_idle, std::cmp::Reverse(slot.since)));
        let missing = self.waiting.saturating_sub(leaving);
        candidates.iter().take(missing).for_each(|slot| slot.ask(LeaveRequest::YieldSlot));
    }

    /// The time until something is due.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let longest = if self.waiting > 0 { WAITING_ROUND } else { ROUND };
        // A worker whose time has come already waits for something else.
        let later = self.later.values().filter(|restart| restart.at > now);
        let due = later.map(|restart| restart.at - now).min();
        due.unwrap_or(longest).clamp(Duration::from_millis(100).min(longest), longest)
    }
}
