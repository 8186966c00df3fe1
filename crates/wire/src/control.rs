//! What the supervisor and the embedder tell each other over the control pipes, one line of JSON each; and the embedder's
//! status, which sessions ask for over the socket.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an administrator may set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory of the local model's files.
    pub local_model_path: PathBuf,
    /// Threads of the local model; 0 is half of the processors.
    pub local_threads: usize,
    /// How long the local model is kept without being used; none is for ever.
    pub local_idle_unload: Option<Duration>,
    /// Bytes that the vectors of earlier questions may take.
    pub query_cache_bytes: usize,
    /// Certificates to be trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Where the counts of what providers were asked for are kept.
    pub usage_path: Option<PathBuf>,
    /// Bytes of memory that the embedder may take; none is no limit.
    pub memory_limit: Option<u64>,
}

/// A line from the supervisor to the embedder. The end of the pipe means: stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The settings, first of all and after each change.
    Configure(Config),
}

/// A line from the embedder to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The first line: the embedder serves the socket.
    Ready {
        /// Its version, which has to be the extension's.
        version: String,
    },
    /// A line for the server's log.
    Log(Log),
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// For a developer who looks for a fault.
    Debug,
    /// For the administrator.
    Log,
    /// Something an administrator should act upon.
    Warning,
}

/// A line for the server's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// How much it matters.
    pub level: LogLevel,
    /// The line.
    pub message: String,
}

/// How the embedder is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its operating system process.
    pub pid: u32,
    /// Bytes of its memory that are resident; none where the operating system does not tell.
    pub rss_bytes: Option<u64>,
    /// Whether the local model is loaded.
    pub model_loaded: bool,
    /// Requests that have not been answered yet.
    pub requests_in_flight: u64,
    /// Bytes that the vectors of earlier questions take.
    pub cache_bytes: u64,
    /// Questions that the cache answered, since the embedder started.
    pub cache_hits: u64,
    /// Questions that it could not answer.
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
