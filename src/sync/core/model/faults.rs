//! Faults that are planted in the state machine, one or more for each promise: the interleavings have to find each of them.

use super::super::planted::Fault;
use super::first_broken;

/// Interleavings in which a fault has to show.
const RUNS: u64 = 2_000_000;

fn assert_found(fault: Fault, promise: &str) {
    let found = first_broken(1..RUNS, Some(fault));
    println!("{fault:?}: {found:?}");
    let rule = found.map_or("nothing", |(_, rule)| rule);
    assert!(rule.starts_with(promise), "{fault:?} was found as {rule:?}");
}

#[test]
fn promise_1_a_scan_that_does_not_wait_for_what_is_in_flight() {
    assert_found(Fault::ScanIgnoresInFlight, "2");
}

#[test]
fn promise_2_a_queue_row_that_is_removed_with_its_first_key() {
    assert_found(Fault::RowCompleteWithFirstKey, "2");
}

#[test]
fn promise_2_a_checkpoint_before_its_page_is_complete() {
    assert_found(Fault::CheckpointTooEarly, "2");
}

#[test]
fn promise_1_a_page_that_is_dropped_while_its_task_is_open() {
    assert_found(Fault::DropsFound, "1");
}

#[test]
fn promise_2_a_cursor_that_forgets_open_transactions() {
    assert_found(Fault::CursorForgetsOpen, "1");
}

#[test]
fn promise_3_a_key_in_two_batches() {
    assert_found(Fault::KeyInTwoBatches, "3");
}

#[test]
fn promise_3_a_store_that_does_not_ask_what_has_gone() {
    assert_found(Fault::StoreTrustsOldKeys, "3");
}

#[test]
fn promise_6_a_locked_row_that_is_not_bisected() {
    assert_found(Fault::NoBisect, "6");
}

#[test]
fn promise_8_a_shadow_that_is_swapped_in_before_it_is_complete() {
    assert_found(Fault::SwapsTooEarly, "8");
}

#[test]
fn promise_7_vectors_that_are_dropped_when_their_table_is_busy() {
    assert_found(Fault::DropsVectors, "7");
}
