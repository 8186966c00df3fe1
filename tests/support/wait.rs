//! Waiting for something to become true, with a limit, instead of sleeping and hoping.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Cluster;

/// For what takes milliseconds when nothing is wrong.
pub const SHORT: Duration = Duration::from_secs(15);

/// For what may take seconds on a busy machine: restarts, backfills.
pub const LONG: Duration = Duration::from_secs(90);

/// How long to wait between two looks. It bounds how late a test notices, never whether it passes.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks again and again until the condition holds; says how long it took, or nothing after the limit.
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

/// Tells the threads of a scope to stop when it is dropped: a test that fails unwinds out of the scope, which then waits
/// for its threads, for ever if nobody told them.
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
    /// Waits until the condition holds and returns how long that took; after the limit, panics with the condition's
    /// name and the end of the server's log.
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

    /// Waits until a query that returns one boolean returns true. It connects again when the connection was lost, so
    /// it can be used across a crash; a query that is wrong fails the test with its error.
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

/// Is this error the server's going away or coming back, rather than an answer?
fn is_interrupted(error: &postgres::Error) -> bool {
    error.code().is_none_or(|code| code.code().starts_with("57P"))
}
