//! The embedder: turns texts into vectors for the sessions and workers of one PostgreSQL server. It is a program of
//! its own, so that a fault in parsing a provider's reply or in running the model ends no session.

mod cache;
mod connection;
mod count;
mod thread_pool;
mod hashed;
mod job;
mod learned_limits;
mod loading;
pub mod local;
mod log;
mod memory;
mod program;
mod providers;
mod remote;
mod scheduler;
mod server;
mod usage;

pub use program::run;

#[cfg(test)]
mod remote_tests;
#[cfg(test)]
mod tests;
