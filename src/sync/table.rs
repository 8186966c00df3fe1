//! A vector table at work in a sync worker: its configuration, what the core knows of it, and what cannot be pure.

use std::time::Instant;

use embedd_wire::{Kind, Priority, Provider};

use super::core::{
    Action, Config, Cursor, FixKind, Health, Outcome, ProviderBatches, Room, ScanStep, SourceState,
    TableSync, Then,
};
use super::effects::{self, source_fix};
use super::last_step::Step;
use crate::catalog::{Status, VectorTable};
use crate::fdw;
use crate::process::Process;
use crate::provider_batch::Notes;
use crate::queue;
use crate::shared::WorkerIndex;

use self::source_fix::{Look, SourceFix};

/// Keys in one page of a scan.
pub const PAGE: usize = 1000;

/// A vector table at work.
pub struct Table {
    pub config: VectorTable,
    pub sync: TableSync,
    /// The keys that are this worker's.
    pub portion: WorkerIndex,
    /// What has to be put right with the source.
    pub fix: Option<SourceFix>,
    /// The process that builds the indexes.
    pub builder: Option<Process>,
    /// The provider of the batch that was loaded last.
    pub to_send: Option<Provider>,
    /// Whether the attempt of the task has not advanced yet.
    pub is_stalled: bool,
    /// Its batches at the batch API of the provider.
    pub batches: ProviderBatches,
    /// What is noted of them.
    pub notes: Notes,
    /// Whether the open task wants them.
    pub is_batch_price: bool,
    /// The provider when the table was read; none when it cannot be used.
    provider: Option<Provider>,
}

impl Table {
    /// A table that was not known before, whose queue is read up to a cursor.
    pub fn new(config: VectorTable, portion: WorkerIndex, cursor: Cursor) -> Self {
        let has_error = config.status == Status::Error;
        let health = Health::new(config.stored.last_error.clone(), has_error);
        Self {
            sync: TableSync::new(core_config(&config, portion), cursor, health),
            portion,
            fix: None,
            builder: None,
            to_send: None,
            is_stalled: true,
            batches: ProviderBatches::default(),
            notes: Notes::default(),
            is_batch_price: false,
            provider: fdw::provider(&config).ok(),
            config,
        }
    }

    /// Follows a changed configuration or status.
    pub fn update(&mut self, config: VectorTable) {
        self.config = config;
        self.sync.set_config(core_config(&self.config, self.portion));
        // Another key, another address or a permission that is there again: who has changed it wants to see it work.
        let provider = fdw::provider(&self.config).ok();
        if self.provider != provider {
            self.provider = provider;
            self.sync.provider_changed();
            self.batches.provider_changed();
        }
    }

    /// Follows what was found of the source: what has to be put right, and why nothing can be done meanwhile.
    pub fn set_source(&mut self, look: Look) {
        let Look { fix, broken, missed, is_unseen } = look;
        let kind = fix.as_ref().map(|fix| match fix {
            SourceFix::Provider => FixKind::Provider,
            SourceFix::Clear => FixKind::Clear,
            _ => FixKind::Other,
        });
        self.sync.set_source(SourceState { broken, missed, is_unseen }, kind);
        self.fix = fix.filter(|_| self.sync.fix().is_some());
    }

    /// Whether it has to do with the batch API of a provider. The owner of the table looks after its batches.
    pub fn has_batches(&self) -> bool {
        let portion = self.portion;
        let is_owner = queue::worker_of_table(self.config.id, portion.count) == portion.index;
        let is_noted = self.is_batch_price || self.notes.has_batches;
        is_owner && !self.config.reads_run && (is_noted || !self.batches.is_idle())
    }

    /// Whether its batches are looked after now: also while it is paused or waits for a backfill, if that was cancelled and
    /// has batches to cancel.
    pub fn may_use_batches(&self) -> bool {
        let is_waiting = matches!(self.config.status, Status::Pending | Status::Paused);
        let cancels = is_waiting && !self.is_batch_price && !self.sync.health.is_broken();
        self.sync.is_active() || cancels
    }

    /// The kind of its provider; that of a provider without a batch API where it cannot be used.
    pub fn kind(&self) -> Kind {
        self.provider.as_ref().map_or(Kind::Local, |provider| provider.kind)
    }

    /// When it has something to do without anything happening before; the embedder is given nothing before `closed`.
    pub fn due(&self, now: Instant, closed: Option<Instant>) -> Option<Instant> {
        let batches =
            self.batches.due(now).filter(|_| self.has_batches() && self.may_use_batches());
        let not_before = self.sync.health.rest_until().max(closed);
        let batches = batches.map(|at| not_before.map_or(at, |until| at.max(until)));
        self.sync.due(now).into_iter().chain(batches).min()
    }

    /// Whether nothing of it is at the embedder, and nothing that came from there waits to be stored.
    pub fn is_drained(&self) -> bool {
        self.sync.is_drained() && !self.batches.is_busy()
    }

    /// The next action of the core.
    pub fn next(&mut self, room: &Room<'_>) -> Option<Action> {
        if self.builder.as_ref().is_some_and(Process::has_ended) {
            self.builder = None;
            self.sync.builder_ended();
        }
        self.sync.next(Instant::now(), room)
    }

    /// The step of a task that an action is, when it reads or writes what a scan is about. A user's code may run in it.
    pub fn step(&self, action: &Action) -> Option<Step> {
        let id = self.config.id;
        match action {
            Action::Scan(ScanStep { then: Then::Read(find), .. }) => {
                Some(Step::new(id, ("read", find.phase.as_str(), &find.after)))
            }
            Action::Scan(ScanStep { then: Then::Compare, .. }) => Some(Step::new(id, "compare")),
            Action::Load(batch) | Action::Store(batch) => {
                let batch = self.sync.batch(*batch)?;
                let first = batch.keys.first().filter(|_| batch.priority == Priority::Backfill)?;
                let stores = matches!(action, Action::Store(_));
                Some(Step::new(id, ("batch", stores, &first.key)))
            }
            _ => None,
        }
    }

    /// Runs an action in its transaction, and tells the core how it has ended.
    pub fn run(&mut self, action: Action) {
        let outcome = effects::run(self, &action);
        self.is_stalled |= matches!(outcome, Outcome::Task(Some(_)));
        self.sync.done(action, outcome, Instant::now());
    }

    /// An action that is no transaction has ended.
    pub fn done(&mut self, action: Action, outcome: Outcome) {
        self.sync.done(action, outcome, Instant::now());
    }

    /// Ends the process that builds the indexes, which the next worker starts again, and writes how far the table is.
    pub fn leave(&mut self) {
        if let Some(action) = self.sync.last_action(Instant::now()) {
            self.run(action);
        }
        if let Some(builder) = self.builder.take() {
            builder.terminate();
        }
    }
}

/// What the core has to know of the catalog.
fn core_config(config: &VectorTable, portion: WorkerIndex) -> Config {
    Config {
        is_active: matches!(
            config.status,
            Status::Backfilling | Status::Synced | Status::Error | Status::PendingRebackfill
        ),
        is_paused: config.status == Status::Paused,
        is_pending: config.status == Status::Pending,
        is_run: config.reads_run,
        is_owner: queue::worker_of_table(config.id, portion.count) == portion.index,
        page: PAGE,
        has_old: !config.stored.old_tables.is_empty(),
    }
}
