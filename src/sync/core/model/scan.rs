//! A step of a scan over the database in memory.

use super::database::{Change, Database, Flaw, OpenTask, ROWS, key, worker_of};
use super::swap;
use super::worker::MODEL_PAGE;
use crate::sync::core::*;
use crate::task::{Kind, Phase, Task};

/// An outcome that is a failure.
pub fn failed(blame: Blame, reason: &str) -> Outcome {
    Outcome::Failed(Failure { blame, reason: reason.to_string(), is_transient: true })
}

/// A step of a scan.
pub fn step(step: &ScanStep, database: &mut Database) -> Outcome {
    let ScanStep { task: Task { id, attempt, kind, .. }, checkpoint, then } = step;
    let is_mine = |task: &&mut OpenTask| task.id == *id && task.attempts == *attempt;
    let Some(task) = database.task.as_mut().filter(is_mine) else { return Outcome::Overtaken };
    if let Then::LookAt(rows) = then {
        if let Some(checkpoint) = checkpoint {
            task.phase = checkpoint.phase;
            task.last_key.clone_from(&checkpoint.last_key);
        }
        let is_left = |(_, id): &&(u16, i64)| database.queue.iter().any(|row| row.id == *id);
        return Outcome::Left(rows.iter().filter(is_left).copied().collect());
    }
    let before = (task.phase, task.last_key.clone());
    if let Some(checkpoint) = checkpoint {
        task.phase = checkpoint.phase;
        task.last_key.clone_from(&checkpoint.last_key);
    }
    match then {
        Then::Rest | Then::Compare | Then::LookAt(_) => Outcome::Done,
        Then::Finish => {
            database.queue.retain(|row| !matches!(row.change, Change::Paged(_)));
            swap::finish(database, *kind != Kind::Reconcile)
        }
        Then::Read(find) => {
            let is_behind =
                |row: &usize| find.after.as_ref().is_none_or(|after| key(*row) > *after);
            let is_there = |row: &usize| match find.phase {
                Phase::Orphans => database.vectors[*row].is_some(),
                _ => database.source[*row].is_some(),
            };
            let rows: Vec<usize> =
                (0..ROWS).filter(is_behind).filter(is_there).take(MODEL_PAGE).collect();
            let reads_rows = find.phase == Phase::Source && find.lookup == Lookup::Index;
            let is_bad =
                |row: &usize| database.source[*row].is_some_and(|s| s.flaw == Flaw::Unreadable);
            if reads_rows && step.task.attempt > 1 && rows.iter().any(is_bad) {
                if let Some(task) = &mut database.task {
                    (task.phase, task.last_key) = before;
                }
                return failed(Blame::Row, "unreadable");
            }
            let is_wanted = |row: &&usize| match find.phase {
                Phase::Orphans => database.source[**row].is_none(),
                _ if !reads_rows || step.task.is_first_load() => true,
                _ if *kind == Kind::Rebackfill => !database.is_equal(**row),
                _ => !database.is_equal(**row) && !database.failed[**row],
            };
            let wanted: Vec<usize> = rows.iter().filter(is_wanted).copied().collect();
            if rows.is_empty() && find.phase == Phase::Orphans {
                for row in 0..ROWS {
                    database.failed[row] &= database.source[row].is_some();
                }
            }
            let mine = wanted.iter().filter(|row| worker_of(**row) == 0);
            Outcome::Page(FoundPage {
                keys: mine.map(|row| key(*row)).collect(),
                last: rows.last().map(|row| key(*row)),
                rows: rows.len() as i64,
                different: wanted.len() as i64,
                handed_out: database.hand_out(&wanted),
            })
        }
    }
}
