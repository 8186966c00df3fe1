//! The dispatcher of one account: queues requests, packs their texts into batches, and sends as many at once as the
//! service handles well.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use embedd_wire::{Failure, FailureClass, Kind, Priority, Provider};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::Shared;
use super::allowance::Allowance;
use super::caps::caps;
use super::fair_queue::Batch;
use super::group::{Group, GroupKey, Probe};
use super::http::{self, HttpOutcome, Response};
use super::load::Load;
use super::pacer::{Pacer, Permit};
use super::pending::{PendingRequest, Submitted};
use super::timeouts::Timeouts;
use crate::providers::Pace;

/// How long a request that is not full waits for texts that the client announced.
const HOLD: Duration = Duration::from_millis(20);

/// How long an idle dispatcher is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// The text of a probe, which shows whether a service accepts anything at all.
const PROBE: &str = "embedd";

/// What a dispatcher receives.
pub enum Message {
    /// A request.
    Submit {
        id: u64,
        submitted: Box<Submitted>,
        provider: Box<Provider>,
        key: GroupKey,
        more: bool,
    },
    /// The client that sent this request has gone.
    Cancelled(u64),
}

/// A batch in flight.
pub struct InFlightBatch {
    pub key: GroupKey,
    pub batch: Batch,
    pub is_probe: bool,
}

/// What a dispatcher keeps about a request in flight.
struct InFlightRequest {
    handle: tokio::task::AbortHandle,
    request_ids: Vec<u64>,
    key: GroupKey,
    priority: Priority,
    load: Load,
    /// What [`Size::completed`] needs when the request completes.
    mark: (bool, bool),
    sent: Instant,
}
/// Dispatches the requests of one account.
/// See the module.
pub struct Dispatcher {
    pub(super) shared: Arc<Shared>,
    pub(super) provider: Provider,
    pub(super) pending: HashMap<u64, PendingRequest>,
    pub(super) groups: HashMap<GroupKey, Group>,
    pub(super) pacer: Pacer,
    /// Why the account cannot be asked at the moment.
    pub(super) block_reason: Option<Failure>,
    pub(super) timeouts: Timeouts,
    flights: JoinSet<(InFlightBatch, Response)>,
    /// Requests in flight, so that one without waiters can be aborted.
    in_flight: HashMap<tokio::task::Id, InFlightRequest>,
    /// Groups in the order of their turns (round robin).
    turns: VecDeque<GroupKey>,
}

