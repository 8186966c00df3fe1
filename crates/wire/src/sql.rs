//! SQL literals for HINTs, which hold statements that can be pasted.

/// A text as a SQL literal that is the same whatever standard_conforming_strings is.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_escape_quotes_and_backslashes() {
        assert_eq!(quote_literal(""), "''");
        assert_eq!(quote_literal("Product: "), "'Product: '");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("\\"), "E'\\\\'");
        assert_eq!(quote_literal("\\'; drop table t; --"), "E'\\\\''; drop table t; --'");
        assert_eq!(quote_literal("a\nb"), "'a\nb'");
    }
}
