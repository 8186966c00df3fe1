//! Compares two stored versions of a row where they lie, without a call into PostgreSQL for each column.

/// How a column of a relation is stored (access/htup_details.h).
pub struct Column {
    /// Bytes of a value; -1 where each value carries its length.
    pub length: i16,
    /// Bytes that a value is aligned to.
    pub alignment: usize,
    pub by_value: bool,
    /// Whether a difference in this column counts.
    pub is_watched: bool,
}

/// A stored version of a row.
pub struct StoredRow<'a> {
    /// Number of columns it has: a row that is older than a column does not have that column.
    pub columns: usize,
    /// One bit for each column, not set where it is null; none when no column is null.
    pub not_null: Option<&'a [u8]>,
    pub data: &'a [u8],
}

/// A value where it is stored.
enum Value<'a> {
    Null,
    /// All its bytes; the content, where that is not compressed or stored elsewhere.
    Bytes(&'a [u8], Option<&'a [u8]>),
}

impl Value<'_> {
    /// None when the bytes do not tell.
    fn is_same(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Value::Null, Value::Null) => Some(true),
            (Value::Bytes(a, _), Value::Bytes(b, _)) if a == b => Some(true),
            (Value::Bytes(_, Some(a)), Value::Bytes(_, Some(b))) => Some(a == b),
            (Value::Bytes(..), Value::Bytes(..)) => None,
            _ => Some(false),
        }
    }
}

impl<'a> StoredRow<'a> {
    fn is_null(&self, index: usize) -> bool {
        self.not_null.is_some_and(|bits| bits[index / 8] & (1 << (index % 8)) == 0)
    }

    /// Where a value of the column begins, if the one before it ends at `offset`, and all its bytes.
    fn bytes(&self, column: &Column, offset: usize) -> Option<(usize, &'a [u8])> {
        // A value that carries its length begins with a byte that is not zero, or where it is aligned.
        let is_aligned = column.length > 0 || *self.data.get(offset)? == 0;
        let mask = if is_aligned { column.alignment - 1 } else { 0 };
        let begin = (offset + mask) & !mask;
        let data = self.data.get(begin..)?;
        let size = match usize::try_from(column.length) {
            Ok(size) => size,
            Err(_) => varlena_size(data)?,
        };
        Some((begin, data.get(..size)?))
    }

    /// The value of the column with this index, if the one before it ends at `offset`. None when it cannot be read here.
    fn next(&self, index: usize, column: &Column, offset: &mut usize) -> Option<Value<'a>> {
        if index >= self.columns {
            return None;
        }
        if self.is_null(index) {
            return Some(Value::Null);
        }
        let (begin, bytes) = self.bytes(column, *offset)?;
        *offset = begin + bytes.len();
        let content = if column.length > 0 { Some(bytes) } else { varlena_content(bytes) };
        Some(Value::Bytes(bytes, content))
    }
}

/// Byte order of the header of a value that carries its length (varatt.h).
const BIG_ENDIAN: bool = cfg!(target_endian = "big");

/// A value that is a pointer into a TOAST table: its tag, and its bytes with header and varatt_external.
const ON_DISK: (u8, usize) = (18, 2 + 16);

/// The length in a header of one byte, which is zero before a tag. None when the header has four bytes.
fn short_length(first: u8) -> Option<usize> {
    let (is_short, length) =
        if BIG_ENDIAN { (first & 0x80 != 0, first & 0x7f) } else { (first & 1 != 0, first >> 1) };
    is_short.then_some(length.into())
}

/// Bytes of the value with a length at the beginning of `data`, with its header. None for one that no table stores.
fn varlena_size(data: &[u8]) -> Option<usize> {
    match short_length(*data.first()?) {
        Some(0) => (*data.get(1)? == ON_DISK.0).then_some(ON_DISK.1),
        Some(size) => Some(size),
        None => {
            let header = u32::from_ne_bytes(*data.first_chunk()?);
            Some(if BIG_ENDIAN { header & 0x3fff_ffff } else { header >> 2 } as usize)
        }
    }
}

/// What stands behind the header of these bytes. None where that is compressed or stored elsewhere.
pub fn varlena_content(bytes: &[u8]) -> Option<&[u8]> {
    let first = *bytes.first()?;
    match short_length(first) {
        Some(0) => None,
        Some(_) => bytes.get(1..),
        None if first & (if BIG_ENDIAN { 0x40 } else { 2 }) != 0 => None,
        None => bytes.get(4..),
    }
}

