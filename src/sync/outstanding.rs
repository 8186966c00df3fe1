//! How much the embedder has of a worker, for each account and urgency: enough to fill its requests, and not more.

use std::collections::HashMap;

use embedd_wire::{AccountId, Priority};

use crate::guc;

/// Bytes of texts and of the vectors expected for them: far less than the embedder takes in of one account.
const BYTES: usize = 16 << 20;

/// Texts for the local model, which would only keep others waiting behind more.
const LOCAL_TEXTS: usize = 256;

/// For what there is a share of its own: one account's changes do not wait for its backfills, nor for another account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Share {
    pub account: AccountId,
    pub priority: Priority,
    pub is_local: bool,
}

/// What is outstanding of one share.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    texts: usize,
    bytes: usize,
    /// It was full and is not half done yet: filling up half of it at once makes full requests.
    is_draining: bool,
}

/// What is outstanding.
#[derive(Debug, Default)]
pub struct Outstanding {
    shares: HashMap<Share, Amount>,
}

impl Outstanding {
    /// Whether more may be sent of a share.
    pub fn has_room(&self, share: Share) -> bool {
        self.shares.get(&share).is_none_or(|amount| !amount.is_draining)
    }

    /// Notes that so much was sent.
    pub fn add(&mut self, share: Share, texts: usize, bytes: usize) {
        let amount = self.shares.entry(share).or_default();
        amount.texts += texts;
        amount.bytes += bytes;
        amount.is_draining |= amount.texts >= limit(share) || amount.bytes >= BYTES;
    }

    /// Notes that so much has come back.
    pub fn remove(&mut self, share: Share, texts: usize, bytes: usize) {
        let Some(amount) = self.shares.get_mut(&share) else { return };
        amount.texts = amount.texts.saturating_sub(texts);
        amount.bytes = amount.bytes.saturating_sub(bytes);
        amount.is_draining &= amount.texts > limit(share) / 2 || amount.bytes > BYTES / 2;
        if amount.texts == 0 {
            self.shares.remove(&share);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.shares.clear();
    }
}

/// Texts of a share that may be outstanding.
fn limit(share: Share) -> usize {
    let texts = guc::texts_in_flight();
    if share.is_local { texts.min(LOCAL_TEXTS) } else { texts }
}
