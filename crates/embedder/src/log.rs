//! Lines for the server's log: any thread sends them, one thread writes them to the supervisor.

use std::sync::mpsc;

use embedd_wire::{Log, LogLevel};

/// Lines that may wait to be logged; further ones are lost.
const LOG_LINES: usize = 1000;

/// Takes lines from any thread.
#[derive(Clone)]
pub struct LogSender {
    lines: mpsc::SyncSender<Log>,
}

/// Gives the lines to the thread that writes them.
pub type LogReceiver = mpsc::Receiver<Log>;

/// A way for lines from the server's threads to the thread that writes them.
pub fn log_channel() -> (LogSender, LogReceiver) {
    let (lines, receiver) = mpsc::sync_channel(LOG_LINES);
    (LogSender { lines }, receiver)
}

impl LogSender {
    /// Hands a line over; never waits.
    pub fn send(&self, level: LogLevel, message: impl Into<String>) {
        // A full channel holds older lines, which tell more.
        let _ = self.lines.try_send(Log { level, message: message.into() });
    }
}
