//! Cuts a text into word pieces the way BERT's uncased tokenizer does.

use super::{ModelError, Tokens};
use std::collections::HashMap;
use std::path::Path;
use unicode_categories::UnicodeCategories;
use unicode_normalization::UnicodeNormalization;

/// A word of more characters than this is one unknown piece.
const LONGEST_WORD: usize = 100;

/// A larger vocabulary file is rejected.
const LARGEST_FILE: u64 = 64 << 20;

/// Special tokens, recognised in the raw text.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The vocabulary and how to use it.
pub(super) struct Tokenizer {
    /// Pieces that begin a word.
    heads: HashMap<Box<str>, u32>,
    /// Pieces that continue a word, without their `##`.
    tails: HashMap<Box<str>, u32>,
    special: Vec<(&'static str, u32)>,
    /// The length of the longest piece in bytes.
    longest: usize,
    unknown: u32,
    start: u32,
    end: u32,
}

impl Tokenizer {
    /// Reads `vocab.txt`: one piece a line, its line number its id.
    pub fn read(path: &Path, vocabulary: usize) -> Result<Tokenizer, ModelError> {
        let damaged = |reason: String| ModelError::damaged(path, reason);
        let text = String::from_utf8(super::config::read_small(path, LARGEST_FILE)?)
            .map_err(|error| damaged(error.to_string()))?;
        let (mut heads, mut tails) = (HashMap::new(), HashMap::new());
        let mut longest = 0;
        let mut lines = 0;
        for line in text.strip_suffix('\n').unwrap_or(&text).split('\n') {
            let piece = line.trim_end();
            let (pieces, piece) = match piece.strip_prefix("##") {
                Some(tail) if !tail.is_empty() => (&mut tails, tail),
                _ => (&mut heads, piece),
            };
            longest = longest.max(piece.len());
            pieces.insert(Box::from(piece), lines as u32);
            lines += 1;
        }
        if lines != vocabulary {
            return Err(damaged(format!(
                "{lines} word pieces, and config.json asks for {vocabulary}"
            )));
        }
        heads.remove("");
        let id = |piece: &str| {
            heads.get(piece).copied().ok_or_else(|| damaged(format!("no piece {piece:?}")))
        };
        let (unknown, start, end) = (id("[UNK]")?, id("[CLS]")?, id("[SEP]")?);
        let special =
            SPECIAL.iter().filter_map(|piece| Some((*piece, *heads.get(*piece)?))).collect();
        Ok(Tokenizer { special, longest, unknown, start, end, heads, tails })
    }

    /// The id of unknown pieces.
    pub fn unknown(&self) -> u32 {
        self.unknown
    }

    /// Tokenizes a text into at most `limit` pieces, including the begin and end tokens; reads no further than
    /// necessary.
    pub fn tokenize(&self, text: &str, limit: usize) -> Tokens {
        let mut pieces = Pieces {
            tokenizer: self,
            ids: vec![self.start],
            limit,
            word: String::new(),
            length: 0,
        };
        let mut from = 0;
        for (at, _) in text.match_indices('[') {
            let found = self.special.iter().find(|(piece, _)| text[at..].starts_with(piece));
            if let Some((piece, id)) = found {
                pieces.read(&text[from..at]);
                pieces.ids.push(*id);
                from = at + piece.len();
            }
            if pieces.full() {
                break;
            }
        }
        pieces.read(&text[from..]);
        let mut ids = pieces.ids;
        let truncated = ids.len() >= limit;
        ids.truncate(limit - 1);
        ids.push(self.end);
        Tokens { ids, truncated }
    }
}

/// A text being tokenized.
struct Pieces<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    limit: usize,
    /// The word being read, up to the longest that can have pieces, and its length in characters.
    word: String,
    length: usize,
}

impl Pieces<'_> {
    /// Whether the limit is exceeded, not counting the end token.
    fn full(&self) -> bool {
        self.ids.len() >= self.limit
    }

    /// Normalises a stretch of text and tokenizes it.
    fn read(&mut self, text: &str) {
        let plain = text.chars().filter(|c| !is_dropped(*c)).flat_map(set_apart).nfd();
        for c in
            plain.filter(|c| c.is_ascii() || !c.is_mark_nonspacing()).flat_map(char::to_lowercase)
        {
            if self.full() {
                return;
            }
            if c.is_whitespace() {
                self.end_word();
            } else if is_punctuation(c) {
                self.end_word();
                self.add(c);
                self.end_word();
            } else {
                self.add(c);
            }
        }
        self.end_word();
    }

    /// Adds a character to the word.
    fn add(&mut self, c: char) {
        self.length += 1;
        if self.length <= LONGEST_WORD {
            self.word.push(c);
        }
    }

    /// Splits the word into the longest pieces there are, from the left; if any part has no piece, the word is
    /// unknown.
    fn end_word(&mut self) {
        if self.length == 0 || self.full() {
            return;
        }
        let before = self.ids.len();
        let mut rest = if self.length > LONGEST_WORD { None } else { Some(self.word.as_str()) };
        let mut table = &self.tokenizer.heads;
        while let Some(word) = rest.filter(|word| !word.is_empty()) {
            let mut end = word.floor_char_boundary(self.tokenizer.longest);
            let id = loop {
                match table.get(&word[..end]) {
                    Some(id) => break Some(*id),
                    None if end == 0 => break None,
                    None => end = word.floor_char_boundary(end - 1),
                }
            };
            self.ids.extend(id);
            rest = id.map(|_| &word[end..]);
            table = &self.tokenizer.tails;
        }
        if rest.is_none() {
            self.ids.truncate(before);
            self.ids.push(self.tokenizer.unknown);
        }
        self.word.clear();
        self.length = 0;
    }
}

