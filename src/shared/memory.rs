//! The layout of embedd's shared memory: a slot for each sync worker, and the databases that request one.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};

/// The maximum of sync workers in the server.
pub const SLOTS: usize = 128;
/// The maximum of sync workers of a database.
pub const MAX_WORKERS_PER_DATABASE: u16 = 16;
/// How many databases can request a worker between two rounds of the launcher.
const REQUESTS: usize = 64;
/// No process to wake.
pub const NO_PROCESS: i32 = -1;
/// Nothing is due.
pub const NEVER: u64 = u64::MAX;

/// A sync worker's share of a database: the keys whose hash modulo `count` is `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerIndex {
    pub index: u16,
    pub count: u16,
}

impl Default for WorkerIndex {
    /// The whole of a database.
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl WorkerIndex {
    /// Packs it into one number.
    pub fn to_u32(self) -> u32 {
        u32::from(self.index) << 16 | u32::from(self.count)
    }

    /// Unpacks the number made by [`WorkerIndex::to_u32`].
    pub fn from_u32(number: u32) -> Self {
        Self { index: (number >> 16) as u16, count: number as u16 }
    }
}

/// The state of a sync worker's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// The slot is free.
    Free,
    /// The launcher has asked the postmaster for a worker.
    Starting,
    /// The worker is connected and running.
    Running,
    /// The worker is about to exit, and checks once more whether it was woken.
    Leaving,
    /// The worker exited because its database has no embedd.
    NoExtension,
    /// The worker exited because it was idle.
    Idle,
    /// The worker yielded its slot to another database, although it had work.
    Yielded,
    /// The worker exited because it was asked to leave the database for a while.
    Left,
    /// The worker failed.
    Failed,
}

impl SlotState {
    fn from_u32(value: u32) -> Self {
        use SlotState::*;
        [Free, Starting, Running, Leaving, NoExtension, Idle, Yielded, Left, Failed]
            .into_iter()
            .find(|state| *state as u32 == value)
            .unwrap_or(Free)
    }
}

/// A request to a worker to exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveRequest {
    /// At once, because a session is about to drop, rename or copy the database.
    AtOnce = 1,
    /// When nothing is in flight, because the number of workers changed or the database has no embedd.
    WhenDrained = 2,
    /// When it is idle or has run for its fair time, because another database waits for a slot.
    YieldSlot = 4,
}

/// The slot of one worker. Only the launcher takes and frees slots; from Starting on only the worker changes the
/// state.
pub struct Slot {
    /// Incremented when the slot is taken: a reader of several fields sees whether they belong together.
    pub taken: AtomicU32,
    pub database: AtomicU32,
    pub portion: AtomicU32,
    state: AtomicU32,
    /// The index of the worker's PGPROC, whose latch wakes it.
    pub proc_number: AtomicI32,
    /// The pending [`LeaveRequest`]s, and when the last one was made.
    pub asked: AtomicU32,
    pub asked_at: AtomicU64,
    /// Incremented when the worker is woken, since a wait for a lock within a round may consume the latch. Never
    /// reset.
    pub wakes: AtomicU32,
    /// Incremented when the configuration of the database changes. Never reset.
    pub config: AtomicU32,
    /// 1 if the worker has found the extension.
    pub found: AtomicU32,
    /// 1 while the worker is idle, and since when it has been idle or busy.
    pub is_idle: AtomicU32,
    pub since: AtomicU64,
    /// When an exited worker has to be started again without being woken, or [`NEVER`].
    pub due: AtomicU64,
}

impl Slot {
    fn new() -> Self {
        Self {
            taken: AtomicU32::new(0),
            database: AtomicU32::new(0),
            portion: AtomicU32::new(0),
            state: AtomicU32::new(SlotState::Free as u32),
            proc_number: AtomicI32::new(NO_PROCESS),
            asked: AtomicU32::new(0),
            asked_at: AtomicU64::new(0),
            wakes: AtomicU32::new(0),
            config: AtomicU32::new(0),
            found: AtomicU32::new(0),
            is_idle: AtomicU32::new(0),
            since: AtomicU64::new(0),
            due: AtomicU64::new(NEVER),
        }
    }

