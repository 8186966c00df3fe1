//! Real clusters for tests from outside: created by initdb in their own directories, run by an unprivileged user,
//! reached over a socket that only this user and root can open, removed when the test passes.
//!
//!     let cluster = Cluster::start();
//!     cluster.create_extension("postgres");
//!     let mut client = cluster.connect("postgres");
//!     cluster.wait_for("postgres", LONG, "the queue to be empty", "SELECT NOT EXISTS (SELECT FROM embedd.queue)");
//!
//! PG_CONFIG chooses the PostgreSQL, as in the Makefile; the extension must be installed there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says why"
)]

pub mod binaries;
pub mod cluster;
pub mod fake_provider;
pub mod log;
pub mod packages;
pub mod pages;
pub mod processes;
pub mod shared;
pub mod source;
pub mod tiny_model;
pub mod wait;

pub use cluster::{Builder, Cluster, SUPERUSER, Shutdown};
pub use processes::Frozen;
pub use shared::Shared;
pub use wait::{LONG, SHORT, StopOnDrop};
