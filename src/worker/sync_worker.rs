//! The sync worker: runs the rounds of the sync engine, and waits in between; a database has one or more.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::prelude::*;
use pgrx::{check_for_interrupts, pg_sys};

use super::log_context;
use super::signals::{self, Terminate};
use crate::guc;
use crate::latch;
use crate::process::HelperArgument;
use crate::shared::{LeaveRequest, SlotState, WorkerIndex, worker};
use crate::sync::{Engine, Round};
use crate::text_settings;
use crate::transaction;

/// How long a busy worker may keep its slot while other databases wait for one.
pub const FAIR_TIME: Duration = Duration::from_secs(10);
/// The same if it has only been reading its first batch: to yield would mean reading the rows again.
const FIRST_BATCH_TIME: Duration = Duration::from_secs(120);
/// The longest wait for what is in flight before the worker yields its slot anyway.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The timeout of one batch or one page of a vector table, which takes milliseconds unless its owner's own code waits.
const BATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause between two attempts to store the remaining results while draining.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Settings that the safety of a query depends on, the same in every sync worker.
const SETTINGS: &[(&CStr, &CStr)] = &[
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"statement_timeout", c"0"),
    // One locked table must not block the others.
    // Shorter than deadlock_timeout, so that in a deadlock with a session the worker is the one that aborts.
    (c"lock_timeout", c"500ms"),
    // A crash that loses the results also loses their removal from the queue, so the work is done again.
    (c"synchronous_commit", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"idle_in_transaction_session_timeout", c"0"),
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", c"0"),
    (c"row_security", c"on"),
    // JIT compilation of a batch's query would take longer than running it.
    (c"jit", c"off"),
    (c"session_replication_role", c"origin"),
];

/// Connects a helper to its database, and returns its job.
pub fn begin(argument: pg_sys::Datum) -> HelperArgument {
    let errand = HelperArgument::read(argument);
    connect(errand.database);
    errand
}

/// Connects a starting process to a database and applies the settings above; exits if the database does not exist.
pub fn connect(database: pg_sys::Oid) {
    signals::accept(Terminate::AtOnce);
    // SAFETY: the main thread of a background worker that is not connected yet.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0) };
    SETTINGS.iter().chain(text_settings::TEXT_SETTINGS).for_each(|(name, value)| set(name, value));
    log_context::name_database();
}

/// Sets a setting that nothing else in the process changes.
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

/// The entry point of a sync worker; its argument holds the oid of the database and the worker's share of it.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_sync_worker_main(arg: pg_sys::Datum) {
    let (database, portion) = unpack(arg);
    // SAFETY: the function is static and guarded.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), arg) };
    connect(database);
    transaction::set_bound(BATCH_TIMEOUT);
    if worker::started(database, portion) {
        work(Engine::new(portion));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: i32, arg: pg_sys::Datum) {
    let (database, portion) = unpack(arg);
    worker::ended(database, portion);
}

/// Packs the argument of a worker's main function.
pub fn pack(database: pg_sys::Oid, portion: WorkerIndex) -> u64 {
    u64::from(database.to_u32()) << 32 | u64::from(portion.to_u32())
}

fn unpack(arg: pg_sys::Datum) -> (pg_sys::Oid, WorkerIndex) {
    let argument = arg.value() as u64;
    (pg_sys::Oid::from((argument >> 32) as u32), WorkerIndex::from_u32(argument as u32))
}

/// Runs rounds until the worker has to exit.
fn work(mut engine: Engine) {
    // Since when the worker has been busy or idle, and its wake-up counter at that time.
    let mut busy_since = Instant::now();
    let mut idle_since: Option<(Instant, u32)> = None;
    let mut drains_since: Option<Instant> = None;
    loop {
        check_for_interrupts!();
        signals::reload_if_asked();
        if worker::is_asked(LeaveRequest::AtOnce) {
            engine.leave();
            return worker::leave(SlotState::Left);
        }
        let wakes = worker::wakes();
        if should_yield_slot(&engine, idle_since.is_none().then_some(busy_since)) {
            let since = *drains_since.get_or_insert_with(Instant::now);
            if engine.drain() || since.elapsed() >= DRAIN_TIMEOUT {
                engine.leave();
                return worker::leave(SlotState::Yielded);
            }
            let left = DRAIN_TIMEOUT.saturating_sub(since.elapsed());
            let due = engine.due().map_or(left, |due| due.max(RETRY_PAUSE));
            latch::wait(due.min(left), engine.socket());
            continue;
        }
        drains_since = None;
        let round = engine.round();
        if !matches!(round, Round::NoExtension) {
            worker::found();
        }
        match round {
            Round::NoExtension => {
                if worker::release_slot(wakes, SlotState::NoExtension, None) {
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
                let timeout = guc::worker_idle_timeout().filter(|_| !engine.is_measuring());
                let left = timeout.map(|timeout| timeout.saturating_sub(since.elapsed()));
                if left == Some(Duration::ZERO)
                    || worker::others_are_waiting()
                    || worker::is_asked(LeaveRequest::YieldSlot)
                {
                    engine.leave();
                    if worker::release_slot(wakes, SlotState::Idle, engine.due()) {
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

/// Whether the worker has to exit although there may be work.
fn should_yield_slot(engine: &Engine, busy_since: Option<Instant>) -> bool {
    let fair_time = if engine.has_progressed() { FAIR_TIME } else { FIRST_BATCH_TIME };
    let has_had_fair_time = busy_since.is_some_and(|since| since.elapsed() >= fair_time);
    worker::is_asked(LeaveRequest::WhenDrained)
        || (worker::is_asked(LeaveRequest::YieldSlot) && has_had_fair_time && !engine.has_helpers())
}

/// Waits after a round, unless the worker was woken since the round began.
fn wait(wakes: u32, pause: Duration, engine: &Engine) {
    // Sends statistics for the planner and autovacuum; before a short pause that can wait.
    // SAFETY: outside of a transaction.
    unsafe { pg_sys::pgstat_report_stat(pause > Duration::from_millis(500)) };
    if worker::wakes() == wakes {
        latch::wait(pause, engine.socket());
    }
}
