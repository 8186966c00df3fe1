//! Validates the text of a timestamp in a filter.

/// Whether a text is infinity or an ISO 8601 date or time, which does not depend on DateStyle.
pub fn is_valid(text: &str) -> bool {
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let (clock, zone) = match (time.strip_suffix('Z'), time.split_once(['+', '-'])) {
        (Some(clock), _) => (clock, "00"),
        (None, Some(clock_and_zone)) => clock_and_zone,
        (None, None) => (time, "00"),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let date_fits = match numbers(date, '-', 4).as_deref() {
        Some([year, 2, day]) => {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            (1..=if leap { 29 } else { 28 }).contains(day)
        }
        Some([_, 4 | 6 | 9 | 11, day]) => (1..=30).contains(day),
        Some([_, 1..=12, day]) => (1..=31).contains(day),
        _ => false,
    } && !date.starts_with("0000");
    let clock_fits = match numbers(clock, ':', 2).as_deref() {
        Some([0..=23, 0..=59]) => !time.contains('.'),
        Some([0..=23, 0..=59, 0..=59]) => {
            (1..=9).contains(&fraction.len()) == time.contains('.')
                && fraction.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => false,
    };
    let zone_fits = matches!(
        numbers(zone, ':', 2).as_deref(),
        Some([0..=15] | [0..=15, 0..=59] | [0..=15, 0..=59, 0..=59])
    );
    matches!(text, "infinity" | "-infinity") || (date_fits && clock_fits && zone_fits)
}

/// The numbers between separators, with two digits each, except for the first, which has `first` digits.
fn numbers(text: &str, separator: char, first: usize) -> Option<Vec<u32>> {
    let widths = std::iter::once(first).chain(std::iter::repeat(2));
    let fits = |(part, width): (&str, usize)| {
        let digits = part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit());
        if digits { part.parse().ok() } else { None }
    };
    text.split(separator).zip(widths).map(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn iso_8601_passes() {
        for text in [
            "2024-02-29",
            "2000-02-29",
            "2024-05-31 12:00",
            "2024-05-31T23:59:59.123456+05:30",
            "2024-05-31T12:00:00-08",
            "1850-01-01T00:00:00+00:53:28",
            "2024-05-31T12:00Z",
            "infinity",
            "-infinity",
        ] {
            assert!(is_valid(text), "{text}");
        }
    }

    #[test]
    fn everything_else_is_rejected() {
        for text in [
            "",
            "now",
            "2023-02-29",
            "1900-02-29",
            "0000-01-01",
            "2024-13-01",
            "2024-00-01",
            "2024-04-31",
            "2024-01-00",
            "24-01-01",
            "2024-1-01",
            "01/02/2024",
            "2024-05-31T",
            "2024-05-31T24:00",
            "2024-05-31T12:60",
            "2024-05-31T12:00:60",
            "2024-05-31T12:00.5",
            "2024-05-31T12:00:00.",
            "2024-05-31T12:00:00.+5",
            "2024-05-31T12:00:00+16",
            "2024-05-31T12:00:00+01Z",
            "2024-05-31T12:00:00 Europe/Berlin",
            "2024-05-31Z",
            "٢٠٢٤-05-31",
            "2024-05-31'; select 1",
        ] {
            assert!(!is_valid(text), "{text}");
        }
    }
}
