//! Pacing: congestion window, token buckets, backoff, and what is reserved for questions.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits(max_in_flight: u32) -> Limits {
    Limits { max_in_flight, ..Limits::DEFAULT }
}

/// How many document requests may be sent now.
fn room(pacer: &mut Pacer, now: Instant) -> usize {
    let mut count = 0;
    while pacer.permit(now, Priority::Change, 1) == Permit::Yes {
        pacer.sent(now, 1, 1);
        count += 1;
    }
    (0..count).for_each(|_| pacer.completed(now));
    count
}

#[test]
fn the_window_grows_with_answers_and_halves_once_for_one_rate_limit() {
    let now = Instant::now();
    let mut pacer = Pacer::new(&limits(16), now);
    assert_eq!(room(&mut pacer, now), 2);
    (0..100).for_each(|_| assert!(!pacer.succeeded(now, Some(SECOND))));
    assert_eq!(room(&mut pacer, now), 16);
    let later = now + SECOND;
    // All of these were in flight together.
    for _ in 0..5 {
        pacer.limited(now, later, Some(SECOND));
    }
    assert_eq!(room(&mut pacer, later), 0);
    assert_eq!(room(&mut pacer, later + 2 * SECOND), 8);
    // It recovers by itself, after a number of answers.
    let mut at = later + 2 * SECOND;
    let mut grow = |answers: u32| {
        (0..answers).for_each(|_| {
            at += SECOND;
            pacer.succeeded(at, Some(SECOND));
        });
        room(&mut pacer, at)
    };
    assert_eq!(grow(10), 8);
    assert_eq!(grow(120), 16);
}

#[test]
fn questions_may_exceed_the_window() {
    let now = Instant::now();
    let mut pacer = Pacer::new(&limits(8), now);
    (0..2).for_each(|_| pacer.sent(now, 1, 1));
    assert_eq!(pacer.permit(now, Priority::Backfill, 1), Permit::Later);
    assert_eq!(pacer.permit(now, Priority::Question, 1), Permit::Yes);
    let mut single = Pacer::new(&limits(1), now);
    single.sent(now, 1, 1);
    assert_eq!(single.permit(now, Priority::Question, 1), Permit::Later);
}

#[test]
fn retry_after_is_honoured_and_the_backoff_doubles_up_to_a_minute() {
    let now = Instant::now();
    let mut pacer = Pacer::new(&limits(8), now);
    assert!(pacer.limited(now, now, Some(Duration::ZERO)) >= PAUSE.0 / 2);
    let wait = pacer.limited(now, now, Some(10 * SECOND));
    assert!(wait >= 10 * SECOND && wait <= 11 * SECOND, "{wait:?}");
    assert_eq!(pacer.permit(now, Priority::Question, 1), Permit::At(now + wait));
    let mut waits = Vec::new();
    (0..20).for_each(|_| waits.push(pacer.failed(now, now, None)));
    assert!(waits[0] >= PAUSE.0 / 2 && waits[0] <= PAUSE.0, "{waits:?}");
    assert!(waits[19] >= PAUSE.1 / 2 && waits[19] <= PAUSE.1, "{waits:?}");
}

#[test]
fn the_circuit_breaker_lets_one_request_through_and_closes_on_success() {
    let mut now = Instant::now();
    let mut pacer = Pacer::new(&limits(8), now);
    for _ in 0..OPEN_CIRCUIT_AFTER {
        assert!(!pacer.is_circuit_open());
        now += pacer.failed(now, now, None);
    }
    assert!(pacer.is_circuit_open());
    assert_eq!(room(&mut pacer, now), 1);
    pacer.sent(now, 1, 1);
    assert_eq!(pacer.permit(now, Priority::Question, 1), Permit::Later);
    pacer.completed(now);
    assert!(pacer.succeeded(now, Some(SECOND)) && !pacer.is_circuit_open());
}

