//! Learning limits of texts, tokens and bytes, whether the service names them or not, with few rejected requests.

use super::*;

/// A simulated service with limits, and its counts.
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

    /// Sends texts of this many tokens and bytes, in batches of the learned size.
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
        self.size.completed(mark);
        if load.is_within(self.takes) {
            self.size.answered(load, cap, half, now);
            return;
        }
        self.refused += 1;
        if self.size.exceeds(load) {
            self.size.larger_refused(load, now);
            self.size.half_explained(half);
            return self.send(texts, tokens, bytes, cap, now);
        }
        if let Some(words) = self.words.clone()
            && self.size.stated(load, &words, now).is_some()
        {
            return self.send(texts, tokens, bytes, cap, now);
        }
        let hint = self.words.as_ref().map(|words| words.measure);
        let number = self.size.bisect(load, hint, half, now);
        for texts in [texts / 2, texts.div_ceil(2)] {
            // A limit may have been learned meanwhile.
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
fn a_limit_of_texts_is_found_by_bisecting_and_tested_once_an_hour() {
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
fn a_limit_the_service_names_applies_at_once() {
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
fn tokens_and_bytes_are_blamed_if_as_many_texts_were_accepted() {
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
fn a_guessed_limit_of_texts_is_dropped_once_tokens_explain_it() {
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
fn a_raised_limit_is_forgotten_and_a_lowered_one_is_learned() {
    let begin = Instant::now();
    let mut service = Service::new(Load { texts: 8, ..Load::ANY });
    service.send(1000, 5, 20, CAP, begin);
    assert_eq!(service.size.most(CAP, begin).texts, 8);
    service.takes = Load::ANY;
    let later = begin + HOUR + HOUR;
    service.send(1000, 5, 20, CAP, later);
    assert_eq!(service.size.most(CAP, later).texts, 64);
    // The service is restarted with a lower limit.
    service.takes.texts = 4;
    service.send(1000, 5, 20, CAP, later);
    assert_eq!(service.size.most(CAP, later).texts, 4);
}

#[test]
fn a_rejected_text_is_no_limit() {
    let (now, mut size) = (Instant::now(), Size::default());
    // 64 texts, one of which is bad: one half of each pair passes.
    let (mut half, mut texts) = (None, 64);
    let load = |texts| Load { texts, tokens: texts * 5, bytes: texts * 20 };
    while texts > 1 {
        let number = size.bisect(load(texts), None, half, now);
        texts /= 2;
        assert_eq!(size.answered(load(texts), CAP, Some(number), now), []);
        half = Some(number);
    }
    size.half_explained(half);
    assert_eq!(size.most(CAP, now), CAP);
    assert!(size.bisected.is_empty());
}

#[test]
fn one_batch_at_a_time_explores_a_limit() {
    let (now, mut size) = (Instant::now(), Size::default());
    let load = |texts| Load { texts, tokens: texts, bytes: texts };
    let first = size.sent(load(32));
    assert!(!size.has_to_wait(load(32), now));
    let second = size.sent(load(32));
    size.completed(first);
    size.bisect(load(32), None, None, now);
    size.completed(second);
    let half = size.sent(load(16));
    assert!(size.has_to_wait(load(16), now));
    size.completed(half);
    size.answered(load(16), CAP, None, now);
    size.sent(load(32));
    assert!(size.has_to_wait(load(17), now) && !size.has_to_wait(load(16), now));
    assert!(!size.has_to_wait(load(32), now + BISECTION_TIME));
}

#[test]
fn limits_learned_earlier_apply_from_the_start() {
    let now = Instant::now();
    let size = Size::with_limits(&[(Measure::Texts, 10), (Measure::Tokens, 700)], now);
    assert_eq!(size.most(CAP, now), Load { texts: 10, tokens: 700, bytes: u64::MAX });
}
