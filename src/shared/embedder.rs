//! The embedder's state in shared memory: its process, its start time, and why it cannot start.

use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, pg_shmem_init};

use super::is_preloaded;

/// The most bytes of a text; a longer one is truncated.
const TEXT: usize = 512;

/// The state of the embedder, as its supervisor last set it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Embedder {
    /// Whether a supervisor is running.
    pub is_supervised: bool,
    /// Its process id, while it accepts connections.
    pub pid: Option<i32>,
    /// When that process became ready, in PostgreSQL's time.
    pub since: pg_sys::TimestampTz,
    /// How often it was restarted since the server started.
    pub restarts: i64,
    /// Why it cannot start.
    pub start_failure: Option<StartFailure>,
}

/// Why the embedder cannot start, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// The message, in PostgreSQL's style.
    pub message: String,
    /// The HINT.
    pub hint: String,
}

/// The same, as stored in shared memory.
#[derive(Clone, Copy)]
struct Stored {
    is_supervised: bool,
    pid: i32,
    since: pg_sys::TimestampTz,
    restarts: i64,
    message: Text,
    hint: Text,
}

/// A text of bounded length.
#[derive(Clone, Copy)]
struct Text {
    length: usize,
    bytes: [u8; TEXT],
}

impl Text {
    const EMPTY: Text = Text { length: 0, bytes: [0; TEXT] };

    fn new(text: &str) -> Self {
        let mut stored = Text::EMPTY;
        stored.length = text.floor_char_boundary(TEXT);
        stored.bytes[..stored.length].copy_from_slice(&text.as_bytes()[..stored.length]);
        stored
    }

    fn get(&self) -> String {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl Default for Stored {
    fn default() -> Self {
        let (message, hint) = (Text::EMPTY, Text::EMPTY);
        Self { is_supervised: false, pid: 0, since: 0, restarts: 0, message, hint }
    }
}

// SAFETY: plain numbers and bytes, no pointers and no heap.
unsafe impl PGRXSharedMemory for Stored {}

// SAFETY: the name is used by nothing else.
static STORED: PgLwLock<Stored> = unsafe { PgLwLock::new(c"embedd_embedder") };

/// Requests the shared memory. Called from `_PG_init` while the postmaster loads its libraries.
pub fn init() {
    pg_shmem_init!(STORED);
}

/// The current state of the embedder; unknown in a server without embedd in shared_preload_libraries.
pub fn get() -> Embedder {
    if !is_preloaded() {
        return Embedder::default();
    }
    let stored = *STORED.share();
    Embedder {
        is_supervised: stored.is_supervised,
        pid: (stored.pid != 0).then_some(stored.pid),
        since: stored.since,
        restarts: stored.restarts,
        start_failure: (stored.message.length > 0)
            .then(|| StartFailure { message: stored.message.get(), hint: stored.hint.get() }),
    }
}

/// Why the embedder cannot start.
pub fn start_failure() -> Option<StartFailure> {
    if !is_preloaded() || STORED.share().message.length == 0 {
        return None;
    }
    get().start_failure
}

/// A supervisor starts or ends.
pub fn set_supervised(is_supervised: bool) {
    let mut stored = STORED.exclusive();
    stored.is_supervised = is_supervised;
    stored.pid = 0;
}

/// The embedder is ready, as this process.
pub fn set_serving(pid: i32) {
    let mut stored = STORED.exclusive();
    if stored.since != 0 {
        stored.restarts += 1;
    }
    stored.pid = pid;
    // SAFETY: reads the clock.
    stored.since = unsafe { pg_sys::GetCurrentTimestamp() };
    stored.message = Text::EMPTY;
}

/// The embedder has ended. Sessions wait for the next one, unless it cannot start.
pub fn set_ended(failure: Option<&StartFailure>) {
    let mut stored = STORED.exclusive();
    stored.pid = 0;
    stored.message = failure.map_or(Text::EMPTY, |failure| Text::new(&failure.message));
    stored.hint = failure.map_or(Text::EMPTY, |failure| Text::new(&failure.hint));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_truncated_between_characters() {
        for text in ["", "short", &"é".repeat(TEXT)] {
            let stored = Text::new(text).get();
            assert!(text.starts_with(&stored) && stored.len() >= text.len().min(TEXT - 1));
        }
    }
}
