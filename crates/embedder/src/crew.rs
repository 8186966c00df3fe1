//! The two kinds of threads that run the local model: one for questions, and one for documents.

use std::ops::Range;
use std::thread::available_parallelism;

use embedd_wire::Priority;

/// What a thread works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crew {
    Questions,
    Documents,
}

impl Crew {
    pub const ALL: [Crew; 2] = [Crew::Questions, Crew::Documents];

    /// The crew that serves a priority.
    pub fn of(priority: Priority) -> Crew {
        match priority {
            Priority::Question => Crew::Questions,
            Priority::Change | Priority::Backfill => Crew::Documents,
        }
    }

    /// The priorities it serves, by number.
    pub fn priorities(self) -> Range<usize> {
        match self {
            Crew::Questions => Priority::Question as usize..Priority::Change as usize,
            Crew::Documents => Priority::Change as usize..Priority::Backfill as usize + 1,
        }
    }

    /// What the operating system calls its threads.
    pub fn thread_name(self) -> &'static str {
        match self {
            Crew::Questions => "embedd question",
            Crew::Documents => "embedd local",
        }
    }
}

/// How many threads a setting means; 0 is half of the processors.
pub fn thread_count(setting: usize) -> usize {
    match setting {
        0 => (available_parallelism().map_or(1, usize::from) / 2).max(1),
        count => count,
    }
}

/// Lets the calling thread run after those of sessions.
pub fn lower_priority() {
    // Elsewhere the niceness is the process's, and the embedder's answers would wait as well.
    #[cfg(target_os = "linux")]
    // SAFETY: the call takes numbers only; on Linux process 0 means the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 10)
    };
}
