//! A cache of the vectors of earlier questions, bounded by bytes.

use embedd_wire::{Embeddings, InputType, Request, account};
use lru::LruCache;
use sha2::{Digest, Sha256};

/// Bytes an entry takes besides its vector: its key, its links and its slot in the table, rounded up.
const ENTRY_BYTES: usize = 160;

/// A hash of a question and its model.
pub type Key = [u8; 32];

/// The key of a text of a request.
pub fn key(request: &Request, text: &str) -> Key {
    let kind = match request.input_type {
        InputType::Query => b'q',
        InputType::Document => b'd',
    };
    let mut hash = Sha256::new();
    hash.update([kind]);
    hash.update(request.model.dimensions.to_le_bytes());
    hash.update(account(&request.provider));
    // Length prefixes keep two different lists of words from having the same key.
    for word in [request.model.name.as_str(), text] {
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word);
    }
    hash.finalize().into()
}

/// A cached vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The vector.
    pub vector: Box<[f32]>,
    /// Whether the text was truncated.
    pub truncated: bool,
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + size_of_val(&*self.vector)
    }
}

/// The cached vectors of a request's texts.
pub struct Lookup {
    generation: u64,
    dimensions: usize,
    texts: Vec<(Key, Option<Entry>)>,
}

/// The vectors of questions; the least recently used is evicted first.
pub struct QueryCache {
    entries: LruCache<Key, Entry>,
    bytes: usize,
    limit: usize,
    generation: u64,
    hits: u64,
    misses: u64,
}

impl QueryCache {
    /// A cache of this many bytes; 0 caches nothing.
    pub fn new(limit: usize) -> QueryCache {
        let entries = LruCache::unbounded();
        QueryCache { entries, bytes: 0, limit, generation: 0, hits: 0, misses: 0 }
    }

    /// The entry of a key.
    pub fn get(&mut self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The generation of the cache, which changes with every [`QueryCache::clear`].
    #[cfg(test)]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Inserts a vector, unless the cache was cleared since this generation.
    pub fn insert(&mut self, generation: u64, key: Key, entry: Entry) {
        if generation != self.generation || entry.bytes() > self.limit {
            return;
        }
        self.bytes += entry.bytes();
        if let Some(old) = self.entries.put(key, entry) {
            self.bytes -= old.bytes();
        }
        self.shrink();
    }

    /// Looks up a request's texts; only those not found stay in the request.
    pub fn look_up(&mut self, request: &mut Request) -> Lookup {
        let keys = request.texts.iter().map(|text| key(request, text));
        let texts: Vec<_> = keys.map(|key| (key, self.get(&key).cloned())).collect();
        let mut found = texts.iter().map(|(_, entry)| entry.is_some());
        request.texts.retain(|_| !found.next().unwrap_or(false));
        let missing = request.texts.len();
        self.misses += missing as u64;
        self.hits += (texts.len() - missing) as u64;
        let dimensions = request.model.dimensions as usize;
        Lookup { generation: self.generation, dimensions, texts }
    }

    /// Combines the cached vectors with the new ones, and caches the new ones.
    pub fn complete(&mut self, lookup: Lookup, fresh: &Embeddings) -> Embeddings {
        let mut all = Embeddings { dimensions: lookup.dimensions, ..Embeddings::default() };
        let mut next = 0;
        for (position, (key, known)) in (0..).zip(lookup.texts) {
            let entry = known.unwrap_or_else(|| {
                let truncated = fresh.truncated.get(next).copied().unwrap_or(false);
                let entry = Entry { vector: fresh.vector(next).into(), truncated };
                match fresh.refused.iter().find(|(number, _)| *number as usize == next) {
                    Some((_, reason)) => all.refused.push((position, reason.clone())),
                    None => self.insert(lookup.generation, key, entry.clone()),
                }
                next += 1;
                entry
            });
            all.values.extend_from_slice(&entry.vector);
            all.truncated.push(entry.truncated);
        }
        all
    }

    /// Bytes in use, hits and misses since the start.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.bytes as u64, self.hits, self.misses)
    }

