//! Tests of the health of one vector table.

use super::*;

/// Lets the table fail for a reason that could pass, as often as its pauses allow in this time; returns what was reported of
/// each failure: whether a user has to act.
fn fail_for(health: &mut Health, begin: Instant, seconds: u64) -> Vec<bool> {
    let mut now = begin;
    let mut reported = Vec::new();
    while now < begin + Duration::from_secs(seconds) {
        health.table_failed("out of shared memory", false, now);
        let Some(Report::Failed { is_stuck, .. }) = health.report(now).cloned() else {
            panic!("a failure is reported");
        };
        reported.push(is_stuck);
        now = health.rest_until().expect("a failure is followed by a pause");
    }
    reported
}

#[test]
fn what_could_pass_and_does_not_is_an_error() {
    let (mut health, now) = (Health::new(None, false), Instant::now());
    let reported = fail_for(&mut health, now, 120);
    assert_eq!(reported.iter().position(|stuck| *stuck), Some(LASTING as usize - 1));
    assert!(reported[LASTING as usize - 1..].iter().all(|stuck| *stuck));

    // What works in between begins again.
    let later = now + Duration::from_secs(1000);
    health.end_pauses(later);
    health.succeeded(Some(later));
    assert!(matches!(health.report(later), Some(Report::Works { is_news: true })));
    assert!(fail_for(&mut health, later, 20).iter().all(|stuck| !stuck));
}

#[test]
fn a_slow_transaction_alone_is_no_error() {
    let (mut health, now) = (Health::new(None, false), Instant::now());
    health.was_slow();
    health.table_failed("canceling statement due to statement timeout", false, now);
    assert!(matches!(health.report(now), Some(Report::Failed { is_stuck: false, .. })));
}
