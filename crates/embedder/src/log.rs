//! Lines for the server log: any thread sends them, one thread writes them to the supervisor.

use std::sync::mpsc;

use embedd_wire::{Log, LogLevel};

/// The most queued lines; further ones are dropped.
const LOG_LINES: usize = 1000;

/// Accepts lines from any thread.
#[derive(Clone)]
pub struct LogSender {
    lines: mpsc::SyncSender<Log>,
}

/// The receiving end, for the thread that writes the lines.
pub type LogReceiver = mpsc::Receiver<Log>;

/// A channel from the server's threads to the thread that writes the log.
pub fn log_channel() -> (LogSender, LogReceiver) {
    let (lines, receiver) = mpsc::sync_channel(LOG_LINES);
    (LogSender { lines }, receiver)
}

impl LogSender {
    /// Queues a line; never blocks.
    pub fn send(&self, level: LogLevel, message: impl Into<String>) {
        // If the channel is full the new line is dropped: the older ones tell more.
        let _ = self.lines.try_send(Log { level, message: message.into() });
    }
}
