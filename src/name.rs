//! Validation and creation of names, and quoting of names in SQL.

pub use embedd_wire::quote_literal;

/// The longest vector table name, in characters.
const MAX_CHARACTERS: usize = 100;

/// The longest name of a physical table in bytes: PostgreSQL's 63, less room for `_swap` and `_old`.
const MAX_TABLE_BYTES: usize = 58;

/// The prefix of every physical table name.
const TABLE: &str = "embedd_vt_";

/// An invalid name of a vector table, or of its physical table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty.
    #[error("{of} must not be empty")]
    Empty {
        /// What the name is.
        of: &'static str,
    },
    /// The name of a vector table is too long.
    #[error("vector table name is too long")]
    TooLong {
        /// Its number of characters.
        length: usize,
    },
    /// The name of a physical table is too long.
    #[error("table_name is too long")]
    TableTooLong {
        /// Its number of bytes.
        length: usize,
    },
    /// The name contains a control character.
    #[error("{of} must not contain control characters")]
    ControlCharacter {
        /// What the name is.
        of: &'static str,
        /// The position of the character, from 1.
        position: usize,
        /// The character.
        character: char,
    },
    /// The name of a physical table has the form that embedd gives to names.
    #[error("table_name \"{name}\" is reserved")]
    Reserved {
        /// The name.
        name: String,
    },
}

/// What a [`NameError`] is about.
const NAME: &str = "vector table name";
const TABLE_NAME: &str = "table_name";

impl NameError {
    /// The DETAIL.
    pub fn detail(&self) -> Option<String> {
        match self {
            NameError::Empty { .. } => None,
            NameError::TooLong { length } => Some(format!(
                "The name has {length} characters; at most {MAX_CHARACTERS} are allowed."
            )),
            NameError::TableTooLong { length } => Some(format!(
                "The name has {length} bytes; at most {MAX_TABLE_BYTES} are allowed, because a change of the model needs the suffix _swap."
            )),
            NameError::ControlCharacter { position, character, .. } => Some(format!(
                "Character {position} of the name is U+{:04X}.",
                u32::from(*character)
            )),
            NameError::Reserved { .. } => Some(
                "embedd gives names of this form, embedd_vt_ and 8 hexadecimal digits, by number."
                    .to_string(),
            ),
        }
    }
}

/// Rejects a vector table name that does not consist of 1 to 100 printable characters.
pub fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { of: NAME });
    }
    let length = name.chars().count();
    if length > MAX_CHARACTERS {
        return Err(NameError::TooLong { length });
    }
    check_characters(NAME, name)
}

/// Rejects a name for a physical table that leaves no room for suffixes, or that says another number than the vector
/// table's.
pub fn check_table(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { of: TABLE_NAME });
    }
    if name.len() > MAX_TABLE_BYTES {
        return Err(NameError::TableTooLong { length: name.len() });
    }
    if number(name).is_some() {
        return Err(NameError::Reserved { name: name.to_string() });
    }
    check_characters(TABLE_NAME, name)
}

fn check_characters(of: &'static str, name: &str) -> Result<(), NameError> {
    match name.chars().enumerate().find(|(_, character)| character.is_control()) {
        Some((index, character)) => {
            Err(NameError::ControlCharacter { of, position: index + 1, character })
        }
        None => Ok(()),
    }
}

/// The name of a vector table's physical table: `embedd_vt_<8 hex digits of the id>_<slug of the name>`.
pub fn vector_table(name: &str, id: u32) -> String {
    let mut table = format!("{TABLE}{id:08x}");
    for word in name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let room = MAX_TABLE_BYTES.saturating_sub(table.len() + 1);
        if room == 0 {
            break;
        }
        table.push('_');
        table.extend(word.chars().take(room).map(|c| c.to_ascii_lowercase()));
    }
    table
}

/// The suffix of the table of a shadow.
pub const SWAP: &str = "_swap";
/// The suffix of a table that a swap has replaced.
pub const OLD: &str = "_old";

/// The name of a table with a suffix, within PostgreSQL's 63 bytes.
pub fn suffixed(table: &str, suffix: &str) -> String {
    let mut room = 63 - suffix.len();
    while !table.is_char_boundary(room.min(table.len())) {
        room -= 1;
    }
    format!("{}{suffix}", &table[..room.min(table.len())])
}

/// Whether the name of a physical table belongs to another vector table.
pub fn is_of_another(table: &str, id: u32) -> bool {
    number(table).is_some_and(|other| other != id)
}

/// The id in the name of a physical table, if the name has the form of [`vector_table`].
fn number(table: &str) -> Option<u32> {
    let hex = table.strip_prefix(TABLE)?.get(..8)?;
    u32::from_str_radix(hex, 16).ok()
}

