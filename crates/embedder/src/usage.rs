//! Counts the requests to providers by day, and persists the counts in a file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use embedd_wire::{Usage, tokens_since};

/// How many days counts are kept.
const KEPT_DAYS: u32 = 400;

/// Seconds of a day.
pub const DAY: u64 = 86_400;

/// All counts.
#[derive(Debug, Default)]
pub struct Ledger {
    path: Option<PathBuf>,
    rows: BTreeMap<(u32, u32, u32), Usage>,
    changed: bool,
}

impl Ledger {
    /// Opens a file of counts, which may be missing; without a path nothing is kept.
    pub fn open(path: Option<&Path>) -> Ledger {
        let mut ledger = Ledger { path: path.map(Path::to_path_buf), ..Ledger::default() };
        // An unreadable file must not keep the embedder from serving: it is replaced.
        let rows = path.and_then(|path| read(path).ok()).unwrap_or_default();
        let oldest = today().saturating_sub(KEPT_DAYS);
        for row in rows.into_iter().filter(|row| row.day >= oldest) {
            ledger.rows.insert((row.database, row.server, row.day), row);
        }
        ledger
    }

    /// Today's counts of a provider.
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

    /// The tokens of a provider since a day.
    pub fn tokens_since(&self, (database, server): (u32, u32), day: u32) -> u64 {
        let rows = self.rows.range((database, server, day)..=(database, server, u32::MAX));
        tokens_since(rows.map(|(_, row)| row), day)
    }

    /// The file's new content, if there are changes.
    pub fn take_changes(&mut self) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.path.clone().filter(|_| self.changed)?;
        let rows: Vec<&Usage> = self.rows.values().collect();
        let json = serde_json::to_vec(&rows).ok()?;
        self.changed = false;
        Some((path, json))
    }
}

/// Reads the counts of a file.
pub fn read(path: &Path) -> io::Result<Vec<Usage>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// Replaces a file of counts atomically, so that concurrent readers see the old or the new counts.
pub fn write(path: &Path, json: &[u8]) -> io::Result<()> {
    // The main thread's last write may overlap with one still running.
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock();
    let new = path.with_extension("new");
    std::fs::write(&new, json)?;
    std::fs::rename(&new, path)
}

fn today() -> u32 {
    day(seconds())
}

/// Seconds since 1970-01-01.
pub fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The day of a second, both since 1970-01-01.
pub fn day(second: u64) -> u32 {
    u32::try_from(second / DAY).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use embedd_wire::RequestError;

    use super::*;

    #[test]
    fn counts_survive_a_restart_and_a_corrupt_file_is_replaced() {
        let path = std::env::temp_dir().join(format!("embedd-usage-{}.json", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let mut ledger = Ledger::open(Some(&path));
        assert!(ledger.take_changes().is_none());
        ledger.today((1, 2)).add_request(Duration::from_millis(5));
        ledger.today((1, 2)).add_error(RequestError::RateLimited);
        ledger.today((1, 3)).texts += 7;
        let (to, json) = ledger.take_changes().unwrap();
        assert!(ledger.take_changes().is_none());
        write(&to, &json).unwrap();
        let mut again = Ledger::open(Some(&path));
        again.today((1, 2)).add_request(Duration::from_millis(7));
        let row = again.today((1, 2)).clone();
        assert_eq!((row.requests, row.rate_limited, row.slowest_ms), (2, 1, 7.0));
        assert_eq!(again.today((1, 3)).texts, 7);
        again.today((1, 3)).tokens = 5;
        again.rows.insert((1, 3, 9), Usage { tokens: 2, day: 9, ..Usage::default() });
        assert_eq!([9, 10].map(|day| again.tokens_since((1, 3), day)), [7, 5]);
        assert_eq!(again.tokens_since((1, 4), 0), 0);
        std::fs::write(&path, b"{").unwrap();
        assert!(Ledger::open(Some(&path)).rows.is_empty());
        std::fs::write(&path, br#"[{"database":1,"server":2,"day":5,"texts":1}]"#).unwrap();
        assert!(Ledger::open(Some(&path)).rows.is_empty());
        std::fs::remove_file(&path).unwrap();
    }
}
