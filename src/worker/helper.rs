//! A process that a sync worker starts for one piece of work on one vector table, and that ends with it.

use pgrx::pg_sys;

use super::process::Process;
use super::sync_worker;

/// What a helper is to work on.
#[derive(Clone, Copy, Debug)]
pub struct Errand {
    pub database: pg_sys::Oid,
    pub table_id: i32,
}

/// Starts a helper for a vector table of this process's database; none when the server has no place for it.
pub fn start(kind: &str, function: &str, table_id: i32, name: &str) -> Option<Process> {
    // SAFETY: a plain global of the process.
    let database = unsafe { pg_sys::MyDatabaseId };
    let argument = u64::from(database.to_u32()) << 32 | u64::from(table_id as u32);
    Process::start(kind, &format!("{kind} for {name}"), function, argument)
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
