//! The transactions of batches at the batch API of a provider: reads new texts, notes batches, stores what they bring.

use embedd_wire::{BatchText, Embeddings};
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::load::{self, RowAction};
use super::scan::page;
use super::{apply, failure};
use crate::catalog::VectorTable;
use crate::client::beginning;
use crate::error::Result;
use crate::provider_batch::{self, text_id};
use crate::sync::core::{BatchOutcome, BatchStep, Document, Failure, Loaded, Lookup};
use crate::sync::table::Table;
use crate::task::{self, Phase};
use crate::transaction::{self, Timeout, TxError};
use crate::trigger::touch_at_commit;

/// Keys whose texts are read together: each text has at most a megabyte.
const KEYS_AT_ONCE: usize = 100;
/// Bytes of texts that one step reads.
const BYTES_OF_STEP: usize = 8 << 20;

/// Runs a step that is a transaction, for the task and attempt that wait for the batches.
pub fn run(
    table: &Table,
    task: Option<(i64, i32)>,
    step: &BatchStep,
) -> (BatchOutcome, Option<Failure>) {
    let ended = match step {
        BatchStep::Read { after } => read_page(table, task, after.as_deref()),
        step => transaction::bounded(Timeout::Usual, || {
            Spi::connect_mut(|client| run_in(client, table, task, step))
        }),
    };
    match ended {
        Ok(outcome) => (outcome, None),
        Err(error) => (BatchOutcome::Failed, Some(failure(table, error))),
    }
}

fn run_in(
    client: &mut SpiClient<'_>,
    table: &Table,
    task: Option<(i64, i32)>,
    step: &BatchStep,
) -> Result<BatchOutcome> {
    let id = table.config.id;
    if matches!(step, BatchStep::Plan { .. } | BatchStep::Store { .. }) {
        // The provider is asked to work on the batch, or to delete it, as soon as this is committed.
        client.update("set local synchronous_commit = local", None, &[])?;
    }
    match step {
        BatchStep::Resume => Ok(BatchOutcome::Resumed(provider_batch::noted(client, id)?)),
        BatchStep::Plan { ids } => {
            if !is_current(client, task)? {
                return Ok(BatchOutcome::Overtaken);
            }
            let provider = &table.config.provider;
            Ok(BatchOutcome::Planned(provider_batch::plan(client, id, provider, ids.clone())?))
        }
        BatchStep::SetName { token, name, left_out } => {
            provider_batch::set_name(client, id, token, name, left_out.clone())?;
            Ok(BatchOutcome::Done)
        }
        BatchStep::SetDone { token, done } => {
            provider_batch::set_done(client, token, *done)?;
            Ok(BatchOutcome::Done)
        }
        BatchStep::Store { token, end } => {
            let is_complete = provider_batch::end(client, id, token, end)?;
            touch_at_commit();
            Ok(BatchOutcome::Ended { is_complete })
        }
        BatchStep::Forget { token } => {
            Ok(BatchOutcome::Ended { is_complete: provider_batch::forget(client, token)? })
        }
        BatchStep::Finish => {
            if !is_current(client, task)? {
                return Ok(BatchOutcome::Overtaken);
            }
            set_phase(client, table, task, Phase::Source)?;
            // The other workers use the vectors from now on.
            touch_at_commit();
            Ok(BatchOutcome::Done)
        }
        BatchStep::Read { .. } | BatchStep::Ask(_) => Ok(BatchOutcome::Done),
    }
}

/// Stores the phase of a task. Until the pages before it are complete a restart has to begin with them: then the phase
/// is stored with the first page behind it.
fn set_phase(
    client: &mut SpiClient<'_>,
    table: &Table,
    task: Option<(i64, i32)>,
    phase: Phase,
) -> Result<()> {
    match task {
        Some((id, _)) if table.sync.may_store_phase() => task::set_phase(client, id, phase),
        _ => Ok(()),
    }
}

/// Whether a task is still as it was begun.
fn is_current(client: &mut SpiClient<'_>, task: Option<(i64, i32)>) -> Result<bool> {
    match task {
        Some((id, attempt)) => task::is_current(client, id, attempt),
        None => Ok(false),
    }
}