/// An identifier for SQL, always in double quotes.
pub fn quote_ident(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Splits a qualified name into schema and name, each in double quotes only if necessary.
pub fn split_qualified(qualified: &str) -> Option<(String, String)> {
    let mut parts = vec![String::new()];
    let (mut is_quoted, mut characters) = (false, qualified.chars().peekable());
    while let Some(character) = characters.next() {
        match character {
            // A doubled quote stands for one.
            '"' if is_quoted && characters.next_if_eq(&'"').is_some() => {
                parts.last_mut()?.push('"')
            }
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => parts.push(String::new()),
            other => parts.last_mut()?.push(other),
        }
    }
    let [schema, name]: [String; 2] = parts.try_into().ok()?;
    (!is_quoted && !schema.is_empty() && !name.is_empty()).then_some((schema, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_fits_into_a_name() {
        assert_eq!(suffixed("products", SWAP), "products_swap");
        assert_eq!(suffixed(&"x".repeat(63), OLD), format!("{}_old", "x".repeat(59)));
        assert_eq!(suffixed(&"é".repeat(31), SWAP), format!("{}_swap", "é".repeat(29)));
    }

    #[test]
    fn names_of_1_to_100_characters_are_valid() {
        for name in ["a", "products-search", "Größe 中文", " ", &"é".repeat(100)] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn errors_have_a_detail() {
        let cases = [
            ("", "vector table name must not be empty", None),
            (
                &*"é".repeat(101),
                "vector table name is too long",
                Some("The name has 101 characters; at most 100 are allowed."),
            ),
            (
                "a\nb",
                "vector table name must not contain control characters",
                Some("Character 2 of the name is U+000A."),
            ),
        ];
        for (name, message, detail) in cases {
            let error = check(name).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.detail().as_deref(), detail);
        }
        let control = NameError::ControlCharacter { of: NAME, position: 1, character: '\0' };
        assert_eq!(check("\0"), Err(control));
        assert!(check("\u{7f}").is_err() && check("\u{85}").is_err());
    }

    #[test]
    fn tables_are_named_by_id_and_slug() {
        for (name, id, table) in [
            ("products-search", 0xa1b2_c3d4, "embedd_vt_a1b2c3d4_products_search"),
            ("  Big -- Name!  ", 1, "embedd_vt_00000001_big_name"),
            ("__x__", 0, "embedd_vt_00000000_x"),
            ("été", 7, "embedd_vt_00000007_t"),
            ("中文", 7, "embedd_vt_00000007"),
            ("\"; drop table t; --", 7, "embedd_vt_00000007_drop_table_t"),
        ] {
            assert_eq!(vector_table(name, id), table);
        }
    }

    #[test]
    fn a_table_name_leaves_room_for_suffixes_and_says_no_number() {
        for name in ["vectors", "Größe \"x\"", "embedd_vt_docs", &"x".repeat(58), &"é".repeat(29)]
        {
            assert_eq!(check_table(name), Ok(()), "{name:?}");
        }
        assert_eq!(check_table(""), Err(NameError::Empty { of: TABLE_NAME }));
        assert_eq!(check_table(&"é".repeat(30)), Err(NameError::TableTooLong { length: 60 }));
        for name in ["embedd_vt_00000001_docs", "embedd_vt_0000abcd", &vector_table("docs", 7)] {
            assert!(matches!(check_table(name), Err(NameError::Reserved { .. })), "{name}");
        }
        assert!(matches!(check_table("a\nb"), Err(NameError::ControlCharacter { .. })));
    }

    #[test]
    fn a_table_belongs_to_another_vector_table_by_its_id() {
        assert!(!is_of_another(&vector_table("products", 7), 7));
        assert!(is_of_another(&vector_table("products", 7), 8));
        for renamed in ["vectors", "embedd_vt_", "embedd_vt_ééééé", "embedd_vt_my_table"] {
            assert!(!is_of_another(renamed, 7), "{renamed}");
        }
    }

    #[test]
    fn tables_leave_room_for_swap_and_old() {
        assert_eq!(
            vector_table(&"x".repeat(100), u32::MAX),
            format!("embedd_vt_ffffffff_{}", "x".repeat(39))
        );
        for length in 30..60 {
            for tail in ["-y", "--yy-z", "-"] {
                let table = vector_table(&format!("{}{tail}", "x".repeat(length)), 1);
                assert!(table.len() <= 58 && !table.ends_with('_'), "{table}");
            }
        }
        assert_eq!(vector_table(&format!("{}-yz", "x".repeat(37)), 1).len(), 58);
        assert_eq!(vector_table(&format!("{}-yz", "x".repeat(38)), 1).len(), 57);
    }

    #[test]
    fn identifiers_are_always_quoted() {
        assert_eq!(quote_ident("name"), "\"name\"");
        assert_eq!(quote_ident("a\"b\"\"c"), "\"a\"\"b\"\"\"\"c\"");
        assert_eq!(quote_ident("x\"; drop table t"), "\"x\"\"; drop table t\"");
    }

    #[test]
    fn qualified_names_are_split() {
        let split =
            |text: &str| split_qualified(text).map(|(schema, name)| format!("{schema}|{name}"));
        let cases = [
            ("public.items", Some("public|items")),
            (r#"public."a.b""#, Some("public|a.b")),
            (r#""S"."say ""so""""#, Some(r#"S|say "so""#)),
            (r#""."."".""#, None),
            ("items", None),
            ("a.b.c", None),
            (r#"a."b"#, None),
            ("", None),
            (".", None),
        ];
        for (text, parts) in cases {
            assert_eq!(split(text).as_deref(), parts, "{text}");
        }
        for (schema, name) in [("S", "n"), (r#"".""#, r#"a"".b"#)] {
            let qualified = format!("{}.{}", quote_ident(schema), quote_ident(name));
            assert_eq!(split_qualified(&qualified), Some((schema.into(), name.into())));
        }
    }
}
