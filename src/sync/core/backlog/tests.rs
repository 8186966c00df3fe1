//! What becomes of keys and of their rows in the backlog.

use super::*;

fn keys(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| w.to_string()).collect()
}

fn names(taken: &[TakenKey]) -> Vec<&str> {
    taken.iter().map(|t| t.key.as_str()).collect()
}

#[test]
fn changes_of_one_key_are_folded_and_finish_all_their_rows() {
    let mut backlog = Backlog::default();
    backlog.add_row(1, keys(&["a", "b", "a"]), false);
    backlog.add_row(2, keys(&["a"]), false);
    let taken = backlog.take_changed(1);
    assert_eq!(names(&taken), ["a"]);
    assert_eq!(backlog.rows_complete_with(&taken), [2]);
    backlog.complete(&taken);
    let taken = backlog.take_changed(10);
    assert_eq!(names(&taken), ["b"]);
    assert_eq!(backlog.rows_complete_with(&taken), [1]);
    backlog.complete(&taken);
    assert!(backlog.is_empty());
    assert_eq!(backlog.lowest_row(), None);
}

#[test]
fn a_row_that_comes_twice_counts_once() {
    let mut backlog = Backlog::default();
    backlog.add_row(1, keys(&["a", "b"]), false);
    backlog.add_row(1, keys(&["a", "b"]), false);
    let first = backlog.take_changed(1);
    assert!(backlog.rows_complete_with(&first).is_empty());
    backlog.complete(&first);
    let second = backlog.take_changed(10);
    assert_eq!(backlog.rows_complete_with(&second), [1]);
    backlog.complete(&second);
    assert!(backlog.is_empty());
}

#[test]
fn a_key_that_changes_while_in_work_waits_for_its_end() {
    let mut backlog = Backlog::default();
    backlog.add_row(1, keys(&["a"]), false);
    let first = backlog.take_changed(10);
    backlog.add_row(2, keys(&["a"]), false);
    assert!(backlog.take_changed(10).is_empty());
    backlog.complete(&first);
    let second = backlog.take_changed(10);
    assert_eq!(names(&second), ["a"]);
    assert_eq!(backlog.rows_complete_with(&second), [2]);
}

#[test]
fn work_given_back_is_taken_first_and_keeps_newer_changes() {
    let mut backlog = Backlog::default();
    backlog.add_row(1, keys(&["a", "b"]), false);
    let first = backlog.take_changed(1);
    backlog.add_row(2, keys(&["a"]), false);
    backlog.give_back(first);
    let again = backlog.take_changed(10);
    assert_eq!(names(&again), ["b", "a"]);
    assert_eq!(backlog.rows_complete_with(&again).len(), 2);
    backlog.complete(&again);
    assert!(backlog.is_empty());
    assert!(backlog.take_changed(10).is_empty());
}

#[test]
fn a_key_of_a_page_that_changes_is_done_once_for_both() {
    let mut backlog = Backlog::default();
    let page = backlog.add_page(keys(&["a", "b", "c"]));
    backlog.add_row(7, keys(&["z", "b"]), false);
    let fresh = backlog.take_changed(10);
    assert_eq!(names(&fresh), ["z", "b"]);
    backlog.complete(&fresh);
    assert!(!backlog.is_page_complete(page));
    assert_eq!(backlog.lowest_row(), None);
    let taken = backlog.take_paged(10);
    assert_eq!(names(&taken), ["a", "c"]);
    backlog.complete(&taken);
    assert!(backlog.is_page_complete(page) && backlog.is_empty());
}

