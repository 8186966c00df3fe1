//! embedd keeps a pgvector table equal to its source table inside PostgreSQL, and answers semantic queries over it.

use pgrx::prelude::*;

mod api;
mod catalog;
mod datum;
mod ddl;
mod document;
mod embedder;
mod error;
mod filter;
mod foreign;
mod guc;
mod index;
mod key;
mod models;
mod name;
mod provider;
mod queue;
mod repair;
mod search;
mod server;
mod shared;
mod source;
mod status;
mod sync;
mod table;
mod task;
mod trigger;
mod utility;
mod worker;

#[cfg(feature = "pg_test")]
#[path = "../pg_test/mod.rs"]
#[allow(clippy::expect_used, reason = "tests")]
pub mod pg_test;

pg_module_magic!(name = c"embedd", version = VERSION);

/// The version of this library, as PostgreSQL 18 shows it in pg_get_loaded_modules().
const VERSION: &CStr = match CStr::from_bytes_with_nul(
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes(),
) {
    Ok(version) => version,
    Err(_) => c"",
};

extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
extension_sql_file!("../sql/triggers.sql", name = "triggers", requires = ["tables"]);
extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = ["triggers", api::providers::usage_counts]
);
extension_sql_file!("../sql/grants.sql", name = "grants", requires = ["views"]);
extension_sql_file!(
    "../sql/wrapper.sql",
    name = "wrapper",
    requires = ["grants", api::providers::check_provider_options]
);
extension_sql_file!(
    "../sql/functions.sql",
    name = "functions",
    requires = ["grants", "wrapper"],
    finalize
);

/// Called by PostgreSQL when the library is loaded: by the postmaster when it is preloaded, else by a session.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    guc::define();
    // SAFETY: a plain global of the process.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        shared::init();
        utility::init();
        ddl::init();
        worker::register();
    }
}
