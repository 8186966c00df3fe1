//! The record of the fake: counters, which cost nothing, and every request, unless a bench disables that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::dialect::Asked;
use super::http::{Request, header};
use super::reply::Fault;

/// How often a wait checks conditions that do not depend on the record.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// A request as received.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it was received completely.
    pub at: Instant,
    /// "POST"; a "GET" if the client followed a redirect.
    pub method: String,
    /// The target in the first line, with its query.
    pub path: String,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body; null if it is not JSON.
    pub body: Value,
    /// The texts; empty if the request could not be parsed.
    pub texts: Vec<String>,
    /// The model.
    pub model: String,
    /// The input type, as encoded.
    pub input_type: Option<String>,
    /// The requested dimensions.
    pub dimensions: Option<usize>,
    /// Whether base64 is requested.
    pub base64: bool,
    /// The key, from any header.
    pub key: Option<String>,
    /// The number of its connection, from 1.
    pub connection: u64,
    /// The status of its answer; None until then, or if the answer was not sent completely.
    pub answered: Option<u16>,
}

impl Seen {
    /// The first value of a header, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// The recorded state.
#[derive(Default)]
pub(super) struct Record {
    pub connections: AtomicU64,
    pub failed_handshakes: AtomicU64,
    pub requests: AtomicU64,
    pub texts: AtomicU64,
    pub answered: AtomicU64,
    pub abandoned: AtomicU64,
    pub bytes_sent: AtomicU64,
    pub max_concurrent: AtomicU64,
    pub paid: AtomicU64,
    concurrent: AtomicU64,
    /// Whether only counters are kept.
    counters_only: bool,
    seen: Mutex<Vec<Seen>>,
    paid_texts: Mutex<HashMap<String, u64>>,
    changes: Mutex<u64>,
    changed: Condvar,
}

/// A lock that stays usable after a failed test.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// A record of everything, or of the counters only.
    pub fn new(everything: bool) -> Record {
        Record { counters_only: !everything, ..Record::default() }
    }

