//! Remembers, beyond the end of a process, in which step of a task it ended: a page over which the worker ends again and
//! again must not end it for ever.
//!
//! A crash takes shared memory with it, so the trace is a file among the statistics of the server. What is asked to end,
//! by SIGTERM or because another process has crashed (SIGQUIT), is not suspected.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

use pgrx::pg_sys;

/// One step: the vector table, and a number for what the step does with which keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    table_id: i32,
    about: u64,
}

impl Step {
    /// The step of a vector table that does this.
    pub fn new(table_id: i32, about: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        about.hash(&mut hasher);
        Self { table_id, about: hasher.finish() }
    }
}

/// What a process leaves behind: the step it is in, and the step in which processes before it have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trace {
    at: Option<Step>,
    suspect: Option<Step>,
    /// How often in a row a process ended in the suspected step.
    ends: u32,
}

/// Bytes of a trace in the file.
const LENGTH: usize = 28;

impl Trace {
    fn enter(&mut self, step: Step) {
        self.at = Some(step);
    }

    /// The step is over, well or not, and the process is alive.
    fn leave(&mut self) {
        if self.at == self.suspect {
            (self.suspect, self.ends) = (None, 0);
        }
        self.at = None;
    }

    /// The trace with which the next process begins; true when this one ended in a step.
    fn succeeded(self) -> (Self, bool) {
        let Some(at) = self.at else { return (self, false) };
        let ends = if self.suspect == Some(at) { self.ends.saturating_add(1) } else { 1 };
        (Self { at: None, suspect: Some(at), ends }, true)
    }

    /// In the file no step is that of vector table 0.
    fn to_bytes(self) -> [u8; LENGTH] {
        let (at, suspect) = (self.at.unwrap_or_default(), self.suspect.unwrap_or_default());
        let mut bytes = [0; LENGTH];
        bytes[0..4].copy_from_slice(&at.table_id.to_ne_bytes());
        bytes[4..12].copy_from_slice(&at.about.to_ne_bytes());
        bytes[12..16].copy_from_slice(&suspect.table_id.to_ne_bytes());
        bytes[16..24].copy_from_slice(&suspect.about.to_ne_bytes());
        bytes[24..28].copy_from_slice(&self.ends.to_ne_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8; LENGTH]) -> Self {
        let four = |at: usize| -> [u8; 4] { std::array::from_fn(|n| bytes[at + n]) };
        let eight = |at: usize| -> [u8; 8] { std::array::from_fn(|n| bytes[at + n]) };
        let step = |at: usize| {
            let step = Step {
                table_id: i32::from_ne_bytes(four(at)),
                about: u64::from_ne_bytes(eight(at + 4)),
            };
            Some(step).filter(|step| step.table_id != 0)
        };
        Self { at: step(0), suspect: step(12), ends: u32::from_ne_bytes(four(24)) }
    }
}

/// The file of this process, for the signal handlers; none is -1.
static OPEN: AtomicI32 = AtomicI32::new(-1);
/// This process was asked to end, and is to be suspected no more.
static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// The steps of one process, and what those before it have left.
#[derive(Default)]
pub struct LastStep {
    trace: Trace,
    file: Option<(File, PathBuf)>,
    /// The vector table in whose step the process before this one has ended, and how often in a row that was.
    ended: Option<(i32, u32)>,
}

impl LastStep {
    /// The steps of the process with this name in its database. Without the file nothing is remembered.
    pub fn open(name: &str) -> Self {
        // SAFETY: a plain global of the process.
        let database = unsafe { pg_sys::MyDatabaseId };
        let path = PathBuf::from(format!("pg_stat_tmp/embedd_step_{database}_{name}"));
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let Ok(file) = options else { return Self::default() };
        let mut bytes = [0; LENGTH];
        let left = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Trace::of_bytes(&bytes),
            Err(_) => Trace::default(),
        };
        let (trace, has_ended) = left.succeeded();
        OPEN.store(file.as_raw_fd(), SeqCst);
        let ended = trace.suspect.filter(|_| has_ended).map(|step| (step.table_id, trace.ends));
        let steps = Self { trace, file: Some((file, path)), ended };
        steps.write();
        steps
    }

    /// The vector table in whose step the process before this one has ended, and how often in a row; told once.
    pub fn take_ended(&mut self) -> Option<(i32, u32)> {
        self.ended.take()
    }

    /// Runs a step.
    pub fn run<R>(&mut self, step: Option<Step>, work: impl FnOnce() -> R) -> R {
        let Some(step) = step else { return work() };
        self.trace.enter(step);
        self.write();
        if IS_ASKED.load(SeqCst) {
            self.trace.at = None;
            self.write();
        }
        let result = work();
        self.trace.leave();
        self.write();
        result
    }

    /// The suspected step will not be begun again as it was.
    pub fn forget(&mut self) {
        self.trace = Trace::default();
        self.write();
    }

    /// The process is about to end well.
    pub fn close(&mut self) {
        if let Some((_, path)) = self.file.as_ref().filter(|_| self.trace == Trace::default()) {
            let _ = fs::remove_file(path);
        }
    }

    fn write(&self) {
        if let Some((file, _)) = &self.file {
            let _ = file.write_all_at(&self.trace.to_bytes(), 0);
        }
    }
}

impl Drop for LastStep {
    fn drop(&mut self) {
        if let Some((file, _)) = &self.file {
            let _ = OPEN.compare_exchange(file.as_raw_fd(), -1, SeqCst, SeqCst);
        }
    }
}

/// Notes that this process ends because it was asked to. For signal handlers: it makes one system call.
pub fn is_asked_to_end() {
    IS_ASKED.store(true, SeqCst);
    let file = OPEN.load(SeqCst);
    if file >= 0 {
        // SAFETY: writes four bytes of a constant to a file of this process. A write that succeeds leaves errno as it is.
        unsafe { libc::pwrite(file, [0u8; 4].as_ptr().cast(), 4, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_in_the_same_step_are_counted_until_it_is_over() {
        let (page, batch) = (Step::new(7, ("page", "a")), Step::new(7, ("batch", "a")));
        assert!(page != batch && page != Step::new(8, ("page", "a")));
        let mut trace = Trace::default();
        for ends in 1..=3 {
            // Steps before it are over each time.
            trace.enter(page);
            trace.leave();
            trace.enter(batch);
            let has_ended;
            (trace, has_ended) = Trace::of_bytes(&trace.to_bytes()).succeeded();
            assert!(has_ended);
            assert_eq!(trace, Trace { at: None, suspect: Some(batch), ends });
        }
        // An end outside of a step says nothing.
        assert_eq!(trace.succeeded(), (trace, false));
        // An end in another step begins the count again.
        let mut other = trace;
        other.enter(page);
        assert_eq!(other.succeeded().0, Trace { at: None, suspect: Some(page), ends: 1 });
        trace.enter(batch);
        trace.leave();
        assert_eq!(trace, Trace::default());
    }

    #[test]
    fn a_file_without_content_is_no_trace() {
        assert_eq!(Trace::of_bytes(&[0; LENGTH]), Trace::default());
        assert_eq!(Trace::default().succeeded(), (Trace::default(), false));
    }
}
