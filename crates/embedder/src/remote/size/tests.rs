//! Limits of texts, tokens and bytes, with and without words, and how seldom a request is refused once they are known.

use super::*;

/// A service with limits, and what it has seen.
struct Service {
    takes: Load,
    words: Option<Stated>,
    size: Size,
    sent: u64,
    refused: u64,
}

impl Service {
    fn new(takes: Load) -> Service {
        Service { takes, words: None, size: Size::default(), sent: 0, refused: 0 }
    }

    /// Sends so many texts of so many tokens and bytes, as many at once as is learned.
    fn send(&mut self, mut texts: u64, tokens: u64, bytes: u64, cap: Load, now: Instant) {
        while texts > 0 {
            let most = self.size.most(cap, now);
            let fits = most.texts.min(most.tokens / tokens).min(most.bytes / bytes).max(1);
            let count = fits.min(texts);
            self.ask(count, tokens, bytes, cap, None, now);
            texts -= count;
        }
    }

    fn ask(
        &mut self,
        texts: u64,
        tokens: u64,
        bytes: u64,
        cap: Load,
        half: Option<u64>,
        now: Instant,
    ) {
        let load = Load { texts, tokens: texts * tokens, bytes: texts * bytes };
        self.sent += 1;
        let mark = self.size.sent(load);
        self.size.landed(mark);
        if load.is_within(self.takes) {
            self.size.answered(load, cap, half, now);
            return;
        }
        self.refused += 1;
        if self.size.exceeds(load) {
            self.size.tried_in_vain(load, now);
            self.size.found(half);
            return self.send(texts, tokens, bytes, cap, now);
        }
        if let Some(words) = self.words.clone()
            && self.size.stated(load, &words, now).is_some()
        {
            return self.send(texts, tokens, bytes, cap, now);
        }
        let hint = self.words.as_ref().map(|words| words.measure);
        let number = self.size.halve(load, hint, half, now);
        for texts in [texts / 2, texts.div_ceil(2)] {
            // The size may have been learned meanwhile.
            match self.size.exceeds(Load { texts, tokens: texts * tokens, bytes: texts * bytes }) {
                true => self.send(texts, tokens, bytes, cap, now),
                false => self.ask(texts, tokens, bytes, cap, Some(number), now),
            }
        }
    }
}

const CAP: Load = Load { texts: 64, ..Load::ANY };
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn texts_are_learned_by_halving_and_tried_again_once_an_hour() {
    let begin = Instant::now();
    let mut service = Service::new(Load { texts: 10, ..Load::ANY });
    service.send(3000, 5, 20, CAP, begin);
    assert_eq!(service.size.most(CAP, begin).texts, 8);
    assert!(service.refused <= 4 && service.sent < 450, "{} {}", service.refused, service.sent);
    // Between 8 and 16: 12 is refused, then 10 is taken and 11 is refused.
    for hour in 1..=4 {
        let before = service.refused;
        service.send(3000, 5, 20, CAP, begin + HOUR * hour);
        assert!(service.refused - before <= 1, "{}", service.refused - before);
    }
    assert_eq!(service.size.most(CAP, begin + HOUR * 4).texts, 10);
}

#[test]
fn a_limit_that_is_named_is_kept_to_at_once() {
    let now = Instant::now();
    for (takes, measure, numbers) in [
        (Load { texts: 10, ..Load::ANY }, Measure::Texts, vec![64, 10]),
        (Load { tokens: 300, ..Load::ANY }, Measure::Tokens, vec![300, 320]),
        (Load { bytes: 600, ..Load::ANY }, Measure::Bytes, vec![600]),
    ] {
        let mut service = Service::new(takes);
        service.words = Some(Stated { measure, numbers });
        service.send(3000, 5, 20, CAP, now);
        assert_eq!(service.refused, 1, "{measure:?}");
        let most = service.size.most(CAP, now).get(measure);
        assert!(most <= takes.get(measure) && most >= takes.get(measure) * 7 / 8, "{most}");
    }
}