    /// Records a request; the result represents it until it is answered.
    pub fn arrived(
        &self,
        request: &Request,
        asked: Option<&Asked>,
        key: Option<&str>,
        connection: u64,
    ) -> Arrived<'_> {
        let place = (!self.counters_only).then(|| {
            let mut seen = lock(&self.seen);
            seen.push(Seen {
                at: Instant::now(),
                method: request.method.clone(),
                path: request.path.clone(),
                headers: request.headers.clone(),
                body: serde_json::from_slice(&request.body).unwrap_or_default(),
                texts: asked.map(|asked| asked.texts.clone()).unwrap_or_default(),
                model: asked.map(|asked| asked.model.clone()).unwrap_or_default(),
                input_type: asked.and_then(|asked| asked.input_type.clone()),
                dimensions: asked.and_then(|asked| asked.dimensions),
                base64: asked.is_some_and(|asked| asked.base64),
                key: key.map(str::to_string),
                connection,
                answered: None,
            });
            seen.len() - 1
        });
        self.count(asked.map_or(0, |asked| asked.texts.len()));
        Arrived { record: self, place, working: AtomicBool::new(true) }
    }

    /// Counts a received request as unanswered.
    pub fn count(&self, texts: usize) {
        self.texts.fetch_add(texts as u64, Ordering::Relaxed);
        let now = self.concurrent.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_concurrent.fetch_max(now, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// Counts a request as no longer in progress.
    pub fn uncount(&self) {
        self.concurrent.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests not answered yet.
    pub fn concurrent(&self) -> u64 {
        self.concurrent.load(Ordering::Relaxed)
    }

    /// Wakes waiters.
    pub fn tell(&self) {
        *lock(&self.changes) += 1;
        self.changed.notify_all();
    }

    /// Waits until a condition on the record holds; false after the limit.
    pub fn wait(&self, limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + limit;
        loop {
            // Read before the check, so that an event during the check is not missed.
            let before = *lock(&self.changes);
            if holds() {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let changes = lock(&self.changes);
            let slice = left.min(BETWEEN_LOOKS);
            drop(self.changed.wait_timeout_while(changes, slice, |changes| *changes == before));
        }
    }

    /// All recorded requests, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.insist("requests()");
        lock(&self.seen).clone()
    }

    /// How many valid vectors were sent for a text.
    pub fn paid(&self, text: &str) -> u64 {
        self.insist("paid()");
        lock(&self.paid_texts).get(text).copied().unwrap_or(0)
    }

    /// Texts with more than one valid vector sent, and how many.
    pub fn paid_more_than_once(&self) -> Vec<(String, u64)> {
        self.insist("paid_more_than_once()");
        let mut many: Vec<(String, u64)> = lock(&self.paid_texts)
            .iter()
            .filter(|(_, times)| **times > 1)
            .map(|(text, times)| (text.clone(), *times))
            .collect();
        many.sort();
        many
    }

    /// Deletes the requests; the counters stay.
    pub fn forget(&self) {
        lock(&self.seen).clear();
    }

    fn insist(&self, wish: &str) {
        assert!(!self.counters_only, "{wish} of a fake made with record(false)");
    }

    /// Records that texts of a batch are paid for.
    pub fn pay_for(&self, texts: &[String]) {
        self.paid.fetch_add(texts.len() as u64, Ordering::Relaxed);
        if !self.counters_only {
            let mut paid = lock(&self.paid_texts);
            texts.iter().for_each(|text| *paid.entry(text.clone()).or_default() += 1);
        }
        self.tell();
    }

    /// Records valid vectors as sent, or reverts that.
    fn pay(&self, asked: &Asked, fault: &Fault, back: bool) {
        let good = asked.texts.iter().filter(|text| fault.spares(text));
        let mut count = 0;
        if self.counters_only {
            count = good.count() as u64;
        } else {
            let mut paid = lock(&self.paid_texts);
            for text in good {
                count += 1;
                match paid.get_mut(text) {
                    Some(times) if back => *times -= 1,
                    Some(times) => *times += 1,
                    None => drop(paid.insert(text.clone(), 1)),
                }
            }
        }
        match back {
            false => self.paid.fetch_add(count, Ordering::Relaxed),
            true => self.paid.fetch_sub(count, Ordering::Relaxed),
        };
    }
}

/// A request in progress, until it is dropped.
pub(super) struct Arrived<'a> {
    record: &'a Record,
    place: Option<usize>,
    working: AtomicBool,
}

impl Arrived<'_> {
    /// Records an answer. Called before the last byte is sent, because a test checks as soon as its client has that
    /// byte; `unanswered` reverts it if the byte could not be sent.
    pub fn answered(&self, status: u16, vectors: Option<(&Asked, &Fault)>) {
        self.done();
        self.note(Some(status));
        self.record.answered.fetch_add(1, Ordering::Relaxed);
        if let Some((asked, fault)) = vectors {
            self.record.pay(asked, fault, false);
        }
        self.record.tell();
    }

    /// Reverts `answered`.
    pub fn unanswered(&self, vectors: Option<(&Asked, &Fault)>) {
        self.note(None);
        self.record.answered.fetch_sub(1, Ordering::Relaxed);
        if let Some((asked, fault)) = vectors {
            self.record.pay(asked, fault, true);
        }
        self.record.tell();
    }

    /// Records that the client disconnected before the answer.
    pub fn abandoned(&self) {
        self.done();
        self.record.abandoned.fetch_add(1, Ordering::Relaxed);
        self.record.tell();
    }

    /// The request is no longer in progress; called before anything is sent that a client could react to.
    pub fn done(&self) {
        if self.working.swap(false, Ordering::Relaxed) {
            self.record.uncount();
            self.record.tell();
        }
    }

    fn note(&self, status: Option<u16>) {
        if let Some(place) = self.place
            && let Some(seen) = lock(&self.record.seen).get_mut(place)
        {
            seen.answered = status;
        }
    }
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        self.done();
    }
}