    /// Changes the limit.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.shrink();
    }

    /// Clears the cache; vectors being computed at this moment will not be inserted.
    pub fn clear(&mut self) {
        self.entries = LruCache::unbounded();
        self.bytes = 0;
        self.generation += 1;
    }

    fn shrink(&mut self) {
        while self.bytes > self.limit {
            match self.entries.pop_lru() {
                Some((_, old)) => self.bytes -= old.bytes(),
                None => self.bytes = 0,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedd_wire::Priority;
    use embedd_wire::{Model, Provider};

    fn request(provider: &str, model: &str, dimensions: u32, input_type: InputType) -> Request {
        let base_url = Some(provider.to_string());
        Request {
            id: 1,
            provider: Provider { base_url, ..Provider::local() },
            model: Model::of_unknown_limits(model, dimensions),
            input_type,
            priority: Priority::Question,
            more: false,
            timeout_ms: 0,
            is_test: false,
            texts: Vec::new(),
        }
    }

    fn entry(first: f32) -> Entry {
        Entry { vector: vec![first; 100].into(), truncated: false }
    }

    #[test]
    fn the_key_covers_everything_but_the_id() {
        let plain = request("local", "m", 3, InputType::Query);
        let same = key(&plain, "text");
        assert_eq!(same, key(&Request { id: 9, ..plain.clone() }, "text"));
        assert_ne!(same, key(&plain, "texts"));
        assert_ne!(same, key(&request("locale", "m", 3, InputType::Query), "text"));
        assert_ne!(same, key(&request("local", "n", 3, InputType::Query), "text"));
        assert_ne!(same, key(&request("local", "m", 4, InputType::Query), "text"));
        assert_ne!(
            key(&request("ab", "c", 3, InputType::Query), "d"),
            key(&request("a", "bc", 3, InputType::Query), "d")
        );
        assert_ne!(same, key(&request("local", "m", 3, InputType::Document), "text"));
    }

    #[test]
    fn cached_texts_leave_the_request_and_come_back_in_order() {
        let mut cache = QueryCache::new(1 << 20);
        let mut first = request("local", "m", 2, InputType::Query);
        first.texts = vec!["a".to_string(), "b".to_string()];
        let lookup = cache.look_up(&mut first);
        assert_eq!(first.texts, ["a", "b"]);
        let (values, truncated) = (vec![1.0, 2.0, 3.0, 4.0], vec![true, false]);
        let fresh = Embeddings { dimensions: 2, values, truncated, ..Embeddings::default() };
        assert_eq!(cache.complete(lookup, &fresh), fresh);

        let mut second = first.clone();
        second.texts = ["b", "c", "a"].map(String::from).to_vec();
        let lookup = cache.look_up(&mut second);
        assert_eq!(second.texts, ["c"]);
        let fresh = Embeddings {
            dimensions: 2,
            values: vec![5.0, 6.0],
            truncated: vec![false],
            ..Embeddings::default()
        };
        let all = cache.complete(lookup, &fresh);
        assert_eq!(all.values, [3.0, 4.0, 5.0, 6.0, 1.0, 2.0]);
        assert_eq!(all.truncated, [false, false, true]);
    }

    #[test]
    fn the_least_recently_used_is_evicted_first() {
        let mut cache = QueryCache::new(2 * entry(0.0).bytes());
        cache.insert(0, [1; 32], entry(1.0));
        cache.insert(0, [2; 32], entry(2.0));
        assert_eq!(cache.get(&[1; 32]), Some(&entry(1.0)));
        cache.insert(0, [3; 32], entry(3.0));
        assert_eq!(cache.get(&[2; 32]), None);
        assert_eq!(cache.get(&[1; 32]), Some(&entry(1.0)));
        assert_eq!(cache.get(&[3; 32]), Some(&entry(3.0)));
    }

    #[test]
    fn bytes_are_counted_and_bounded() {
        let mut cache = QueryCache::new(3 * entry(0.0).bytes());
        for n in 0..50 {
            cache.insert(0, [n; 32], entry(f32::from(n)));
            cache.insert(0, [n; 32], entry(0.5));
        }
        assert_eq!(cache.bytes, 3 * entry(0.0).bytes());
        assert_eq!(cache.entries.len(), 3);
        cache.set_limit(entry(0.0).bytes());
        assert_eq!(cache.entries.len(), 1);
        assert_eq!(cache.get(&[49; 32]), Some(&entry(0.5)));
        cache.set_limit(0);
        cache.insert(0, [1; 32], entry(1.0));
        assert_eq!((cache.entries.len(), cache.bytes), (0, 0));
    }

    #[test]
    fn a_vector_begun_before_a_clear_is_not_cached() {
        let mut cache = QueryCache::new(1 << 20);
        let before = cache.generation();
        cache.insert(before, [1; 32], entry(1.0));
        cache.clear();
        cache.insert(before, [2; 32], entry(2.0));
        assert_eq!(cache.get(&[1; 32]), None);
        assert_eq!(cache.get(&[2; 32]), None);
        cache.insert(cache.generation(), [2; 32], entry(2.0));
        assert_eq!(cache.get(&[2; 32]), Some(&entry(2.0)));
    }
}
