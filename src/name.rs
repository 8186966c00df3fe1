//! The names embedd accepts, the names it makes up, and how a name or a text is written into SQL.

pub use embedd_wire::quote_literal;

/// The longest vector table name, in characters.
const MAX_CHARACTERS: usize = 100;

/// The longest physical table name in bytes: PostgreSQL's 63, less the room for `_swap` and `_old`.
const MAX_TABLE_BYTES: usize = 58;

/// The beginning of every physical table name, before the id.
const TABLE: &str = "embedd_vt_";

/// Why a vector table name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no character at all.
    #[error("vector table name must not be empty")]
    Empty,
    /// The name has more characters than allowed.
    #[error("vector table name is too long")]
    TooLong {
        /// How many characters it has.
        length: usize,
    },
    /// The name holds a character that cannot be seen or typed back.
    #[error("vector table name must not contain control characters")]
    ControlCharacter {
        /// Which character of the name it is, counted from 1.
        position: usize,
        /// The character.
        character: char,
    },
}

impl NameError {
    /// The DETAIL: a sentence on what was found.
    pub fn detail(&self) -> Option<String> {
        match self {
            NameError::Empty => None,
            NameError::TooLong { length } => Some(format!(
                "The name has {length} characters; at most {MAX_CHARACTERS} are allowed."
            )),
            NameError::ControlCharacter { position, character } => Some(format!(
                "Character {position} of the name is U+{:04X}.",
                u32::from(*character)
            )),
        }
    }
}

/// Refuses a vector table name that is not 1 to 100 printable characters.
pub fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let length = name.chars().count();
    if length > MAX_CHARACTERS {
        return Err(NameError::TooLong { length });
    }
    match name.chars().enumerate().find(|(_, character)| character.is_control()) {
        Some((index, character)) => {
            Err(NameError::ControlCharacter { position: index + 1, character })
        }
        None => Ok(()),
    }
}

/// The physical table's name of a vector table: `embedd_vt_<8 hex of the id>_<slug of the name>`.
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

/// Whether a physical table has the name of another vector table than this one.
pub fn is_of_another(table: &str, id: u32) -> bool {
    let number = table.strip_prefix(TABLE).and_then(|rest| rest.get(..8));
    number.and_then(|hex| u32::from_str_radix(hex, 16).ok()).is_some_and(|other| other != id)
}

/// An identifier as SQL, always in double quotes.
pub fn quote_ident(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Schema and name of a qualified name, each written as PostgreSQL writes it: in double quotes where it has to be.
pub fn split_qualified(qualified: &str) -> Option<(String, String)> {
    let mut parts = vec![String::new()];
    let (mut is_quoted, mut characters) = (false, qualified.chars().peekable());
    while let Some(character) = characters.next() {
        match character {
            // Two of them stand for one.
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
    fn names_of_1_to_100_characters_pass() {
        for name in ["a", "products-search", "Größe 中文", " ", &"é".repeat(100)] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn refusals_say_what_was_found() {
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
        assert_eq!(check("\0"), Err(NameError::ControlCharacter { position: 1, character: '\0' }));
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
    fn a_table_is_another_ones_by_its_number() {
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
    fn qualified_names_are_taken_apart() {
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
