//! The usage counts of providers, as kept in a file that the embedder writes and sessions read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The path of the file, relative to the data directory, next to PostgreSQL's own statistics.
pub const USAGE_PATH: &str = "pg_stat/embedd_usage.json";

/// Why a request failed, as far as the counts distinguish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    RateLimited,
    Unavailable,
    KeyRejected,
    Refused,
    BadReply,
}

/// The usage of one provider on one day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Oid of the database, and of the foreign server in it.
    pub database: u32,
    pub server: u32,
    /// Days since 1970-01-01, UTC.
    pub day: u32,
    /// Requests sent, whatever the outcome.
    pub requests: u64,
    /// Texts sent, whatever the outcome.
    pub texts: u64,
    /// Tokens of the requests that the service processed: as it counts them, or estimated if it does not report them.
    pub tokens: u64,
    /// Failed requests, by reason.
    pub rate_limited: u64,
    pub unavailable: u64,
    pub key_rejected: u64,
    pub refused: u64,
    pub bad_reply: u64,
    /// Milliseconds from request to reply: the sum over all requests, and the slowest.
    pub latency_ms: f64,
    pub slowest_ms: f64,
}

impl Usage {
    /// Counts a request and its latency.
    pub fn add_request(&mut self, latency: Duration) {
        let milliseconds = latency.as_secs_f64() * 1000.0;
        self.requests += 1;
        self.latency_ms += milliseconds;
        self.slowest_ms = self.slowest_ms.max(milliseconds);
    }

    /// Counts a failed request.
    pub fn add_error(&mut self, mishap: RequestError) {
        *match mishap {
            RequestError::RateLimited => &mut self.rate_limited,
            RequestError::Unavailable => &mut self.unavailable,
            RequestError::KeyRejected => &mut self.key_rejected,
            RequestError::Refused => &mut self.refused,
            RequestError::BadReply => &mut self.bad_reply,
        } += 1;
    }
}
