//! Lines for the server's log, from threads that may not log to the one that may.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc as lines};

/// Lines that may wait to be logged; what is more is lost.
const LOG_LINES: usize = 1000;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// For those who look for a fault.
    Debug,
    /// For the administrator.
    Log,
    /// Something an administrator should act upon.
    Warning,
}

/// A line for the server's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How much it matters.
    pub level: LogLevel,
    /// The line.
    pub message: String,
}

/// Takes lines from any thread.
#[derive(Clone)]
pub struct LogSender {
    lines: lines::SyncSender<Log>,
    wake: Arc<UnixStream>,
}

/// Gives the lines to the thread that may log them.
pub struct LogReceiver {
    lines: lines::Receiver<Log>,
    wake: UnixStream,
}

/// A way for lines from the server's threads to the main thread.
pub fn log_channel() -> io::Result<(LogSender, LogReceiver)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let (sender, receiver) = lines::sync_channel(LOG_LINES);
    Ok((
        LogSender { lines: sender, wake: Arc::new(theirs) },
        LogReceiver { lines: receiver, wake: ours },
    ))
}

impl LogSender {
    /// Hands a line over and wakes the main thread; never waits.
    pub fn send(&self, level: LogLevel, message: impl Into<String>) {
        // A full pipe will wake the main thread anyway, and a full channel is full of older news.
        let message = message.into();
        let _ = self.lines.try_send(Log { level, message });
        self.wake();
    }

    /// Wakes the main thread without a line.
    pub fn wake(&self) {
        let _ = (&*self.wake).write(&[0]);
    }
}

impl LogReceiver {
    /// Becomes readable when there are lines.
    pub fn fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// The lines that have come; never waits.
    pub fn drain(&mut self) -> Vec<Log> {
        let mut bytes = [0; 1024];
        while matches!(self.wake.read(&mut bytes), Ok(count) if count > 0) {}
        self.lines.try_iter().collect()
    }
}
