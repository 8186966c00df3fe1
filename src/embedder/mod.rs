//! The embedder: the process that turns texts into vectors, the door to it, and the local model inside it.

pub mod account;
pub mod cache;
pub mod client;
mod connection;
mod embeddings;
pub mod frame;
mod job;
pub mod local;
pub mod log;
mod remote;
pub mod scheduler;
pub mod server;
pub mod usage;
pub mod wire;

#[cfg(test)]
mod remote_tests;
#[cfg(test)]
mod tests;
