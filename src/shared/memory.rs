//! What embedd keeps in shared memory: a slot for each sync worker, and the databases that ask for one.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};

/// Sync workers that there can be at the same time.
pub const SLOTS: usize = 128;
/// Most sync workers of one database.
pub const MOST_PORTIONS: u16 = 16;
/// Databases that can ask for a worker before the launcher has looked.
const REQUESTS: usize = 64;
/// No process is there to be woken.
pub const NOBODY: i32 = -1;
/// Nothing is due.
pub const NEVER: u64 = u64::MAX;

/// The keys of a database whose hash modulo count is index: the part of the work that one sync worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    pub index: u16,
    pub count: u16,
}

impl Default for Portion {
    /// The whole of a database.
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl Portion {
    /// In one number.
    pub fn to_u32(self) -> u32 {
        u32::from(self.index) << 16 | u32::from(self.count)
    }

    /// From the number that [`Portion::to_u32`] has made.
    pub fn from_u32(number: u32) -> Self {
        Self { index: (number >> 16) as u16, count: number as u16 }
    }
}

/// What the launcher knows of a sync worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// The slot is free.
    Free,
    /// The launcher has asked the postmaster for a worker.
    Starting,
    /// The worker is connected and works.
    Running,
    /// The worker is about to leave, and looks once more whether somebody has woken it.
    Leaving,
    /// The worker found no embedd in its database and went.
    NoExtension,
    /// The worker had nothing to do and went.
    Idle,
    /// The worker had something to do and went all the same, for others.
    GaveWay,
    /// The worker was asked to leave the database for a while.
    Left,
    /// The worker ended with an error.
    Failed,
}

impl SlotState {
    fn from_u32(value: u32) -> Self {
        use SlotState::*;
        [Free, Starting, Running, Leaving, NoExtension, Idle, GaveWay, Left, Failed]
            .into_iter()
            .find(|state| *state as u32 == value)
            .unwrap_or(Free)
    }
}

/// What a worker can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To leave the database at once, because somebody is about to drop, rename or copy it.
    Database = 1,
    /// To leave when nothing is in flight, because the database gets other workers or none.
    Anew = 2,
    /// To leave when it is idle or has worked for long, because another database waits for a place.
    Place = 4,
}

/// One worker's place. The launcher alone takes and frees slots; the worker alone moves its own from Starting on.
pub struct Slot {
    /// Counts how often the slot was taken: who reads several fields sees by it that they belong together.
    pub taken: AtomicU32,
    pub database: AtomicU32,
    pub portion: AtomicU32,
    state: AtomicU32,
    /// Index of the worker's PGPROC, whose latch is set to wake it.
    pub proc_number: AtomicI32,
    /// What the worker is asked for, each an [`Ask`], and when it was asked last.
    pub asked: AtomicU32,
    pub asked_at: AtomicU64,
    /// Counts how often the worker was woken: a wait for a lock inside a round takes the latch for its own. Never reset.
    pub wakes: AtomicU32,
    /// Counts how often the configuration of the database was changed. Never reset.
    pub config: AtomicU32,
    /// 1 when the worker has found the extension.
    pub found: AtomicU32,
    /// 1 while the worker has nothing to do, and since when that is so or not so.
    pub is_idle: AtomicU32,
    pub since: AtomicU64,
    /// When the worker that has left is wanted again though nobody wakes it, or [`NEVER`].
    pub due: AtomicU64,
}

impl Slot {
    fn new() -> Self {
        Self {
            taken: AtomicU32::new(0),
            database: AtomicU32::new(0),
            portion: AtomicU32::new(0),
            state: AtomicU32::new(SlotState::Free as u32),
            proc_number: AtomicI32::new(NOBODY),
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

    /// How the worker stands.
    pub fn state(&self) -> SlotState {
        SlotState::from_u32(self.state.load(SeqCst))
    }

    /// Notes how the worker stands.
    pub fn set_state(&self, state: SlotState) {
        self.state.store(state as u32, SeqCst);
    }

    /// Notes it if it stood as it is said; false when it did not.
    pub fn change_state(&self, from: SlotState, to: SlotState) -> bool {
        self.state.compare_exchange(from as u32, to as u32, SeqCst, SeqCst).is_ok()
    }

    /// Whether it is the place of a worker of a database.
    pub fn is_of(&self, database: pg_sys::Oid) -> bool {
        self.database.load(SeqCst) == database.to_u32() && self.state() != SlotState::Free
    }

    /// Wakes the worker; the count tells it also when its latch was taken for something else.
    pub fn wake(&self) {
        self.wakes.fetch_add(1, SeqCst);
        set_latch(self.proc_number.load(SeqCst));
    }

    /// Asks the worker for something.
    pub fn ask(&self, what: Ask) {
        self.asked_at.store(clock(), SeqCst);
        self.asked.fetch_or(what as u32, SeqCst);
        self.wake();
    }
}

/// All of it.
pub struct Shared {
    /// Index of the launcher's PGPROC.
    pub launcher: AtomicI32,
    /// Sync workers of each database, as it is in force.
    pub portions: AtomicU32,
    /// Workers that are wanted and have no place.
    pub short: AtomicU32,
    pub slots: [Slot; SLOTS],
    pub requests: [AtomicU32; REQUESTS],
    /// 1 when a request found no place among those, so that every database may have asked.
    pub all_ask: AtomicU32,
    /// When this shared memory was made, in microseconds since 1970: another time tells that the server has started again,
    /// or has recovered from a crash.
    pub started_at: i64,
}

// SAFETY: nothing but atomics and a number that never changes, no pointers and no heap.
unsafe impl PGRXSharedMemory for Shared {}

impl Default for Shared {
    fn default() -> Self {
        Self {
            launcher: AtomicI32::new(NOBODY),
            portions: AtomicU32::new(1),
            short: AtomicU32::new(0),
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

/// Asks for the shared memory. Called from `_PG_init` while the postmaster loads its libraries.
pub fn init() {
    pg_shmem_init!(SHARED);
    // SAFETY: the postmaster is single-threaded, and its children only read.
    unsafe { PRELOADED = true };
}

/// The shared memory; only where [`is_preloaded`] holds.
pub fn shared() -> &'static Shared {
    SHARED.get()
}

/// Milliseconds of a clock that is the same in every process of the server and never goes back.
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

/// Sets the latch of a process; setting that of a process which took over a dead one's place is harmless.
pub fn set_latch(proc_number: i32) {
    if proc_number == NOBODY {
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
