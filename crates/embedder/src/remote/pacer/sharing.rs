//! Simulates accounts that share one service's rate limit, in simulated time.

use std::collections::VecDeque;

use super::super::fair_queue::FairQueue;
use super::super::load::Load;
use super::super::pending::Item;
use super::super::size::Size;
use super::*;
use crate::remote::fair_queue::Batch;

/// Texts in a full request.
const TEXTS: usize = 64;
const CAP: Load = Load { texts: TEXTS as u64, ..Load::ANY };

/// A service: how many requests it accepts at once, and its token bucket.
#[derive(Clone, Copy)]
struct Service {
    at_once: usize,
    a_second: f64,
    bucket: f64,
    says_when: bool,
}

const ENDLESS: f64 = 1e9;

/// One embedder: its queue, and how many of its requests were answered and refused.
struct Account {
    pacer: Pacer,
    queue: FairQueue,
    size: Size,
    answered: usize,
    refused: usize,
    /// Requests refused after the first seconds, and all requests sent then.
    late: (usize, usize),
    finished: Option<f64>,
}

/// A request in flight.
struct InFlightBatch {
    who: usize,
    batch: Batch,
    sent: Instant,
    completes: Instant,
    accepted: bool,
}

/// Lets each of the accounts embed this many full requests.
fn simulate(service: Service, accounts: usize, requests: usize, seed: u64) -> Vec<Account> {
    fastrand::seed(seed);
    let begin = Instant::now();
    let mut accounts: Vec<Account> = (0..accounts).map(|_| Account::new(begin, requests)).collect();
    let mut flights: Vec<InFlightBatch> = Vec::new();
    let (mut now, mut left, mut counted) = (begin, service.bucket, begin);
    let mut order: VecDeque<usize> = (0..accounts.len()).collect();
    loop {
        let mut next: Option<Instant> = None;
        order.rotate_left(fastrand::usize(0..accounts.len()));
        for who in &order {
            let account = &mut accounts[*who];
            while account.queue.waits(Priority::Backfill) {
                match account.pacer.permit(now, Priority::Backfill, 1) {
                    Permit::Later => break,
                    Permit::At(at) => {
                        next = Some(next.map_or(at, |known| known.min(at)));
                        break;
                    }
                    Permit::Yes => {}
                }
                let caps = account.size.most(CAP, now);
                let Some(batch) = account.queue.next(Priority::Backfill, caps, |_| true) else {
                    break;
                };
                account.pacer.sent(now, 1, 1);
                left += (now - counted).as_secs_f64() * service.a_second;
                (left, counted) = (left.min(service.bucket), now);
                let busy = flights.iter().filter(|flight| flight.accepted).count();
                let accepted = busy < service.at_once && left >= 1.0;
                left -= if accepted { 1.0 } else { 0.0 };
                let millis = if accepted { 200 + fastrand::u64(0..200) } else { 20 };
                let completes = now + Duration::from_millis(millis);
                flights.push(InFlightBatch { who: *who, batch, sent: now, completes, accepted });
            }
        }
        let Some(first_completion) = flights.iter().map(|flight| flight.completes).min() else {
            match next {
                Some(at) => now = at,
                None => return accounts,
            }
            continue;
        };
        now = next.map_or(first_completion, |at| at.min(first_completion));
        while let Some(place) = flights.iter().position(|flight| flight.completes <= now) {
            let flight = flights.swap_remove(place);
            accounts[flight.who].on_response(flight, service, now, begin);
        }
    }
}

impl Account {
    fn new(now: Instant, requests: usize) -> Account {
        let mut queue = FairQueue::default();
        let items = (0..(requests * TEXTS) as u32).map(|n| Item {
            waiter: (1, n),
            text: n.to_string().into(),
            tokens: 1,
        });
        queue.push(1, Priority::Backfill, items.collect());
        let pacer = Pacer::new(&Limits::DEFAULT, now);
        let (size, finished) = (Size::default(), None);
        Account { pacer, queue, size, answered: 0, refused: 0, late: (0, 0), finished }
    }

    fn on_response(
        &mut self,
        flight: InFlightBatch,
        service: Service,
        now: Instant,
        begin: Instant,
    ) {
        let InFlightBatch { mut batch, sent, completes, accepted, .. } = flight;
        let is_late = sent > begin + Duration::from_secs(20);
        self.late =
            (self.late.0 + usize::from(is_late && !accepted), self.late.1 + usize::from(is_late));
        self.pacer.completed(now);
        if accepted {
            self.pacer.succeeded(now, Some(completes - sent));
            self.size.answered(batch.load(), CAP, batch.half, now);
            self.answered += 1;
            self.finished = Some((now - begin).as_secs_f64());
            return;
        }
        self.refused += 1;
        batch.limited += 1;
        if batch.may_be_too_large() {
            self.pacer.back_off(now, None);
        } else {
            let wait = service.says_when.then_some(Duration::from_secs(1));
            self.pacer.limited(sent, now, wait);
        }
        self.queue.push_again(batch);
    }
}

/// The refused fraction of all requests: in total, and after the first seconds.
fn refused(accounts: &[Account]) -> (f64, f64) {
    let part = |refused: usize, all: usize| refused as f64 / all.max(1) as f64;
    let sum = |of: fn(&Account) -> usize| accounts.iter().map(of).sum::<usize>();
    let all = sum(|account| account.answered + account.refused);
    (
        part(sum(|account| account.refused), all),
        part(sum(|account| account.late.0), sum(|account| account.late.1)),
    )
}

#[test]
fn accounts_that_share_a_service_are_rarely_refused_and_their_requests_stay_full() {
    for (name, service) in [
        ("two at once", (2, ENDLESS, ENDLESS)),
        ("four at once", (4, ENDLESS, ENDLESS)),
        ("60 a minute", (99, 1.0, 10.0)),
        ("60 a minute, all of them saved up", (99, 1.0, 60.0)),
        ("300 a minute", (99, 5.0, 5.0)),
        ("600 a minute, four at once", (4, 10.0, 100.0)),
    ] {
        for says_when in [false, true] {
            let (at_once, a_second, bucket) = service;
            let service = Service { at_once, a_second, bucket, says_when };
            for (count, seed) in (1..=2).flat_map(|count| (0..5).map(move |seed| (count, seed))) {
                let accounts = simulate(service, count, 400, seed);
                let (all, late) = refused(&accounts);
                let finished: Vec<_> = accounts.iter().map(|one| one.finished).collect();
                println!(
                    "{name} ({says_when}), {count}: {:.1} % refused, {:.1} % later, {finished:?}",
                    all * 100.0,
                    late * 100.0,
                );
                assert!(all < 0.12 && late < 0.08, "{name} {count} {seed}: {all} {late}");
                // As many requests as a single account needs if nothing is refused.
                assert!(accounts.iter().all(|one| one.answered == 400), "{name} {count} {seed}");
            }
        }
    }
}

#[test]
fn a_single_account_uses_most_of_the_rate() {
    let of = |at_once, a_second, bucket| Service { at_once, a_second, bucket, says_when: false };
    for (service, least) in
        [(of(4, ENDLESS, ENDLESS), 4.0 / 0.3), (of(99, 1.0, 10.0), 1.0), (of(99, 5.0, 5.0), 5.0)]
    {
        let accounts = simulate(service, 1, 600, 1);
        let rate = 600.0 / accounts[0].finished.unwrap();
        println!("{:.0} % used", rate / least * 100.0);
        assert!(rate > 0.4 * least, "{rate} of {least}");
    }
}
