//! Makes every vector table of a database equal to its source: the engine that a sync worker runs round by round.
//!
//! `core` decides what comes next for a vector table and knows no I/O; `effects` runs one action in one transaction; this
//! file and its neighbors read the queue, hold the connection to the embedder and give each table its turn.

mod batch_api;
mod calibration;
mod core;
mod effects;
mod embedding;
pub mod last_step;
mod reader;
mod schedule;
mod table;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use self::effects::apply::upsert_sql;

use self::calibration::Calibration;
use self::core::{Action, InFlightLimits, Quarantine, Room};
use self::embedding::Link;
use self::last_step::LastStep;
use self::reader::{Reader, Seen};
use self::schedule::Schedule;
use self::table::Table;
use crate::error::Error;
use crate::guc;
use crate::shared::WorkerIndex;

/// Pause after the catalog or the queue could not be read.
const UNREADABLE: Duration = Duration::from_secs(1);
/// Actions that are run before the worker looks at its signals, its queue and its replies again.
const ACTIONS_PER_ROUND: usize = 16;

/// What a round ends with.
pub enum Round {
    /// The extension is not (or no longer) in this database.
    NoExtension,
    /// Nothing more to do before something happens or this time is over.
    Wait(Duration),
    /// Nothing to do at all before a session wakes the worker, or before this time is over.
    Idle(Option<Duration>),
}

/// The engine of one worker's share of a database's keys, or of one batch run.
pub struct Engine {
    portion: WorkerIndex,
    /// The vector table of the batch run.
    only: Option<i32>,
    schedule: Schedule,
    tables: BTreeMap<i32, Table>,
    reader: Reader,
    link: Link,
    limits: InFlightLimits,
    quarantine: Quarantine,
    calibration: Calibration,
    /// The step of a task that this process is in, and those before it ended in.
    steps: LastStep,
    /// The table that had its turn last; the next one comes first.
    last_turn: i32,
}

impl Engine {
    /// The engine of a sync worker.
    pub fn new(portion: WorkerIndex) -> Self {
        Self::with(portion, None)
    }

    /// The engine of a batch run of one vector table.
    pub fn of_run(table_id: i32) -> Self {
        Self::with(WorkerIndex { index: 0, count: 1 }, Some(table_id))
    }

    fn with(portion: WorkerIndex, only: Option<i32>) -> Self {
        Self {
            portion,
            only,
            schedule: Schedule::default(),
            tables: BTreeMap::new(),
            reader: Reader::new(portion, only),
            link: Link::default(),
            limits: InFlightLimits::new(guc::texts_in_flight()),
            quarantine: Quarantine::default(),
            calibration: Calibration::default(),
            steps: LastStep::open(&match only {
                Some(table_id) => format!("run_{table_id}"),
                None => format!("{}_{}", portion.count, portion.index),
            }),
            last_turn: 0,
        }
    }

    /// Whether a batch run is over: all is done, or it is in trouble, and then another run begins.
    pub fn is_run_over(&self) -> bool {
        let table = self.only.and_then(|id| self.tables.get(&id));
        table.is_none_or(|table| table.sync.is_run_over(Instant::now()))
    }

    /// Reads what has changed, takes in answers, and gives each vector table its turns.
    pub fn round(&mut self) -> Round {
        self.limits.set_texts(guc::texts_in_flight());
        self.receive();
        let unread = match self.reader.read(&mut self.tables) {
            Ok(Seen::NoExtension) => return Round::NoExtension,
            Ok(Seen::AnotherExtension) => {
                *self = Self::with(self.portion, self.only);
                return Round::Wait(Duration::ZERO);
            }
            Ok(Seen::OldInstallation) => {
                let error = Error::OldInstallation;
                let hint = error.hint().unwrap_or_default();
                self.reader.could_not_read(format!("{error}: {hint}"));
                return Round::Wait(guc::poll_interval());
            }
            Ok(Seen::Read { more }) => more,
            Err(error) => {
                // Whatever was to be seen is not seen yet.
                self.reader.look_again();
                self.reader.could_not_read(error.message);
                return Round::Wait(UNREADABLE);
            }
        };
        if let Some((table_id, ends)) = self.steps.take_ended()
            && effects::end_hopeless_task(table_id, ends)
        {
            self.steps.forget();
            self.reader.look_again();
            return Round::Wait(Duration::ZERO);
        }
        if self.only.is_none() && self.schedule.start_due(self.reader.batch_tables()) {
            self.reader.look_again();
            return Round::Wait(Duration::ZERO);
        }
        if self.only.is_none() && self.portion.index == 0 {
            self.calibration.start_due(self.reader.looked_at());
        }
        let more = self.take_turns(false);
        match more || unread {
            true => Round::Wait(Duration::ZERO),
            false if self.is_idle() => Round::Idle(self.due()),
            false => Round::Wait(self.due().unwrap_or(Duration::MAX).min(guc::poll_interval())),
        }
    }

