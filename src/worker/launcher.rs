//! The launcher's process: it sees to it that every database with embedd has its sync workers, without any list to maintain.

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
use crate::shared::places::{self, Place};
use crate::shared::{self, Ask, Portion, SlotState};
use crate::transaction;

/// How often the list of databases is read when nobody asks: a copy of a database with embedd needs a worker too.
const ROUND: Duration = Duration::from_secs(10);
/// The same while a worker waits for a place.
const SHORT_ROUND: Duration = Duration::from_secs(1);
/// Least time between two rounds while a worker waits for a place: each commit of its database asks for it again.
const BREATH: Duration = Duration::from_millis(10);
/// Workers that look at their database for the first time at the same moment.
const STARTING_AT_ONCE: usize = 2;
/// Time after which a worker that was asked for and never came is not waited for any more.
const STARTING_FOR: Duration = Duration::from_secs(30);
/// Pause before a worker goes back to a database that it was asked to leave.
const AFTER_LEAVING: Duration = Duration::from_secs(10);
/// First and longest pause before a worker that failed is started again.
const AFTER_FAILURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Time after which a worker that had nothing to do looks again though nobody has asked it to.
const SAFETY_NET: Duration = Duration::from_secs(600);
/// Time that an idle worker has to leave its place before another one is asked.
const TO_LEAVE: Duration = Duration::from_secs(1);

/// A sync worker: its database, and which of that database's workers it is.
type Key = (pg_sys::Oid, u16);

/// When a worker that has left is to be started again, and the pause that was made for it.
#[derive(Clone, Copy)]
struct Again {
    at: Instant,
    pause: Duration,
}

/// What the postmaster runs as the launcher.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_launcher_main(_arg: pg_sys::Datum) {
    signals::accept(Terminate::AtOnce);
    // Without a database: shared catalogs only, and no database is kept from being dropped.
    BackgroundWorker::connect_worker_to_spi(None, None);
    places::launcher_started();
    // SAFETY: the function is static and guarded.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0usize)) };
    let mut launcher = Launcher::default();
    loop {
        check_for_interrupts!();
        signals::reload_if_asked();
        launcher.round();
        if launcher.short > 0 {
            std::thread::sleep(BREATH);
        }
        latch::wait(launcher.pause(), None);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: i32, _arg: pg_sys::Datum) {
    places::launcher_stopped();
}

#[derive(Default)]
struct Launcher {
    /// Workers that are not to be started before some time.
    later: HashMap<Key, Again>,
    /// Databases that have no embedd; somebody who creates the extension will tell.
    without: HashSet<pg_sys::Oid>,
    /// Databases in which a worker has found embedd: they get all their workers, not only the first.
    with: HashSet<pg_sys::Oid>,
    /// Workers that were about to leave when their database asked for one: that one is not the answer.
    asked: HashSet<Key>,
    /// Workers that are wanted, in the order in which they get their places.
    queue: VecDeque<Key>,
    processes: HashMap<Key, Process>,
    /// Processes that have given their slots back and have not ended yet.
    ending: Vec<Process>,
    /// Workers that have no place.
    short: usize,
    /// Whether the log tells that the server has no place.
    has_complained: bool,
}

impl Launcher {
    /// Looks after ended workers, and starts those that are missing.
    fn round(&mut self) {
        if shared::portions() != guc::workers_per_database() {
            places::set_portions(guc::workers_per_database());
        }
        let asking = places::take_requests();
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
        self.look_after_slots(Instant::now(), is_asking);
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
        let taken = places::taken();
        self.line_up(&databases, &taken);
        self.start_those_first_in_line(&databases, taken.len() + self.ending.len());
        self.make_room();
    }

    /// Frees the places of workers that have ended, and decides when they are wanted again.
    fn look_after_slots(&mut self, now: Instant, is_asking: impl Fn(pg_sys::Oid) -> bool) {
        for place in places::taken() {
            let key = (place.database, place.portion.index);
            match place.state {
                SlotState::Starting if self.will_come(&place, key) => {
                    self.asked.remove(&key);
                    continue;
                }
                SlotState::Running => {
                    self.asked.remove(&key);
                    if place.found {
                        self.later.remove(&key);
                        self.with.insert(place.database);
                    }
                    continue;
                }
                SlotState::Leaving => {
                    if is_asking(place.database) {
                        self.asked.insert(key);
                    }
                    continue;
                }
                _ => {}
            }
            let is_asked = self.asked.remove(&key) || is_asking(place.database);
            self.has_ended(&place, key, is_asked, now);
            self.ending.extend(self.processes.remove(&key));
            place.free();
        }
        self.ending.retain(|process| !process.has_ended());
        places::taken().iter().for_each(|place| self.ask_to_make_way(place));
    }

    /// Whether a worker that was asked for may still come.
    fn will_come(&mut self, place: &Place, key: Key) -> bool {
        let waited = Duration::from_millis(place.since);
        let has_ended = self.processes.get(&key).is_some_and(Process::has_ended);
        if !(has_ended || waited > STARTING_FOR) || !place.give_up() {
            return true;
        }
        if let Some(process) = self.processes.remove(&key) {
            process.terminate();
        }
        false
    }

    /// All workers of a database agree on how many they are, and none stays where embedd is not.
    fn ask_to_make_way(&self, place: &Place) {
        let fits = place.portion.count == shared::portions();
        if (!fits || self.without.contains(&place.database)) && !place.is_asked(Ask::Anew) {
            place.ask(Ask::Anew);
        }
    }