    /// The state of the slot.
    pub fn state(&self) -> SlotState {
        SlotState::from_u32(self.state.load(SeqCst))
    }

    /// Sets the state.
    pub fn set_state(&self, state: SlotState) {
        self.state.store(state as u32, SeqCst);
    }

    /// Changes the state if it is `from`; false if it is not.
    pub fn change_state(&self, from: SlotState, to: SlotState) -> bool {
        self.state.compare_exchange(from as u32, to as u32, SeqCst, SeqCst).is_ok()
    }

    /// Whether the slot is taken by a worker of this database.
    pub fn is_of(&self, database: pg_sys::Oid) -> bool {
        self.database.load(SeqCst) == database.to_u32() && self.state() != SlotState::Free
    }

    /// Wakes the worker; the counter matters because the latch may be consumed by another wait.
    pub fn wake(&self) {
        self.wakes.fetch_add(1, SeqCst);
        set_latch(self.proc_number.load(SeqCst));
    }

    /// Asks the worker to exit.
    pub fn ask(&self, request: LeaveRequest) {
        self.asked_at.store(clock(), SeqCst);
        self.asked.fetch_or(request as u32, SeqCst);
        self.wake();
    }
}

/// The whole shared memory.
pub struct Shared {
    /// The index of the launcher's PGPROC.
    pub launcher: AtomicI32,
    /// The number of sync workers of each database that is in force.
    pub portions: AtomicU32,
    /// How many workers wait for a slot.
    pub waiting: AtomicU32,
    pub slots: [Slot; SLOTS],
    pub requests: [AtomicU32; REQUESTS],
    /// 1 if `requests` was full, so that any database may have requested a worker.
    pub all_ask: AtomicU32,
    /// When this shared memory was created, in microseconds since 1970. A changed value means that the server
    /// restarted or recovered from a crash.
    pub started_at: i64,
}

// SAFETY: nothing but atomics and a number that never changes, no pointers and no heap.
unsafe impl PGRXSharedMemory for Shared {}

impl Default for Shared {
    fn default() -> Self {
        Self {
            launcher: AtomicI32::new(NO_PROCESS),
            portions: AtomicU32::new(1),
            waiting: AtomicU32::new(0),
            slots: std::array::from_fn(|_| Slot::new()),
            requests: std::array::from_fn(|_| AtomicU32::new(0)),
            all_ask: AtomicU32::new(0),
            started_at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_micros() as i64),
        }
    }
}

// SAFETY: the name is used by nothing else.
static SHARED: PgAtomic<Shared> = unsafe { PgAtomic::new(c"embedd") };

static mut PRELOADED: bool = false;

/// Whether the server was started with embedd in shared_preload_libraries.
pub fn is_preloaded() -> bool {
    // SAFETY: written once, by _PG_init in this process or its parent.
    unsafe { PRELOADED }
}

/// Requests the shared memory. Called from `_PG_init` while the postmaster loads its libraries.
pub fn init() {
    pg_shmem_init!(SHARED);
    // SAFETY: the postmaster is single-threaded, and its children only read.
    unsafe { PRELOADED = true };
}

/// The shared memory; call it only if [`is_preloaded`] holds.
pub fn shared() -> &'static Shared {
    SHARED.get()
}

/// A monotonic clock in milliseconds, the same in every process of the server.
pub fn clock() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the place given to it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_millis() as u64
}

/// The index of this process's PGPROC.
pub fn my_proc_number() -> i32 {
    // SAFETY: MyProc points into the array allProcs in every process that has a PGPROC.
    unsafe { pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs) as i32 }
}

/// Sets the latch of a process. If the PGPROC now belongs to another process, the spurious wake-up is harmless.
pub fn set_latch(proc_number: i32) {
    if proc_number == NO_PROCESS {
        return;
    }
    // SAFETY: the number was an index into allProcs, which is never moved nor freed; SetLatch raises nothing.
    unsafe {
        let process = (*pg_sys::ProcGlobal).allProcs.add(proc_number as usize);
        pg_sys::SetLatch(&raw mut (*process).procLatch);
    }
}

/// Wakes the launcher.
pub fn wake_launcher() {
    set_latch(shared().launcher.load(SeqCst));
}
