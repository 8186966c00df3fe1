//! The settings of embedd: descriptions, ranges and contexts.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

use embedd_wire::{Config, LOCAL_MODEL, USAGE_PATH};
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_sys};

use crate::shared::{MAX_WORKERS_PER_DATABASE, SLOTS};

/// Worker processes that sync workers leave free: for the embedder, the launcher, PostgreSQL's logical replication
/// launcher, and one more for an index builder or a parallel query.
const LEFT_TO_OTHERS: i32 = 4;

static LOCAL_MODEL_PATH: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
static LOCAL_THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static LOCAL_IDLE_UNLOAD: GucSetting<i32> = GucSetting::<i32>::new(600);
static CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static EMBEDDER_PATH: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static EMBEDDER_MEMORY_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(0);
static QUERY_CACHE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);
static EMBEDDER_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static BATCH_TEXTS: GucSetting<i32> = GucSetting::<i32>::new(64);
static TEXTS_IN_FLIGHT: GucSetting<i32> = GucSetting::<i32>::new(4096);
static POLL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static WORKERS_PER_DATABASE: GucSetting<i32> = GucSetting::<i32>::new(1);
static MAX_SYNC_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(0);
static WORKER_IDLE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(300_000);

/// Defines every setting and reserves the prefix `embedd`. Called once, from `_PG_init`.
pub fn define() {
    // Settings that decide which files are read and how much of the server is used require postgresql.conf and a
    // reload. Settings that affect only a session can be set there.
    GucRegistry::define_string_guc(
        c"embedd.local_model_path",
        c"Directory of the local model's files.",
        c"Empty means embedd/all-MiniLM-L6-v2 in this PostgreSQL's share directory, where make model puts it.",
        &LOCAL_MODEL_PATH,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"embedd.local_threads",
        c"Threads that run the local model on documents, and as many again for questions.",
        c"Threads for documents stand still while a question is embedded. 0 means half of the machine's cores, at least one.",
        &LOCAL_THREADS,
        0,
        256,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"embedd.local_idle_unload",
        c"Idle time after which the embedder frees the memory of the local model.",
        c"0 keeps the model in memory.",
        &LOCAL_IDLE_UNLOAD,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"embedd.query_cache_size",
        c"Memory for the embeddings of earlier questions.",
        c"One cache in the embedder serves all sessions. 0 turns it off.",
        &QUERY_CACHE_SIZE,
        0,
        1024 * 1024,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_string_guc(
        c"embedd.ca_file",
        c"File of certificate authorities, in PEM form, that providers are verified against.",
        c"The embedder trusts them in addition to those of the operating system. Empty means none.",
        &CA_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"embedd.embedder_path",
        c"File of the program embedd-embedder.",
        c"Empty means the directory of this library, where make install puts it. A new value takes effect when the program starts next.",
        &EMBEDDER_PATH,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_int_guc(
        c"embedd.embedder_memory_limit",
        c"Memory limit of the embedder.",
        c"An embedder that needs more ends and is started again; sessions wait for the next one. 0 means no limit.",
        &EMBEDDER_MEMORY_LIMIT,
        0,
        16 * 1024 * 1024,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"embedd.embedder_timeout",
        c"Longest time that a session waits for the embedding of a question.",
        c"statement_timeout and a cancel request end the wait as well.",
        &EMBEDDER_TIMEOUT,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"embedd.batch_texts",
        c"Rows that a sync worker reads, or stores with their vectors, in one transaction.",
        c"The embedder decides how many texts go into one request to a provider.",
        &BATCH_TEXTS,
        1,
        2048,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"embedd.texts_in_flight",
        c"Texts of one provider account that a sync worker has in flight at the same time.",
        c"Changes and backfills have a limit of this size each. The local model gets 256 texts at most.",
        &TEXTS_IN_FLIGHT,
        1,
        65_536,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"embedd.poll_interval",
        c"Time between two checks of the queue by an idle sync worker.",
        c"Every commit wakes the worker, so this is a safety net only.",
        &POLL_INTERVAL,
        100,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    define_workers();
    reserve_prefix();
}

/// Defines the settings of the sync workers.
fn define_workers() {
    GucRegistry::define_int_guc(
        c"embedd.workers_per_database",
        c"Sync workers that share the work of one database.",
        c"Each takes a slot of max_worker_processes and of embedd.max_sync_workers.",
        &WORKERS_PER_DATABASE,
        1,
        i32::from(MAX_WORKERS_PER_DATABASE),
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"embedd.max_sync_workers",
        c"Most sync workers that run at the same time, in all databases together.",
        c"Where more databases have work, they take turns. 0 means max_worker_processes minus 4.",
        &MAX_SYNC_WORKERS,
        0,
        SLOTS as i32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"embedd.worker_idle_timeout",
        c"Idle time after which a sync worker ends.",
        c"The next commit with a change starts it again. 0 keeps it running unless another database needs its slot.",
        &WORKER_IDLE_TIMEOUT,
        0,
        86_400_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
}

fn reserve_prefix() {
    // SAFETY: called in the main thread of a server process with a constant, terminated name.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"embedd".as_ptr()) }
}

/// The current settings of the embedder.
pub fn embedder_config() -> Config {
    let seconds = LOCAL_IDLE_UNLOAD.get();
    Config {
        local_model_path: local_model_path(),
        local_threads: LOCAL_THREADS.get() as usize,
        local_idle_unload: (seconds > 0).then(|| Duration::from_secs(seconds as u64)),
        query_cache_bytes: QUERY_CACHE_SIZE.get() as usize * 1024,
        ca_file: CA_FILE.get().filter(|path| !path.is_empty()).map(path_of),
        usage_path: Some(PathBuf::from(USAGE_PATH)),
        memory_limit: embedder_memory_limit(),
    }
}

/// The embedder's memory limit in bytes; None is no limit.
pub fn embedder_memory_limit() -> Option<u64> {
    let megabytes = EMBEDDER_MEMORY_LIMIT.get() as u64;
    (megabytes > 0).then_some(megabytes << 20)
}

/// The embedder's program; None is the one next to the library.
pub fn embedder_path() -> Option<PathBuf> {
    EMBEDDER_PATH.get().filter(|path| !path.is_empty()).map(path_of)
}

/// The directory of the local model's files.
pub fn local_model_path() -> PathBuf {
    match LOCAL_MODEL_PATH.get() {
        Some(path) if !path.is_empty() => path_of(path),
        _ => default_model_path(),
    }
}

/// The directory where `make model` installs the local model.
pub fn default_model_path() -> PathBuf {
    share_directory().join("embedd").join(LOCAL_MODEL)
}

fn path_of(path: CString) -> PathBuf {
    PathBuf::from(path.to_string_lossy().into_owned())
}

/// The share directory of the running PostgreSQL.
fn share_directory() -> PathBuf {
    let mut path = [0 as std::ffi::c_char; pg_sys::MAXPGPATH as usize];
    // SAFETY: my_exec_path is set at server start, and path has the MAXPGPATH bytes that
    // get_share_path writes at most, terminator included.
    let path = unsafe {
        pg_sys::get_share_path((&raw const pg_sys::my_exec_path).cast(), path.as_mut_ptr());
        std::ffi::CStr::from_ptr(path.as_ptr())
    };
    PathBuf::from(path.to_string_lossy().into_owned())
}

/// How long a session waits for the embedder.
pub fn embedder_timeout() -> Duration {
    Duration::from_millis(EMBEDDER_TIMEOUT.get() as u64)
}

/// Rows that a sync worker reads, and stores with their vectors, in one transaction.
pub fn batch_texts() -> usize {
    BATCH_TEXTS.get() as usize
}

/// Texts in flight from one sync worker to the embedder, for each account.
pub fn texts_in_flight() -> usize {
    TEXTS_IN_FLIGHT.get() as usize
}

/// The interval at which a sync worker looks for work by itself.
pub fn poll_interval() -> Duration {
    Duration::from_millis(POLL_INTERVAL.get() as u64)
}

/// The configured number of sync workers of each database.
pub fn workers_per_database() -> u16 {
    WORKERS_PER_DATABASE.get() as u16
}

/// The maximum of running sync workers.
///
/// The default follows max_worker_processes, which is the scarce resource: a fixed number would leave slots unused on
/// a large server, or take the last one from an index builder with the default of 8.
pub fn max_sync_workers() -> usize {
    // SAFETY: a plain global, set at server start.
    let most = unsafe { pg_sys::max_worker_processes };
    let set = match MAX_SYNC_WORKERS.get() {
        0 => most - LEFT_TO_OTHERS,
        set => set,
    };
    set.clamp(1, SLOTS as i32) as usize
}

/// Whether embedd.max_sync_workers limits the sync workers, and not max_worker_processes.
pub fn is_bounded_by_setting() -> bool {
    let set = MAX_SYNC_WORKERS.get();
    // SAFETY: a plain global, set at server start.
    set != 0 && set <= unsafe { pg_sys::max_worker_processes } - LEFT_TO_OTHERS
}

/// The idle time after which a sync worker exits; None if it stays.
pub fn worker_idle_timeout() -> Option<Duration> {
    let timeout = WORKER_IDLE_TIMEOUT.get() as u64;
    (timeout > 0).then(|| Duration::from_millis(timeout))
}
