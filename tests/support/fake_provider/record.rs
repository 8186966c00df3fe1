//! What the fake saw: counters that cost nothing, and, unless a bench wants none, every request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::dialect::Asked;
use super::http::{Request, header};
use super::reply::Fault;

/// How long something may go unnoticed that is waited for and is no change of the record.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it had come wholly.
    pub at: Instant,
    /// "POST"; a redirect that was followed is a "GET".
    pub method: String,
    /// The target in the first line, with its query.
    pub path: String,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body; null when it was no JSON.
    pub body: Value,
    /// The texts; none when the request could not be read.
    pub texts: Vec<String>,
    /// The model.
    pub model: String,
    /// What the texts are for, as it was spelled.
    pub input_type: Option<String>,
    /// How many numbers a vector shall have.
    pub dimensions: Option<usize>,
    /// Whether the vectors shall come in base64.
    pub base64: bool,
    /// The key, in whichever header it was.
    pub key: Option<String>,
    /// The connection it came over, counted from 1.
    pub connection: u64,
    /// The status it was answered with; none while it is not, or when the answer was not sent wholly.
    pub answered: Option<u16>,
}

impl Seen {
    /// The first value of a header, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// What was seen so far.
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
    /// Whether only the counters are kept.
    counters_only: bool,
    seen: Mutex<Vec<Seen>>,
    paid_texts: Mutex<HashMap<String, u64>>,
    changes: Mutex<u64>,
    changed: Condvar,
}

/// A lock that a failed test does not make useless.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// A record of everything, or of the counters only.
    pub fn new(everything: bool) -> Record {
        Record { counters_only: !everything, ..Record::default() }
    }

    /// Notes a request; the result stands for it until it is answered.
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

    /// Counts a request that has come and is not answered.
    pub fn count(&self, texts: usize) {
        self.texts.fetch_add(texts as u64, Ordering::Relaxed);
        let now = self.concurrent.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_concurrent.fetch_max(now, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// Counts a request as no longer at work.
    pub fn uncount(&self) {
        self.concurrent.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests that were not answered yet.
    pub fn concurrent(&self) -> u64 {
        self.concurrent.load(Ordering::Relaxed)
    }

    /// Wakes those who wait for something here.
    pub fn tell(&self) {
        *lock(&self.changes) += 1;
        self.changed.notify_all();
    }

    /// Waits until something holds of the record; false after the limit.
    pub fn wait(&self, limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + limit;
        loop {
            // Counted before the look, so that what happens during the look is not slept through.
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

    /// All requests so far, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.insist("requests()");
        lock(&self.seen).clone()
    }

    /// How many good vectors were sent for a text.
    pub fn paid(&self, text: &str) -> u64 {
        self.insist("paid()");
        lock(&self.paid_texts).get(text).copied().unwrap_or(0)
    }

    /// Texts for which more than one good vector was sent, and how many.
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

    /// Forgets the requests; the counters go on.
    pub fn forget(&self) {
        lock(&self.seen).clear();
    }

    fn insist(&self, wish: &str) {
        assert!(!self.counters_only, "{wish} of a fake made with record(false)");
    }

    /// Notes good vectors as sent, or takes that back.
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

/// A request that has come and is being treated; dropped, it is no longer.
pub(super) struct Arrived<'a> {
    record: &'a Record,
    place: Option<usize>,
    working: AtomicBool,
}

impl Arrived<'_> {
    /// Notes an answer. Called before the last byte is sent, because a test looks as soon as its client has that byte;
    /// `unanswered` takes it back when the byte could not be sent.
    pub fn answered(&self, status: u16, vectors: Option<(&Asked, &Fault)>) {
        self.done();
        self.note(Some(status));
        self.record.answered.fetch_add(1, Ordering::Relaxed);
        if let Some((asked, fault)) = vectors {
            self.record.pay(asked, fault, false);
        }
        self.record.tell();
    }

    /// Takes back what `answered` noted.
    pub fn unanswered(&self, vectors: Option<(&Asked, &Fault)>) {
        self.note(None);
        self.record.answered.fetch_sub(1, Ordering::Relaxed);
        if let Some((asked, fault)) = vectors {
            self.record.pay(asked, fault, true);
        }
        self.record.tell();
    }

    /// Notes that the client closed the connection before it was answered.
    pub fn abandoned(&self) {
        self.done();
        self.record.abandoned.fetch_add(1, Ordering::Relaxed);
        self.record.tell();
    }

    /// It no longer counts among those at work; called before anything is sent that a client could act upon.
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
