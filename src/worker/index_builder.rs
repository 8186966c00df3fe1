//! The index builder's process: it builds the vector indexes of one vector table after its first load, and ends.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::process::Process;
use super::sync_worker;
use super::transaction::{self, RolledBack};
use crate::{catalog, index, shared, task};

/// Type of the process, and the beginning of its name.
pub const INDEX_BUILDER: &str = "embedd index builder";

/// An index builder that was started.
pub struct Builder(Process);

impl Builder {
    /// Starts one for a vector table of this process's database; none when the server has no place for it.
    pub fn start(table_id: i32, name: &str) -> Option<Builder> {
        // SAFETY: a plain global of the process.
        let database = unsafe { pg_sys::MyDatabaseId };
        let argument = u64::from(database.to_u32()) << 32 | u64::from(table_id as u32);
        let title = format!("{INDEX_BUILDER} for {name}");
        Process::start(INDEX_BUILDER, &title, "embedd_index_builder_main", argument).map(Builder)
    }

    /// Ends it where it stands; the next one begins anew.
    pub fn terminate(self) {
        self.0.terminate();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended()
    }
}

/// What the postmaster runs as an index builder; the argument is the oid of the database and the number of the table.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_index_builder_main(arg: pg_sys::Datum) {
    let argument = arg.value() as u64;
    let database = pg_sys::Oid::from((argument >> 32) as u32);
    let id = argument as u32 as i32;
    sync_worker::connect(database);
    // A lock on the table is waited for: whoever has it does not wait for us.
    sync_worker::set(c"lock_timeout", c"0");
    if let Err(failure) = build(id) {
        let stuck = !failure.is_transient();
        let noted = transaction::run(|| {
            Spi::connect_mut(|client| catalog::set_error(client, id, &failure.message, stuck))
        });
        log!("could not build the index of vector table {id}: {}", failure.message);
        if let Err(failure) = noted {
            log!("could not note an error of vector table {id}: {}", failure.message);
        }
    }
    shared::wake_worker(database);
}

/// Builds the indexes one by one, each in a transaction of its own, and then notes it in a short one, which holds up nobody.
fn build(id: i32) -> Result<(), RolledBack> {
    let held = transaction::run(|| Spi::connect(|client| index::held(client, id)))?;
    for (name, rest) in held {
        transaction::run(|| {
            Spi::connect_mut(|client| match catalog::by_id(client, id)? {
                Some(table) => index::build(client, &table, &name, &rest),
                None => Ok(()),
            })
        })?;
    }
    transaction::run(|| {
        Spi::connect_mut(|client| {
            index::forget_held(client, id)?;
            task::complete_index(client, id)?;
            catalog::set_working_status(client, id)?;
            catalog::set_synced_now(client, id)
        })
    })
}
