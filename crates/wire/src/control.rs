//! The messages between supervisor and embedder over the control pipes, one line of JSON each; and the embedder's
//! status, which sessions request over the socket.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The settings of the embedder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory of the local model's files.
    pub local_model_path: PathBuf,
    /// Threads of the local model; 0 is half of the processors.
    pub local_threads: usize,
    /// After how long an idle local model is unloaded; none is never.
    pub local_idle_unload: Option<Duration>,
    /// The size of the cache for vectors of questions, in bytes.
    pub query_cache_bytes: usize,
    /// A file of certificates to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// The file of the usage counts.
    pub usage_path: Option<PathBuf>,
    /// The limit of the embedder's memory in bytes; none is no limit.
    pub memory_limit: Option<u64>,
}

/// A line from the supervisor to the embedder. When the pipe is closed, the embedder ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The settings: the first line, and again after each change.
    Configure(Config),
}

/// A line from the embedder to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The first line: the embedder accepts connections.
    Ready {
        /// The embedder's version, which must be the extension's.
        version: String,
    },
    /// A line for the server's log.
    Log(Log),
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For developers.
    Debug,
    /// For the administrator.
    Log,
    /// Something an administrator should act upon.
    Warning,
}

/// A line for the server's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The level.
    pub level: LogLevel,
    /// The text.
    pub message: String,
}

/// The embedder's status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// Its resident memory in bytes; none where the operating system does not report it.
    pub rss_bytes: Option<u64>,
    /// Whether the local model is loaded.
    pub model_loaded: bool,
    /// Requests that are not answered yet.
    pub requests_in_flight: u64,
    /// Bytes in use by the cache of questions.
    pub cache_bytes: u64,
    /// Cache hits since the embedder started.
    pub cache_hits: u64,
    /// Cache misses since the embedder started.
    pub cache_misses: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_are_one_line_each() {
        let config = Config {
            local_model_path: "/a \"b\"\n".into(),
            local_threads: 2,
            local_idle_unload: Some(Duration::from_secs(7)),
            query_cache_bytes: 3,
            ca_file: None,
            usage_path: Some("u".into()),
            memory_limit: Some(1 << 40),
        };
        let order = Order::Configure(config);
        let line = serde_json::to_string(&order).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
        let log = Log { level: LogLevel::Warning, message: "two\nlines".to_string() };
        for report in [Report::Ready { version: "1".to_string() }, Report::Log(log)] {
            let line = serde_json::to_string(&report).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
        }
    }
}
