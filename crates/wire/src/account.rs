//! What tells one account with a service from another: limits, connections and trouble belong to it.

use sha2::{Digest, Sha256};

use crate::Provider;

/// A hash of everything that decides who is asked and who pays.
pub type AccountId = [u8; 32];

/// The account of a provider. Two providers are two accounts, also with the same key: each has limits of its own, and
/// nobody learns of the other.
pub fn account(provider: &Provider) -> AccountId {
    let mut hash = Sha256::new();
    hash.update(provider.database.to_le_bytes());
    hash.update(provider.server.to_le_bytes());
    let mut add = |word: &str| {
        // Lengths keep two different lists of words from running together into one.
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
