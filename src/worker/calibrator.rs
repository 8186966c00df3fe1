//! The calibrator: measures the recall of the vector index of one vector table, and exits.

use pgrx::prelude::*;
use pgrx::{check_for_interrupts, pg_sys};

use super::sync_worker;
use crate::catalog;
use crate::process::HelperArgument;
use crate::search::calibrate::{self, Measurement};
use crate::transaction::{self, TxError};

/// The entry point of a calibrator.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn embedd_calibrator_main(arg: pg_sys::Datum) {
    let HelperArgument { table_id, .. } = sync_worker::begin(arg);
    if let Err(failure) = measure(table_id) {
        log!("could not measure the recall of vector table {table_id}: {}", failure.message);
    }
}

/// Asks question by question, each in a transaction of its own, so that no lock is held for long and no snapshot.
fn measure(id: i32) -> Result<(), TxError> {
    let begun = transaction::run(|| {
        Spi::connect(|client| match catalog::by_id(client, id)? {
            Some(mut table) => {
                table.resolve()?;
                calibrate::begin(client, &table)
            }
            None => Ok(None),
        })
    })?;
    let Some(mut measurement) = begun else { return Ok(()) };
    for at in 0..measurement.questions() {
        check_for_interrupts!();
        if !transaction::run(|| ask(&mut measurement, id, at))? {
            return Ok(());
        }
    }
    let Some(curve) = measurement.curve() else { return Ok(()) };
    transaction::run(|| Spi::connect_mut(|client| catalog::set_measured_recall(client, id, &curve)))
}

/// False when something else is at work on the vector table now, or a session waits for a lock on it.
fn ask(measurement: &mut Measurement, id: i32, at: usize) -> crate::error::Result<bool> {
    Spi::connect(|client| {
        let Some(mut table) = catalog::by_id(client, id)? else { return Ok(false) };
        table.resolve()?;
        if !calibrate::is_at_rest(&table) {
            return Ok(false);
        }
        measurement.ask(client, &table, at)?;
        Ok(true)
    })
}
