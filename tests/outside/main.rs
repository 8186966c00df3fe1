//! The tests that drive real clusters from outside: one program, a module for each kind of question.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says why"
)]

mod adopt;
mod batch;
mod calls;
mod changes;
mod chaos;
mod citus;
mod crash;
mod databases;
mod ddl;
mod dimensions;
mod doctor;
mod documented;
mod embedder;
mod first_hour;
mod foreign_servers;
mod index_builds;
mod isolation;
mod keys;
mod lifecycle;
mod many_databases;
mod ordering;
mod slow_provider;
mod preload;
mod providers;
mod reference;
mod schedules;
mod search;
mod standby;
mod swap;
mod tasks;
mod transactions;
mod truth;
mod upgrade;
