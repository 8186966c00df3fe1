//! The pace of requests: windows that shrink and grow, budgets a minute, and what is left for questions.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits(max_in_flight: u32) -> Limits {
    Limits { max_in_flight, ..Limits::DEFAULT }
}

/// How many requests of documents may go out now.
fn room(pacer: &mut Pacer, now: Instant) -> usize {
    let mut count = 0;
    while pacer.permit(now, Priority::Change, 1) == Permit::Yes {
        pacer.sent(now, 1, 1);
        count += 1;
    }
    (0..count).for_each(|_| pacer.landed(now));
    count
}

#[test]
fn the_window_grows_while_it_goes_well_and_halves_once_for_one_trouble() {
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
    // It takes a while of good answers until it grows, but it does so by itself.
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
fn a_question_has_room_beside_a_backfill() {
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
fn retry_after_is_waited_for_and_pauses_double_up_to_a_minute() {
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
fn after_failures_in_a_row_one_request_tries_and_a_success_opens_again() {
    let mut now = Instant::now();
    let mut pacer = Pacer::new(&limits(8), now);
    for _ in 0..BREAK_AFTER {
        assert!(!pacer.is_broken());
        now += pacer.failed(now, now, None);
    }
    assert!(pacer.is_broken());
    assert_eq!(room(&mut pacer, now), 1);
    pacer.sent(now, 1, 1);
    assert_eq!(pacer.permit(now, Priority::Question, 1), Permit::Later);
    pacer.landed(now);
    assert!(pacer.succeeded(now, Some(SECOND)) && !pacer.is_broken());
}

#[test]
fn budgets_a_minute_are_kept() {
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
    // Five requests are left for questions at once, besides the one that was just earned; then one a second.
    (0..6).for_each(|_| {
        assert_eq!(pacer.permit(now, Priority::Question, 5), Permit::Yes);
        pacer.sent(now, 1, 5);
    });
    let Permit::At(next) = pacer.permit(now, Priority::Question, 5) else { unreachable!() };
    assert!(next - now <= SECOND);
    // Documents wait until they are saved up again.
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
fn what_the_service_says_is_left_is_kept_to() {
    let now = Instant::now();
    let mut pacer = Pacer::new(&limits(8), now);
    let mut pace = Pace { remaining_tokens: Some(100), ..Pace::default() };
    pace.reset_tokens = Some(5 * SECOND);
    pacer.told(&pace, now);
    assert_eq!(pacer.permit(now, Priority::Change, 80), Permit::Yes);
    pacer.sent(now, 1, 80);
    assert_eq!(pacer.permit(now, Priority::Change, 80), Permit::At(now + 5 * SECOND));
    assert_eq!(pacer.permit(now + 5 * SECOND, Priority::Change, 80), Permit::Yes);
    let pace =
        Pace { remaining_requests: Some(0), reset_requests: Some(SECOND), ..Pace::default() };
    pacer.told(&pace, now);
    assert_eq!(pacer.permit(now, Priority::Change, 1), Permit::At(now + SECOND));
}

#[test]
fn a_window_of_one_that_is_too_much_is_spaced_in_time_and_grows_again() {
    let mut now = Instant::now();
    let mut pacer = Pacer::new(&limits(8), now);
    for _ in 0..4 {
        pacer.sent(now, 1, 1);
        now += SECOND;
        pacer.landed(now);
        pacer.succeeded(now, Some(SECOND / 10));
    }
    let next = |pacer: &mut Pacer, now: Instant| match pacer.permit(now, Priority::Change, 1) {
        Permit::At(next) => next - now,
        _ => Duration::ZERO,
    };
    for _ in 0..4 {
        pacer.sent(now, 1, 1);
        now += SECOND / 100;
        pacer.landed(now);
        now += pacer.limited(now - SECOND / 100, now, None);
    }
    now += next(&mut pacer, now);
    pacer.sent(now, 1, 1);
    now += SECOND / 10;
    pacer.landed(now);
    pacer.succeeded(now, Some(SECOND / 10));
    assert!(next(&mut pacer, now) > SECOND / 4, "{pacer:?}");
    // A question goes ahead of that.
    assert_eq!(pacer.permit(now, Priority::Question, 1), Permit::Yes);
    for _ in 0..2000 {
        now += next(&mut pacer, now);
        pacer.sent(now, 1, 1);
        now += SECOND / 10;
        pacer.landed(now);
        pacer.succeeded(now, Some(SECOND / 10));
    }
    assert_eq!(next(&mut pacer, now), Duration::ZERO);
    assert!(room(&mut pacer, now) >= 1 && pacer.window.rate().is_none(), "{pacer:?}");
}

#[test]
fn half_of_what_went_well_is_soon_reached_again_after_an_outage() {
    let mut now = Instant::now();
    let mut pacer = Pacer::new(&limits(16), now);
    (0..20).for_each(|_| assert!(!pacer.succeeded(now, Some(SECOND))));
    for _ in 0..BREAK_AFTER {
        now += pacer.failed(now, now, None) + SECOND;
    }
    assert_eq!(room(&mut pacer, now), 1);
    assert!(pacer.succeeded(now, Some(SECOND)));
    (0..7).for_each(|_| assert!(!pacer.succeeded(now, Some(SECOND))));
    assert_eq!(room(&mut pacer, now), 8);
}
