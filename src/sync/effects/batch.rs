//! One batch of keys in one transaction: its documents are read, or its vectors are stored, or its row is noted as failed.

use std::cell::Cell;
use std::collections::HashSet;

use embedd_wire::{Priority, Provider};
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::load::{self, RowAction};
use super::{apply, failure, provider_batch, timeout, wake_workers};
use crate::error::Result;
use crate::sync::core::{Batch, BatchId, Blame, Loaded, Lookup, Outcome, Stage, TakenKey};
use crate::sync::table::Table;
use crate::transaction::{self, Timeout, TxError};
use crate::{catalog, fdw, queue, task};

/// The wait for a lock of a row that is looked for or known: the whole batch has waited longer already.
const SHORT_WAIT: &str = "set local lock_timeout = '50ms'";

/// Reads the documents of a batch and does all that needs no provider.
pub fn load(table: &mut Table, id: BatchId) -> Outcome {
    let Some(batch) = table.sync.batch(id).cloned() else { return Outcome::Done };
    let Stage::Load(lookup) = batch.stage else { return Outcome::Done };
    let is_at_rows = Cell::new(false);
    let loaded = transaction::bounded(timeout(lookup), || {
        if !table.config.reads_run {
            table.config.pin()?;
        }
        // Before anything is paid for that could not be stored.
        table.config.pin_vectors();
        is_at_rows.set(true);
        Spi::connect_mut(|client| {
            if batch.looks_for_lock {
                client.update(SHORT_WAIT, None, &[])?;
            }
            load_in(client, table, &batch, lookup)
        })
    });
    match loaded {
        Ok((loaded, provider)) => {
            wake_for_paged(loaded.complete.iter().map(|number| &batch.keys[*number]));
            table.to_send = provider;
            Outcome::Loaded(loaded)
        }
        Err(error) => rolled_back(table, &batch, TxError { is_at_rows: is_at_rows.get(), ..error }),
    }
}

