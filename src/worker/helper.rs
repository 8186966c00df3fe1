//! A process that a sync worker starts for one piece of work on one vector table, and that ends with it.

use pgrx::bgworkers::{BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;

use super::sync_worker;

/// A helper that was started.
pub struct Helper(DynamicBackgroundWorker);

/// What a helper is to work on.
#[derive(Clone, Copy, Debug)]
pub struct Errand {
    pub database: pg_sys::Oid,
    pub table_id: i32,
}

impl Helper {
    /// Starts one for a vector table of this process's database; none when the server has no place for it.
    pub fn start(kind: &str, function: &str, table_id: i32, name: &str) -> Option<Helper> {
        // SAFETY: plain globals of the process.
        let (database, pid) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
        let argument = u64::from(database.to_u32()) << 32 | u64::from(table_id as u32);
        let builder = BackgroundWorkerBuilder::new(&format!("{kind} for {name}"))
            .set_type(kind)
            .set_library("embedd")
            .set_function(function)
            .set_argument(Some(pg_sys::Datum::from(argument)))
            .set_notify_pid(pid)
            .enable_spi_access()
            .set_restart_time(None);
        // SAFETY: what describes the process has to live longer than the transaction in which somebody looks at it.
        let before = unsafe { pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext) };
        let started = builder.load_dynamic();
        // SAFETY: as it was before.
        unsafe { pg_sys::MemoryContextSwitchTo(before) };
        started.ok().map(Helper)
    }

    /// Ends it where it stands; the next one begins anew.
    pub fn terminate(self) {
        self.0.terminate();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        !matches!(self.0.pid(), Ok(_) | Err(BackgroundWorkerStatus::NotYetStarted))
    }
}

impl Errand {
    /// What the argument of the process says, with the process connected to the database.
    pub fn begin(argument: pg_sys::Datum) -> Self {
        let argument = argument.value() as u64;
        let errand = Self {
            database: pg_sys::Oid::from((argument >> 32) as u32),
            table_id: argument as u32 as i32,
        };
        sync_worker::connect(errand.database);
        errand
    }
}
