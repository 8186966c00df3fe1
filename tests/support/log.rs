//! Reads the server log of a test cluster.

use std::fs;

use super::cluster::Cluster;
use super::wait::tail;

impl Cluster {
    /// The whole server log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The last lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log(), lines)
    }

    /// Whether the log contains this text.
    pub fn log_contains(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    /// The current length of the log: a mark for [`Cluster::log_since`].
    pub fn log_mark(&self) -> usize {
        self.log().len()
    }

    /// The part of the log after the mark.
    pub fn log_since(&self, mark: usize) -> String {
        self.log().split_off(mark)
    }
}