impl Dispatcher {
    /// A dispatcher without requests.
    pub fn new(shared: Arc<Shared>, provider: Provider) -> Dispatcher {
        let pacer = Pacer::new(&provider.limits, Instant::now());
        Dispatcher {
            shared,
            provider,
            pending: HashMap::new(),
            groups: HashMap::new(),
            pacer,
            block_reason: None,
            timeouts: Timeouts::default(),
            flights: JoinSet::new(),
            in_flight: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Serves until it has been idle for [`IDLE_TIMEOUT`].
    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        loop {
            let due = self.dispatch();
            let idle = self.pending.is_empty() && self.flights.is_empty();
            let until = due.unwrap_or_else(|| Instant::now() + IDLE_TIMEOUT);
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                Some(completed) = self.flights.join_next_with_id() => self.on_complete(completed),
                () = sleep_until(until.into()) => if idle && due.is_none() && inbox.is_empty() {
                    inbox.close();
                },
            }
            while let Ok(message) = inbox.try_recv() {
                self.take(message);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit { id, submitted, provider, key, more } => {
                let now = Instant::now();
                if self.provider.limits != provider.limits {
                    self.pacer.limit(&provider.limits, now);
                }
                self.provider = *provider;
                let Submitted { request, items } = *submitted;
                if !self.groups.contains_key(&key) {
                    self.turns.push_back(key.clone());
                }
                let group = self.groups.entry(key).or_insert_with_key(|key| Group {
                    size: self.shared.size_of(&self.provider, &key.model, now),
                    ..Group::default()
                });
                group.hold_until = more.then(|| now + HOLD);
                group.queue.push(request.client_id, request.priority, items);
                self.pending.insert(id, request);
                self.fail_hopeless(now);
            }
            Message::Cancelled(id) => {
                self.pending.remove(&id);
                for InFlightRequest { handle, request_ids, .. } in self.in_flight.values() {
                    // A probe has no waiters, but its answer is still needed.
                    let is_awaited = |id| self.pending.contains_key(id);
                    if !request_ids.is_empty() && !request_ids.iter().any(is_awaited) {
                        handle.abort();
                    }
                }
            }
        }
    }

    /// Sends what may be sent now; returns when more may be sent even if nothing else happens.
    fn dispatch(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut due = None;
        for priority in [Priority::Question, Priority::Change, Priority::Backfill] {
            let mut left = self.turns.len();
            while left > 0 {
                left -= 1;
                let Some(key) = self.turns.pop_front() else { break };
                match self.next_of(&key, priority, now) {
                    Ok(Some(flight)) => {
                        self.send(flight);
                        left = self.turns.len() + 1;
                    }
                    Ok(None) => {}
                    Err(at) => due = Some(due.map_or(at, |due: Instant| due.min(at))),
                }
                self.turns.push_back(key);
            }
        }
        if self.pending.is_empty() && self.flights.is_empty() {
            self.groups.retain(|_, group| group.last_accepted.is_some());
            self.turns.retain(|key| self.groups.contains_key(key));
            self.groups.values_mut().for_each(|group| group.queue.clear());
        }
        due
    }

    /// The next batch of a group; an error is the earliest time for one.
    fn next_of(
        &mut self,
        key: &GroupKey,
        priority: Priority,
        now: Instant,
    ) -> Result<Option<InFlightBatch>, Instant> {
        let is_question = priority == Priority::Question;
        let mut caps = caps(&self.provider, &key.model);
        if !is_question {
            match self.allowance() {
                Allowance::Any => {}
                Allowance::Tokens(left) => caps.tokens = caps.tokens.min(left),
                Allowance::Later => return Ok(None),
                Allowance::Capped(_, rest) => return Err(now + rest),
            }
        }
        // While a service loads its model, a single request waits for it.
        let is_long = self.timeouts.are_extended() && self.documents_in_flight() > 0;
        self.pacer.expect_long(is_long);
        if is_long && !is_question {
            return Ok(None);
        }
        let Some(group) = self.groups.get_mut(key) else { return Ok(None) };
        // A test request goes out whole, whatever limits have been learned.
        let caps = if key.is_test { caps } else { group.size.most(caps, now) };
        let permit = |pacer: &mut Pacer, tokens| match pacer.permit(now, priority, tokens) {
            Permit::Yes => Ok(true),
            Permit::Later => Ok(false),
            Permit::At(at) => Err(at),
        };
        let pending = &self.pending;
        let is_awaited = |id: u64| pending.get(&id).is_some_and(PendingRequest::is_awaited);
        if group.probe == Probe::Needed {
            group.retain_quarantine(is_awaited);
        }
        if group.probe == Probe::Needed && permit(&mut self.pacer, 1)? {
            group.probe = Probe::InFlight;
            let text =
                super::fair_queue::Text { text: PROBE.into(), tokens: 1, waiters: Vec::new() };
            let mut batch = Batch::new(vec![text], priority);
            batch.attempts = group.probe_attempts;
            return Ok(Some(InFlightBatch { key: key.clone(), batch, is_probe: true }));
        }
        if group.probe != Probe::Idle || !group.queue.waits(priority) || !group.takes(priority) {
            return Ok(None);
        }
        let ahead = group.queue.ahead(priority, caps);
        if group.size.has_to_wait(ahead, now) {
            return Ok(None);
        }
        if !is_question
            && !group.queue.is_full(priority, caps)
            && let Some(until) = group.hold_until.filter(|until| *until > now)
        {
            return Err(until);
        }
        if !permit(&mut self.pacer, ahead.tokens)? {
            return Ok(None);
        }
        let batch = group.queue.next(priority, caps, is_awaited);
        Ok(batch.map(|batch| InFlightBatch { key: key.clone(), batch, is_probe: false }))
    }

    fn documents_in_flight(&self) -> usize {
        self.in_flight.values().filter(|flight| flight.priority != Priority::Question).count()
    }

    /// Tokens of the requests in flight.
    pub(super) fn tokens_in_flight(&self) -> u64 {
        self.in_flight.values().map(|flight| flight.load.tokens).sum()
    }

    /// Whether a request in flight has texts of a pending request.
    pub(super) fn is_in_flight(&self, id: u64) -> bool {
        self.in_flight.values().any(|flight| flight.request_ids.contains(&id))
    }

    /// Whether a pending request is part of a request in flight that has an extended timeout.
    pub(super) fn has_time(&self, id: u64) -> bool {
        self.timeouts.are_extended()
            && self.in_flight.values().any(|flight| {
                flight.priority != Priority::Question && flight.request_ids.contains(&id)
            })
    }

    /// Sends a batch.
    fn send(&mut self, mut flight: InFlightBatch) {
        let now = Instant::now();
        flight.batch.first_sent.get_or_insert(now);
        // Gemini counts every text of a batch as a request.
        let requests = match self.provider.kind {
            Kind::Gemini => flight.batch.texts.len(),
            _ => 1,
        };
        self.pacer.sent(now, requests, flight.batch.tokens());
        let mut request_ids: Vec<u64> = flight.batch.request_ids().collect();
        request_ids.dedup();
        let (key, priority) = (flight.key.clone(), flight.batch.priority);
        let load = flight.batch.load();
        let mut mark = (false, false);
        if let Some(group) = self.groups.get_mut(&key) {
            group.questions_in_flight += usize::from(priority == Priority::Question);
            if !flight.is_probe {
                mark = group.size.sent(load);
            }
        }
        let usual = Duration::from_millis(self.provider.limits.timeout_ms.into());
        let timeout = match priority {
            Priority::Question => usual,
            Priority::Change | Priority::Backfill => self.timeouts.next(usual),
        };
        let (shared, provider) = (self.shared.clone(), self.provider.clone());
        let handle = self.flights.spawn(async move {
            let response = match shared.client().await {
                Ok(client) => {
                    let texts: Vec<&str> = flight.batch.texts.iter().map(|t| &*t.text).collect();
                    http::ask(&client, &provider, &flight.key, &texts, timeout).await
                }
                Err(failure) => Response {
                    sent: now,
                    latency: Duration::ZERO,
                    pace: Pace::default(),
                    outcome: HttpOutcome::NotSent(failure),
                },
            };
            (flight, response)
        });
        let id = handle.id();
        self.in_flight.insert(
            id,
            InFlightRequest { handle, request_ids, key, priority, load, mark, sent: now },
        );
    }

    /// A request completed: with a response, aborted, or because of a fault in the embedder.
    fn on_complete(
        &mut self,
        completed: Result<(tokio::task::Id, (InFlightBatch, Response)), tokio::task::JoinError>,
    ) {
        let id = completed.as_ref().map_or_else(|error| error.id(), |(id, _)| *id);
        self.pacer.completed(Instant::now());
        let Some(known) = self.in_flight.remove(&id) else { return };
        let InFlightRequest { request_ids, key, priority, load, mark, sent, .. } = known;
        if let Some(group) = self.groups.get_mut(&key) {
            group.size.completed(mark);
            if priority == Priority::Question {
                group.questions_in_flight = group.questions_in_flight.saturating_sub(1);
            }
            if group.probe == Probe::InFlight && request_ids.is_empty() {
                group.probe = Probe::Idle;
            }
        }
        match completed {
            Ok((_, (flight, response))) => self.on_response(flight, response),
            // It was sent, so it is counted.
            Err(error) if error.is_cancelled() => self.count_given_up(load.texts, sent.elapsed()),
            Err(_) => {
                let message = "the embedder failed on this request";
                self.fail(&request_ids, &Failure::new(FailureClass::BadReply, message));
                // Quarantined batches need the answer of another probe.
                let groups = self.groups.values_mut();
                let waiting = groups.filter(|group| !group.quarantine.is_empty());
                waiting.for_each(|group| group.probe = Probe::Needed);
            }
        }
    }

    /// Fails these requests.
    pub(super) fn fail(&mut self, request_ids: &[u64], failure: &Failure) {
        for id in request_ids {
            if let Some(mut request) = self.pending.remove(id) {
                request.fail(failure);
            }
        }
    }
}
