//! Waits until a vector table is synced, reports progress, and gives up if waiting is of no use.

use std::time::{Duration, Instant};

use pgrx::check_for_interrupts;
use pgrx::prelude::*;

use super::SyncStatus;
use crate::error::{Error, Result, raise_message};
use crate::name::quote_literal;
use crate::{latch, shared};

/// The pauses between two checks of the status: short at first, because few rows take milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The interval of progress notices, and of those that say nothing new.
const BETWEEN_NOTICES: Duration = Duration::from_secs(2);
const BETWEEN_REPEATS: Duration = Duration::from_secs(30);

/// How long a status error must last: a worker retries by itself, and at once after some remedies.
const ERROR_LASTS: Duration = Duration::from_secs(5);

/// The next step after a check of the status.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Done,
    Wait,
    /// Waiting is of no use: the reason, and a hint.
    GiveUp(String, Option<String>),
}

/// Decides the next step. `in_error` is for how long the status has been error.
fn next(
    name: &str,
    status: &SyncStatus,
    in_error: Duration,
    waited: Duration,
    timeout: Option<Duration>,
) -> Next {
    let quoted = quote_literal(name);
    match status.sync_status {
        "synced" => return Next::Done,
        "paused" => {
            let hint = format!("SELECT embedd.resume_sync({quoted}).");
            return Next::GiveUp("is paused".to_string(), Some(hint));
        }
        "pending" => {
            let hint = format!("SELECT embedd.backfill({quoted}).");
            return Next::GiveUp("has not been backfilled".to_string(), Some(hint));
        }
        "pending_rebackfill" => {
            let hint = format!(
                "SELECT embedd.backfill({quoted}) applies the change, SELECT embedd.discard({quoted}) gives it up."
            );
            return Next::GiveUp("has a change that waits for a backfill".to_string(), Some(hint));
        }
        "error" if in_error >= ERROR_LASTS => {
            return Next::GiveUp("has status error".to_string(), None);
        }
        _ => {}
    }
    match timeout.filter(|timeout| waited >= *timeout) {
        Some(timeout) => {
            let hint = format!("SELECT * FROM embedd.sync_status({quoted}) shows how far it is.");
            Next::GiveUp(format!("is not synced after {}", seconds(timeout)), Some(hint))
        }
        None => Next::Wait,
    }
}

/// A duration for messages: whole seconds if possible.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{} s", duration.as_secs()),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// The progress of a vector table, in one line.
fn progress(name: &str, status: &SyncStatus, left: Option<f64>) -> String {
    let mut line = format!("vector table \"{name}\" is {}", status.sync_status);
    if status.sync_status == "error" {
        line = format!("vector table \"{name}\" has status error");
    }
    let about = if status.is_estimated { "about " } else { "" };
    // A backfill of a table that is filled looks at all of its rows again.
    let done = status.done_rows.or(status.synced_rows);
    if let (Some(done), Some(total)) = (done, status.total_rows) {
        line.push_str(&format!(": {about}{done} of {total} rows"));
    }
    if status.builds_index {
        line.push_str(", its vector index is being built");
    }
    if status.awaits_batches {
        line.push_str(", its new texts are at the batch API of the provider");
    }
    if let Some(pending) = status.rows_pending.filter(|pending| *pending > 0) {
        line.push_str(&format!(", {about}{pending} waiting"));
    }
    if let Some(rate) = status.rate.filter(|rate| *rate >= 1.0) {
        line.push_str(&format!(", {rate:.0} rows/s"));
    }
    if let Some(left) = left {
        line.push_str(&format!(", {left:.0} s left"));
    }
    if !matches!(status.worker_state, "busy" | "idle") {
        line.push_str(&format!(", the worker is {}", status.worker_state));
    }
    line
}

/// What was told the last time, and when.
struct Told {
    at: Instant,
    line: String,
    error: Option<String>,
}

/// Whether a notice is due: when there is news, at most every few seconds, and now and then when there is none.
fn is_due(told: Option<&Told>, line: &str, error: Option<&str>, now: Instant) -> bool {
    let Some(told) = told else { return true };
    let is_news = told.line != line || told.error.as_deref() != error;
    let pause = if is_news { BETWEEN_NOTICES } else { BETWEEN_REPEATS };
    now.saturating_duration_since(told.at) >= pause
}

