//! Background processes that another process starts and monitors.

use pgrx::bgworkers::{BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;

/// A handle for a background process; dropping it does not end the process.
pub struct Process {
    /// None once the process was told to end.
    worker: Option<DynamicBackgroundWorker>,
    /// The context of the handle, which must outlive a transaction but not this value.
    memory: pg_sys::MemoryContext,
}

impl Process {
    /// Asks the postmaster to start a process that may use a database; None if max_worker_processes is reached.
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

    /// Whether the process has ended, so that its worker slot is free again.
    pub fn has_ended(&self) -> bool {
        let status = self.worker.as_ref().map(DynamicBackgroundWorker::pid);
        !matches!(status, Some(Ok(_) | Err(BackgroundWorkerStatus::NotYetStarted)))
    }

    /// Ends the process, or prevents its start.
    pub fn terminate(mut self) {
        if let Some(worker) = self.worker.take() {
            worker.terminate();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: the handle in it is owned by this value.
        unsafe { pg_sys::MemoryContextDelete(self.memory) };
    }
}

/// A process that a sync worker starts for one job on one vector table; it ends with the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperKind {
    /// Compares the vector table with its source once.
    BatchWorker,
    /// Builds the vector indexes after the first load.
    IndexBuilder,
    /// Measures the recall of the vector index.
    Calibrator,
}

impl HelperKind {
    /// The type of the process, and the beginning of its name.
    fn kind(self) -> &'static str {
        match self {
            HelperKind::BatchWorker => "embedd batch worker",
            HelperKind::IndexBuilder => "embedd index builder",
            HelperKind::Calibrator => "embedd calibrator",
        }
    }

    /// The entry point.
    fn function(self) -> &'static str {
        match self {
            HelperKind::BatchWorker => "embedd_batch_worker_main",
            HelperKind::IndexBuilder => "embedd_index_builder_main",
            HelperKind::Calibrator => "embedd_calibrator_main",
        }
    }

    /// Starts a helper for a vector table of this process's database; None if max_worker_processes is reached.
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

/// The job of a helper, passed as the argument of its process.
#[derive(Clone, Copy, Debug)]
pub struct HelperArgument {
    pub database: pg_sys::Oid,
    pub table_id: i32,
}

impl HelperArgument {
    /// Decodes the argument made by [`HelperKind::start`].
    pub fn read(argument: pg_sys::Datum) -> Self {
        let argument = argument.value() as u64;
        Self {
            database: pg_sys::Oid::from((argument >> 32) as u32),
            table_id: argument as u32 as i32,
        }
    }
}
