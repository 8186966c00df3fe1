//! Writes the text of integers and uuids as PostgreSQL's output functions do, without the call.

/// Digits and sign of a number, in the end of the buffer; twenty bytes hold every i64.
pub fn integer(value: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let (mut rest, mut start) = (value.unsigned_abs(), buffer.len());
    loop {
        start -= 1;
        buffer[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        start -= 1;
        buffer[start] = b'-';
    }
    &buffer[start..]
}

/// The 36 characters of a uuid.
pub fn uuid(value: &[u8; 16]) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (n, byte) in value.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_length() {
        let powers = (0..19).map(|n| 10_i64.pow(n)).flat_map(|n| [n - 1, n, -n, 1 - n]);
        for value in powers.chain([i64::MIN, i64::MAX]) {
            assert_eq!(integer(value, &mut [0; 20]), value.to_string().as_bytes());
        }
    }

    #[test]
    fn a_uuid() {
        let value = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128.to_be_bytes();
        assert_eq!(&uuid(&value), b"01234567-89ab-cdef-fedc-ba9876543210");
    }
}