/// Waits until a vector table is synced, at most `timeout` seconds if given.
///
/// Each check has its own snapshot. The transaction must not wait for itself: neither for rows that it has written,
/// which no worker can see, nor with a snapshot that it keeps.
pub fn until_synced(name: &str, timeout: Option<f64>) -> Result<()> {
    let timeout = timeout.map(to_duration).transpose()?;
    check_transaction()?;
    let begin = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut told: Option<Told> = None;
    let mut error_since: Option<Instant> = None;
    loop {
        let status = look(name)?;
        let now = Instant::now();
        error_since = match status.sync_status {
            "error" => error_since.or(Some(now)),
            _ => None,
        };
        let in_error = error_since.map_or(Duration::ZERO, |since| now - since);
        match next(name, &status, in_error, now - begin, timeout) {
            Next::Done => {
                warn_of_failed_rows(name, &status);
                return Ok(());
            }
            Next::GiveUp(why, hint) => {
                let detail = status.last_error;
                return Err(Error::NotSynced { name: name.to_string(), why, detail, hint });
            }
            Next::Wait if !shared::is_preloaded() => return Err(Error::NotPreloaded),
            Next::Wait => {}
        }
        // The first notice comes only if it takes a while.
        if now - begin >= LONGEST_PAUSE {
            let left = status.eta.and_then(|eta| eta.as_micros().try_into().ok());
            let left = left.map(|micros: i64| micros as f64 / 1e6);
            let (line, error) = (progress(name, &status, left), status.last_error);
            if is_due(told.as_ref(), &line, error.as_deref(), now) {
                raise_message(PgLogLevel::NOTICE, line.clone(), error.clone(), None);
                told = Some(Told { at: now, line, error });
            }
        }
        let left = timeout.map_or(pause, |timeout| timeout.saturating_sub(now - begin));
        latch::wait(pause.min(left.max(Duration::from_millis(1))), None);
        check_for_interrupts!();
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn to_duration(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| Error::bad_argument("timeout must not be negative"))
}

/// Rejects a transaction in which the wait would never end.
fn check_transaction() -> Result<()> {
    // SAFETY: the state of this process's own transaction.
    let (has_written, isolation) =
        unsafe { (pg_sys::GetTopTransactionIdIfAny(), pg_sys::XactIsoLevel) };
    if isolation >= pg_sys::XACT_REPEATABLE_READ as i32 {
        return Err(Error::CannotWait {
            detail: "Its snapshot does not show what workers do meanwhile.",
            hint: "Use isolation level READ COMMITTED.",
        });
    }
    if has_written != pg_sys::InvalidTransactionId {
        return Err(Error::CannotWait {
            detail: "The transaction has written rows that no worker can see before COMMIT.",
            hint: "Commit first, then call it in a statement of its own.",
        });
    }
    Ok(())
}

fn look(name: &str) -> Result<SyncStatus> {
    // SAFETY: inside a transaction; after an error the snapshot ends with the transaction.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let status = super::of_table(super::find(name)?)?;
    // SAFETY: the snapshot pushed above is the one on top, since nested ones were popped by SPI.
    unsafe { pg_sys::PopActiveSnapshot() };
    Ok(status)
}

fn warn_of_failed_rows(name: &str, status: &SyncStatus) {
    if let Some(failed) = status.failed_rows.filter(|failed| *failed > 0) {
        let line = format!("rows of vector table \"{name}\" have failed: {failed}");
        let hint = "SELECT * FROM embedd.failed_rows shows them with their errors.".to_string();
        raise_message(PgLogLevel::WARNING, line, None, Some(hint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;
    const MINUTE: Duration = Duration::from_secs(60);

    fn seen(sync_status: &'static str) -> SyncStatus {
        SyncStatus { sync_status, worker_state: "busy", ..SyncStatus::default() }
    }

    #[test]
    fn it_waits_only_if_that_helps() {
        let next = |status, in_error, waited, timeout| {
            super::next("it's", &seen(status), in_error, waited, timeout)
        };
        assert_eq!(next("synced", NONE, MINUTE, Some(NONE)), Next::Done);
        for status in ["syncing", "backfilling", "error"] {
            assert_eq!(next(status, NONE, MINUTE, None), Next::Wait, "{status}");
            assert_eq!(next(status, NONE, NONE, Some(MINUTE)), Next::Wait, "{status}");
        }
        let hint = |next| match next {
            Next::GiveUp(why, hint) => (why, hint.unwrap_or_default()),
            other => panic!("{other:?}"),
        };
        let (why, hint_of) = hint(next("syncing", NONE, MINUTE, Some(MINUTE)));
        assert!(why == "is not synced after 60 s" && hint_of.contains("sync_status('it''s')"));
        let (_, hint_of) = hint(next("paused", NONE, NONE, None));
        assert_eq!(hint_of, "SELECT embedd.resume_sync('it''s').");
        let (_, hint_of) = hint(next("pending", NONE, NONE, None));
        assert_eq!(hint_of, "SELECT embedd.backfill('it''s').");
        assert_eq!(hint(next("error", ERROR_LASTS, NONE, None)).0, "has status error");
    }

    #[test]
    fn progress_reports_what_is_known() {
        let mut status = seen("backfilling");
        assert_eq!(progress("t", &status, None), "vector table \"t\" is backfilling");
        status.synced_rows = Some(5);
        status.total_rows = Some(20);
        status.rows_pending = Some(15);
        status.rate = Some(2.6);
        let line =
            "vector table \"t\" is backfilling: 5 of 20 rows, 15 waiting, 3 rows/s, 5 s left";
        assert_eq!(progress("t", &status, Some(5.2)), line);
        let waits = SyncStatus { worker_state: "waiting for a slot", ..seen("error") };
        let line = "vector table \"t\" has status error, the worker is waiting for a slot";
        assert_eq!(progress("t", &waits, None), line);
        assert_eq!(seconds(Duration::from_millis(1500)), "1.5 s");
        // Of a table that is filled the rows count that the backfill has done.
        status.synced_rows = Some(20);
        status.done_rows = Some(7);
        assert!(progress("t", &status, None).contains("backfilling: 7 of 20 rows, 15 waiting"));
        status.builds_index = true;
        assert!(progress("t", &status, None).contains("rows, its vector index is being built"));
        let away = SyncStatus { awaits_batches: true, ..seen("backfilling") };
        let line =
            "vector table \"t\" is backfilling, its new texts are at the batch API of the provider";
        assert_eq!(progress("t", &away, None), line);
    }

    #[test]
    fn notices_come_with_news_and_seldom_without() {
        let at = Instant::now();
        let told = Told { at, line: "5 of 20".to_string(), error: None };
        let due = |line, error, seconds| {
            is_due(Some(&told), line, error, at + Duration::from_secs(seconds))
        };
        assert!(is_due(None, "5 of 20", None, at));
        assert!(!due("6 of 20", None, 1) && due("6 of 20", None, 2));
        assert!(!due("5 of 20", None, 29) && due("5 of 20", None, 30));
        // An error is news, although nothing moves.
        assert!(due("5 of 20", Some("the provider is down"), 2));
    }
}
