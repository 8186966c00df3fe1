//! Waits for a condition with a timeout, instead of sleeping for a fixed time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Cluster;

/// For what takes milliseconds if nothing is wrong.
pub const SHORT: Duration = Duration::from_secs(15);

/// For what may take seconds on a busy machine: restarts, backfills.
pub const LONG: Duration = Duration::from_secs(90);

/// The pause between two checks. It affects how late a test notices, never whether it passes.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Checks repeatedly until the condition holds; returns how long that took, or None after the limit.
pub fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> Option<Duration> {
    let begin = Instant::now();
    loop {
        if condition() {
            return Some(begin.elapsed());
        }
        if begin.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// Stops the threads of a scope when it is dropped: a failing test unwinds out of the scope, which waits for its
/// threads.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

impl Cluster {
    /// Waits until the condition holds and returns how long that took; after the limit, panics with its description
    /// and the end of the server log.
    pub fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        condition: impl FnMut() -> bool,
    ) -> Duration {
        until(limit, condition).unwrap_or_else(|| {
            panic!(
                "waited {limit:?} for {what}\n---- end of {}\n{}",
                self.log_path().display(),
                self.log_tail(60)
            )
        })
    }

    /// Waits until a query that returns one boolean returns true. It reconnects after a lost connection, so it can be
    /// used across a crash; an invalid query panics with its error.
    pub fn wait_for(&self, db: &str, limit: Duration, what: &str, sql: &str) -> Duration {
        let mut client = None;
        self.wait_until(limit, what, || {
            if client.is_none() {
                client = self.try_connect(db).ok();
            }
            let Some(open) = client.as_mut() else { return false };
            match open.query_one(sql, &[]) {
                Ok(row) => row.get::<_, Option<bool>>(0).unwrap_or(false),
                Err(error) if open.is_closed() || is_interrupted(&error) => {
                    client = None;
                    false
                }
                Err(error) => panic!("waiting for {what}: {error:?}"),
            }
        })
    }
}

/// Whether an error means that the server is stopping or starting.
fn is_interrupted(error: &postgres::Error) -> bool {
    error.code().is_none_or(|code| code.code().starts_with("57P"))
}
