//! The counts of what providers were asked for, as they are kept in a file that the embedder writes and sessions read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the counts are kept, relative to the data directory, beside those of PostgreSQL itself.
pub const USAGE_PATH: &str = "pg_stat/embedd_usage.json";

/// What went wrong with a request, as far as the counts tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    RateLimited,
    Unavailable,
    KeyRejected,
    Refused,
    BadReply,
}

/// The counts of one provider on one day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Oid of the database, and of the foreign server in it.
    pub database: u32,
    pub server: u32,
    /// Days since 1970-01-01, UTC.
    pub day: u32,
    /// Requests sent, whatever became of them.
    pub requests: u64,
    /// Texts sent, whatever became of them.
    pub texts: u64,
    /// Tokens of the requests that the service has done its work for: as it counts them, or as estimated where it does not tell.
    pub tokens: u64,
    /// Requests that brought no vectors, by what went wrong.
    pub rate_limited: u64,
    pub unavailable: u64,
    pub key_rejected: u64,
    pub refused: u64,
    pub bad_reply: u64,
    /// Milliseconds from request to reply: of all requests together, and of the slowest.
    pub latency_ms: f64,
    pub slowest_ms: f64,
}

impl Usage {
    /// Counts a request and how long it took.
    pub fn add_request(&mut self, latency: Duration) {
        let milliseconds = latency.as_secs_f64() * 1000.0;
        self.requests += 1;
        self.latency_ms += milliseconds;
        self.slowest_ms = self.slowest_ms.max(milliseconds);
    }

    /// Counts what went wrong with it.
    pub fn add_mishap(&mut self, mishap: Mishap) {
        *match mishap {
            Mishap::RateLimited => &mut self.rate_limited,
            Mishap::Unavailable => &mut self.unavailable,
            Mishap::KeyRejected => &mut self.key_rejected,
            Mishap::Refused => &mut self.refused,
            Mishap::BadReply => &mut self.bad_reply,
        } += 1;
    }
}