#[test]
fn a_key_put_aside_is_taken_again_for_a_change_or_when_the_provider_is_back() {
    let mut backlog = Backlog::default();
    backlog.add_row(1, keys(&["a", "b"]), false);
    let page = backlog.add_page(keys(&["c"]));
    let fresh = backlog.take_changed(10);
    backlog.await_provider(fresh);
    let paged = backlog.take_paged(10);
    backlog.await_provider(paged);
    assert_eq!((backlog.awaiting_provider_len(), backlog.paged_len()), (3, 1));
    assert!(backlog.take_changed(10).is_empty() && backlog.take_paged(10).is_empty());
    backlog.add_row(2, keys(&["b", "c"]), false);
    let changed = backlog.take_changed(10);
    assert_eq!(names(&changed), ["b", "c"]);
    assert_eq!(backlog.paged_len(), 0);
    backlog.complete(&changed);
    assert!(backlog.is_page_complete(page));
    assert_eq!(backlog.lowest_row(), Some(1));
    backlog.retry_provider(usize::MAX);
    let rest = backlog.take_changed(10);
    assert_eq!(names(&rest), ["a"]);
    backlog.complete(&rest);
    assert!(backlog.is_empty() && backlog.awaiting_provider_len() == 0);
}

#[test]
fn pages_are_done_each_for_itself() {
    let mut backlog = Backlog::default();
    let first = backlog.add_page(keys(&["a", "b"]));
    let second = backlog.add_page(keys(&["c", "a"]));
    let empty = backlog.add_page(vec![]);
    assert!(backlog.is_page_complete(empty));
    let taken = backlog.take_paged(1);
    backlog.give_back(taken);
    let taken = backlog.take_paged(2);
    assert_eq!(names(&taken), ["a", "b"]);
    backlog.complete(&taken);
    assert!(backlog.is_page_complete(first) && !backlog.is_page_complete(second));
    let taken = backlog.take_paged(1);
    backlog.complete(&taken);
    assert!(backlog.is_page_complete(second) && backlog.is_empty());
}

#[test]
fn what_a_scan_has_found_is_dropped_and_changes_are_kept() {
    let mut backlog = Backlog::default();
    backlog.add_row(1, keys(&["a"]), false);
    backlog.add_row(2, keys(&["b", "c"]), true);
    let page = backlog.add_found_page(keys(&["a", "d", "e"]));
    let again = backlog.add_page(keys(&["f"]));
    let in_flight = backlog.take_paged(2);
    assert_eq!(names(&in_flight), ["b", "c"]);
    let awaiting = backlog.take_paged(1);
    assert_eq!(names(&awaiting), ["d"]);
    backlog.await_provider(awaiting);

    assert!(backlog.has_found());
    backlog.drop_found();
    assert!(!backlog.has_found() && backlog.is_page_complete(page));
    assert_eq!((backlog.awaiting_provider_len(), backlog.paged_len()), (0, 1));
    assert_eq!(backlog.lowest_row(), Some(1));
    // What comes back without an answer is dropped too, and what is done is done.
    let (failed, stored) = in_flight.split_at(1);
    backlog.await_provider(failed.to_vec());
    assert!(backlog.rows_complete_with(stored).is_empty());
    backlog.complete(stored);
    assert_eq!(names(&backlog.take_changed(10)), ["a"]);
    assert_eq!(names(&backlog.take_paged(10)), ["f"]);
    assert!(!backlog.is_page_complete(again));
    assert_eq!(backlog.waiting_len(), 0);
}

#[test]
fn before_the_first_backfill_nothing_waits() {
    let mut backlog = Backlog::default();
    backlog.add_row(1, keys(&["a", "b"]), false);
    let page = backlog.add_found_page(keys(&["c"]));
    let taken = backlog.take_changed(1);
    backlog.drop_waiting();
    assert_eq!((backlog.waiting_len(), backlog.lowest_row()), (0, None));
    assert!(backlog.is_page_complete(page) && !backlog.is_empty());
    // Whether its row has gone meanwhile is not known.
    assert!(backlog.has_newer("a") && !backlog.has_newer("b"));
    backlog.complete(&taken);
    assert!(!backlog.has_newer("a"));
    assert!(backlog.is_empty());
    assert_eq!(backlog.add_page(keys(&["d"])), page + 1);
}
