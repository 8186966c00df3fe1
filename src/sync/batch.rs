//! One batch of keys in one short transaction: its documents are read, or what has come of them is stored.

use std::cell::Cell;
use std::collections::HashSet;

use embedd_wire::{Embeddings, Provider};
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::apply;
use super::backlog::Taken;
use super::load::{self, By, Document, Need};
use super::work::Work;
use crate::error::Result as Outcome;
use crate::transaction::{self, Patience, RolledBack};
use crate::{catalog, fdw, queue};

/// A batch after its documents were read.
pub struct Loaded {
    pub done: Vec<Taken>,
    /// Not read for lack of room.
    pub unread: Vec<Taken>,
    pub to_embed: Vec<Taken>,
    pub documents: Vec<Document>,
    /// Who is to embed them, when there are any, or why nobody may.
    pub provider: Option<Result<Provider, RolledBack>>,
}

/// Reads the documents and does all that needs no provider, in one transaction.
pub fn load(work: &mut Work, keys: &[Taken], by: By) -> Result<Loaded, RolledBack> {
    let is_at_rows = Cell::new(false);
    let loaded = transaction::bounded(by.patience(), || {
        if !work.table.reads_run {
            work.table.pin()?;
        }
        // Before anything is paid for that could not be stored.
        work.table.pin_vectors();
        is_at_rows.set(true);
        Spi::connect_mut(|client| {
            let names: Vec<&str> = keys.iter().map(|k| k.key.as_str()).collect();
            let needs = load::needs(client, &work.table, &names, by)?;
            let mut loaded = Loaded {
                done: vec![],
                unread: vec![],
                to_embed: vec![],
                documents: vec![],
                provider: None,
            };
            let (mut gone, mut rewritten) = (Vec::new(), Vec::new());
            let (mut refused, mut reasons) = (Vec::new(), Vec::new());
            for (taken, need) in keys.iter().zip(needs) {
                match need {
                    None => {
                        loaded.unread.push(taken.clone());
                        continue;
                    }
                    Some(Need::Embed(document)) => {
                        loaded.to_embed.push(taken.clone());
                        loaded.documents.push(document);
                        continue;
                    }
                    Some(Need::Nothing) => {}
                    Some(Need::Remove(pk_value)) => gone.push(pk_value),
                    Some(Need::Rewrite(document)) => rewritten.push(document),
                    Some(Need::Refuse(pk_value, reason)) => {
                        refused.push(pk_value);
                        reasons.push(reason);
                    }
                }
                loaded.done.push(taken.clone());
            }
            if !loaded.done.is_empty() {
                apply::remove(client, &work.table, &gone)?;
                apply::rewrite(client, &work.table, &rewritten)?;
                // What was stored before must not answer for it.
                apply::remove(client, &work.table, &refused)?;
                let well: Vec<Taken> =
                    loaded.done.iter().filter(|t| !refused.contains(&t.key)).cloned().collect();
                forget_failed(client, work, &well)?;
                for (key, reason) in refused.iter().zip(&reasons) {
                    catalog::set_failed(client, work.table.id, key, reason)?;
                }
                finish(client, work, &loaded.done)?;
            }
            if !loaded.to_embed.is_empty() {
                let provider = fdw::provider(&work.table);
                loaded.provider = Some(provider.map_err(RolledBack::from));
            }
            Ok(loaded)
        })
    });
    loaded.map_err(|failure| RolledBack { is_at_rows: is_at_rows.get(), ..failure })
}

