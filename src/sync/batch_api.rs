//! The orders of a worker for the batch API of a provider: each vector table gives one at a time to the embedder.

use std::time::Instant;

use embedd_wire::{BatchOrder, BatchReply, BatchRequest};

use super::Engine;
use super::core::{BatchNews, BatchOutcome, BatchStep, most_texts};
use super::effects::provider_batch;
use super::last_step::Step;
use crate::fdw;
use crate::transaction;

impl Engine {
    /// The next step of a vector table's batches; false when it has none.
    pub(super) fn take_batch_step(&mut self, id: i32, is_draining: bool) -> bool {
        let now = Instant::now();
        let is_closed = self.link.is_closed(now);
        let Some(table) = self.tables.get_mut(&id) else { return false };
        if !table.has_batches() {
            return false;
        }
        let waiting = table.sync.awaits_provider_batch();
        table.batches.set_task(table.is_batch_price, waiting);
        if table.batches.is_idle() {
            table.sync.health.batch_answered(now);
        }
        let may_begin = !is_draining
            && !is_closed
            && table.may_use_batches()
            && !table.sync.health.is_resting(now);
        let most = most_texts(table.kind(), table.config.dimensions as usize);
        let Some(step) = table.batches.next(most, may_begin, now) else { return false };
        let step = match step {
            BatchStep::Ask(order) => {
                self.give_order(id, order);
                return true;
            }
            step => step,
        };
        // The source is read, so a user's code may run in it.
        let of_task = match &step {
            BatchStep::Read { after } => Some(Step::new(id, ("provider_batch", after))),
            _ => None,
        };
        let (outcome, failure) =
            self.steps.run(of_task, || provider_batch::run(table, waiting, &step));
        if let Some(failure) = failure {
            let is_stuck = !failure.is_transient;
            table.sync.health.table_failed(&failure.reason, is_stuck, Instant::now());
        }
        if matches!((&step, &outcome), (BatchStep::Finish, BatchOutcome::Done)) {
            table.notes.has_texts = true;
            table.sync.provider_batch_ended();
        }
        table.batches.done(step, outcome, Instant::now());
        true
    }

    /// Gives the embedder an order.
    fn give_order(&mut self, table_id: i32, order: BatchOrder) {
        let Some(table) = self.tables.get_mut(&table_id) else { return };
        let provider = transaction::run(|| fdw::provider(&table.config));
        table.batches.asked(&order);
        let provider = match provider {
            Ok(provider) => provider,
            Err(error) => {
                let now = Instant::now();
                table.batches.lost(now);
                return table.sync.health.batch_failed(&error.message, !error.is_transient(), now);
            }
        };
        let model = fdw::model(&table.config, provider.kind);
        let id = self.link.next_request();
        self.link.orders.insert(id, table_id);
        let request = BatchRequest { id, provider, model, order };
        if let Err(error) = self.link.connected().and_then(|client| client.order(request)) {
            self.embedder_unreachable(&error);
        }
    }

    /// The embedder has answered an order.
    pub(super) fn on_batch_reply(&mut self, reply: BatchReply) {
        let Some(table_id) = self.link.orders.remove(&reply.id) else { return };
        // A vector table that was dropped meanwhile takes its batches with it.
        let Some(table) = self.tables.get_mut(&table_id) else { return };
        let now = Instant::now();
        match table.batches.on_answer(reply.outcome, now) {
            BatchNews::Works if table.batches.is_held(now) => {}
            BatchNews::Works => table.sync.health.batch_answered(now),
            BatchNews::Fails { reason, is_stuck } => {
                table.sync.health.batch_failed(&reason, is_stuck, now);
            }
        }
    }
}
