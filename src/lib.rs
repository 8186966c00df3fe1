//! embedd keeps a pgvector table equal to its source table inside PostgreSQL, and answers semantic queries over it.

use std::ffi::CStr;

use pgrx::prelude::*;

// The rooms from the ground up: each imports only what stands above it in this list. `make lint` checks it.
mod name; // names, and how they are written into SQL; no PostgreSQL up to error
mod key; // the key of a row as text
mod document; // what is configured of a row, and the SQL of its text, metadata and hash
mod filter; // filters, and the SQL they become
mod backoff; // exponential backoff
mod error; // every refusal with SQLSTATE, DETAIL and HINT
mod shared; // shared memory: slots of workers, the embedder as all processes see it
mod guc; // settings
mod latch; // how a process waits
mod relation; // names, owners and schemas of relations
mod cluster; // which cluster this is, and whether it takes writes
mod extension; // whether the extension is there, and of this version
mod rights; // whose rights are in force
mod citus; // tables in shards of other nodes
mod text_settings; // settings that the text form of a value depends on
mod transaction; // one transaction of a background process
mod process; // a background process that another one starts
mod datum; // types of arguments and results
mod operator_class; // pgvector's operator classes, by what they are for
mod command; // statements that change objects
mod client; // asks the embedder
mod models; // the model catalog
mod task; // backfills and comparisons that are asked for
mod queue; // the keys of changed rows
mod catalog; // the bookkeeping of vector tables
mod trigger; // what a write to a source does
mod fdw; // providers as foreign servers
mod source; // what a table needs to be a source
mod table; // the life of a vector table
mod index; // its vector indexes
mod status; // how the sync stands
mod control; // pause, resume, backfill, reconcile, retry
mod verify; // differences between source and vectors
mod doctor; // what is wrong, and what helps
mod search; // answers a question
mod sync; // makes vector tables equal to their sources
mod worker; // the background processes
mod ddl; // DDL on sources and vector tables
mod utility; // statements that embedd has to see
mod api; // every SQL function that needs Rust

#[cfg(feature = "pg_test")]
#[path = "../pg_test/mod.rs"]
#[allow(clippy::expect_used, reason = "tests")]
pub mod pg_test;

pg_module_magic!(name = c"embedd", version = VERSION);

/// The version of this library, as PostgreSQL 18 shows it in pg_get_loaded_modules().
const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };

extension_sql_file!("../sql/tables.sql", name = "tables", bootstrap);
extension_sql_file!("../sql/argument.sql", name = "argument", requires = ["tables"]);
extension_sql_file!("../sql/triggers.sql", name = "triggers", requires = ["tables"]);
extension_sql_file!(
    "../sql/views.sql",
    name = "views",
    requires = ["triggers", api::providers::usage_counts, api::status::status_of_all]
);
extension_sql_file!("../sql/grants.sql", name = "grants", requires = ["views"]);
extension_sql_file!(
    "../sql/wrapper.sql",
    name = "wrapper",
    requires = ["grants", api::providers::check_provider_options]
);
extension_sql_file!(
    "../sql/overloads.sql",
    name = "overloads",
    requires = [
        "argument",
        api::query,
        api::make_vector_table,
        api::retry_failed,
        api::verify_with_sample,
        api::status::wait_until_synced,
        api::providers::create_provider,
        api::providers::update_provider,
        api::arguments::to_integer,
        api::arguments::to_options
    ]
);
extension_sql_file!(
    "../sql/functions.sql",
    name = "functions",
    requires = ["grants", "wrapper", "overloads"],
    finalize
);

/// Called by PostgreSQL when the library is loaded: by the postmaster when it is preloaded, else by a session.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: processes of PostgreSQL have one thread, and libraries are loaded before their functions run.
    unsafe { error::frames::keep_out() };
    guc::define();
    // SAFETY: a plain global of the process.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        shared::init();
        shared::embedder::init();
        utility::init();
        ddl::init();
        worker::register();
    }
}