/// Stores the vectors of a batch; texts that the provider refuses stand aside with its reason.
pub fn store(
    work: &mut Work,
    keys: &[Taken],
    documents: &[Document],
    embeddings: &Embeddings,
    looks_for_lock: bool,
) -> Result<(), RolledBack> {
    work.embedder_answered();
    let is_at_rows = Cell::new(false);
    let stored = transaction::bounded(Patience::Some, || {
        work.table.pin_vectors();
        is_at_rows.set(true);
        Spi::connect_mut(|client| {
            if looks_for_lock {
                client.update(SHORT_WAIT, None, &[])?;
            }
            let gone = gone_meanwhile(client, work, keys)?;
            let there: Vec<usize> =
                (0..keys.len()).filter(|n| !gone.contains(&keys[*n].key)).collect();
            if gone.is_empty() {
                apply::store(client, &work.table, documents, embeddings)?;
            } else {
                let documents: Vec<Document> =
                    there.iter().map(|n| documents[*n].clone()).collect();
                apply::store(client, &work.table, &documents, &embeddings.only(&there))?;
            }
            let refused: HashSet<u32> = embeddings.refused.iter().map(|(n, _)| *n).collect();
            let well: Vec<Taken> = (0..)
                .zip(keys)
                .filter(|(n, _)| !refused.contains(n))
                .map(|(_, taken)| taken.clone())
                .collect();
            forget_failed(client, work, &well)?;
            for (number, reason) in &embeddings.refused {
                if let Some(document) =
                    documents.get(*number as usize).filter(|_| there.contains(&(*number as usize)))
                {
                    catalog::set_failed(client, work.table.id, &document.pk_value, reason)?;
                }
            }
            finish(client, work, keys)
        })
    });
    stored.map_err(|failure| RolledBack { is_at_rows: is_at_rows.get(), ..failure })
}

/// The wait for a lock of a row while it is looked for: the whole batch has waited longer already.
const SHORT_WAIT: &str = "set local lock_timeout = '50ms'";

/// Why one row cannot be stored: another session has locked it. Names its process where that can be found out.
pub fn locked_reason(work: &Work, key: &str, failure: &RolledBack) -> String {
    let table = &work.table;
    let holder = transaction::run(|| Spi::connect(|client| load::lock_holder(client, table, key)));
    let by = match holder {
        Ok(Some(pid)) => format!(" by process {pid}"),
        _ => String::new(),
    };
    format!(
        "row \"{key}\" waits for a lock held{by}, the others go on ({}). pg_stat_activity shows who holds it.",
        failure.message
    )
}

/// Keys whose rows have gone since they were read: they are not stored, not even until their turn comes.
fn gone_meanwhile(client: &mut SpiClient<'_>, work: &Work, keys: &[Taken]) -> Outcome<Vec<String>> {
    let doubtful = keys.iter().filter(|k| work.is_swept() || work.backlog.has_newer(&k.key));
    let doubtful: Vec<String> = doubtful.map(|k| k.key.clone()).collect();
    match doubtful.is_empty() || work.table.reads_run {
        true => Ok(Vec::new()),
        false => load::gone(client, &work.table, &doubtful, By::Key),
    }
}

/// Notes a row that cannot be read or stored, with its reason, so that the others go on.
pub fn set_aside(work: &mut Work, keys: &[Taken], failure: &RolledBack) -> Result<(), RolledBack> {
    transaction::bounded(Patience::Some, || {
        Spi::connect_mut(|client| {
            for taken in keys {
                let key = work.table.shown(&taken.key);
                catalog::set_failed(client, work.table.id, &key, &failure.message)?;
            }
            finish(client, work, keys)
        })
    })
}

/// Forgets that these keys once failed.
fn forget_failed(client: &mut SpiClient<'_>, work: &Work, keys: &[Taken]) -> Outcome<()> {
    let keys: Vec<String> = keys.iter().map(|k| work.table.shown(&k.key)).collect();
    catalog::forget_failed(client, work.table.id, &keys)
}

/// Removes the rows of the queue that are done with these keys, in the transaction that did them.
fn finish(client: &mut SpiClient<'_>, work: &mut Work, keys: &[Taken]) -> Outcome<()> {
    let rows = work.backlog.rows_done_with(keys);
    queue::remove(client, work.portion, work.table.id, &rows)?;
    work.note_success(client)
}
