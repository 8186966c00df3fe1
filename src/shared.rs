//! The shared memory of embedd: which database has a sync worker, and how to wake it and the launcher.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};

/// Databases that can have a sync worker at the same time.
pub const SLOTS: usize = 128;
/// Databases that can ask for a worker before the launcher has looked.
const REQUESTS: usize = 64;
/// No process is there to be woken.
const NOBODY: i32 = -1;

/// The part of a database's keys that is one worker's: those whose hash modulo `count` is `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    pub index: u16,
    pub count: u16,
}

/// The most workers that can share the keys of a database.
pub const MOST_PORTIONS: u16 = 16;

/// How many workers share the keys of each database.
pub fn portions() -> u16 {
    1
}

/// Wakes the workers of a database, to which something has happened that they keep in memory.
pub fn touch(database: pg_sys::Oid) {
    if let Some(slot) = slot_of(database) {
        slot.config.fetch_add(1, Ordering::SeqCst);
    }
    wake_worker(database);
}

/// How often that has happened.
pub fn config_changes(database: pg_sys::Oid) -> u32 {
    slot_of(database).map_or(0, |slot| slot.config.load(Ordering::SeqCst))
}

/// What the launcher knows of a database's sync worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// The slot is free.
    Free,
    /// The launcher has asked the postmaster for a worker.
    Starting,
    /// The worker is connected and works.
    Running,
    /// The worker found no embedd in its database and went.
    NoExtension,
    /// The worker was asked to leave the database for a while.
    Left,
    /// The worker ended with an error.
    Failed,
}

impl SlotState {
    fn from_u32(value: u32) -> Self {
        match value {
            1 => Self::Starting,
            2 => Self::Running,
            3 => Self::NoExtension,
            4 => Self::Left,
            5 => Self::Failed,
            _ => Self::Free,
        }
    }
}

/// One database's place. The launcher alone takes and frees slots; the worker alone moves its own from Starting on.
struct Slot {
    database: AtomicU32,
    state: AtomicU32,
    /// Index of the worker's PGPROC, whose latch is set to wake it.
    proc_number: AtomicI32,
    /// 1 when the worker shall leave the database.
    leave: AtomicU32,
    /// Counts how often the worker was woken: a wait for a lock inside a round takes the latch for its own.
    wakes: AtomicU32,
    config: AtomicU32,
}

/// All of it.
pub struct Shared {
    launcher: AtomicI32,
    slots: [Slot; SLOTS],
    requests: [AtomicU32; REQUESTS],
}

// SAFETY: nothing but atomics, no pointers and no heap.
unsafe impl PGRXSharedMemory for Shared {}

impl Default for Shared {
    fn default() -> Self {
        Self {
            launcher: AtomicI32::new(NOBODY),
            slots: std::array::from_fn(|_| Slot {
                database: AtomicU32::new(0),
                state: AtomicU32::new(0),
                proc_number: AtomicI32::new(NOBODY),
                leave: AtomicU32::new(0),
                wakes: AtomicU32::new(0),
                config: AtomicU32::new(0),
            }),
            requests: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }
}

// SAFETY: the name is used by nothing else.
static SHARED: PgAtomic<Shared> = unsafe { PgAtomic::new(c"embedd") };

/// Whether the server was started with embedd in shared_preload_libraries.
pub fn is_preloaded() -> bool {
    // SAFETY: written once, by _PG_init in this process or its parent.
    unsafe { PRELOADED }
}

static mut PRELOADED: bool = false;

/// Asks for the shared memory. Called from `_PG_init` while the postmaster loads its libraries.
pub fn init() {
    pg_shmem_init!(SHARED);
    // SAFETY: the postmaster is single-threaded, and its children only read.
    unsafe { PRELOADED = true };
}

/// The index of this process's PGPROC.
fn my_proc_number() -> i32 {
    // SAFETY: MyProc points into the array allProcs in every process that has a PGPROC.
    unsafe { pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs) as i32 }
}

/// Sets the latch of a process; setting that of a process which took over a dead one's place is harmless.
fn set_latch(proc_number: i32) {
    if proc_number == NOBODY {
        return;
    }
    // SAFETY: the number was an index into allProcs, which is never moved nor freed; SetLatch raises nothing.
    unsafe {
        let process = (*pg_sys::ProcGlobal).allProcs.add(proc_number as usize);
        pg_sys::SetLatch(&raw mut (*process).procLatch);
    }
}

/// The launcher says where it can be woken.
pub fn launcher_started() {
    SHARED.get().launcher.store(my_proc_number(), Ordering::SeqCst);
}

/// The launcher goes.
pub fn launcher_stopped() {
    SHARED.get().launcher.store(NOBODY, Ordering::SeqCst);
}

/// Wakes the launcher.
pub fn wake_launcher() {
    set_latch(SHARED.get().launcher.load(Ordering::SeqCst));
}

