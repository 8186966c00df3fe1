//! A scripted embedding service on 127.0.0.1: it has the API of one of the services, answers with vectors that a test
//! can compute, fails as scripted, and records requests and payments.
//!
//!     let fake = FakeProvider::builder(Dialect::OpenAi).key("sk-test").dimensions(8).start();
//!     let refused = fake.script(Rule::when_text("bad").respond(Respond::status(400)));
//!     // ... embedd works against fake.base_url() ...
//!     fake.wait_for_requests(1, SHORT);
//!     assert_eq!(fake.requests()[0].texts, ["good", "bad"]);
//!     assert_eq!(refused.hits(), 1);
//!
//! By default it is as strict as the service: it requires a key, and rejects unknown models (once models were added),
//! unknown fields, empty texts and batches above the limit. `Dialect::OpenAiCompatible` is as lenient as such servers
//! are.

mod batches;
mod builder;
mod control;
mod dialect;
mod http;
mod http2;
mod listen;
mod proxy;
mod record;
mod refusal;
mod reply;
mod respond;
mod script;
mod server;
mod tls;
mod vector;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use self::{
    batches::{BatchCall, BatchFate, BatchTrouble, FakeBatch},
    builder::Builder,
    control::Gate,
    dialect::{Asked, Dialect},
    http2::FakeHttp2,
    proxy::{FakeProxy, Proxied},
    record::Seen,
    respond::Respond,
    script::{Rule, Scripted},
    tls::{Authority, Certificate},
    vector::{tokens, typed_vector, vector},
};

use builder::Settings;
use listen::Listening;
use server::Shared;

/// A fake that runs until it is dropped. Every method can be called while it runs, from any thread.
pub struct FakeProvider {
    shared: Arc<Shared>,
    /// None while it is down.
    listening: Mutex<Option<Listening>>,
    address: SocketAddr,
}

impl FakeProvider {
    /// A fake that accepts every key and every model.
    pub fn start(dialect: Dialect) -> FakeProvider {
        FakeProvider::builder(dialect).start()
    }

    /// A builder for other options.
    pub fn builder(dialect: Dialect) -> Builder {
        Builder::new(dialect)
    }

    fn run(settings: Settings) -> FakeProvider {
        let port = settings.port;
        let shared = Arc::new(Shared::new(settings));
        let listening = listen(&shared, port);
        let address = listening.address();
        FakeProvider { shared, listening: Mutex::new(Some(listening)), address }
    }

    /// The base_url for embedd.
    pub fn base_url(&self) -> String {
        self.base_url_at("127.0.0.1")
    }

    /// The same with another host name for this machine, possibly known only to a proxy.
    pub fn base_url_at(&self, host: &str) -> String {
        let settings = &self.shared.settings;
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}{}", self.address.port(), settings.dialect.prefix())
    }

    /// The listening address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Appends a rule. The rule for a request is chosen when the gates are open for it.
    pub fn script(&self, rule: Rule) -> Scripted {
        self.shared.script.add(rule)
    }

    /// Removes one rule.
    pub fn unscript(&self, rule: &Scripted) {
        self.shared.script.remove(Some(rule));
    }

    /// Removes all rules.
    pub fn clear_script(&self) {
        self.shared.script.remove(None);
    }

    /// Makes every later request wait until the gate is released or dropped.
    #[must_use]
    pub fn hold(&self) -> Gate {
        self.shared.control.hold()
    }

    /// Closes the connections of requests that are never answered.
    pub fn let_go(&self) {
        self.shared.control.let_go();
    }

    /// Accepts only this key from now on.
    pub fn set_key(&self, key: &str) {
        self.shared.set_keys(Some(vec![key.to_string()]));
    }

    /// Closes connections without a request in progress, as services do after an idle time.
    pub fn close_idle_connections(&self) {
        self.shared.close(true);
    }

    /// Goes down: closes every connection and refuses new ones, until `up`.
    pub fn down(&self) {
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listening) = listening {
            listening.stop(|| self.shared.close(false));
        }
    }

    /// Comes back at the same address.
    pub fn up(&self) {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if listening.is_none() {
            *listening = Some(listen(&self.shared, self.address.port()));
        }
    }

    /// Waits until this many requests were received since the start; panics after the limit.
    pub fn wait_for_requests(&self, requests: u64, limit: Duration) {
        self.wait_until(limit, &format!("{requests} requests"), |fake| {
            fake.request_count() >= requests
        });
    }

    /// Waits until a condition on requests, answers or connections holds; panics after the limit.
    pub fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        mut holds: impl FnMut(&FakeProvider) -> bool,
    ) {
        assert!(
            self.shared.record.wait(limit, || holds(self)),
            "waited {limit:?} for {what}; the fake provider has seen {} requests for {} texts over {} connections, and \
             answered {}",
            self.request_count(),
            self.text_count(),
            self.connections(),
            self.answer_count(),
        );
    }

    /// All recorded requests, in order; an answer is recorded before its last byte is sent.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.record.seen()
    }

    /// Deletes the recorded requests. Counters and payments stay.
    pub fn forget_requests(&self) {
        self.shared.record.forget();
    }

    /// Requests received.
    pub fn request_count(&self) -> u64 {
        self.count(|record| &record.requests)
    }

    /// Texts in them.
    pub fn text_count(&self) -> u64 {
        self.count(|record| &record.texts)
    }

    /// Requests answered completely, with any status.
    pub fn answer_count(&self) -> u64 {
        self.count(|record| &record.answered)
    }

    /// Requests whose client disconnected before the answer.
    pub fn abandoned(&self) -> u64 {
        self.count(|record| &record.abandoned)
    }

    /// Connections made so far.
    pub fn connections(&self) -> u64 {
        self.count(|record| &record.connections)
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open_connections()
    }

    /// Connections that ended during the TLS handshake, for example because the client rejected the certificate.
    pub fn failed_handshakes(&self) -> u64 {
        self.count(|record| &record.failed_handshakes)
    }

    /// The largest number of concurrent requests. A request counts until its answer begins.
    pub fn max_concurrent(&self) -> u64 {
        self.count(|record| &record.max_concurrent)
    }

    /// Requests in progress.
    pub fn concurrent(&self) -> u64 {
        self.shared.record.concurrent()
    }

    /// Bytes of answers that clients received.
    pub fn bytes_sent(&self) -> u64 {
        self.count(|record| &record.bytes_sent)
    }

    /// How many valid vectors were sent for this text: in complete answers with status 200 in which the script did not
    /// spoil this text's vector or its position.
    pub fn paid(&self, text: &str) -> u64 {
        self.shared.record.paid(text)
    }

    /// How many valid vectors were sent.
    pub fn paid_total(&self) -> u64 {
        self.count(|record| &record.paid)
    }

    /// The texts with more than one valid vector sent.
    pub fn paid_more_than_once(&self) -> Vec<(String, u64)> {
        self.shared.record.paid_more_than_once()
    }

    fn count(&self, counter: impl Fn(&record::Record) -> &AtomicU64) -> u64 {
        counter(&self.shared.record).load(Ordering::Relaxed)
    }
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        self.shared.control.stop();
        self.down();
    }
}

/// Accepts connections for a fake.
fn listen(shared: &Arc<Shared>, port: u16) -> Listening {
    let shared = shared.clone();
    Listening::start(port, move |tcp| shared.serve(tcp))
}