/// Compares versions that have the same columns and the same nulls, run by run of watched columns, as long as every value
/// of one begins where that of the other does. None when all that is watched is the same; else the first column that is
/// not compared yet, and the end of the one before it.
fn compare_runs(
    columns: &[Column],
    old: &StoredRow<'_>,
    new: &StoredRow<'_>,
) -> Option<(usize, usize)> {
    if columns.len() > old.columns || old.columns != new.columns || old.not_null != new.not_null {
        return Some((0, 0));
    }
    let (mut offset, mut run) = (0, (0, 0));
    for (index, column) in columns.iter().enumerate() {
        if old.is_null(index) {
            continue;
        }
        let Some((begin, bytes)) = old.bytes(column, offset) else { return Some(run) };
        let end = begin + bytes.len();
        if !column.is_watched {
            if old.data.get(run.1..offset) != new.data.get(run.1..offset) {
                return Some(run);
            }
            let other = new.bytes(column, offset).map(|(begin, bytes)| begin + bytes.len());
            if other != Some(end) {
                return Some((index, offset));
            }
            run = (index + 1, end);
        }
        offset = end;
    }
    (old.data.get(run.1..offset) != new.data.get(run.1..offset)).then_some(run)
}

/// Whether two versions of a row are the same in every watched column. `ask` is given the index of a column whose stored
/// bytes do not tell.
pub fn is_same(
    columns: &[Column],
    old: &StoredRow<'_>,
    new: &StoredRow<'_>,
    mut ask: impl FnMut(usize) -> bool,
) -> bool {
    let Some((first, offset)) = compare_runs(columns, old, new) else { return true };
    let (mut of_old, mut of_new) = (offset, offset);
    let mut is_readable = true;
    columns.iter().enumerate().skip(first).all(|(index, column)| {
        let values = if is_readable {
            old.next(index, column, &mut of_old).zip(new.next(index, column, &mut of_new))
        } else {
            None
        };
        // Where the columns after one that cannot be read begin is not known.
        is_readable = values.is_some();
        if !column.is_watched {
            return true;
        }
        values.and_then(|(a, b)| a.is_same(&b)).unwrap_or_else(|| ask(index))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(length: i16, alignment: usize, is_watched: bool) -> Column {
        Column { length, alignment, by_value: length > 0, is_watched }
    }

    /// An integer that is not watched, a text, a bigint, and a text that is not watched.
    fn columns() -> [Column; 4] {
        [column(4, 4, false), column(-1, 4, true), column(8, 8, true), column(-1, 4, false)]
    }

    fn align(data: &mut Vec<u8>, alignment: usize) {
        data.resize(data.len().next_multiple_of(alignment), 0);
    }

    /// With a header of one byte, which is not aligned.
    fn short(data: &mut Vec<u8>, text: &[u8]) {
        let length = text.len() as u8 + 1;
        data.push(if cfg!(target_endian = "big") { length | 0x80 } else { length << 1 | 1 });
        data.extend_from_slice(text);
    }

    fn long(data: &mut Vec<u8>, text: &[u8], is_compressed: bool) {
        align(data, 4);
        let (length, flag) = (text.len() as u32 + 4, u32::from(is_compressed));
        let header =
            if cfg!(target_endian = "big") { length | flag << 30 } else { length << 2 | flag << 1 };
        data.extend_from_slice(&header.to_ne_bytes());
        data.extend_from_slice(text);
    }

    fn elsewhere(data: &mut Vec<u8>, tag: u8, pointer: [u8; 16]) {
        data.extend_from_slice(&[if cfg!(target_endian = "big") { 0x80 } else { 1 }, tag]);
        data.extend_from_slice(&pointer);
    }

    fn row(number: i32, text: impl Fn(&mut Vec<u8>), bigint: i64, last: &[u8]) -> Vec<u8> {
        let mut data = number.to_ne_bytes().to_vec();
        text(&mut data);
        align(&mut data, 8);
        data.extend_from_slice(&bigint.to_ne_bytes());
        short(&mut data, last);
        data
    }

    fn stored<'a>(data: &'a [u8], not_null: Option<&'a [u8]>) -> StoredRow<'a> {
        StoredRow { columns: 4, not_null, data }
    }

    /// What the comparison says, and which columns it asks for.
    fn compared(old: &StoredRow<'_>, new: &StoredRow<'_>) -> (bool, Vec<usize>) {
        let mut asked = Vec::new();
        let same = is_same(&columns(), old, new, |index| {
            asked.push(index);
            true
        });
        (same, asked)
    }

    fn of_rows(old: &[u8], new: &[u8]) -> (bool, Vec<usize>) {
        compared(&stored(old, None), &stored(new, None))
    }

    #[test]
    fn only_watched_columns_count() {
        let old = row(1, |d| short(d, b"text"), 7, b"a");
        assert_eq!(of_rows(&old, &row(2, |d| short(d, b"text"), 7, b"longer")), (true, vec![]));
        assert_eq!(of_rows(&old, &row(1, |d| short(d, b"tex"), 7, b"a")), (false, vec![]));
        assert_eq!(of_rows(&old, &row(1, |d| short(d, b"text"), 8, b"a")), (false, vec![]));
    }

    #[test]
    fn every_column_alone_and_every_choice_of_watched_ones() {
        let old = row(1, |d| short(d, b"text"), 7, b"last");
        let changed = [
            (0, row(2, |d| short(d, b"text"), 7, b"last")),
            (1, row(1, |d| short(d, b"next"), 7, b"last")),
            (1, row(1, |d| short(d, b"a longer text"), 7, b"last")),
            (2, row(1, |d| short(d, b"text"), 8, b"last")),
            (3, row(1, |d| short(d, b"text"), 7, b"list")),
            (3, row(1, |d| short(d, b"text"), 7, b"")),
        ];
        for choice in 0..16 {
            let mut columns = columns();
            for (index, column) in columns.iter_mut().enumerate() {
                column.is_watched = choice >> index & 1 != 0;
            }
            for (index, new) in &changed {
                let (a, b) = (stored(&old, None), stored(new, None));
                let expected = !columns[*index].is_watched;
                assert_eq!(is_same(&columns, &a, &b, |_| false), expected, "{choice:b} {index}");
                assert_eq!(is_same(&columns, &b, &a, |_| false), expected, "{choice:b} {index}");
            }
        }
    }

    #[test]
    fn a_text_is_the_same_under_another_header() {
        // 60 bytes and the header make 64, whose first byte is zero as padding is.
        for text in [&b"text"[..], &[b'x'; 60], b""] {
            let old = row(1, |d| short(d, text), 7, b"a");
            let new = row(1, |d| long(d, text, false), 7, b"a");
            assert_eq!(of_rows(&old, &new), (true, vec![]));
            let other = row(1, |d| long(d, &[text, b"y"].concat(), false), 7, b"a");
            assert_eq!(of_rows(&old, &other), (false, vec![]));
        }
    }

    #[test]
    fn compressed_and_moved_values_are_asked_for_when_their_bytes_differ() {
        let compressed = |text: &'static [u8]| row(1, move |d| long(d, text, true), 7, b"a");
        assert_eq!(of_rows(&compressed(b"one"), &compressed(b"one")), (true, vec![]));
        assert_eq!(of_rows(&compressed(b"one"), &compressed(b"two")), (true, vec![1]));
        let moved = |pointer| row(1, move |d| elsewhere(d, 18, [pointer; 16]), 7, b"a");
        assert_eq!(of_rows(&moved(1), &moved(1)), (true, vec![]));
        assert_eq!(of_rows(&moved(1), &moved(2)), (true, vec![1]));
        // What follows is still read.
        let changed = row(1, |d| elsewhere(d, 18, [2; 16]), 8, b"a");
        assert_eq!(of_rows(&moved(1), &changed), (false, vec![1]));
    }

    #[test]
    fn nulls_take_no_place() {
        let full = row(1, |d| short(d, b"text"), 7, b"a");
        let without_text = row(1, |_| (), 7, b"a");
        let null = |data| stored(data, Some(&[0b1101]));
        assert_eq!(compared(&null(&without_text), &null(&without_text)), (true, vec![]));
        assert_eq!(compared(&stored(&full, None), &null(&without_text)), (false, vec![]));
        let other = row(1, |_| (), 8, b"a");
        assert_eq!(compared(&null(&without_text), &null(&other)), (false, vec![]));
    }

    #[test]
    fn columns_that_cannot_be_read_are_asked_for() {
        let data = row(1, |d| short(d, b"text"), 7, b"a");
        let older = StoredRow { columns: 2, not_null: None, data: &data };
        assert_eq!(compared(&older, &stored(&data, None)), (true, vec![2]));
        let unknown = row(1, |d| elsewhere(d, 99, [0; 16]), 7, b"a");
        assert_eq!(of_rows(&unknown, &unknown), (true, vec![1, 2]));
        for end in 0..data.len() - 2 {
            let (_, asked) = of_rows(&data, &data[..end]);
            assert!(!asked.is_empty(), "{end} bytes");
        }
    }
}
