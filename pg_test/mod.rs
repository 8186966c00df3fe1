//! Tests that run inside a PostgreSQL backend, one file for each room that talks to PostgreSQL.

mod datum;
mod depend;
mod document;
mod queue;

/// Called by pgrx-tests once before the tests.
pub fn setup(_options: Vec<&str>) {}

/// Settings of the cluster the tests run in.
pub fn postgresql_conf_options() -> Vec<&'static str> {
    vec!["shared_preload_libraries = 'embedd'"]
}
