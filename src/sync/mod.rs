//! Makes every vector table of a database equal to its source: the engine that a sync worker runs round by round.

mod apply;
mod aside;
mod backlog;
mod batch;
mod caution;
mod flight;
mod follow;
mod load;
mod loops;
mod noting;
mod outstanding;
mod reader;
mod run;
mod scan;
mod schedule;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use embedd_wire::{Priority, Reply};
use pgrx::prelude::*;

use self::aside::Locked;
use self::backlog::{Origin, Taken};
use self::batch::Loaded;
use self::caution::Caution;
use self::flight::{Flight, Unstored};
use self::follow::Mend;
use self::load::By;
use self::outstanding::{Outstanding, Share};
use self::reader::{Reader, Seen};
use self::schedule::Schedule;
use self::work::Work;
use crate::client::Client;
use crate::error::Error;
use crate::shared::Portion;
use crate::transaction::{self, Patience};
use crate::{guc, shared};

/// Pause after the embedder could not be reached or the catalog could not be read.
const TROUBLE: Duration = Duration::from_secs(1);
/// Batches loaded before the worker looks at its signals, its queue and its replies again.
const LOADS_PER_ROUND: usize = 8;

/// What a round ends with.
pub enum Round {
    /// The extension is not (or no longer) in this database.
    NoExtension,
    /// Nothing more to do before something happens or this time is over.
    Wait(Duration),
    /// Nothing is to be done at all before somebody wakes the worker, or before this time is over.
    Idle(Option<Duration>),
}

/// The engine of one portion of a database's keys, or of one batch run.
pub struct Engine {
    portion: Portion,
    /// The vector table of the batch run.
    only: Option<i32>,
    schedule: Schedule,
    tables: BTreeMap<i32, Work>,
    reader: Reader,
    client: Option<Client>,
    flights: HashMap<u64, Flight>,
    /// Answers that have come and are not looked at yet.
    arrived: Vec<Reply>,
    unstored: Vec<Unstored>,
    outstanding: Outstanding,
    caution: Caution,
    /// Rows that another session has locked, or that are in a loop, to be looked at again.
    locked: Vec<Locked>,
    last_request: u64,
    /// The table that was served last; the next one goes first.
    last_served: i32,
    rest_until: Option<Instant>,
    /// Why the queue could not be read the last time, logged once.
    read_trouble: Option<String>,
}

impl Engine {
    /// The engine of a sync worker.
    pub fn new(portion: Portion) -> Self {
        Self::with(portion, None)
    }

    /// The engine of a batch run of one vector table.
    pub fn of_run(table_id: i32) -> Self {
        Self::with(Portion { index: 0, count: 1 }, Some(table_id))
    }

    fn with(portion: Portion, only: Option<i32>) -> Self {
        Self {
            portion,
            only,
            schedule: Schedule::default(),
            tables: BTreeMap::new(),
            reader: Reader::new(portion, only),
            client: None,
            flights: HashMap::new(),
            arrived: Vec::new(),
            unstored: Vec::new(),
            outstanding: Outstanding::default(),
            caution: Caution::default(),
            locked: Vec::new(),
            last_request: 0,
            last_served: 0,
            rest_until: None,
            read_trouble: None,
        }
    }

    /// Whether a batch run is over: done, or in trouble, and then another one begins anew.
    pub fn is_run_over(&self) -> bool {
        let now = Instant::now();
        self.only.and_then(|id| self.tables.get(&id)).is_none_or(|work| {
            let is_waiting =
                !self.flights.is_empty() || !self.unstored.is_empty() || !self.locked.is_empty();
            // What is paid for is stored, also when that takes as long as somebody holds the table.
            (work.is_in_trouble(now) && !is_waiting)
                || !work.is_active()
                || (work.scan.is_none() && work.backlog.is_empty())
        })
    }

