//! A background process that another one has started, and looks after.

use pgrx::bgworkers::{BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;

/// The process, for as long as somebody wants to know of it; it runs on when the value is dropped.
pub struct Process {
    /// None once it was told to end.
    worker: Option<DynamicBackgroundWorker>,
    /// Holds what PostgreSQL keeps about it, which has to live longer than a transaction and not as long as this process.
    memory: pg_sys::MemoryContext,
}

impl Process {
    /// Asks the postmaster for one that may use a database; None when the server has no place for it.
    pub fn start(kind: &str, title: &str, function: &str, argument: u64) -> Option<Self> {
        let builder = BackgroundWorkerBuilder::new(title)
            .set_type(kind)
            .set_library("embedd")
            .set_function(function)
            .set_argument(Some(pg_sys::Datum::from(argument)))
            // SAFETY: a plain global of the process.
            .set_notify_pid(unsafe { pg_sys::MyProcPid })
            .enable_spi_access()
            .set_restart_time(None);
        // SAFETY: the name is a constant, the parent lives as long as the process, and the context is switched back.
        let (memory, started) = unsafe {
            let memory = pg_sys::AllocSetContextCreateExtended(
                pg_sys::TopMemoryContext,
                c"embedd process".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            );
            let before = pg_sys::MemoryContextSwitchTo(memory);
            let started = builder.load_dynamic();
            pg_sys::MemoryContextSwitchTo(before);
            (memory, started)
        };
        match started {
            Ok(worker) => Some(Self { worker: Some(worker), memory }),
            Err(_) => {
                // SAFETY: nothing points into it.
                unsafe { pg_sys::MemoryContextDelete(memory) };
                None
            }
        }
    }

    /// Whether it has ended, so that its place among max_worker_processes is free again.
    pub fn has_ended(&self) -> bool {
        let status = self.worker.as_ref().map(DynamicBackgroundWorker::pid);
        !matches!(status, Some(Ok(_) | Err(BackgroundWorkerStatus::NotYetStarted)))
    }

    /// Ends it, or sees to it that it does not start any more.
    pub fn terminate(mut self) {
        if let Some(worker) = self.worker.take() {
            worker.terminate();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the handle in it is used by nothing but this value.
        unsafe { pg_sys::MemoryContextDelete(self.memory) };
    }
}

/// A process that a sync worker starts for one piece of work on one vector table, and that ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// Compares the table with its source once.
    BatchWorker,
    /// Builds its indexes after its first load.
    IndexBuilder,
}

impl Helper {
    /// Type of the process, and the beginning of its name.
    fn kind(self) -> &'static str {
        match self {
            Helper::BatchWorker => "embedd batch worker",
            Helper::IndexBuilder => "embedd index builder",
        }
    }

    /// What the postmaster runs.
    fn function(self) -> &'static str {
        match self {
            Helper::BatchWorker => "embedd_batch_worker_main",
            Helper::IndexBuilder => "embedd_index_builder_main",
        }
    }

    /// Starts one for a vector table of this process's database; None when the server has no place for it.
    pub fn start(self, table_id: i32, name: &str) -> Option<Process> {
        // SAFETY: a plain global of the process.
        let database = unsafe { pg_sys::MyDatabaseId };
        let argument = u64::from(database.to_u32()) << 32 | u64::from(table_id as u32);
        Process::start(
            self.kind(),
            &format!("{} for {name}", self.kind()),
            self.function(),
            argument,
        )
    }
}

/// What a helper is to work on, as the argument of its process says.
#[derive(Clone, Copy, Debug)]
pub struct Errand {
    pub database: pg_sys::Oid,
    pub table_id: i32,
}

impl Errand {
    /// Reads the argument that [`Helper::start`] has made.
    pub fn read(argument: pg_sys::Datum) -> Self {
        let argument = argument.value() as u64;
        Self {
            database: pg_sys::Oid::from((argument >> 32) as u32),
            table_id: argument as u32 as i32,
        }
    }
}
