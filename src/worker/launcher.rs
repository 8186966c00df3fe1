//! The launcher's process: it sees to it that every database with embedd has a sync worker, without any list to maintain.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{check_for_interrupts, pg_sys};

use super::signals::{self, Terminate};
use super::{SYNC_WORKER, transaction};
use crate::server;
use crate::shared::{self, SlotState};

/// How often the list of databases is read when nobody asks: a copy of a database with embedd needs a worker too.
const ROUND: Duration = Duration::from_secs(10);
/// Workers that look at their database for the first time at the same moment.
const STARTING_AT_ONCE: usize = 2;
/// Pause before a worker goes back to a database that it was asked to leave.
const AFTER_LEAVING: Duration = Duration::from_secs(10);
/// First and longest pause before a worker that failed is started again.
const AFTER_FAILURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Pause after the server had no place for another worker.
const WITHOUT_PLACE: Duration = Duration::from_secs(5);

/// What is known of a database without a worker.
#[derive(Clone, Copy)]
enum Known {
    /// It has no embedd, and somebody who creates the extension will tell.
    NoExtension,
    /// Its worker is to be started again, not before then.
    Again { at: Instant, pause: Duration },
}

/// What the postmaster runs as the launcher.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_launcher_main(_arg: pg_sys::Datum) {
    signals::accept(Terminate::AtOnce);
    // Without a database: shared catalogs only, and no database is kept from being dropped.
    BackgroundWorker::connect_worker_to_spi(None, None);
    shared::launcher_started();
    // SAFETY: the function is static and guarded.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::from(0usize)) };
    let mut launcher = Launcher::default();
    loop {
        check_for_interrupts!();
        signals::reload_if_asked();
        launcher.round();
        server::wait(launcher.pause(), None);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: i32, _arg: pg_sys::Datum) {
    shared::launcher_stopped();
}

#[derive(Default)]
struct Launcher {
    known: HashMap<pg_sys::Oid, Known>,
    /// Databases that asked for a worker since their last one was started: one that is just leaving is not the answer.
    asked: HashSet<pg_sys::Oid>,
    without_place: bool,
}

impl Launcher {
    /// Looks after ended workers, and starts those that are missing.
    fn round(&mut self) {
        let now = Instant::now();
        for database in shared::take_requests() {
            self.known.remove(&database);
            self.asked.insert(database);
        }
        self.look_after_slots(now);
        let databases = match transaction::run(|| Ok(databases())) {
            Ok(databases) => databases,
            Err(failure) => {
                log!("could not read the list of databases: {}", failure.message);
                return;
            }
        };
        self.asked.retain(|database| databases.iter().any(|(oid, _)| oid == database));
        self.known.retain(|database, _| databases.iter().any(|(oid, _)| oid == database));
        let taken = shared::slots();
        let mut starting = taken.iter().filter(|(_, s)| *s == SlotState::Starting).count();
        for (database, name) in databases {
            if starting >= STARTING_AT_ONCE {
                break;
            }
            let wanted = match self.known.get(&database) {
                None => true,
                Some(Known::NoExtension) => false,
                Some(Known::Again { at, .. }) => *at <= now,
            };
            if wanted && !taken.iter().any(|(oid, _)| *oid == database) {
                if !self.start(database, &name) {
                    break;
                }
                starting += 1;
            }
        }
    }

    /// Frees the places of workers that have ended, and decides when they are wanted again.
    fn look_after_slots(&mut self, now: Instant) {
        for (database, state) in shared::slots() {
            let known = match state {
                SlotState::Free | SlotState::Starting => continue,
                SlotState::Running => {
                    self.known.remove(&database);
                    continue;
                }
                SlotState::NoExtension => Known::NoExtension,
                SlotState::Left => Known::Again { at: now + AFTER_LEAVING, pause: AFTER_FAILURE.0 },
                SlotState::Failed => {
                    let pause = match self.known.get(&database) {
                        Some(Known::Again { pause, .. }) => (*pause * 2).min(AFTER_FAILURE.1),
                        _ => AFTER_FAILURE.0,
                    };
                    Known::Again { at: now + pause, pause }
                }
            };
            shared::free_slot(database);
            if !(matches!(known, Known::NoExtension) && self.asked.contains(&database)) {
                self.known.insert(database, known);
            }
        }
    }

    /// Asks the postmaster for a worker; false when the server has no place for one.
    fn start(&mut self, database: pg_sys::Oid, name: &str) -> bool {
        if shared::take_slot(database).is_none() {
            return false;
        }
        self.asked.remove(&database);
        let started = BackgroundWorkerBuilder::new(&format!("{SYNC_WORKER} for {name}"))
            .set_type(SYNC_WORKER)
            .set_library("embedd")
            .set_function("embedd_sync_worker_main")
            .set_argument(Some(pg_sys::Datum::from(database)))
            // SAFETY: a plain global of the process.
            .set_notify_pid(unsafe { pg_sys::MyProcPid })
            .enable_spi_access()
            .set_restart_time(None)
            .load_dynamic()
            .is_ok();
        if !started {
            shared::free_slot(database);
            if !self.without_place {
                ErrorReport::new(
                    PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                    format!("no place for the embedd sync worker of database \"{name}\""),
                    pgrx::function_name!(),
                )
                .set_detail("Changes wait in embedd.queue until there is one.")
                .set_hint("Increase max_worker_processes.")
                .report(PgLogLevel::LOG);
            }
            let again = Known::Again { at: Instant::now() + WITHOUT_PLACE, pause: WITHOUT_PLACE };
            self.known.insert(database, again);
        }
        self.without_place = !started;
        started
    }

    /// Time until something is due.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        self.known
            .values()
            .filter_map(|known| match known {
                Known::Again { at, .. } => Some(at.saturating_duration_since(now)),
                Known::NoExtension => None,
            })
            .min()
            .unwrap_or(ROUND)
            .clamp(Duration::from_millis(100), ROUND)
    }
}

/// Every database that can be connected to and is no template.
fn databases() -> Vec<(pg_sys::Oid, String)> {
    let mut found = Vec::new();
    // SAFETY: a scan of a shared catalog inside a transaction; tuples are read while the scan is open.
    unsafe {
        let relation = pg_sys::table_open(
            pg_sys::DatabaseRelationId,
            pg_sys::AccessShareLock as pg_sys::LOCKMODE,
        );
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if (*row).datallowconn && !(*row).datistemplate {
                let name = std::ffi::CStr::from_ptr((*row).datname.data.as_ptr());
                found.push(((*row).oid, name.to_string_lossy().into_owned()));
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
    found
}