    /// Reads what has changed, takes replies in, and gives out work.
    pub fn round(&mut self) -> Round {
        self.receive();
        let unread = match self.reader.read(&mut self.tables) {
            Ok(Seen::NoExtension) => return Round::NoExtension,
            Ok(Seen::AnotherExtension) => {
                *self = Self::with(self.portion, self.only);
                return Round::Wait(Duration::ZERO);
            }
            Ok(Seen::OldInstallation) => {
                let error = Error::OldInstallation;
                self.could_not_read(format!("{error}: {}", error.hint().unwrap_or_default()));
                return Round::Wait(guc::poll_interval());
            }
            Ok(Seen::Read { more }) => {
                self.read_trouble = None;
                more
            }
            Err(failure) => {
                // Whatever was to be seen is not seen yet.
                self.reader.look_again();
                self.could_not_read(failure.message);
                return Round::Wait(TROUBLE);
            }
        };
        // After the queue was read: what had changed when an answer came is known when it is stored.
        self.store_again();
        self.take_back_locked();
        self.land_arrived();
        // After that: what the old source has made fail is forgotten with it.
        self.mend();
        for work in self.tables.values_mut() {
            work.report_found();
            work.note_if_due();
        }
        if self.only.is_none() && self.schedule.look_after(self.reader.batch_tables()) {
            self.reader.look_again();
            return Round::Wait(Duration::ZERO);
        }
        let more = self.give_out();
        match more || unread {
            true => Round::Wait(Duration::ZERO),
            false if self.is_idle() => Round::Idle(self.due()),
            false => Round::Wait(self.pause()),
        }
    }

    fn could_not_read(&mut self, reason: String) {
        if self.read_trouble.as_ref() != Some(&reason) {
            log!("could not read the queue: {reason}");
            self.read_trouble = Some(reason);
        }
    }

    /// Whether nothing is under way, and nothing waits for it.
    fn is_idle(&self) -> bool {
        self.flights.is_empty()
            && self.unstored.is_empty()
            && self.locked.is_empty()
            && self.rest_until.is_none()
            && self.reader.is_settled()
            && !self.schedule.is_running()
            && self.tables.values().all(Work::is_idle)
    }

    /// Puts right what was found of the sources, each in a transaction of its own.
    fn mend(&mut self) {
        let now = Instant::now();
        for work in self.tables.values_mut() {
            work.has_rested(now);
            let Some(mend) = work.mend.clone().filter(|_| !work.is_resting(now)) else { continue };
            let table = work.table.clone();
            match transaction::bounded(Patience::Some, || {
                Spi::connect_mut(|c| follow::mend(c, &table, &mend))
            }) {
                Ok(_) => {
                    work.mend = None;
                    if mend != Mend::Provider {
                        // The others may have something in work that has to be looked at again.
                        // SAFETY: a plain global of the process.
                        shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
                    }
                }
                Err(failure) => work.rolled_back(&failure),
            }
            if mend != Mend::Clear {
                self.reader.look_again();
            }
        }
    }

    /// The connection to the embedder, to be waited for: its socket, and whether there is more to be sent.
    pub fn socket(&self) -> Option<(i32, bool)> {
        self.client.as_ref().map(|client| (client.fd(), client.wants_write()))
    }

    /// Time until something is due without anybody waking the worker.
    fn pause(&self) -> Duration {
        self.due().unwrap_or(Duration::MAX).min(guc::poll_interval())
    }

    /// Time until something is due that the engine knows of.
    pub fn due(&self) -> Option<Duration> {
        let now = Instant::now();
        let due = self.tables.values().filter_map(Work::due).chain(self.rest_until);
        let due = due.chain(self.schedule.due());
        let due = due.chain(self.unstored.iter().filter_map(Unstored::due));
        let due = due.chain(self.locked.iter().map(|locked| locked.at));
        due.map(|at| at.saturating_duration_since(now) + Duration::from_millis(1)).min()
    }

    /// Gives out work until every request is taken or nothing is left; true when it stopped in between.
    fn give_out(&mut self) -> bool {
        let now = Instant::now();
        if self.rest_until.is_some_and(|until| until > now) {
            return false;
        }
        self.rest_until = None;
        let (mut loads, mut idle) = (0, 0);
        while loads < LOADS_PER_ROUND {
            // Fair share: tables take turns, and the turn goes on where the last round ended.
            let ids: Vec<i32> = self.tables.keys().copied().collect();
            let next = ids.iter().find(|id| **id > self.last_served).or(ids.first());
            let Some(id) = next.copied() else { return false };
            self.last_served = id;
            if self.serve(id, now) {
                loads += 1;
                idle = 0;
            } else {
                idle += 1;
                if idle >= ids.len() {
                    return false;
                }
            }
        }
        true
    }

