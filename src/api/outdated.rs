//! Symbols that the SQL objects of older versions refer to: they raise an error until ALTER EXTENSION UPDATE.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::Error;

fn refuse() -> pg_sys::Datum {
    ErrorReport::from(Error::OldInstallation).report(PgLogLevel::ERROR);
    pg_sys::Datum::from(0usize)
}

/// `embedd.create_vector_table()` up to 0.2.0.
///
/// # Safety
/// Called by PostgreSQL with the call info of a function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn create_vector_table_wrapper(
    _info: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    refuse()
}

/// `embedd.create_vector_table()` up to 0.7.0.
///
/// # Safety
/// Called by PostgreSQL with the call info of a function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn make_vector_table_wrapper(
    _info: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    refuse()
}

/// `embedd.sync_status()` up to 0.2.0.
///
/// # Safety
/// Called by PostgreSQL with the call info of a function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sync_status_wrapper(
    _info: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    refuse()
}

/// `embedd.sync_status()` up to 0.4.0.
///
/// # Safety
/// Called by PostgreSQL with the call info of a function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn state_of_sync_wrapper(
    _info: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    refuse()
}

/// The information function of a version-1 function.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_state_of_sync_wrapper() -> &'static pg_sys::Pg_finfo_record {
    &RECORD
}

static RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };

/// The information function of a version-1 function.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_create_vector_table_wrapper() -> &'static pg_sys::Pg_finfo_record {
    &RECORD
}

/// The information function of a version-1 function.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_make_vector_table_wrapper() -> &'static pg_sys::Pg_finfo_record {
    &RECORD
}

/// The information function of a version-1 function.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_sync_status_wrapper() -> &'static pg_sys::Pg_finfo_record {
    &RECORD
}
