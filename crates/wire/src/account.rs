//! The identity of an account with a service. Rate limits, connections and failures belong to an account.

use sha2::{Digest, Sha256};

use crate::Provider;

/// A hash of everything that decides where requests go and which key pays for them.
pub type AccountId = [u8; 32];

/// The account of a provider. Two providers are two accounts even with the same key: each has its own limits, and
/// neither reveals anything about the other.
pub fn account(provider: &Provider) -> AccountId {
    let mut hash = Sha256::new();
    hash.update(provider.database.to_le_bytes());
    hash.update(provider.server.to_le_bytes());
    let mut add = |word: &str| {
        // Length prefixes keep two different lists of words from having the same hash.
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word);
    };
    add(provider.kind.as_str());
    add(provider.base_url.as_deref().unwrap_or_default());
    add(provider.api_key.as_ref().map_or("", |key| key.expose()));
    add(provider.key_header.as_deref().unwrap_or_default());
    for (name, value) in &provider.headers {
        add(name);
        add(value.expose());
    }
    hash.finalize().into()
}
