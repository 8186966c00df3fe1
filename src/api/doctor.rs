//! The SQL function embedd.doctor().

use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::doctor;

#[pg_extern(volatile, parallel_unsafe, name = "doctor")]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn findings(
    call_providers: default!(Option<bool>, "false"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(check, &'static str),
            name!(state, &'static str),
            name!(object, Option<String>),
            name!(meaning, String),
            name!(remedy, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let found = doctor::examine(call_providers == Some(true))?;
    Ok(TableIterator::new(
        found.into_iter().map(|f| (f.check, f.state.as_str(), f.object, f.meaning, f.remedy)),
    ))
}
