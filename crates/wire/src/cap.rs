//! The caps of a provider: how many tokens a day and a month of UTC documents may use. It reads no clock.

use crate::{Limits, Usage, quote_literal};

/// The period of a cap, of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    Day,
    Month,
}

impl Period {
    /// The option of the provider that sets the cap.
    pub fn option(self) -> &'static str {
        match self {
            Period::Day => "max_tokens_per_day",
            Period::Month => "max_tokens_per_month",
        }
    }

    /// The first day of the period that this day is in, in days since 1970-01-01.
    pub fn begin(self, day: u32) -> u32 {
        match self {
            Period::Day => day,
            Period::Month => day - (date(day).2 - 1),
        }
    }

    /// The first day after the period.
    pub fn end(self, day: u32) -> u32 {
        match self {
            Period::Day => day + 1,
            // No month has more than 31 days, and none has fewer than 28.
            Period::Month => Period::Month.begin(Period::Month.begin(day) + 31),
        }
    }
}

/// A cap that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    pub period: Period,
    /// The cap, and the tokens used in the period.
    pub most: u64,
    pub used: u64,
    /// The day at whose beginning the period is over.
    pub until: u32,
}

impl Limits {
    /// The caps that are set.
    fn caps(&self) -> impl Iterator<Item = (Period, u64)> {
        let caps =
            [(Period::Day, self.max_tokens_per_day), (Period::Month, self.max_tokens_per_month)];
        caps.into_iter().filter_map(|(period, most)| Some((period, most?)))
    }

    /// Whether there is a cap.
    pub fn has_caps(&self) -> bool {
        self.caps().next().is_some()
    }

    /// Tokens that documents may still use today; `used` is the sum since a day.
    pub fn tokens_left(&self, today: u32, used: impl Fn(u32) -> u64) -> u64 {
        let left = |(period, most): (Period, u64)| most.saturating_sub(used(period.begin(today)));
        self.caps().map(left).min().unwrap_or(u64::MAX)
    }

    /// The cap that is reached today; of two the one that ends later.
    pub fn reached(&self, today: u32, used: impl Fn(u32) -> u64) -> Option<Reached> {
        let reached = |(period, most): (Period, u64)| {
            let used = used(period.begin(today));
            (used >= most).then(|| Reached { period, most, used, until: period.end(today) })
        };
        self.caps().filter_map(reached).max_by_key(|reached| reached.until)
    }
}

impl Reached {
    /// A sentence with the numbers, and the moment at which the cap ends.
    pub fn explained(&self) -> String {
        let (year, month, day) = date(self.until);
        format!(
            "{} tokens are used of {}, and documents wait until {year:04}-{month:02}-{day:02} 00:00 UTC",
            self.used, self.most
        )
    }

    /// The statement that raises the cap of this provider, so that there is room for as many tokens again.
    pub fn statement(&self, provider: &str) -> String {
        let (provider, option) = (quote_literal(provider), self.period.option());
        let raised = self.used.saturating_add(self.most);
        format!(
            "SELECT embedd.update_provider({provider}, options => '{{\"{option}\": {raised}}}')"
        )
    }
}

/// The tokens of a provider since a day, from its rows of usage.
pub fn tokens_since<'a>(rows: impl IntoIterator<Item = &'a Usage>, day: u32) -> u64 {
    let since = rows.into_iter().filter(|row| row.day >= day);
    since.fold(0, |sum, row| sum.saturating_add(row.tokens))
}

/// Year, month and day of a day since 1970-01-01.
fn date(day: u32) -> (u32, u32, u32) {
    // With years counted from March the leap day comes last, so the length of the months before it is fixed.
    let days = u64::from(day) + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    ((year + era * 400 + next) as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capped(day: Option<u64>, month: Option<u64>) -> Limits {
        Limits { max_tokens_per_day: day, max_tokens_per_month: month, ..Limits::DEFAULT }
    }

    #[test]
    fn days_are_dates() {
        for (day, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_786, (2026, 11, 29)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(day), expected);
        }
    }

    #[test]
    fn a_month_ends_with_its_last_day() {
        for (day, begin, end) in [
            // 2024-02-29, 2026-11-30, 2026-12-01 and -31.
            (19_782, 19_754, 19_783),
            (20_787, 20_758, 20_788),
            (20_788, 20_788, 20_819),
            (20_818, 20_788, 20_819),
        ] {
            assert_eq!((Period::Month.begin(day), Period::Month.end(day)), (begin, end), "{day}");
        }
        assert_eq!((Period::Day.begin(7), Period::Day.end(7)), (7, 8));
    }

    #[test]
    fn a_cap_is_reached_when_as_much_is_used() {
        // 30 tokens today, 100 in the month.
        let today = 20_786;
        let used = |since| if since == today { 30 } else { 100 };
        assert!(!Limits::DEFAULT.has_caps() && capped(Some(1), None).has_caps());
        assert_eq!(Limits::DEFAULT.tokens_left(today, used), u64::MAX);
        assert_eq!(Limits::DEFAULT.reached(today, used), None);
        for (day, month, left, reached) in [
            (Some(31), None, 1, None),
            (Some(30), None, 0, Some((Period::Day, 30, 30, today + 1))),
            (Some(5), Some(101), 0, Some((Period::Day, 5, 30, today + 1))),
            (Some(40), Some(101), 1, None),
            (Some(40), Some(100), 0, Some((Period::Month, 100, 100, 20_788))),
            // The cap of the month ends later.
            (Some(5), Some(5), 0, Some((Period::Month, 5, 100, 20_788))),
        ] {
            let limits = capped(day, month);
            let found = limits.reached(today, used);
            assert_eq!(limits.tokens_left(today, used), left, "{day:?} {month:?}");
            assert_eq!(found.map(|r| (r.period, r.most, r.used, r.until)), reached);
        }
    }

    #[test]
    fn the_sentence_names_numbers_and_the_end() {
        let reached = Reached { period: Period::Day, most: 10, used: 12, until: 20_788 };
        let said = "12 tokens are used of 10, and documents wait until 2026-12-01 00:00 UTC";
        assert_eq!(reached.explained(), said);
        let statement =
            r#"SELECT embedd.update_provider('it''s', options => '{"max_tokens_per_day": 22}')"#;
        assert_eq!(reached.statement("it's"), statement);
        let row = |day, tokens| Usage { day, tokens, ..Usage::default() };
        assert_eq!(tokens_since(&[row(1, 5), row(2, u64::MAX), row(3, 7)], 2), u64::MAX);
        assert_eq!(tokens_since(&[row(1, 5), row(3, 7)], 2), 7);
    }
}