/// Whether a character is left out: control, format and private-use characters, and the replacement character.
fn is_dropped(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        ' '..='~' => false,
        _ => c == '\u{fffd}' || c.is_other(),
    }
}

/// Every kind of space becomes a space, and a Chinese character gets one on either side.
fn set_apart(c: char) -> impl Iterator<Item = char> {
    let (before, c, after) = match c {
        c if c.is_whitespace() => (None, ' ', None),
        c if is_chinese(c) => (Some(' '), c, Some(' ')),
        c => (None, c, None),
    };
    before.into_iter().chain([c]).chain(after)
}

/// Whether a character stands for a word of its own; one block begins later than in Unicode, as it does in training.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}

/// Whether a character is a word by itself.
fn is_punctuation(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_punctuation() } else { c.is_punctuation() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const VOCABULARY: &str = "[PAD] [UNK] [CLS] [SEP] [MASK] un ##aff ##able affable a ##a the ! , [ ] 机 ##机 cafe o ##o ##b b";

    fn tokenizer() -> Tokenizer {
        let lines: Vec<&str> = VOCABULARY.split(' ').collect();
        let path =
            std::env::temp_dir().join(format!("embedd-vocab-{:?}", std::thread::current().id()));
        std::fs::write(&path, lines.join("\r\n")).unwrap();
        let tokenizer = Tokenizer::read(&path, lines.len());
        std::fs::remove_file(&path).unwrap();
        tokenizer.unwrap()
    }

    /// The pieces of a text by name, without the marks.
    fn pieces(text: &str) -> String {
        let Tokens { ids, truncated } = tokenizer().tokenize(text, 64);
        assert!(!truncated);
        let names: Vec<&str> = VOCABULARY.split(' ').collect();
        let names: Vec<&str> = ids.iter().map(|id| names[*id as usize]).collect();
        assert_eq!((names[0], names[names.len() - 1]), ("[CLS]", "[SEP]"));
        names[1..names.len() - 1].join(" ")
    }

    #[test]
    fn words_are_cut_into_the_longest_pieces() {
        for (text, expected) in [
            ("", ""),
            (" \t\n\u{a0}\u{3000} ", ""),
            ("unaffable", "un ##aff ##able"),
            ("UNAFFABLE affable", "un ##aff ##able affable"),
            ("the xyz the", "the [UNK] the"),
            ("thex", "[UNK]"),
            ("Café CAFE\u{301} cafe", "cafe cafe cafe"),
            ("a,a!the", "a , a ! the"),
            ("a机机a", "a 机 机 a"),
            ("a\u{0}\u{7}\u{ad}\u{200b}\u{fffd}a", "a ##a"),
            ("\u{301}\u{301}", ""),
            ("a\u{85}a\u{2028}a", "aa a".replace("aa", "a ##a").as_str()),
        ] {
            assert_eq!(pieces(text), expected, "{text:?}");
        }
    }

    #[test]
    fn special_tokens_in_the_text_are_recognised() {
        for (text, expected) in [
            ("a[SEP]a", "a [SEP] a"),
            ("[CLS] [PAD] [MASK][UNK]", "[CLS] [PAD] [MASK] [UNK]"),
            ("[[SEP]]", "[ [SEP] ]"),
            ("[sep]", "[ [UNK] ]"),
            ("[SEP", "[ [UNK]"),
        ] {
            assert_eq!(pieces(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_word_of_101_characters_is_unknown() {
        assert_eq!(pieces(&"a".repeat(50)).split(' ').count(), 50);
        let tokens = |length| tokenizer().tokenize(&"a".repeat(length), 256).ids.len();
        assert_eq!((tokens(100), tokens(101)), (102, 3));
        assert_eq!(pieces(&"é".repeat(101)), "[UNK]");
    }

    #[test]
    fn the_limit_holds_and_truncation_is_reported() {
        let tokenizer = tokenizer();
        for (text, truncated) in [
            ("a a a", false),
            ("a a a  \n ", false),
            ("aaa", false),
            ("a a [SEP]", false),
            ("a a a a", true),
            ("aaaa", true),
            ("a a unaffable", true),
            ("a a a [SEP]", true),
            ("[SEP][SEP][SEP][SEP]", true),
            ("a a a \u{200b}\u{301} !", true),
        ] {
            let tokens = tokenizer.tokenize(text, 5);
            assert_eq!((tokens.ids.len(), tokens.truncated), (5, truncated), "{text:?}");
            assert_eq!((tokens.ids[0], tokens.ids[4]), (2, 3));
        }
    }

    #[test]
    fn long_texts_take_linear_time() {
        let tokenizer = tokenizer();
        let size = 1 << 20;
        let begin = Instant::now();
        for unit in [
            "a",
            "a ",
            " ",
            "\u{0}",
            "\u{301}",
            "a\u{301}\u{323}",
            "[",
            "[SEP",
            "机",
            "xyz ",
            "\u{1d15e}",
        ] {
            tokenizer.tokenize(&unit.repeat(size / unit.len()), 256);
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    }
}
