//! One step of a scan: its checkpoint, and the next page of the source, of the vector table, or of a batch run.

pub mod page;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::{outcome, run, swap, timeout, wake_workers};
use crate::catalog;
use crate::error::Result;
use crate::sync::core::{Find, FoundPage, Lookup, Outcome, ScanStep, Then};
use crate::sync::table::Table;
use crate::task::{self, Kind, Phase};
use crate::transaction;
use crate::{index, provider_batch, queue};

/// Runs a step.
pub fn step(table: &mut Table, step: &ScanStep) -> Outcome {
    let lookup = match &step.then {
        Then::Read(find) => find.lookup,
        _ => Lookup::Index,
    };
    let stepped = transaction::bounded(timeout(lookup), || {
        let reads_source = matches!(step.then, Then::Read(_) | Then::Compare);
        if reads_source && !(table.config.reads_run && matches!(step.then, Then::Read(_))) {
            table.config.pin()?;
        }
        Spi::connect_mut(|client| step_in(client, table, step))
    });
    if let Ok(Outcome::Page(FoundPage { handed_out, .. })) = &stepped
        && !handed_out.is_empty()
    {
        wake_workers();
    }
    outcome(table, stepped)
}

fn step_in(client: &mut SpiClient<'_>, table: &Table, step: &ScanStep) -> Result<Outcome> {
    let (task, config) = (&step.task, &table.config);
    // What takes long must not keep a session from restarting the task: then it is looked at at the end.
    let takes_long = match &step.then {
        Then::Read(find) => find.lookup == Lookup::FullScan,
        Then::Compare => true,
        _ => false,
    };
    if matches!(step.then, Then::Finish) {
        catalog::lock_before_tasks(client, config.id)?;
    }
    if !takes_long && !task::is_current(client, task.id, task.attempt)? {
        return Ok(Outcome::Overtaken);
    }
    let found = match &step.then {
        Then::Read(find) => Some(read(client, table, step, find)?),
        Then::Compare => {
            let (total, equal) = run::compare(client, config, task.kind != Kind::Reconcile)?;
            task::begin_count(client, task.id, total, equal)?;
            None
        }
        _ => None,
    };
    if takes_long && !task::is_current(client, task.id, task.attempt)? {
        return Ok(Outcome::Overtaken);
    }
    if let Some(checkpoint) = &step.checkpoint {
        task::checkpoint(client, task.id, checkpoint)?;
    }
    match &step.then {
        Then::Read(_) => Ok(hand_out(table, found.unwrap_or_default())),
        Then::LookAt(rows) => {
            let count = table.portion.count;
            Ok(Outcome::Left(queue::still_there(client, config.id, count, rows)?))
        }
        Then::Finish => finish(client, table, step),
        Then::Rest | Then::Compare => Ok(Outcome::Done),
    }
}

/// The next page of a phase: which of its keys are to be loaded.
fn read(
    client: &mut SpiClient<'_>,
    table: &Table,
    step: &ScanStep,
    find: &Find,
) -> Result<FoundPage> {
    let config = &table.config;
    let after = find.after.as_deref();
    if config.reads_run {
        return page::of_run(client, after);
    }
    if find.phase != Phase::Orphans {
        return page::of_source(client, config, after, &step.task, find.lookup);
    }
    let found = page::of_orphans(client, config, after, find.lookup)?;
    if found.last.is_none() {
        page::forget_gone(client, config, find.lookup)?;
    }
    Ok(found)
}

/// Gives the other workers their keys of a page.
fn hand_out(table: &Table, found: FoundPage) -> Outcome {
    let portion = table.portion;
    let is_mine = |key: &String| queue::worker_of(key.as_bytes(), portion.count) == portion.index;
    let (mine, others): (Vec<String>, Vec<String>) = found.keys.into_iter().partition(is_mine);
    let others: Vec<&[u8]> = others.iter().map(|key| key.as_bytes()).collect();
    let handed_out = queue::write_paged(table.config.id, portion.count, &others);
    Outcome::Page(FoundPage { keys: mine, handed_out, ..found })
}

/// Ends a task, or leaves it to the indexes that are to be built.
fn finish(client: &mut SpiClient<'_>, table: &Table, step: &ScanStep) -> Result<Outcome> {
    let (task, id) = (&step.task, table.config.id);
    // What a scan before it has handed out, which was restarted, is done with it.
    queue::remove_paged(client, id)?;
    if task.kind != Kind::Reconcile {
        provider_batch::forget_vectors(client, id)?;
    }
    if index::has_deferred(client, id)? {
        task::set_phase(client, task.id, Phase::Index)?;
        return Ok(Outcome::AwaitsIndexes);
    }
    if task.kind == Kind::Rebackfill {
        catalog::delete_earlier_failed(client, id, task.id)?;
    }
    swap::end(client, table, task.id)
}