    /// One batch of one table; false when it has nothing to do.
    fn serve(&mut self, id: i32, now: Instant) -> bool {
        let Some(work) = self.tables.get_mut(&id) else { return false };
        if !work.is_active() || work.is_resting(now) {
            return false;
        }
        let mut served = work.advance_scan(now);
        if work.builds_indexes(now) {
            // Its rows are locked against writing, so its changes wait for the end.
            return served;
        }
        work.take_back_parked(now);
        let mut count = guc::batch_texts().min(work.batch);
        if let Some(most) = self.caution.most_texts() {
            count = count.min(most);
        }
        for priority in [Priority::Change, Priority::Backfill] {
            let Some(work) = self.tables.get_mut(&id) else { return served };
            if work.is_resting(Instant::now()) {
                return served;
            }
            // Before the first batch nobody knows the account, and nothing is outstanding.
            let share = work.share.map(|share| Share { priority, ..share });
            if share.is_some_and(|share| !self.outstanding.has_room(share)) {
                continue;
            }
            // One request at a time, so that it is known what the embedder ended over.
            if self.caution.most_texts().is_some() && !self.flights.is_empty() {
                return served;
            }
            let keys = match priority {
                Priority::Backfill => work.backlog.take_paged(count),
                _ => work.backlog.take_fresh(count),
            };
            let keys = self.slow_down(id, keys, Instant::now());
            if !keys.is_empty() {
                served = true;
                self.load(id, keys, priority);
            }
        }
        served
    }

    /// Reads the documents of a batch, does what needs no provider, and sends off the rest.
    fn load(&mut self, id: i32, keys: Vec<Taken>, priority: Priority) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        match batch::load(work, &keys, By::Key) {
            Ok(Loaded { done, unread, to_embed, documents, provider }) => {
                if !unread.is_empty() {
                    // Its rows are large: fewer are asked for at once.
                    work.batch = (keys.len() - unread.len()).max(1);
                } else if to_embed.is_empty() {
                    work.batch = work.batch.saturating_mul(2);
                }
                finish(work, &done);
                work.backlog.give_back(unread);
                if !done.is_empty() {
                    work.succeeded();
                }
                match provider {
                    _ if work.waits_for_provider(Instant::now()) => work.backlog.park(to_embed),
                    Some(Ok(provider)) => self.send(id, to_embed, documents, provider, priority),
                    // It is the provider that is to blame, and never a row.
                    Some(Err(failure)) => {
                        work.backlog.park(to_embed);
                        let stuck = !failure.is_transient();
                        work.embedding_failed(&failure.message, stuck, None);
                    }
                    None => {}
                }
            }
            Err(failure) if failure.is_of_a_row() => self.narrow(id, keys, &failure),
            Err(failure) if failure.is_of_a_locked_row() => self.wait_for_lock(id, keys, &failure),
            Err(failure) => {
                if failure.is_cancelled() {
                    if work.is_slow(&keys) {
                        return self.set_aside(id, keys, &failure);
                    }
                    work.batch = (keys.len() / 2).max(1);
                }
                work.backlog.give_back(keys);
                work.rolled_back(&failure);
            }
        }
    }

    /// Takes in what the embedder still has, which is paid for, and gives out nothing; true when all of it is stored.
    pub fn wind_up(&mut self) -> bool {
        self.receive();
        self.store_again();
        self.land_arrived();
        self.flights.is_empty() && self.unstored.is_empty()
    }

    /// Whether a process works for this one, which another one would begin anew.
    pub fn has_helpers(&self) -> bool {
        self.schedule.is_running() || self.tables.values().any(Work::has_builder)
    }

    /// Whether anything has come of its work since this process began: a batch was stored, a task has ended, or a provider has
    /// failed. Until then all that was read is lost when it leaves.
    pub fn has_got_on(&self) -> bool {
        self.tables.values().any(|work| work.has_got_on)
    }

    /// Ends what works for this process elsewhere and notes what it would note later, because it is about to leave.
    pub fn leave(&mut self) {
        self.tables.values_mut().for_each(Work::leave);
        self.schedule.end_all();
    }
}

/// Keys are done: so are their rows of the queue.
fn finish(work: &mut Work, keys: &[Taken]) {
    work.backlog.finish(keys);
    let now = Instant::now();
    keys.iter().for_each(|taken| work.loops.on_stored(&taken.key, now));
    work.count_done(keys.len());
    let is_paged = |taken: &Taken| taken.origins.iter().any(|o| matches!(o, Origin::PagedRow(_)));
    if keys.iter().any(is_paged) {
        // The worker whose scan has found them waits for it.
        // SAFETY: a plain global of the process.
        shared::wake_worker(unsafe { pg_sys::MyDatabaseId });
    }
}
