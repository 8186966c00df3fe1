//! What every process of the server can see of the embedder: which process it is, since when, and what keeps it from starting.

use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, pg_shmem_init};

use super::is_preloaded;

/// Bytes kept of a text; what is longer is cut.
const TEXT: usize = 512;

/// The embedder as its supervisor last saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Embedder {
    /// Whether a supervisor is there to start it.
    pub is_supervised: bool,
    /// Its process, while it serves.
    pub pid: Option<i32>,
    /// When that process began to serve, in PostgreSQL's time.
    pub since: pg_sys::TimestampTz,
    /// How often it was started again since the server started.
    pub restarts: i64,
    /// What keeps it from starting.
    pub trouble: Option<Trouble>,
}

/// Why the embedder cannot start, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A message as PostgreSQL words it.
    pub message: String,
    /// A sentence on what to do.
    pub hint: String,
}

/// The same as it lies in shared memory.
#[derive(Clone, Copy)]
struct Stored {
    is_supervised: bool,
    pid: i32,
    since: pg_sys::TimestampTz,
    restarts: i64,
    message: Text,
    hint: Text,
}

/// A text of a bounded length.
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

/// Asks for the shared memory. Called from `_PG_init` while the postmaster loads its libraries.
pub fn init() {
    pg_shmem_init!(STORED);
}

/// The embedder as it is now; nothing is known of it in a server that was not started with embedd.
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
        trouble: (stored.message.length > 0)
            .then(|| Trouble { message: stored.message.get(), hint: stored.hint.get() }),
    }
}

/// What keeps the embedder from starting.
pub fn trouble() -> Option<Trouble> {
    if !is_preloaded() || STORED.share().message.length == 0 {
        return None;
    }
    get().trouble
}

/// A supervisor has begun its work, or ends it.
pub fn set_supervised(is_supervised: bool) {
    let mut stored = STORED.exclusive();
    stored.is_supervised = is_supervised;
    stored.pid = 0;
}

/// The embedder serves as this process.
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

/// The embedder has ended; sessions wait for the next one unless there is something that keeps it from starting.
pub fn set_ended(trouble: Option<&Trouble>) {
    let mut stored = STORED.exclusive();
    stored.pid = 0;
    stored.message = trouble.map_or(Text::EMPTY, |trouble| Text::new(&trouble.message));
    stored.hint = trouble.map_or(Text::EMPTY, |trouble| Text::new(&trouble.hint));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        for text in ["", "short", &"é".repeat(TEXT)] {
            let stored = Text::new(text).get();
            assert!(text.starts_with(&stored) && stored.len() >= text.len().min(TEXT - 1));
        }
    }
}
