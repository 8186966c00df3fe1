//! One batch of keys in one short transaction: its documents are read, or what has come of them is stored.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::apply;
use super::backlog::Taken;
use super::load::{self, Document, Need};
use super::work::Work;
use crate::embedder::wire::Embeddings;
use crate::error::Result as Outcome;
use crate::provider::Provider;
use crate::worker::transaction::{self, RolledBack};
use crate::{catalog, foreign, queue};

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
pub fn load(work: &mut Work, keys: &[Taken]) -> Result<Loaded, RolledBack> {
    transaction::run(|| {
        Spi::connect_mut(|client| {
            let names: Vec<&str> = keys.iter().map(|k| k.key.as_str()).collect();
            let needs = load::needs(client, &work.table, &names)?;
            let mut loaded = Loaded {
                done: vec![],
                unread: vec![],
                to_embed: vec![],
                documents: vec![],
                provider: None,
            };
            let (mut gone, mut rewritten) = (Vec::new(), Vec::new());
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
                }
                loaded.done.push(taken.clone());
            }
            if !loaded.done.is_empty() {
                apply::remove(client, &work.table, &gone)?;
                apply::rewrite(client, &work.table, &rewritten)?;
                forget_failed(client, work, &loaded.done)?;
                finish(client, work, &loaded.done)?;
            }
            if !loaded.to_embed.is_empty() {
                let provider = foreign::provider(&work.table);
                loaded.provider = Some(provider.map_err(RolledBack::from));
            }
            Ok(loaded)
        })
    })
}

/// Stores the vectors of a batch; texts that the provider refuses stand aside with its reason.
pub fn store(
    work: &mut Work,
    keys: &[Taken],
    documents: &[Document],
    embeddings: &Embeddings,
) -> Result<(), RolledBack> {
    work.embedder_answered();
    transaction::run(|| {
        Spi::connect_mut(|client| {
            apply::store(client, &work.table, documents, embeddings)?;
            forget_failed(client, work, keys)?;
            for (number, reason) in &embeddings.refused {
                if let Some(document) = documents.get(*number as usize) {
                    catalog::set_failed(client, work.table.id, &document.pk_value, reason)?;
                }
            }
            finish(client, work, keys)
        })
    })
}

/// Notes a row that cannot be read or stored, with its reason, so that the others go on.
pub fn set_aside(work: &mut Work, keys: &[Taken], failure: &RolledBack) -> Result<(), RolledBack> {
    transaction::run(|| {
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
    queue::remove(client, work.table.id, &work.backlog.rows_done_with(keys))?;
    work.note_success(client)
}
