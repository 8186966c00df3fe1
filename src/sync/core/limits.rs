//! How much one worker gives the embedder at a time: enough to fill its requests, and no more. Pure.

use std::collections::HashMap;

use embedd_wire::{AccountId, Priority};

/// Bytes of documents and of the vectors expected for them: far less than the embedder accepts for one account.
const BYTES: usize = 16 << 20;

/// Texts for the local model, which would only keep others waiting behind more.
const LOCAL_TEXTS: usize = 256;

/// What has limits of its own: the changes of one account wait neither for its backfills nor for another account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    pub account: AccountId,
    pub priority: Priority,
    pub is_local: bool,
}

/// What the embedder has of one share.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    texts: usize,
    bytes: usize,
    /// It was full and is not half empty yet: filling up half of it at once makes full requests.
    is_draining: bool,
}

/// What the embedder has of this worker.
#[derive(Clone, Debug)]
pub struct InFlightLimits {
    shares: HashMap<Share, Amount>,
    texts: usize,
}

impl InFlightLimits {
    /// Limits of so many texts for each share.
    pub fn new(texts: usize) -> Self {
        Self { shares: HashMap::new(), texts }
    }

    /// Follows the setting.
    pub fn set_texts(&mut self, texts: usize) {
        self.texts = texts;
    }

    /// Whether more may be sent of a share.
    pub fn has_room(&self, share: Share) -> bool {
        self.shares.get(&share).is_none_or(|amount| !amount.is_draining)
    }

    /// Notes that so much was sent.
    pub fn add(&mut self, share: Share, texts: usize, bytes: usize) {
        let limit = self.limit(share);
        let amount = self.shares.entry(share).or_default();
        amount.texts += texts;
        amount.bytes += bytes;
        amount.is_draining |= amount.texts >= limit || amount.bytes >= BYTES;
    }

    /// Notes that so much has come back.
    pub fn remove(&mut self, share: Share, texts: usize, bytes: usize) {
        let limit = self.limit(share);
        let Some(amount) = self.shares.get_mut(&share) else { return };
        amount.texts = amount.texts.saturating_sub(texts);
        amount.bytes = amount.bytes.saturating_sub(bytes);
        amount.is_draining &= amount.texts > limit / 2 || amount.bytes > BYTES / 2;
        if amount.texts == 0 {
            self.shares.remove(&share);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.shares.clear();
    }

    /// Texts of a share that may be in flight.
    fn limit(&self, share: Share) -> usize {
        if share.is_local { self.texts.min(LOCAL_TEXTS) } else { self.texts }
    }
}

/// What a vector table may take from its backlog now.
#[derive(Clone, Copy, Debug)]
pub struct Room<'a> {
    pub limits: &'a InFlightLimits,
    /// Keys of a batch.
    pub batch_texts: usize,
    /// The worker is about to leave: it stores what is paid for, and begins nothing.
    pub is_draining: bool,
    /// Nothing is loaded: the embedder was lost a moment ago.
    pub is_closed: bool,
    /// A text may have ended the embedder: a request has at most so many, and there is one at a time.
    pub quarantine_texts: Option<usize>,
    /// A request of any vector table is in flight.
    pub has_requests: bool,
}