fn slot_of(database: pg_sys::Oid) -> Option<&'static Slot> {
    SHARED.get().slots.iter().find(|slot| {
        slot.database.load(Ordering::SeqCst) == database.to_u32()
            && slot.state.load(Ordering::SeqCst) != SlotState::Free as u32
    })
}

/// Wakes the sync worker of a database, or asks the launcher for one. Raises nothing, so that it may be called after a commit.
pub fn wake_worker(database: pg_sys::Oid) {
    if !is_preloaded() {
        return;
    }
    match slot_of(database) {
        Some(slot) if slot.proc_number.load(Ordering::SeqCst) != NOBODY => {
            slot.wakes.fetch_add(1, Ordering::SeqCst);
            set_latch(slot.proc_number.load(Ordering::SeqCst));
        }
        Some(slot) if slot.state.load(Ordering::SeqCst) == SlotState::Starting as u32 => {}
        _ => request_worker(database),
    }
}

/// Asks the launcher for a sync worker of a database.
pub fn request_worker(database: pg_sys::Oid) {
    if !is_preloaded() {
        return;
    }
    let shared = SHARED.get();
    let wanted = database.to_u32();
    let known = shared.requests.iter().any(|r| r.load(Ordering::SeqCst) == wanted);
    if !known {
        // With every place taken the launcher's own round finds the database.
        let _ = shared
            .requests
            .iter()
            .any(|r| r.compare_exchange(0, wanted, Ordering::SeqCst, Ordering::SeqCst).is_ok());
    }
    wake_launcher();
}

/// The databases that asked for a worker since the last call. For the launcher.
pub fn take_requests() -> Vec<pg_sys::Oid> {
    SHARED
        .get()
        .requests
        .iter()
        .map(|r| r.swap(0, Ordering::SeqCst))
        .filter(|database| *database != 0)
        .map(pg_sys::Oid::from)
        .collect()
}

/// Takes a slot for a database's worker; None when all are taken. For the launcher.
pub fn take_slot(database: pg_sys::Oid) -> Option<()> {
    let slot = SHARED
        .get()
        .slots
        .iter()
        .find(|slot| slot.state.load(Ordering::SeqCst) == SlotState::Free as u32)?;
    slot.proc_number.store(NOBODY, Ordering::SeqCst);
    slot.leave.store(0, Ordering::SeqCst);
    slot.database.store(database.to_u32(), Ordering::SeqCst);
    slot.state.store(SlotState::Starting as u32, Ordering::SeqCst);
    Some(())
}

/// Frees the slot of a database. For the launcher.
pub fn free_slot(database: pg_sys::Oid) {
    if let Some(slot) = slot_of(database) {
        slot.state.store(SlotState::Free as u32, Ordering::SeqCst);
        slot.database.store(0, Ordering::SeqCst);
    }
}

/// Every taken slot.
pub fn slots() -> Vec<(pg_sys::Oid, SlotState)> {
    SHARED
        .get()
        .slots
        .iter()
        .map(|slot| {
            (
                pg_sys::Oid::from(slot.database.load(Ordering::SeqCst)),
                SlotState::from_u32(slot.state.load(Ordering::SeqCst)),
            )
        })
        .filter(|(_, state)| *state != SlotState::Free)
        .collect()
}

/// The worker says that it is there and where it can be woken.
pub fn worker_started(database: pg_sys::Oid) {
    if let Some(slot) = slot_of(database) {
        slot.proc_number.store(my_proc_number(), Ordering::SeqCst);
        slot.state.store(SlotState::Running as u32, Ordering::SeqCst);
    }
}

/// The worker says how it ends; the first word counts, so that a clean end is not called a failure afterwards.
pub fn worker_ended(database: pg_sys::Oid, state: SlotState) {
    if let Some(slot) = slot_of(database) {
        slot.proc_number.store(NOBODY, Ordering::SeqCst);
        for from in [SlotState::Starting, SlotState::Running] {
            let _ = slot.state.compare_exchange(
                from as u32,
                state as u32,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
        }
    }
    wake_launcher();
}

/// How often the worker of a database was woken.
pub fn wakes(database: pg_sys::Oid) -> u32 {
    slot_of(database).map_or(0, |slot| slot.wakes.load(Ordering::SeqCst))
}

/// Asks the worker of a database to leave it, because the session is about to drop, rename or copy that database.
pub fn ask_to_leave(database: pg_sys::Oid) {
    if let Some(slot) = slot_of(database) {
        slot.leave.store(1, Ordering::SeqCst);
        set_latch(slot.proc_number.load(Ordering::SeqCst));
    }
}

/// Whether the worker of a database was asked to leave.
pub fn shall_leave(database: pg_sys::Oid) -> bool {
    slot_of(database).is_some_and(|slot| slot.leave.load(Ordering::SeqCst) != 0)
}