    /// Whether nothing is in flight, and nothing waits for it.
    fn is_idle(&self) -> bool {
        !self.link.is_busy()
            && self.link.due().is_none()
            && self.reader.is_settled()
            && !self.schedule.is_running()
            && self.tables.values().all(|table| table.sync.is_idle())
            && !self.is_settling()
    }

    /// The connection to the embedder, to be waited for: its socket, and whether there is more to be sent.
    pub fn socket(&self) -> Option<(i32, bool)> {
        self.link.socket()
    }

    /// Time until something is due without a session waking the worker.
    pub fn due(&self) -> Option<Duration> {
        let now = Instant::now();
        let closed = self.link.due();
        let due = self.tables.values().filter_map(|table| table.due(now, closed));
        let due = due.chain(closed).chain(self.schedule.due());
        due.map(|at| at.saturating_duration_since(now) + Duration::from_millis(1)).min()
    }

    /// Gives vector tables their turns, an action each, until none has anything to do; true when it stopped before.
    fn take_turns(&mut self, is_draining: bool) -> bool {
        let (mut actions, mut idle) = (0, 0);
        while actions < ACTIONS_PER_ROUND {
            // Fair: the turn goes on where the last round ended.
            let next = self.tables.range(self.last_turn.saturating_add(1)..).next();
            let next = next.or_else(|| self.tables.first_key_value());
            let Some((&id, _)) = next else { return false };
            self.last_turn = id;
            if self.take_turn(id, is_draining) {
                actions += 1;
                idle = 0;
            } else {
                idle += 1;
                if idle >= self.tables.len() {
                    return false;
                }
            }
        }
        true
    }

    /// One action of one vector table; false when it has nothing to do.
    fn take_turn(&mut self, id: i32, is_draining: bool) -> bool {
        let room = Room {
            limits: &self.limits,
            batch_texts: guc::batch_texts(),
            is_draining,
            is_closed: self.link.is_closed(Instant::now()),
            quarantine_texts: self.quarantine.most_texts(),
            has_requests: self.link.has_requests(),
        };
        let Some(table) = self.tables.get_mut(&id) else { return false };
        let Some(action) = table.next(&room) else { return self.take_batch_step(id, is_draining) };
        match action {
            Action::Send(batch) => self.send(id, batch),
            action => {
                let changes_catalog =
                    matches!(action, Action::FixSource | Action::TakeBulkChanges { .. });
                self.steps.run(table.step(&action), || table.run(action));
                // At once: whether the embedder has a request decides what other tables may load.
                if let Some(batch) = table.sync.to_send(Instant::now()).filter(|_| !is_draining) {
                    self.send(id, batch);
                }
                if changes_catalog {
                    self.reader.look_again();
                }
            }
        }
        true
    }

    /// Takes in what the embedder still has, which is paid for, and begins nothing; true when all of it is stored.
    pub fn drain(&mut self) -> bool {
        self.receive();
        self.take_turns(true);
        !self.link.is_busy() && self.tables.values().all(Table::is_drained)
    }

    /// Whether this worker has begun what another one would begin again: a process works for it, or it is about to look
    /// for a batch at a provider.
    pub fn has_helpers(&self) -> bool {
        self.schedule.is_running()
            || self.tables.values().any(|table| table.sync.has_builder())
            || self.is_settling()
    }

    /// Whether an index is being measured, which takes longer than a worker without work may stay, and ends with the worker.
    pub fn is_measuring(&self) -> bool {
        self.calibration.is_running()
    }

    fn is_settling(&self) -> bool {
        let now = Instant::now();
        self.tables.values().any(|table| table.has_batches() && table.batches.is_settling(now))
    }

    /// Whether anything has come of its work since this process began: a batch was stored, a task has ended, or a provider
    /// has failed. Until then all that was read is lost when it leaves.
    pub fn has_progressed(&self) -> bool {
        self.tables.values().any(|table| table.sync.health.has_progressed)
    }

    /// Ends the processes that work for this one and writes how far the tables are, because it is about to leave.
    pub fn leave(&mut self) {
        self.tables.values_mut().for_each(Table::leave);
        self.schedule.end_all();
        self.calibration.end();
        self.steps.close();
    }
}
