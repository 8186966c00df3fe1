//! A simulation of accounts that share the budget of one service, in time that passes only here.

use std::collections::VecDeque;

use super::super::line::Line;
use super::super::load::Load;
use super::super::size::Size;
use super::super::ticket::Item;
use super::*;
use crate::remote::line::Batch;

/// Texts that a request may hold.
const TEXTS: usize = 64;
const CAP: Load = Load { texts: TEXTS as u64, ..Load::ANY };

/// A service: how much it takes at once, and a bucket of so many requests that fills up by so many a second.
#[derive(Clone, Copy)]
struct Service {
    at_once: usize,
    a_second: f64,
    bucket: f64,
    says_when: bool,
}

const ENDLESS: f64 = 1e9;

/// One embedder: what waits there, and what has become of its requests.
struct Account {
    pacer: Pacer,
    line: Line,
    size: Size,
    answered: usize,
    refused: usize,
    /// Refused after the first seconds, and all that were sent then.
    late: (usize, usize),
    finished: Option<f64>,
}

/// A request on its way.
struct Flight {
    who: usize,
    batch: Batch,
    sent: Instant,
    lands: Instant,
    accepted: bool,
}

/// Lets so many accounts embed so many full requests each.
fn simulate(service: Service, accounts: usize, requests: usize, seed: u64) -> Vec<Account> {
    fastrand::seed(seed);
    let begin = Instant::now();
    let mut accounts: Vec<Account> = (0..accounts).map(|_| Account::new(begin, requests)).collect();
    let mut flights: Vec<Flight> = Vec::new();
    let (mut now, mut left, mut counted) = (begin, service.bucket, begin);
    let mut order: VecDeque<usize> = (0..accounts.len()).collect();
    loop {
        let mut next: Option<Instant> = None;
        order.rotate_left(fastrand::usize(0..accounts.len()));
        for who in &order {
            let account = &mut accounts[*who];
            while account.line.waits(Priority::Backfill) {
                match account.pacer.permit(now, Priority::Backfill, 1) {
                    Permit::Later => break,
                    Permit::At(at) => {
                        next = Some(next.map_or(at, |known| known.min(at)));
                        break;
                    }
                    Permit::Yes => {}
                }
                let caps = account.size.most(CAP, now);
                let Some(batch) = account.line.next(Priority::Backfill, caps, |_| true) else {
                    break;
                };
                account.pacer.sent(now, 1, 1);
                left += (now - counted).as_secs_f64() * service.a_second;
                (left, counted) = (left.min(service.bucket), now);
                let busy = flights.iter().filter(|flight| flight.accepted).count();
                let accepted = busy < service.at_once && left >= 1.0;
                left -= if accepted { 1.0 } else { 0.0 };
                let millis = if accepted { 200 + fastrand::u64(0..200) } else { 20 };
                let lands = now + Duration::from_millis(millis);
                flights.push(Flight { who: *who, batch, sent: now, lands, accepted });
            }
        }
        let Some(landing) = flights.iter().map(|flight| flight.lands).min() else {
            match next {
                Some(at) => now = at,
                None => return accounts,
            }
            continue;
        };
        now = next.map_or(landing, |at| at.min(landing));
        while let Some(place) = flights.iter().position(|flight| flight.lands <= now) {
            let flight = flights.swap_remove(place);
            accounts[flight.who].land(flight, service, now, begin);
        }
    }
}

impl Account {
    fn new(now: Instant, requests: usize) -> Account {
        let mut line = Line::default();
        let items = (0..(requests * TEXTS) as u32).map(|n| Item {
            taker: (1, n),
            text: n.to_string().into(),
            tokens: 1,
        });
        line.push(1, Priority::Backfill, items.collect());
        let pacer = Pacer::new(&Limits::DEFAULT, now);
        let (size, finished) = (Size::default(), None);
        Account { pacer, line, size, answered: 0, refused: 0, late: (0, 0), finished }
    }

    fn land(&mut self, flight: Flight, service: Service, now: Instant, begin: Instant) {
        let Flight { mut batch, sent, lands, accepted, .. } = flight;
        let is_late = sent > begin + Duration::from_secs(20);
        self.late =
            (self.late.0 + usize::from(is_late && !accepted), self.late.1 + usize::from(is_late));
        self.pacer.landed(now);
        if accepted {
            self.pacer.succeeded(now, Some(lands - sent));
            self.size.answered(batch.load(), CAP, batch.half, now);
            self.answered += 1;
            self.finished = Some((now - begin).as_secs_f64());
            return;
        }
        self.refused += 1;
        batch.limited += 1;
        if batch.is_suspect() {
            self.pacer.refrain(now, None);
        } else {
            let wait = service.says_when.then_some(Duration::from_secs(1));
            self.pacer.limited(sent, now, wait);
        }
        self.line.push_again(batch);
    }
}

/// The part of all requests that were refused: of all, and after the first seconds.
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
fn accounts_that_share_a_service_are_seldom_refused_and_their_requests_stay_full() {
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
                // As many as one alone needs where nothing is ever refused.
                assert!(accounts.iter().all(|one| one.answered == 400), "{name} {count} {seed}");
            }
        }
    }
}

#[test]
fn one_alone_gets_most_of_what_a_service_gives() {
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
