//! Persists the learned limits of services in a file, across restarts.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use embedd_wire::{Model, Provider};
use serde::{Deserialize, Serialize};

use super::providers::Measure;
use super::usage::seconds;

/// The name of the file, in the directory of the usage file.
const FILE: &str = "embedd_limits.json";

/// How long a limit is kept before it has to be learned again.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// All learned limits.
#[derive(Debug, Default)]
pub struct LearnedLimits {
    path: Option<PathBuf>,
    rows: Vec<Row>,
    changed: bool,
}

/// The limits of one model of one provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Row {
    /// Oid of the database, and of the foreign server in it.
    database: u32,
    server: u32,
    /// The address of the service: another address may be another service.
    base_url: Option<String>,
    model: String,
    texts: Option<u64>,
    tokens: Option<u64>,
    bytes: Option<u64>,
    /// When it was learned, in seconds since 1970.
    noted: u64,
}

impl Row {
    fn slot(&mut self, measure: Measure) -> &mut Option<u64> {
        match measure {
            Measure::Texts => &mut self.texts,
            Measure::Tokens => &mut self.tokens,
            Measure::Bytes => &mut self.bytes,
        }
    }

    fn is_of(&self, provider: &Provider, model: &Model) -> bool {
        (self.database, self.server) == (provider.database, provider.server)
            && self.base_url == provider.base_url
            && self.model == model.name
    }
}

impl LearnedLimits {
    /// Opens the file next to the usage file, which may be missing; without a path nothing is kept.
    pub fn open(usage_path: Option<&Path>) -> LearnedLimits {
        let path = usage_path.map(|path| path.with_file_name(FILE));
        // An unreadable file is overwritten: limits can be learned again.
        let rows: Vec<Row> = path.as_deref().and_then(|path| read(path).ok()).unwrap_or_default();
        let oldest = seconds().saturating_sub(KEPT.as_secs());
        let rows = rows.into_iter().filter(|row| row.noted >= oldest).collect();
        LearnedLimits { path, rows, changed: false }
    }

    /// The limits of a model.
    pub fn of(&self, provider: &Provider, model: &Model) -> Vec<(Measure, u64)> {
        let mut row = self.rows.iter().find(|row| row.is_of(provider, model)).cloned();
        let limits = Measure::ALL.into_iter();
        limits.filter_map(|measure| Some((measure, (*row.as_mut()?.slot(measure))?))).collect()
    }

    /// Stores a limit, or removes it.
    pub fn note(
        &mut self,
        provider: &Provider,
        model: &Model,
        measure: Measure,
        most: Option<u64>,
    ) {
        let place = self.rows.iter().position(|row| row.is_of(provider, model));
        let place = place.unwrap_or_else(|| {
            self.rows.push(Row {
                database: provider.database,
                server: provider.server,
                base_url: provider.base_url.clone(),
                model: model.name.clone(),
                ..Row::default()
            });
            self.rows.len() - 1
        });
        let row = &mut self.rows[place];
        (*row.slot(measure), row.noted) = (most, seconds());
        self.changed = true;
    }

    /// The file's new content, if there are changes.
    pub fn take_changes(&mut self) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.path.clone().filter(|_| self.changed)?;
        let json = serde_json::to_vec(&self.rows).ok()?;
        self.changed = false;
        Some((path, json))
    }
}

fn read(path: &Path) -> io::Result<Vec<Row>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::write;

    #[test]
    fn limits_survive_a_restart_and_belong_to_one_model_at_one_address() {
        let directory = std::env::temp_dir().join(format!("embedd-limits-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let usage = directory.join("usage.json");
        let (provider, model) = (Provider::local(), Model::of_unknown_limits("m", 3));
        let mut learned = LearnedLimits::open(Some(&usage));
        assert!(learned.take_changes().is_none());
        learned.note(&provider, &model, Measure::Texts, Some(10));
        learned.note(&provider, &model, Measure::Bytes, Some(700));
        learned.note(&provider, &model, Measure::Bytes, None);
        let (path, json) = learned.take_changes().unwrap();
        write(&path, &json).unwrap();
        let again = LearnedLimits::open(Some(&usage));
        assert_eq!(again.of(&provider, &model), [(Measure::Texts, 10)]);
        assert_eq!(again.of(&provider, &Model::of_unknown_limits("n", 3)), []);
        let elsewhere = Provider { base_url: Some("http://x".to_string()), ..provider.clone() };
        assert_eq!(again.of(&elsewhere, &model), []);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(LearnedLimits::open(Some(&usage)).of(&provider, &model), []);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