    /// Decides when a worker that has ended is wanted again.
    fn has_ended(&mut self, place: &Place, key: Key, is_asked: bool, now: Instant) {
        let (first, longest) = AFTER_FAILURE;
        match place.state {
            SlotState::NoExtension => {
                self.with.remove(&place.database);
                if !is_asked {
                    self.without.insert(place.database);
                }
            }
            SlotState::Idle if !is_asked => {
                let pause = place.due.map_or(SAFETY_NET, Duration::from_millis).min(SAFETY_NET);
                self.later.insert(key, Again { at: now + pause, pause: first });
            }
            // The others stay away too, also one that was wanted just now.
            SlotState::Left => {
                for index in 0..shared::portions() {
                    let again = Again { at: now + AFTER_LEAVING, pause: first };
                    self.later.insert((place.database, index), again);
                }
            }
            SlotState::Starting | SlotState::Failed => {
                let before = self.later.get(&key).map(|again| again.pause);
                let pause = before.map_or(first, |pause| (pause * 2).min(longest));
                self.later.insert(key, Again { at: now + pause, pause });
            }
            _ => {}
        }
    }

    /// Puts the workers that are wanted and not there at the end of the line, and takes out those not wanted any more.
    fn line_up(&mut self, databases: &HashMap<pg_sys::Oid, String>, taken: &[Place]) {
        let now = Instant::now();
        let count = shared::portions();
        let mut wanted = Vec::new();
        for database in databases.keys().copied().filter(|oid| !self.without.contains(oid)) {
            let there = taken.iter().filter(|place| place.database == database);
            if there.clone().any(|place| place.portion.count != count) {
                continue;
            }
            let indexes = if self.with.contains(&database) { 0..count } else { 0..1 };
            wanted.extend(indexes.map(|index| (database, index)).filter(|key| {
                !there.clone().any(|place| place.portion.index == key.1)
                    && self.later.get(key).is_none_or(|again| again.at <= now)
            }));
        }
        self.queue.retain(|key| wanted.contains(key));
        let new: Vec<Key> = wanted.into_iter().filter(|key| !self.queue.contains(key)).collect();
        self.queue.extend(new);
    }

    /// Starts workers as long as there are places, and notes how many there are too few.
    fn start_those_first_in_line(
        &mut self,
        databases: &HashMap<pg_sys::Oid, String>,
        mut running: usize,
    ) {
        let most = guc::max_sync_workers();
        let starts = places::taken().iter().filter(|p| p.state == SlotState::Starting).count();
        let mut server_is_full = false;
        for _ in starts..STARTING_AT_ONCE {
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
        self.short = self.queue.len().saturating_sub(free) + running.saturating_sub(most);
        places::set_short(self.short);
        if server_is_full {
            self.complain(databases);
        } else if self.queue.is_empty() {
            self.has_complained = false;
        }
    }

    /// Asks the postmaster for a worker; false when the server has no place for one.
    fn start(&mut self, key: Key, name: &str) -> bool {
        let portion = Portion { index: key.1, count: shared::portions() };
        if !places::take(key.0, portion) {
            return false;
        }
        let title = match portion.count {
            1 => format!("{SYNC_WORKER} for {name}"),
            count => format!("{SYNC_WORKER} for {name} {}/{count}", portion.index + 1),
        };
        let argument = pack(key.0, portion);
        let process = Process::start(SYNC_WORKER, &title, "embedd_sync_worker_main", argument);
        let Some(process) = process else {
            let places = places::taken();
            places
                .iter()
                .filter(|p| (p.database, p.portion) == (key.0, portion))
                .for_each(Place::free);
            return false;
        };
        self.ending.extend(self.processes.insert(key, process));
        true
    }

    /// Tells the administrator that the server has no place for a worker, where none of ours can make room for it.
    fn complain(&mut self, databases: &HashMap<pg_sys::Oid, String>) {
        let can_make_room = places::taken().iter().any(|place| place.is_idle);
        if self.has_complained || can_make_room || !self.ending.is_empty() {
            return;
        }
        let name = self.queue.front().and_then(|key| databases.get(&key.0));
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!(
                "no place for the embedd sync worker of database \"{}\"",
                name.map_or("", String::as_str)
            ),
            pgrx::function_name!(),
        )
        .set_detail("Changes wait in embedd.queue until there is one.")
        .set_hint("Increase max_worker_processes.")
        .report(PgLogLevel::LOG);
        self.has_complained = true;
    }

    /// Asks as many workers to leave as there are places missing: the one that is idle for longest first, then those
    /// that have worked for long.
    fn make_room(&self) {
        let taken = places::taken();
        if self.short == 0 {
            taken.iter().filter(|place| place.asked.is_some()).for_each(Place::keep);
            return;
        }
        let is_leaving = |place: &&Place| {
            let to_leave = if place.is_idle { TO_LEAVE } else { FAIR_TIME };
            place.asked.is_some_and(|asked| Duration::from_millis(asked) < to_leave)
        };
        let leaving = taken.iter().filter(is_leaving).count() + self.ending.len();
        let mut candidates: Vec<&Place> = taken
            .iter()
            .filter(|place| place.state == SlotState::Running && place.asked.is_none())
            .filter(|place| place.is_idle || Duration::from_millis(place.since) >= FAIR_TIME)
            .collect();
        candidates.sort_by_key(|place| (!place.is_idle, std::cmp::Reverse(place.since)));
        let missing = self.short.saturating_sub(leaving);
        candidates.iter().take(missing).for_each(|place| place.ask(Ask::Place));
    }

    /// Time until something is due.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let longest = if self.short > 0 { SHORT_ROUND } else { ROUND };
        // Those whose time has come already wait for something else.
        let later = self.later.values().filter(|again| again.at > now);
        let due = later.map(|again| again.at - now).min();
        due.unwrap_or(longest).clamp(Duration::from_millis(100).min(longest), longest)
    }
}