#[test]
fn limits_a_minute_are_kept() {
    let begin = Instant::now();
    let budgets = Limits { requests_per_minute: Some(60), ..limits(1000) };
    let mut pacer = Pacer::new(&budgets, begin);
    (0..1000).for_each(|_| assert!(!pacer.succeeded(begin, None)));
    let (mut now, mut count) = (begin, 0);
    while now < begin + 60 * SECOND {
        match pacer.permit(now, Priority::Change, 5) {
            Permit::Yes => {
                pacer.sent(now, 1, 5);
                count += 1;
            }
            Permit::At(next) => now = next,
            Permit::Later => unreachable!(),
        }
    }
    assert!((60..=71).contains(&count), "{count}");
    // Five requests are reserved for questions, besides the one just refilled; then one a second.
    (0..6).for_each(|_| {
        assert_eq!(pacer.permit(now, Priority::Question, 5), Permit::Yes);
        pacer.sent(now, 1, 5);
    });
    let Permit::At(next) = pacer.permit(now, Priority::Question, 5) else { unreachable!() };
    assert!(next - now <= SECOND);
    // Documents wait until the bucket is full again.
    let Permit::At(next) = pacer.permit(now, Priority::Change, 5) else { unreachable!() };
    assert!(next - now > 5 * SECOND && next - now <= 6 * SECOND);

    let budgets = Limits { tokens_per_minute: Some(600), ..limits(1000) };
    let mut pacer = Pacer::new(&budgets, begin);
    pacer.sent(begin, 1, 1000);
    let Permit::At(next) = pacer.permit(begin, Priority::Change, 1) else { unreachable!() };
    assert!(next - begin > 80 * SECOND && next - begin < 100 * SECOND);
    pacer.limit(&limits(8), begin);
    assert_eq!(pacer.permit(begin, Priority::Change, 1), Permit::Yes);
}

#[test]
fn the_limits_a_service_reports_are_kept() {
    let now = Instant::now();
    let mut pacer = Pacer::new(&limits(8), now);
    let mut pace = Pace { remaining_tokens: Some(100), ..Pace::default() };
    pace.reset_tokens = Some(5 * SECOND);
    pacer.observe(&pace, now);
    assert_eq!(pacer.permit(now, Priority::Change, 80), Permit::Yes);
    pacer.sent(now, 1, 80);
    assert_eq!(pacer.permit(now, Priority::Change, 80), Permit::At(now + 5 * SECOND));
    assert_eq!(pacer.permit(now + 5 * SECOND, Priority::Change, 80), Permit::Yes);
    let pace =
        Pace { remaining_requests: Some(0), reset_requests: Some(SECOND), ..Pace::default() };
    pacer.observe(&pace, now);
    assert_eq!(pacer.permit(now, Priority::Change, 1), Permit::At(now + SECOND));
}

#[test]
fn a_rate_limited_window_of_one_becomes_a_rate_and_recovers() {
    let mut now = Instant::now();
    let mut pacer = Pacer::new(&limits(8), now);
    for _ in 0..4 {
        pacer.sent(now, 1, 1);
        now += SECOND;
        pacer.completed(now);
        pacer.succeeded(now, Some(SECOND / 10));
    }
    let next = |pacer: &mut Pacer, now: Instant| match pacer.permit(now, Priority::Change, 1) {
        Permit::At(next) => next - now,
        _ => Duration::ZERO,
    };
    for _ in 0..4 {
        pacer.sent(now, 1, 1);
        now += SECOND / 100;
        pacer.completed(now);
        now += pacer.limited(now - SECOND / 100, now, None);
    }
    now += next(&mut pacer, now);
    pacer.sent(now, 1, 1);
    now += SECOND / 10;
    pacer.completed(now);
    pacer.succeeded(now, Some(SECOND / 10));
    assert!(next(&mut pacer, now) > SECOND / 4, "{pacer:?}");
    // A question goes ahead of that.
    assert_eq!(pacer.permit(now, Priority::Question, 1), Permit::Yes);
    for _ in 0..2000 {
        now += next(&mut pacer, now);
        pacer.sent(now, 1, 1);
        now += SECOND / 10;
        pacer.completed(now);
        pacer.succeeded(now, Some(SECOND / 10));
    }
    assert_eq!(next(&mut pacer, now), Duration::ZERO);
    assert!(room(&mut pacer, now) >= 1 && pacer.window.rate().is_none(), "{pacer:?}");
}

#[test]
fn after_an_outage_half_of_the_window_comes_back_by_slow_start() {
    let mut now = Instant::now();
    let mut pacer = Pacer::new(&limits(16), now);
    (0..20).for_each(|_| assert!(!pacer.succeeded(now, Some(SECOND))));
    for _ in 0..OPEN_CIRCUIT_AFTER {
        now += pacer.failed(now, now, None) + SECOND;
    }
    assert_eq!(room(&mut pacer, now), 1);
    assert!(pacer.succeeded(now, Some(SECOND)));
    (0..7).for_each(|_| assert!(!pacer.succeeded(now, Some(SECOND))));
    assert_eq!(room(&mut pacer, now), 8);
}
