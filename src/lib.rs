//! embedd keeps a pgvector table in sync with its source table inside PostgreSQL, and answers semantic queries on it.

use std::ffi::CStr;

use pgrx::prelude::*;

// The rooms from the ground up: each imports only those above it in this list. `make lint` checks it.
mod name; // names, and quoting of names in SQL; no PostgreSQL up to error
mod key; // the key of a row as text
mod document; // the configured columns, and the SQL of text, metadata and hash
mod filter; // filters, compiled to SQL
mod backoff; // exponential backoff
mod error; // all errors with SQLSTATE, DETAIL and HINT
mod shared; // shared memory: worker slots, the state of the embedder
mod guc; // settings
mod latch; // waits
mod relation; // names, owners and schemas of relations
mod cluster; // the identity of the cluster, and whether it accepts writes
mod extension; // whether the extension exists, and its version
mod settings; // settings that hold in a level of their own
mod rights; // roles, and switching to them
mod citus; // relations that Citus shards
mod text_settings; // settings that the text of a value depends on
mod moment; // whether two calls see the same database
mod transaction; // one transaction of a background process
mod process; // background processes that another one starts
mod datum; // types of arguments and results
mod operator_class; // pgvector's operator classes, by their purpose
mod vector_column; // the column of vectors: its type, its index, its distance
mod command; // utility statements
mod client; // the client of the embedder
mod models; // the model catalog
mod task; // requested backfills and comparisons
mod provider_batch; // texts at the batch API of a provider, and their vectors
mod queue; // the keys of changed rows
mod catalog; // vector tables in embedd's own tables
mod trigger; // the triggers of a source
mod fdw; // providers as foreign servers
mod source; // checks of a source
mod row_security; // row security that follows the source
mod grants; // SELECT on vector tables as on the source
mod index; // the indexes of vector tables
mod table; // creating and dropping vector tables
mod status; // the sync status
mod control; // pause, resume, backfill, reconcile, retry
mod verify; // differences between source and vectors
mod estimate; // the cost of a backfill, before it is spent
mod doctor; // checks, with remedies
mod search; // queries
mod sync; // keeps vector tables in sync with their sources
mod import; // vectors that something else has computed
mod adopt; // the tables of other products
mod worker; // the background processes
mod ddl; // DDL on sources and vector tables
mod utility; // the utility hook
mod api; // the SQL functions written in Rust

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
extension_sql_file!("../sql/progress.sql", name = "progress", requires = ["grants"]);
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
        api::search::query_by,
        api::search::search_tables,
        api::search::similar,
        api::new_vector_table,
        api::changes::update_vector_table,
        api::retry_failed,
        api::verify_with_sample,
        api::estimate::estimate,
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
    requires = ["progress", "wrapper", "overloads"],
    finalize
);

/// Called by PostgreSQL when the library is loaded: by the postmaster if it is preloaded, otherwise by a session.
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
