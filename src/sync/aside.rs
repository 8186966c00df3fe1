//! Rows that do not go with the others: one that is to blame for a failure, one that is locked, one that is in a loop.

use std::time::{Duration, Instant};

use super::backlog::Taken;
use super::batch::{self, Loaded};
use super::load::By;
use super::{Engine, finish};
use crate::guc;
use crate::transaction::RolledBack;

/// Pause before a row that another session has locked is looked at again.
const LOCKED: Duration = Duration::from_secs(1);

/// A row that another session has locked, or that is in a loop: it needs no vector, and is in work so that nothing overtakes
/// it.
pub(super) struct Locked {
    id: i32,
    keys: Vec<Taken>,
    pub(super) at: Instant,
}

impl Engine {
    /// One of these rows is locked by another session: it is looked for in half of them, or waits alone.
    pub(super) fn wait_for_lock(&mut self, id: i32, keys: Vec<Taken>, failure: &RolledBack) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        if keys.len() > 1 {
            work.batch = keys.len() / 2;
            return work.backlog.give_back(keys);
        }
        let reason = batch::locked_reason(work, &keys[0].key, failure);
        work.note_locked(keys[0].key.clone(), &reason);
        work.batch = guc::batch_texts();
        self.locked.push(Locked { id, keys, at: Instant::now() + LOCKED });
    }

    /// A row of these is to blame for a failure: it is looked for in half of them, or found.
    pub(super) fn narrow(&mut self, id: i32, keys: Vec<Taken>, failure: &RolledBack) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        if keys.len() > 1 {
            work.batch = keys.len() / 2;
            return work.backlog.give_back(keys);
        }
        // A key that its type does not take (any more) is found by its text, mostly to be removed.
        let by_text = batch::load(work, &keys, By::Text);
        match &by_text {
            Ok(Loaded { done, to_embed, .. }) if to_embed.is_empty() => {
                finish(work, done);
                work.batch = guc::batch_texts();
                return;
            }
            Err(other) if other.is_transient() && !other.is_cancelled() => {
                work.backlog.give_back(keys);
                return work.rolled_back(other);
            }
            _ => {}
        }
        self.set_aside(id, keys, failure);
        if let (Err(slow), Some(work)) = (by_text, self.tables.get_mut(&id))
            && slow.is_cancelled()
        {
            work.rolled_back(&slow);
        }
    }

    /// Has rows wait that change again each time they are stored; the others come back.
    pub(super) fn slow_down(&mut self, id: i32, keys: Vec<Taken>, now: Instant) -> Vec<Taken> {
        let Some(work) = self.tables.get_mut(&id) else { return keys };
        let mut others = Vec::new();
        for taken in keys {
            match work.loops.on_change(&taken.key, now) {
                None => others.push(taken),
                Some(pause) => {
                    work.note_loop(&taken.key);
                    self.locked.push(Locked { id, keys: vec![taken], at: now + pause });
                }
            }
        }
        others
    }

    /// Takes rows up again that were locked a while ago.
    pub(super) fn take_back_locked(&mut self) {
        let now = Instant::now();
        let (due, later) =
            std::mem::take(&mut self.locked).into_iter().partition(|locked| locked.at <= now);
        self.locked = later;
        for Locked { id, keys, .. } in due {
            if let Some(work) = self.tables.get_mut(&id) {
                let is_loop = keys.iter().any(|taken| work.loops.is_loop(&taken.key));
                if !is_loop {
                    keys.iter().for_each(|taken| work.forget_locked(&taken.key));
                    // Alone, so that no other row waits with it if it is still locked.
                    work.batch = 1;
                }
                work.backlog.give_back(keys);
            }
        }
        for work in self.tables.values_mut() {
            work.forget_ended_loops(now);
        }
    }

    /// Puts keys aside that cannot be done, with the reason.
    pub(super) fn set_aside(&mut self, id: i32, keys: Vec<Taken>, failure: &RolledBack) {
        let Some(work) = self.tables.get_mut(&id) else { return };
        match batch::set_aside(work, &keys, failure) {
            Ok(()) => {
                finish(work, &keys);
                work.batch = guc::batch_texts();
                work.succeeded();
            }
            Err(failure) => {
                work.backlog.give_back(keys);
                work.rolled_back(&failure);
            }
        }
    }
}
