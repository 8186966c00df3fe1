//! A sync worker's process: one or more a database, it runs the rounds of the sync engine and waits in between.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::prelude::*;
use pgrx::{check_for_interrupts, pg_sys};

use super::log_context;
use super::signals::{self, Terminate};
use crate::guc;
use crate::latch;
use crate::process::Errand;
use crate::shared::{Ask, Portion, SlotState, worker};
use crate::sync::{Engine, Round};
use crate::text_settings;
use crate::transaction;

/// Time for which a worker that has something to do keeps its place while others wait for one.
pub const FAIR_TIME: Duration = Duration::from_secs(10);
/// The same where all of it was taken up by rows that are still being read: to leave would be to read them again.
const FIRST_BATCH_TIME: Duration = Duration::from_secs(120);
/// Longest wait for what is in flight before the worker gives way all the same.
const WIND_UP: Duration = Duration::from_secs(30);

/// Longest time for one batch or one page of one vector table, which take milliseconds unless its owner's own code waits.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two tries to store what is in the way of leaving.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Settings that the safety of a query depends on, the same in every sync worker.
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"statement_timeout", c"0"),
    // One locked table must not keep the others waiting.
    // Shorter than deadlock_timeout, so that in a deadlock with a session it is the worker that gives way.
    (c"lock_timeout", c"500ms"),
    // What a crash of the server takes away is taken away with the removal from the queue, so it is done again.
    (c"synchronous_commit", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"idle_in_transaction_session_timeout", c"0"),
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", c"0"),
    (c"row_security", c"on"),
    // A batch is read in less time than its query would be compiled.
    (c"jit", c"off"),
    (c"session_replication_role", c"origin"),
];

/// Connects a helper's process to its database, and returns what it is to work on.
pub fn begin(argument: pg_sys::Datum) -> Errand {
    let errand = Errand::read(argument);
    connect(errand.database);
    errand
}

/// Connects a process that is starting to a database, with the settings above; a database that is gone ends the process.
pub fn connect(database: pg_sys::Oid) {
    signals::accept(Terminate::AtOnce);
    // SAFETY: the main thread of a background worker that is not connected yet.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0) };
    SETTINGS.iter().chain(text_settings::TEXT_SETTINGS).for_each(|(name, value)| set(name, value));
    log_context::name_database();
}

/// Sets what nothing else in the process sets again.
pub fn set(name: &CStr, value: &CStr) {
    // SAFETY: the main thread of a process that is connected, with terminated names and values.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// What the postmaster runs as a sync worker; the argument is the oid of the database and the worker's portion of it.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_sync_worker_main(arg: pg_sys::Datum) {
    let (database, portion) = unpack(arg);
    // SAFETY: the function is static and guarded.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), arg) };
    connect(database);
    transaction::set_bound(PATIENCE);
    if worker::started(database, portion) {
        work(Engine::new(portion));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: i32, arg: pg_sys::Datum) {
    let (database, portion) = unpack(arg);
    worker::ended(database, portion);
}

/// The argument of a worker's main function.
pub fn pack(database: pg_sys::Oid, portion: Portion) -> u64 {
    u64::from(database.to_u32()) << 32 | u64::from(portion.to_u32())
}

fn unpack(arg: pg_sys::Datum) -> (pg_sys::Oid, Portion) {
    let argument = arg.value() as u64;
    (pg_sys::Oid::from((argument >> 32) as u32), Portion::from_u32(argument as u32))
}

/// Runs round after round until there is a reason to leave the database.
fn work(mut engine: Engine) {
    // Since when the worker has something to do, or has nothing to do, and how often it was woken by then.
    let mut busy_since = Instant::now();
    let mut idle_since: Option<(Instant, u32)> = None;
    let mut winds_up_since: Option<Instant> = None;
    loop {
        check_for_interrupts!();
        signals::reload_if_asked();
        if worker::is_asked(Ask::Database) {
            engine.leave();
            return worker::leave(SlotState::Left);
        }
        let wakes = worker::wakes();
        if shall_give_way(&engine, idle_since.is_none().then_some(busy_since)) {
            let since = *winds_up_since.get_or_insert_with(Instant::now);
            if engine.drain() || since.elapsed() >= WIND_UP {
                engine.leave();
                return worker::leave(SlotState::GaveWay);
            }
            let left = WIND_UP.saturating_sub(since.elapsed());
            let due = engine.due().map_or(left, |due| due.max(TRY_AGAIN));
            latch::wait(due.min(left), engine.socket());
            continue;
        }
        winds_up_since = None;
        let round = engine.round();
        if !matches!(round, Round::NoExtension) {
            worker::found();
        }
        match round {
            Round::NoExtension => {
                if worker::step_aside(wakes, SlotState::NoExtension, None) {
                    return;
                }
            }
            Round::Idle(due) => {
                let since = match idle_since {
                    Some((since, woken)) if woken == wakes => since,
                    _ => {
                        worker::set_idle(true);
                        Instant::now()
                    }
                };
                idle_since = Some((since, wakes));
                let left = guc::worker_idle_timeout().map(|t| t.saturating_sub(since.elapsed()));
                if left == Some(Duration::ZERO)
                    || worker::others_wait()
                    || worker::is_asked(Ask::Place)
                {
                    engine.leave();
                    if worker::step_aside(wakes, SlotState::Idle, engine.due()) {
                        return;
                    }
                    continue;
                }
                let pause = [due, left].into_iter().flatten().min().unwrap_or(Duration::MAX);
                wait(wakes, pause.min(guc::poll_interval()), &engine);
            }
            Round::Wait(pause) => {
                if idle_since.take().is_some() {
                    worker::set_idle(false);
                    busy_since = Instant::now();
                }
                wait(wakes, pause, &engine);
            }
        }
    }
}

/// Whether the worker shall leave although there is, or may be, something to do.
fn shall_give_way(engine: &Engine, busy_since: Option<Instant>) -> bool {
    let fair_time = if engine.has_progressed() { FAIR_TIME } else { FIRST_BATCH_TIME };
    let has_had_its_time = busy_since.is_some_and(|since| since.elapsed() >= fair_time);
    worker::is_asked(Ask::Anew)
        || (worker::is_asked(Ask::Place) && has_had_its_time && !engine.has_helpers())
}

/// Waits after a round, unless somebody has woken the worker since: that may have been after the round had looked.
fn wait(wakes: u32, pause: Duration, engine: &Engine) {
    // Others plan, vacuum and analyze by the statistics; a short pause is no reason to send them at once.
    // SAFETY: outside of a transaction.
    unsafe { pg_sys::pgstat_report_stat(pause > Duration::from_millis(500)) };
    if worker::wakes() == wakes {
        latch::wait(pause, engine.socket());
    }
}
