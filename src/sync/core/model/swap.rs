//! The swap of a shadow over the database in memory.

use super::database::{Database, ROWS};
use super::worker::Trouble;
use crate::sync::core::*;
use crate::task::Phase;

/// Begins a task, once the transactions have ended whose changes a shadow does not get.
pub fn begin_task(database: &mut Database, id: i64) -> Outcome {
    let is_open = |number: &u64| database.open.iter().any(|open| open.number == *number);
    if database.awaits.iter().any(is_open) {
        return Outcome::NotYet;
    }
    database.awaits.clear();
    Outcome::Task(database.begin_task(id))
}

/// Ends a task: a shadow is swapped in first.
pub fn finish(database: &mut Database, is_load: bool) -> Outcome {
    if database.is_shadow
        && let Some(task) = &mut database.task
    {
        (task.phase, task.last_key) = (Phase::Swap, None);
        return Outcome::AwaitsSwap;
    }
    database.has_loaded |= is_load;
    database.task = None;
    Outcome::Done
}

/// Swaps a shadow in. Comes back with the rule that this breaks.
pub fn swap(
    database: &mut Database,
    trouble: &Trouble,
    task: i64,
    attempt: i32,
) -> (Outcome, Option<&'static str>) {
    let is_current =
        database.task.as_ref().is_some_and(|open| open.id == task && open.attempts == attempt);
    if !is_current {
        return (Outcome::Overtaken, None);
    }
    if trouble.swap_is_locked {
        return (Outcome::NotYet, None);
    }
    let is_there =
        |row: usize| database.is_equal(row) || database.failed[row] || database.is_queued(row);
    let is_ready = database.is_shadow && (0..ROWS).all(is_there);
    let broken = (!is_ready).then_some("8: a shadow is swapped in that lacks rows");
    database.is_shadow = false;
    database.has_loaded = true;
    database.task = None;
    database.old_readers = Some(database.open.iter().map(|open| open.number).collect());
    (Outcome::Done, broken)
}

/// Drops the replaced table when no transaction can read it any more.
pub fn drop_old(database: &mut Database) -> Outcome {
    let readers = database.old_readers.clone().unwrap_or_default();
    if readers.iter().any(|number| database.open.iter().any(|open| open.number == *number)) {
        return Outcome::NotYet;
    }
    database.old_readers = None;
    Outcome::Done
}