/// Reads the next page of the source: those of its texts that have no vector and are not at the provider. A row of which no
/// document can be made is left to the scan, which notes it as failed.
fn read_page(
    table: &Table,
    task: Option<(i64, i32)>,
    after: Option<&str>,
) -> std::result::Result<BatchOutcome, TxError> {
    let mut config = table.config.clone();
    transaction::bounded(Timeout::Usual, || {
        config.pin()?;
        Spi::connect_mut(|client| {
            if !is_current(client, task)? {
                return Ok(BatchOutcome::Overtaken);
            }
            if after.is_none() {
                set_phase(client, table, task, Phase::ProviderBatch)?;
            }
            let found = page::all_of_source(client, &config, after)?;
            // What has changed is embedded without a batch, or is already.
            let mut keys = found.keys;
            keys.retain(|key| !table.sync.has_key(key));
            let (texts, read) = new_texts(client, &config, &keys)?;
            // The next step goes on behind the last key that was read.
            let last = match read == keys.len() {
                true => found.last,
                false => read.checked_sub(1).and_then(|at| keys.get(at)).cloned(),
            };
            Ok(BatchOutcome::Texts { texts, last })
        })
    })
}

/// The texts of some keys that have to be embedded and are not at the provider yet, and how many of the keys were read:
/// not all where the texts are large.
fn new_texts(
    client: &SpiClient<'_>,
    config: &VectorTable,
    keys: &[String],
) -> Result<(Vec<BatchText>, usize)> {
    let (mut texts, mut bytes, mut read) = (Vec::new(), 0, 0);
    for part in keys.chunks(KEYS_AT_ONCE) {
        if bytes >= BYTES_OF_STEP {
            break;
        }
        read += part.len();
        let mut found: Vec<BatchText> = Vec::new();
        transaction::isolate(0..part.len() as i64, |rows| {
            let part = &part[rows.start as usize..rows.end as usize];
            let unstored =
                transaction::nested_read(|| Spi::connect(|client| unstored(client, config, part)));
            found.extend(unstored?);
            Ok(())
        })?;
        let ids = found.iter().map(|text| text.id.clone()).collect();
        let known = provider_batch::known(client, config.id, ids)?;
        found.retain(|text| !known.contains(&text.id));
        bytes += found.iter().map(|text| text.text.len()).sum::<usize>();
        texts.append(&mut found);
    }
    Ok((texts, read))
}

/// The texts of some keys for which no vector is stored.
fn unstored(
    client: &SpiClient<'_>,
    config: &VectorTable,
    keys: &[String],
) -> Result<Vec<BatchText>> {
    let mut texts = Vec::new();
    let mut left: Vec<&str> = keys.iter().map(String::as_str).collect();
    while !left.is_empty() {
        let actions = load::row_actions(client, config, &left, Lookup::Index)?;
        let mut unread = Vec::new();
        for (key, action) in left.iter().zip(actions) {
            match action {
                None => unread.push(*key),
                Some(RowAction::Embed(document)) => {
                    let id = id_of(config, &document.text);
                    texts.push(BatchText { id, text: beginning(&document.text).to_string() });
                }
                Some(_) => {}
            }
        }
        if unread.len() == left.len() {
            break;
        }
        left = unread;
    }
    Ok(texts)
}

fn id_of(config: &VectorTable, text: &str) -> String {
    let prefix = &config.stored.document_prefix;
    text_id(&config.model, config.dimensions, prefix, beginning(text))
}

/// Stores documents whose vectors have come from the batch API: they are complete then.
pub fn take(client: &mut SpiClient<'_>, config: &VectorTable, loaded: &mut Loaded) -> Result<()> {
    let ids: Vec<String> =
        loaded.to_embed.iter().map(|(_, document)| id_of(config, &document.text)).collect();
    let vectors = provider_batch::vectors(client, config.id, ids.clone())?;
    if vectors.is_empty() {
        return Ok(());
    }
    let mut documents: Vec<Document> = Vec::new();
    let dimensions = config.dimensions as usize;
    let mut embeddings = Embeddings { dimensions, ..Embeddings::default() };
    for ((number, document), id) in std::mem::take(&mut loaded.to_embed).into_iter().zip(ids) {
        match vectors.get(&id).filter(|vector| vector.values.len() == dimensions) {
            Some(vector) => {
                embeddings.values.extend_from_slice(&vector.values);
                embeddings.truncated.push(vector.is_truncated);
                documents.push(document);
                loaded.complete.push(number);
            }
            None => loaded.to_embed.push((number, document)),
        }
    }
    if !documents.is_empty() {
        apply::write_vectors(client, config, &documents, &embeddings)?;
    }
    Ok(())
}
