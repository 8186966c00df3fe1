//! The desk of one account: takes requests in, packs their texts, and sends as much at once as goes well.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use embedd_wire::{Failure, FailureClass, Kind, Model, Priority, Provider};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::Shared;
use super::group::{Group, GroupKey, Probe};
use super::http::{self, Reached, Response};
use super::line::{self, Batch};
use super::load::Load;
use super::pacer::{Pacer, Permit, left_for_questions, saved_up};
use super::ticket::{Submitted, Ticket};
use super::timeouts::Timeouts;
use crate::providers::Pace;

/// How long a request that is not full waits for texts that were announced.
const HOLD: Duration = Duration::from_millis(20);

/// How long a desk without work stays open.
const KEPT_OPEN: Duration = Duration::from_secs(600);

/// The text that finds out whether a service takes anything at all.
const PROBE: &str = "embedd";

/// What a desk is told.
pub enum Message {
    /// A request.
    Submit {
        id: u64,
        submitted: Box<Submitted>,
        provider: Box<Provider>,
        key: GroupKey,
        more: bool,
    },
    /// Nobody waits for a ticket any more.
    Gone(u64),
}

/// A request that is on its way.
pub struct Flight {
    pub key: GroupKey,
    pub batch: Batch,
    pub is_probe: bool,
}

/// What a desk knows of a request while it is on its way.
struct InFlight {
    handle: tokio::task::AbortHandle,
    tickets: Vec<u64>,
    key: GroupKey,
    priority: Priority,
    load: Load,
    /// What the group's size has to know when it has come to its end.
    mark: (bool, bool),
    sent: Instant,
}

/// The desk.
pub struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) provider: Provider,
    pub(super) tickets: HashMap<u64, Ticket>,
    pub(super) groups: HashMap<GroupKey, Group>,
    pub(super) pacer: Pacer,
    /// What keeps the account from being asked, while it does.
    pub(super) trouble: Option<Failure>,
    pub(super) timeouts: Timeouts,
    flights: JoinSet<(Flight, Response)>,
    /// What is in flight, to be given up when nobody waits for it.
    in_flight: HashMap<tokio::task::Id, InFlight>,
    /// Groups in the order of their turns.
    turns: VecDeque<GroupKey>,
}

impl Desk {
    /// A desk nobody has asked yet.
    pub fn new(shared: Arc<Shared>, provider: Provider) -> Desk {
        let pacer = Pacer::new(&provider.limits, Instant::now());
        Desk {
            shared,
            provider,
            tickets: HashMap::new(),
            groups: HashMap::new(),
            pacer,
            trouble: None,
            timeouts: Timeouts::default(),
            flights: JoinSet::new(),
            in_flight: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Serves until nobody has asked for a long time.
    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        loop {
            let due = self.dispatch();
            let idle = self.tickets.is_empty() && self.flights.is_empty();
            let until = due.unwrap_or_else(|| Instant::now() + KEPT_OPEN);
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                Some(landed) = self.flights.join_next_with_id() => self.touch_down(landed),
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
                let Submitted { ticket, items } = *submitted;
                if !self.groups.contains_key(&key) {
                    self.turns.push_back(key.clone());
                }
                let group = self.groups.entry(key).or_insert_with_key(|key| Group {
                    size: self.shared.size_of(&self.provider, &key.model, now),
                    ..Group::default()
                });
                group.hold_until = more.then(|| now + HOLD);
                group.line.push(ticket.lane, ticket.priority, items);
                self.tickets.insert(id, ticket);
                self.give_up(now);
            }
            Message::Gone(id) => {
                self.tickets.remove(&id);
                for InFlight { handle, tickets, .. } in self.in_flight.values() {
                    // A probe is nobody's own.
                    let is_awaited = |ticket| self.tickets.contains_key(ticket);
                    if !tickets.is_empty() && !tickets.iter().any(is_awaited) {
                        handle.abort();
                    }
                }
            }
        }
    }

