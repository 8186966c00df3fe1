//! The processes of a cluster: finding, freezing and killing them.
//!
//! They are found by their titles in /proc and not only in pg_stat_activity: the embedder is not a PostgreSQL process,
//! and during a crash no session can connect.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::Cluster;
use super::wait::{SHORT, until};

/// The beginnings of the titles of embedd's processes: the program, and the background worker that starts it.
pub const EMBEDDER: &str = "embedd-embedder";
pub const SUPERVISOR: &str = "embedd embedder";
pub const LAUNCHER: &str = "embedd launcher";
pub const SYNC_WORKER: &str = "embedd sync worker";

/// Kills a process like `kill -9`. A process that has already ended is not an error.
pub fn kill9(pid: i32) {
    send(pid, libc::SIGKILL);
}

/// Terminates a process like `kill`: the postmaster restarts only this one, and no session ends.
pub fn terminate(pid: i32) {
    send(pid, libc::SIGTERM);
}

/// Stops a process with all its threads (SIGSTOP). Returns when all are stopped.
pub fn freeze(pid: i32) {
    send(pid, libc::SIGSTOP);
    // A thread running on another processor does not stop at once.
    until(SHORT, || stands_still(pid)).unwrap_or_else(|| panic!("process {pid} does not stop"));
}

/// Continues a stopped process (SIGCONT).
pub fn thaw(pid: i32) {
    send(pid, libc::SIGCONT);
}

/// A process that is stopped until this value is dropped, also when the test fails.
pub struct Frozen(i32);

impl Frozen {
    /// Freezes a process.
    pub fn new(pid: i32) -> Self {
        freeze(pid);
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        thaw(self.0);
    }
}

/// Whether there is a process with this id that has not ended. A zombie counts as ended.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

fn send(pid: i32, signal: i32) {
    assert!(pid > 1, "{pid} is not the id of a cluster's process");
    // SAFETY: kill has no memory to harm; the id is that of one process.
    unsafe { libc::kill(pid, signal) };
}

/// Whether every thread of a process is stopped, or the process has ended.
fn stands_still(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let mut states = threads.flatten().filter_map(|thread| stat_of(&thread.path()));
    states.all(|(state, _)| matches!(state, 'T' | 't' | 'Z' | 'X'))
}

/// State and parent of a process.
fn stat(pid: i32) -> Option<(char, i32)> {
    stat_of(Path::new(&format!("/proc/{pid}")))
}

/// State and parent from the /proc directory of a process or thread.
fn stat_of(directory: &Path) -> Option<(char, i32)> {
    let line = fs::read_to_string(directory.join("stat")).ok()?;
    let mut fields = line[line.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// The title of a process, without PostgreSQL's prefix ("postgres: " and the cluster name); for a program its name.
fn title(pid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\0', ' ']).to_string();
    match line.strip_prefix("postgres: ") {
        Some(title) => Some(title.to_string()),
        None => Some(line.split('\0').next()?.rsplit('/').next()?.to_string()),
    }
}

/// The private memory of a process in megabytes; None if it has ended.
pub fn own_megabytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

/// The processor time of a process so far, of its first thread; None if it has ended.
pub fn processor_time(pid: i32) -> Option<Duration> {
    let line = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    Some(Duration::from_nanos(line.split_ascii_whitespace().next()?.parse().ok()?))
}

impl Cluster {
    /// The postmaster's process id, if it is running.
    pub fn postmaster(&self) -> Option<i32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok().filter(|pid| is_alive(*pid))
    }

    /// Every process of the cluster except the postmaster, with its title, including the embedder.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let Some(postmaster) = self.postmaster() else { return Vec::new() };
        let pids = fs::read_dir("/proc").expect("/proc is there").flatten();
        let running: Vec<(i32, i32)> = pids
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter_map(|pid| stat(pid).filter(|(state, _)| *state != 'Z').map(|(_, of)| (pid, of)))
            .collect();
        let children = |parent: i32| {
            let of_parent = running.iter().filter(move |(_, of)| *of == parent);
            of_parent.filter_map(|(pid, _)| Some((*pid, title(*pid)?)))
        };
        let mut found: Vec<(i32, String)> = children(postmaster).collect();
        let supervisors = found.iter().filter(|(_, title)| title.starts_with(SUPERVISOR));
        // Before exec a child has the title of its supervisor.
        let programs: Vec<(i32, String)> = supervisors
            .flat_map(|(supervisor, _)| children(*supervisor))
            .filter(|(_, title)| !title.starts_with(SUPERVISOR))
            .collect();
        found.extend(programs);
        found
    }

    /// The ids of the processes whose title begins with this, for example [`EMBEDDER`].
    pub fn pids(&self, kind: &str) -> Vec<i32> {
        let begins = |(pid, title): (i32, String)| title.starts_with(kind).then_some(pid);
        self.processes().into_iter().filter_map(begins).collect()
    }

    /// The only process of this kind. Waits for it to appear; more than one panics.
    pub fn pid(&self, kind: &str) -> i32 {
        let mut pids = Vec::new();
        self.wait_until(SHORT, &format!("a process \"{kind}\""), || {
            pids = self.pids(kind);
            !pids.is_empty()
        });
        assert_eq!(pids.len(), 1, "processes \"{kind}\": {:?}", self.processes());
        pids[0]
    }

    /// A process of this kind other than the given one, which replaced it.
    pub fn successor(&self, kind: &str, of: i32) -> i32 {
        let mut found = None;
        self.wait_until(SHORT, &format!("another \"{kind}\" than {of}"), || {
            found = self.pids(kind).into_iter().find(|pid| *pid != of);
            found.is_some()
        });
        found.expect("just found")
    }

    /// The processes of this backend_type in pg_stat_activity for a database.
    pub fn pids_in(&self, db: &str, backend_type: &str) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = $2 ORDER BY pid";
        let rows = self
            .connect("postgres")
            .query(sql, &[&db, &backend_type])
            .expect("pg_stat_activity can be read");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The sync worker of a database. Waits for it to appear.
    pub fn sync_worker(&self, db: &str) -> i32 {
        let mut found = None;
        self.wait_until(SHORT, &format!("a sync worker in \"{db}\""), || {
            found = self.pids_in(db, SYNC_WORKER).first().copied();
            found.is_some()
        });
        found.expect("just found")
    }

    /// Simulates a power failure: kills the postmaster, waits for all other processes to end, nothing is flushed. The
    /// server stays down until [`Cluster::start_again`].
    pub fn crash(&self) {
        let postmaster = self.postmaster().expect("the server runs");
        let others: Vec<i32> = self.processes().into_iter().map(|(pid, _)| pid).collect();
        kill9(postmaster);
        others.iter().for_each(|pid| kill9(*pid));
        self.wait_until(SHORT, "the crashed processes to be gone", || {
            !is_alive(postmaster) && !others.iter().any(|pid| is_alive(*pid))
        });
        // Until init has reaped the postmaster, its id seems in use and the next start would fail.
        if until(SHORT, || stat(postmaster).is_none()).is_none() {
            fs::remove_file(self.data().join("postmaster.pid"))
                .expect("the lock file can be removed");
        }
    }
}
