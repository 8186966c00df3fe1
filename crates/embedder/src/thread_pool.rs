//! The two pools of threads that run the local model: one for questions, and one for documents.

use std::ops::Range;
use std::thread::available_parallelism;

use embedd_wire::Priority;

/// What a pool works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadPool {
    Questions,
    Documents,
}

impl ThreadPool {
    pub const ALL: [ThreadPool; 2] = [ThreadPool::Questions, ThreadPool::Documents];

    /// The pool that serves a priority.
    pub fn of(priority: Priority) -> ThreadPool {
        match priority {
            Priority::Question => ThreadPool::Questions,
            Priority::Change | Priority::Backfill => ThreadPool::Documents,
        }
    }

    /// The priorities it serves, as indexes.
    pub fn priorities(self) -> Range<usize> {
        match self {
            ThreadPool::Questions => Priority::Question as usize..Priority::Change as usize,
            ThreadPool::Documents => Priority::Change as usize..Priority::Backfill as usize + 1,
        }
    }

    /// The name of its threads in the operating system.
    pub fn thread_name(self) -> &'static str {
        match self {
            ThreadPool::Questions => "embedd question",
            ThreadPool::Documents => "embedd local",
        }
    }
}

/// The number of threads for a setting; 0 is half of the processors.
pub fn thread_count(setting: usize) -> usize {
    match setting {
        0 => (available_parallelism().map_or(1, usize::from) / 2).max(1),
        count => count,
    }
}

/// Lowers the priority of the calling thread below that of sessions.
pub fn lower_priority() {
    // Outside Linux the niceness is that of the whole process, so answers to questions would be slower too.
    #[cfg(target_os = "linux")]
    // SAFETY: the call takes numbers only; on Linux process 0 means the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 10)
    };
}