    /// Sends what may be sent; returns when there will be more to send without anything happening.
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
        if self.tickets.is_empty() && self.flights.is_empty() {
            self.groups.retain(|_, group| group.proven.is_some());
            self.turns.retain(|key| self.groups.contains_key(key));
            self.groups.values_mut().for_each(|group| group.line.clear());
        }
        due
    }

    /// The next request of a group; an error is when there may be one.
    fn next_of(
        &mut self,
        key: &GroupKey,
        priority: Priority,
        now: Instant,
    ) -> Result<Option<Flight>, Instant> {
        let caps = self.caps(&key.model);
        let is_question = priority == Priority::Question;
        // A service that loads its model gets the time for it in one request.
        let is_long = self.timeouts.are_extended() && self.documents_in_flight() > 0;
        self.pacer.expect_long(is_long);
        if is_long && !is_question {
            return Ok(None);
        }
        let Some(group) = self.groups.get_mut(key) else { return Ok(None) };
        // A test shows what the service makes of several texts, whatever it is spared otherwise.
        let caps = if key.is_test { caps } else { group.size.most(caps, now) };
        let permit = |pacer: &mut Pacer, tokens| match pacer.permit(now, priority, tokens) {
            Permit::Yes => Ok(true),
            Permit::Later => Ok(false),
            Permit::At(at) => Err(at),
        };
        let tickets = &self.tickets;
        let is_awaited = |id: u64| tickets.get(&id).is_some_and(Ticket::is_awaited);
        if group.probe == Probe::Wanted {
            group.retain_suspects(is_awaited);
        }
        if group.probe == Probe::Wanted && permit(&mut self.pacer, 1)? {
            group.probe = Probe::InFlight;
            let text = super::line::Text { text: PROBE.into(), tokens: 1, takers: Vec::new() };
            let mut batch = Batch::new(vec![text], priority);
            batch.attempts = group.probe_attempts;
            return Ok(Some(Flight { key: key.clone(), batch, is_probe: true }));
        }
        if group.probe != Probe::No || !group.line.waits(priority) || !group.takes(priority) {
            return Ok(None);
        }
        let ahead = group.line.ahead(priority, caps);
        if group.size.has_to_wait(ahead, now) {
            return Ok(None);
        }
        if !is_question
            && !group.line.is_full(priority, caps)
            && let Some(until) = group.hold_until.filter(|until| *until > now)
        {
            return Err(until);
        }
        if !permit(&mut self.pacer, ahead.tokens)? {
            return Ok(None);
        }
        let batch = group.line.next(priority, caps, is_awaited);
        Ok(batch.map(|batch| Flight { key: key.clone(), batch, is_probe: false }))
    }

    /// What one request may hold.
    pub(super) fn caps(&self, model: &Model) -> Load {
        // What services of a kind are known to take where neither provider nor catalog says: TEI takes 32.
        let usual = match self.provider.kind {
            Kind::Openai => 2048,
            Kind::Voyage => 1000,
            Kind::Gemini => 100,
            Kind::Ollama => 64,
            Kind::Local | Kind::Test | Kind::OpenaiCompatible => 32,
        };
        let texts = [self.provider.limits.texts_per_request, model.texts_per_request];
        let texts = texts.into_iter().flatten().min().unwrap_or(usual);
        // Gemini counts every text as a request: a request of more would use up what is left for questions.
        let counted = self.provider.limits.requests_per_minute.map(left_for_questions);
        let counted = counted.filter(|_| self.provider.kind == Kind::Gemini);
        let texts = counted.map_or(texts, |counted| texts.min(counted.max(1)));
        // More than can be saved up would only keep everybody waiting.
        let budget = self.provider.limits.tokens_per_minute.map(saved_up);
        let tokens = model.tokens_per_request.into_iter().chain(budget).min();
        let tokens = tokens.map_or(u64::MAX, u64::from);
        line::caps(texts.into(), tokens, model.dimensions)
    }

    fn documents_in_flight(&self) -> usize {
        self.in_flight.values().filter(|flight| flight.priority != Priority::Question).count()
    }

    /// Whether a ticket waits for a request that was given more time than usual.
    pub(super) fn has_time(&self, id: u64) -> bool {
        self.timeouts.are_extended()
            && self
                .in_flight
                .values()
                .any(|flight| flight.priority != Priority::Question && flight.tickets.contains(&id))
    }

    /// Sends a request on its way.
    fn send(&mut self, mut flight: Flight) {
        let now = Instant::now();
        flight.batch.first_sent.get_or_insert(now);
        // Gemini counts every text of a batch as a request.
        let requests = match self.provider.kind {
            Kind::Gemini => flight.batch.texts.len(),
            _ => 1,
        };
        self.pacer.sent(now, requests, flight.batch.tokens());
        let mut tickets: Vec<u64> = flight.batch.tickets().collect();
        tickets.dedup();
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
                    outcome: Reached::Unsent(failure),
                },
            };
            (flight, response)
        });
        let id = handle.id();
        self.in_flight
            .insert(id, InFlight { handle, tickets, key, priority, load, mark, sent: now });
    }

    /// A request has come to its end: with an answer, by being given up, or by a fault of our own.
    fn touch_down(
        &mut self,
        landed: Result<(tokio::task::Id, (Flight, Response)), tokio::task::JoinError>,
    ) {
        let id = landed.as_ref().map_or_else(|error| error.id(), |(id, _)| *id);
        self.pacer.landed(Instant::now());
        let Some(known) = self.in_flight.remove(&id) else { return };
        let InFlight { tickets, key, priority, load, mark, sent, .. } = known;
        if let Some(group) = self.groups.get_mut(&key) {
            group.size.landed(mark);
            if priority == Priority::Question {
                group.questions_in_flight = group.questions_in_flight.saturating_sub(1);
            }
            if group.probe == Probe::InFlight && tickets.is_empty() {
                group.probe = Probe::No;
            }
        }
        match landed {
            Ok((_, (flight, response))) => self.land(flight, response),
            // It was sent, whatever the service makes of it.
            Err(error) if error.is_cancelled() => self.count_given_up(load.texts, sent.elapsed()),
            Err(_) => {
                let message = "the embedder failed on this request";
                self.fail(&tickets, &Failure::new(FailureClass::BadReply, message));
                // What waits for a probe's answer gets it from another one.
                let groups = self.groups.values_mut();
                let doubtful = groups.filter(|group| !group.suspects.is_empty());
                doubtful.for_each(|group| group.probe = Probe::Wanted);
            }
        }
    }

    /// Tells askers why there will be no vectors.
    pub(super) fn fail(&mut self, tickets: &[u64], failure: &Failure) {
        for id in tickets {
            if let Some(mut ticket) = self.tickets.remove(id) {
                ticket.fail(failure);
            }
        }
    }
}