fn load_in(
    client: &mut SpiClient<'_>,
    table: &Table,
    batch: &Batch,
    lookup: Lookup,
) -> Result<(Loaded, Option<Provider>)> {
    let config = &table.config;
    let keys: Vec<&str> = batch.keys.iter().map(|taken| taken.key.as_str()).collect();
    let actions = load::row_actions(client, config, &keys, lookup)?;
    let mut loaded = Loaded::default();
    let (mut gone, mut rewritten, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut reusable = Vec::new();
    for (number, action) in actions.into_iter().enumerate() {
        match action {
            None => {
                loaded.unread.push(number);
                continue;
            }
            Some(RowAction::Embed(document)) => {
                loaded.to_embed.push((number, document));
                continue;
            }
            Some(RowAction::Reuse(document)) => {
                reusable.push((number, document));
                continue;
            }
            Some(RowAction::Nothing) => {}
            Some(RowAction::Remove(pk_value)) => gone.push(pk_value),
            Some(RowAction::Rewrite(document)) => rewritten.push(document),
            Some(RowAction::Refuse(pk_value, reason)) => refused.push((pk_value, reason)),
        }
        loaded.complete.push(number);
    }
    if let Some(reused) = config.reuses.as_ref().filter(|_| !reusable.is_empty()) {
        let documents: Vec<_> = reusable.iter().map(|(_, document)| document.clone()).collect();
        let stored = apply::reuse(client, config, reused, &documents)?;
        for (number, document) in reusable {
            match stored.contains(&document.pk_value) {
                true => loaded.complete.push(number),
                // It has changed there meanwhile.
                false => loaded.to_embed.push((number, document)),
            }
        }
    }
    if table.notes.has_texts && !loaded.to_embed.is_empty() {
        provider_batch::take(client, config, &mut loaded)?;
    }
    loaded.complete.sort_unstable();
    if !loaded.complete.is_empty() {
        apply::remove(client, config, &gone)?;
        apply::rewrite(client, config, &rewritten)?;
        // What was stored before must not answer for a row that is refused.
        let refused_keys: Vec<String> = refused.iter().map(|(key, _)| key.clone()).collect();
        apply::remove(client, config, &refused_keys)?;
        let complete: Vec<&TakenKey> =
            loaded.complete.iter().map(|number| &batch.keys[*number]).collect();
        let sound = complete.iter().filter(|taken| !refused_keys.contains(&taken.key));
        delete_failed(client, table, sound.copied())?;
        for (key, reason) in &refused {
            catalog::set_failed(client, config.id, key, reason)?;
        }
        remove_rows(client, table, complete)?;
    }
    let mut to_send = None;
    if !loaded.to_embed.is_empty() {
        match fdw::provider(config) {
            Ok(provider) => to_send = Some(provider),
            Err(error) => loaded.provider = Some(TxError::from(error).into()),
        }
    }
    Ok((loaded, to_send))
}

/// Stores the vectors of a batch; the rows of texts that the provider refuses are noted as failed, with its reason.
pub fn store(table: &mut Table, id: BatchId) -> Outcome {
    let Some(batch) = table.sync.batch(id).cloned() else { return Outcome::Done };
    let Stage::Store(documents, embeddings) = &batch.stage else { return Outcome::Done };
    let is_at_rows = Cell::new(false);
    let stored = transaction::bounded(Timeout::Usual, || {
        table.config.pin_vectors();
        is_at_rows.set(true);
        Spi::connect_mut(|client| {
            if batch.looks_for_lock {
                client.update(SHORT_WAIT, None, &[])?;
            }
            let config = &table.config;
            // Rows that have gone since they were loaded are not stored, not even until their turn comes.
            let doubtful = table.sync.doubtful_keys(&batch);
            let gone = match doubtful.is_empty() || config.reads_run {
                true => Vec::new(),
                false => load::gone(client, config, &doubtful, Lookup::Index)?,
            };
            let there: Vec<usize> =
                (0..batch.keys.len()).filter(|n| !gone.contains(&batch.keys[*n].key)).collect();
            if gone.is_empty() {
                apply::write_vectors(client, config, documents, embeddings)?;
            } else {
                let documents: Vec<_> = there.iter().map(|n| documents[*n].clone()).collect();
                apply::write_vectors(client, config, &documents, &embeddings.only(&there))?;
            }
            let refused: HashSet<usize> =
                embeddings.refused.iter().map(|(number, _)| *number as usize).collect();
            let sound = batch.keys.iter().enumerate().filter(|(n, _)| !refused.contains(n));
            delete_failed(client, table, sound.map(|(_, taken)| taken))?;
            for (number, reason) in &embeddings.refused {
                let number = *number as usize;
                if let Some(document) = documents.get(number).filter(|_| there.contains(&number)) {
                    catalog::set_failed(client, config.id, &document.pk_value, reason)?;
                }
            }
            remove_rows(client, table, &batch.keys)
        })
    });
    match stored {
        Ok(()) => {
            wake_for_paged(&batch.keys);
            if batch.priority == Priority::Backfill && std::mem::take(&mut table.is_stalled) {
                let id = table.config.id;
                // It is shown to users, and nothing depends on it.
                let _ =
                    transaction::run(|| Spi::connect_mut(|client| task::has_advanced(client, id)));
            }
            Outcome::Done
        }
        Err(error) => rolled_back(table, &batch, TxError { is_at_rows: is_at_rows.get(), ..error }),
    }
}

/// Notes the only row of a batch as failed, with its reason, so that the others go on.
pub fn fail(table: &Table, id: BatchId) -> Outcome {
    let Some(batch) = table.sync.batch(id) else { return Outcome::Done };
    let Stage::Fail(reason) = &batch.stage else { return Outcome::Done };
    let noted = transaction::bounded(Timeout::Usual, || {
        Spi::connect_mut(|client| {
            for taken in &batch.keys {
                let key = table.config.shown(&taken.key);
                catalog::set_failed(client, table.config.id, &key, reason)?;
            }
            remove_rows(client, table, &batch.keys)
        })
    });
    match noted {
        Ok(()) => {
            wake_for_paged(&batch.keys);
            Outcome::Done
        }
        Err(error) => Outcome::Failed(failure(table, error)),
    }
}

/// The outcome of a batch that was rolled back. Where one row is locked, the reason names the session that holds it.
fn rolled_back(table: &Table, batch: &Batch, error: TxError) -> Outcome {
    let mut failure = failure(table, error);
    if let ([taken], Blame::LockedRow) = (&batch.keys[..], failure.blame) {
        let key = &taken.key;
        let holder = transaction::run(|| {
            Spi::connect(|client| load::lock_holder(client, &table.config, key))
        });
        let by = match holder {
            Ok(Some(pid)) => format!(" by process {pid}"),
            _ => String::new(),
        };
        failure.reason = format!(
            "row \"{key}\" waits for a lock held{by}, the others go on ({}). pg_stat_activity shows who holds it.",
            failure.reason
        );
    }
    Outcome::Failed(failure)
}

/// Forgets that these keys once failed.
fn delete_failed<'a>(
    client: &mut SpiClient<'_>,
    table: &Table,
    keys: impl Iterator<Item = &'a TakenKey>,
) -> Result<()> {
    let keys: Vec<String> = keys.map(|taken| table.config.shown(&taken.key)).collect();
    catalog::delete_failed(client, table.config.id, &keys)
}

/// Removes the queue rows that are complete with these keys, in the transaction that did them.
fn remove_rows<'a>(
    client: &mut SpiClient<'_>,
    table: &Table,
    keys: impl IntoIterator<Item = &'a TakenKey>,
) -> Result<()> {
    let rows = table.sync.rows_complete_with(keys);
    queue::remove(client, table.portion, table.config.id, &rows)
}

/// Wakes the worker whose scan has found some of these keys: it waits for them.
fn wake_for_paged<'a>(keys: impl IntoIterator<Item = &'a TakenKey>) {
    if keys.into_iter().any(TakenKey::is_of_another_scan) {
        wake_workers();
    }
}