#[test]
fn tokens_and_bytes_are_blamed_where_as_many_texts_were_taken() {
    let now = Instant::now();
    for takes in [Load { tokens: 1000, ..Load::ANY }, Load { bytes: 4000, ..Load::ANY }] {
        let mut service = Service::new(takes);
        // 64 short texts pass; those that come then are longer, and each is as long as the others of its kind.
        service.send(640, 5, 20, CAP, now);
        assert_eq!(service.refused, 0);
        for (tokens, bytes) in [(50, 200), (20, 80), (100, 400), (33, 132)] {
            service.send(300, tokens, bytes, CAP, now);
        }
        assert!(service.refused <= 6, "{}", service.refused);
        assert_eq!(service.size.most(CAP, now).texts, 64);
    }
}

#[test]
fn what_was_taken_for_a_limit_of_texts_is_none_once_tokens_explain_it() {
    let now = Instant::now();
    let mut service = Service::new(Load { tokens: 1000, ..Load::ANY });
    service.send(300, 100, 400, CAP, now);
    assert_eq!(service.size.most(CAP, now).texts, 8);
    service.send(300, 200, 800, CAP, now);
    let most = service.size.most(CAP, now);
    assert_eq!((most.texts, most.tokens), (64, 800));
    assert!(service.refused <= 6, "{}", service.refused);
}

#[test]
fn a_limit_that_has_gone_is_forgotten_and_one_that_has_come_is_learned() {
    let begin = Instant::now();
    let mut service = Service::new(Load { texts: 8, ..Load::ANY });
    service.send(1000, 5, 20, CAP, begin);
    assert_eq!(service.size.most(CAP, begin).texts, 8);
    service.takes = Load::ANY;
    let later = begin + HOUR + HOUR;
    service.send(1000, 5, 20, CAP, later);
    assert_eq!(service.size.most(CAP, later).texts, 64);
    // The service is started again with less.
    service.takes.texts = 4;
    service.send(1000, 5, 20, CAP, later);
    assert_eq!(service.size.most(CAP, later).texts, 4);
}

#[test]
fn a_text_that_is_refused_says_nothing_about_the_size() {
    let (now, mut size) = (Instant::now(), Size::default());
    // 64 texts, one of which is bad: one half of each pair passes.
    let (mut half, mut texts) = (None, 64);
    let load = |texts| Load { texts, tokens: texts * 5, bytes: texts * 20 };
    while texts > 1 {
        let number = size.halve(load(texts), None, half, now);
        texts /= 2;
        assert_eq!(size.answered(load(texts), CAP, Some(number), now), []);
        half = Some(number);
    }
    size.found(half);
    assert_eq!(size.most(CAP, now), CAP);
    assert!(size.halved.is_empty());
}

#[test]
fn one_request_at_a_time_finds_out_what_a_service_takes() {
    let (now, mut size) = (Instant::now(), Size::default());
    let load = |texts| Load { texts, tokens: texts, bytes: texts };
    let first = size.sent(load(32));
    assert!(!size.has_to_wait(load(32), now));
    let second = size.sent(load(32));
    size.landed(first);
    size.halve(load(32), None, None, now);
    size.landed(second);
    let half = size.sent(load(16));
    assert!(size.has_to_wait(load(16), now));
    size.landed(half);
    size.answered(load(16), CAP, None, now);
    size.sent(load(32));
    assert!(size.has_to_wait(load(17), now) && !size.has_to_wait(load(16), now));
    assert!(!size.has_to_wait(load(32), now + WATCHED));
}

#[test]
fn what_is_known_from_earlier_on_counts_from_the_beginning() {
    let now = Instant::now();
    let size = Size::knowing(&[(Measure::Texts, 10), (Measure::Tokens, 700)], now);
    assert_eq!(size.most(CAP, now), Load { texts: 10, tokens: 700, bytes: u64::MAX });
}
