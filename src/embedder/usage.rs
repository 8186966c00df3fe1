//! Counts what providers were asked for, by day, and keeps the counts in a file across restarts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Where the counts are kept, relative to the data directory, beside those of PostgreSQL itself.
pub const USAGE_PATH: &str = "pg_stat/embedd_usage.json";

/// Days after which counts are forgotten.
const KEPT_DAYS: u32 = 400;

/// What went wrong with a request, as far as the counts tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    RateLimited,
    Unavailable,
    KeyRejected,
    Refused,
    BadReply,
}

/// The counts of one provider on one day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Oid of the database, and of the foreign server in it.
    pub database: u32,
    pub server: u32,
    /// Days since 1970-01-01, UTC.
    pub day: u32,
    /// Requests sent, whatever became of them.
    pub requests: u64,
    /// Texts embedded.
    pub texts: u64,
    /// Tokens embedded: as the service counts them, or as estimated where it does not tell.
    pub tokens: u64,
    /// Requests that brought no vectors, by what went wrong.
    pub rate_limited: u64,
    pub unavailable: u64,
    pub key_rejected: u64,
    pub refused: u64,
    pub bad_reply: u64,
    /// Milliseconds from request to reply: of all requests together, and of the slowest.
    pub latency_ms: f64,
    pub slowest_ms: f64,
}

/// All counts.
#[derive(Debug, Default)]
pub struct Ledger {
    path: Option<PathBuf>,
    rows: BTreeMap<(u32, u32, u32), Usage>,
    changed: bool,
}

impl Ledger {
    /// The counts of a file, which need not be there; without one nothing is kept.
    pub fn open(path: Option<&Path>) -> Ledger {
        let mut ledger = Ledger { path: path.map(Path::to_path_buf), ..Ledger::default() };
        // Counts are no reason not to serve: a file that cannot be read is begun anew.
        let rows = path.and_then(|path| read(path).ok()).unwrap_or_default();
        let oldest = today().saturating_sub(KEPT_DAYS);
        for row in rows.into_iter().filter(|row| row.day >= oldest) {
            ledger.rows.insert((row.database, row.server, row.day), row);
        }
        ledger
    }

    /// The counts of a provider today, to be added to.
    pub fn today(&mut self, (database, server): (u32, u32)) -> &mut Usage {
        self.changed = true;
        let day = today();
        self.rows.entry((database, server, day)).or_insert_with(|| Usage {
            database,
            server,
            day,
            ..Usage::default()
        })
    }

    /// What to write, if there is something new to be written.
    pub fn take_changes(&mut self) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.path.clone().filter(|_| self.changed)?;
        let rows: Vec<&Usage> = self.rows.values().collect();
        let json = serde_json::to_vec(&rows).ok()?;
        self.changed = false;
        Some((path, json))
    }
}

impl Usage {
    /// Counts a request and how long it took.
    pub fn add_request(&mut self, latency: Duration) {
        let milliseconds = latency.as_secs_f64() * 1000.0;
        self.requests += 1;
        self.latency_ms += milliseconds;
        self.slowest_ms = self.slowest_ms.max(milliseconds);
    }

    /// Counts what went wrong with it.
    pub fn add_mishap(&mut self, mishap: Mishap) {
        *match mishap {
            Mishap::RateLimited => &mut self.rate_limited,
            Mishap::Unavailable => &mut self.unavailable,
            Mishap::KeyRejected => &mut self.key_rejected,
            Mishap::Refused => &mut self.refused,
            Mishap::BadReply => &mut self.bad_reply,
        } += 1;
    }
}

/// The counts in a file.
pub fn read(path: &Path) -> io::Result<Vec<Usage>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Puts counts in the place of those in a file; who reads at the same time sees the ones or the others.
pub fn write(path: &Path, json: &[u8]) -> io::Result<()> {
    // The last writing, by the main thread, may meet one that is still under way.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock();
    let new = path.with_extension("new");
    std::fs::write(&new, json)?;
    std::fs::rename(&new, path)
}

fn today() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / 86_400).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_in_their_file_and_a_broken_one_is_begun_anew() {
        let path = std::env::temp_dir().join(format!("embedd-usage-{}.json", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let mut ledger = Ledger::open(Some(&path));
        assert!(ledger.take_changes().is_none());
        ledger.today((1, 2)).add_request(Duration::from_millis(5));
        ledger.today((1, 2)).add_mishap(Mishap::RateLimited);
        ledger.today((1, 3)).texts += 7;
        let (to, json) = ledger.take_changes().unwrap();
        assert!(ledger.take_changes().is_none());
        write(&to, &json).unwrap();
        let mut again = Ledger::open(Some(&path));
        again.today((1, 2)).add_request(Duration::from_millis(7));
        let row = again.today((1, 2)).clone();
        assert_eq!((row.requests, row.rate_limited, row.slowest_ms), (2, 1, 7.0));
        assert_eq!(again.today((1, 3)).texts, 7);
        std::fs::write(&path, b"{").unwrap();
        assert!(Ledger::open(Some(&path)).rows.is_empty());
        std::fs::write(&path, br#"[{"database":1,"server":2,"day":5,"texts":1}]"#).unwrap();
        assert!(Ledger::open(Some(&path)).rows.is_empty());
        std::fs::remove_file(&path).unwrap();
    }
}
