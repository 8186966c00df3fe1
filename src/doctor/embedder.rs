//! Checks of the embedder and of the local model's files.

use std::fs::File;
use std::path::Path;

use embedd_wire::LOCAL_MODEL_FILES;
use pgrx::prelude::*;

use super::finding::Finding;
use super::report::Report;
use super::{Scope, remedy, server};
use crate::client;
use crate::error::Result;
use crate::guc;
use crate::shared::embedder::{self, Embedder};

/// From this many restarts on the check reports that the embedder keeps restarting.
const MANY_RESTARTS: i64 = 3;
/// How recent the last of them must be, in seconds.
const LATELY: i64 = 600;

/// Checks the embedder and the local model.
pub fn examine(report: &mut Report, scope: &Scope) -> Result<()> {
    report.check("embedder", "", |_| Ok(embedder(scope).into_iter().collect()))?;
    report.check("local_model", "", |_| Ok(local_model(scope)))
}

fn embedder(scope: &Scope) -> Option<Finding> {
    if !scope.is_preloaded {
        return Some(Finding::warning("embedder", "", server::UNKNOWN));
    }
    let Embedder { is_supervised, pid, since, restarts, start_failure } = embedder::get();
    let problem = |meaning: String| Finding::problem("embedder", "embedd-embedder", meaning);
    match (pid, start_failure) {
        (None, Some(failure)) => {
            let remedy = match guc::embedder_path() {
                Some(_) => remedy::set("embedd.embedder_path", "''"),
                None => failure.hint,
            };
            return Some(
                problem(format!("it cannot be started: {}", failure.message)).with(remedy),
            );
        }
        (None, None) if is_supervised => {
            let meaning = "it is starting";
            return Some(Finding::warning("embedder", "embedd-embedder", meaning));
        }
        (None, None) => {
            let meaning = "its supervisor, the background worker \"embedd embedder\", is not running: no query is answered, and nothing is embedded";
            let remedy = "See the server log for the reason, and restart the server.";
            return Some(problem(meaning.to_string()).with(remedy.to_string()));
        }
        (Some(_), _) => {}
    }
    if client::status().is_none() {
        let meaning = "it does not answer within two seconds: it hangs, or is very busy";
        let remedy = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'embedd embedder';";
        return Some(problem(meaning.to_string()).with(remedy.to_string()));
    }
    // SAFETY: reads the clock.
    let age = unsafe { pg_sys::GetCurrentTimestamp() }.saturating_sub(since) / 1_000_000;
    if !scope.sees_server || restarts < MANY_RESTARTS || age > LATELY {
        return None;
    }
    let meaning = format!(
        "it has restarted {restarts} times since the server started, the last time {age} s ago"
    );
    let remedy = match guc::embedder_memory_limit() {
        Some(_) => remedy::set("embedd.embedder_memory_limit", "0"),
        None => "See the server log for the reason of each restart.".to_string(),
    };
    Some(Finding::warning("embedder", "embedd-embedder", meaning).with(remedy))
}

/// The first file of a model that cannot be read, and the reason.
fn unreadable(directory: &Path) -> Option<(&'static str, String)> {
    LOCAL_MODEL_FILES.into_iter().find_map(|file| {
        let path = directory.join(file);
        // Only regular files are opened, because opening others may block.
        let checked = std::fs::metadata(&path).and_then(|found| match found.is_file() {
            true => File::open(&path).map(drop),
            false => Err(std::io::Error::other("it is not a regular file")),
        });
        checked.err().map(|error| (file, error.to_string()))
    })
}

fn local_model(scope: &Scope) -> Vec<Finding> {
    if !scope.uses_local() {
        let meaning = "no visible vector table uses it";
        return vec![Finding::fine("local_model", "", meaning)];
    }
    let directory = guc::local_model_path();
    let Some((file, reason)) = unreadable(&directory) else { return Vec::new() };
    let shown = match scope.sees_server {
        true => directory.join(file).display().to_string(),
        false => file.to_string(),
    };
    let meaning = format!("this file of the local model cannot be read: {reason}");
    let default = guc::default_model_path();
    let remedy = match directory != default && unreadable(&default).is_none() {
        true => remedy::set("embedd.local_model_path", "''"),
        false => {
            "Fetch the model: make model PG_CONFIG=..., or set embedd.local_model_path.".to_string()
        }
    };
    vec![Finding::problem("local_model", &shown, meaning).with(remedy)]
}
