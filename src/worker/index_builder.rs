//! The index builder: builds the vector indexes of one vector table after its first load, and exits.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::sync_worker;
use crate::catalog::ErrorSource;
use crate::index::Builders;
use crate::process::HelperArgument;
use crate::transaction::{self, TxError};
use crate::{catalog, index, shared, task};

/// The entry point of an index builder.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_index_builder_main(arg: pg_sys::Datum) {
    let HelperArgument { database, table_id: id } = sync_worker::begin(arg);
    // It may wait for a lock on the table: no holder of the lock waits for this process.
    sync_worker::set(c"lock_timeout", c"0");
    // pgvector says in a NOTICE that maintenance_work_mem is too small for the graph, which makes the build much slower.
    // SAFETY: a plain read of a setting.
    if unsafe { pg_sys::log_min_messages } > PgLogLevel::NOTICE as i32 {
        sync_worker::set(c"log_min_messages", c"notice");
    }
    if let Err(failure) = build(id) {
        report(id, &failure);
    }
    shared::wake_worker(database);
}

/// Reports in the vector table's status and in the log why its indexes could not be built; in the log only if the
/// reason is new.
fn report(id: i32, failure: &TxError) {
    let (reason, stuck) = (&failure.message, !failure.is_transient());
    let noted = transaction::run(|| {
        Spi::connect_mut(|client| {
            let table = catalog::by_id(client, id)?;
            catalog::set_error(client, id, ErrorSource::Table, reason, stuck)?;
            Ok(table.filter(|t| t.stored.last_error.as_ref() != Some(reason)).map(|t| t.name))
        })
    });
    match noted {
        Ok(Some(name)) => log!("could not build the index of vector table \"{name}\": {reason}"),
        Ok(None) => {}
        Err(failure) => {
            log!("could not build the index of vector table {id}: {reason}");
            log!("could not note an error of vector table {id}: {}", failure.message);
        }
    }
}

/// Whether the shared memory of a parallel build may be lacking: it has maintenance_work_mem there, and containers often
/// have little. One process uses memory of its own.
fn lacks_memory(failure: &TxError) -> bool {
    use PgSqlErrorCode::{ERRCODE_DISK_FULL, ERRCODE_OUT_OF_MEMORY};
    matches!(failure.sqlstate, ERRCODE_DISK_FULL | ERRCODE_OUT_OF_MEMORY)
}

fn build_one(id: i32, name: &str, definition: &str, builders: Builders) -> Result<(), TxError> {
    transaction::run(|| {
        Spi::connect_mut(|client| match catalog::by_id(client, id)? {
            Some(table) => index::build(client, &table, name, definition, builders),
            None => Ok(()),
        })
    })
}

/// Builds the indexes one by one, each in a transaction of its own; a second, short transaction records it, so that no
/// lock is held for long.
fn build(id: i32) -> Result<(), TxError> {
    let held = transaction::run(|| Spi::connect(|client| index::deferred(client, id)))?;
    for (name, definition) in held {
        match build_one(id, &name, &definition, Builders::Parallel) {
            Err(failure) if lacks_memory(&failure) => {
                log!(
                    "the index of vector table {id} is built without parallel workers: {}",
                    failure.message
                );
                build_one(id, &name, &definition, Builders::One)?;
            }
            outcome => outcome?,
        }
    }
    transaction::run(|| {
        Spi::connect_mut(|client| {
            catalog::lock_before_tasks(client, id)?;
            index::clear_deferred(client, id)?;
            task::complete_index(client, id)?;
            catalog::set_working_status(client, id)?;
            Ok(())
        })
    })
}
