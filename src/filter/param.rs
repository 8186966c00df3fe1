//! The values of a condition: bound as parameters, or written as literals.

use crate::name::quote_literal;

/// A value to bind; the SQL casts it from text to the type of the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// Bound as text.
    Text(String),
    /// Bound as text[].
    TextArray(Vec<String>),
}

impl Param {
    /// The value as a literal.
    pub fn literal(&self) -> String {
        match self {
            Param::Text(text) => quote_literal(text),
            Param::TextArray(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| quote_literal(text)).collect();
                format!("array[{}]", texts.join(", "))
            }
        }
    }
}

/// How the values of a filter get into the SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// As parameters numbered from this one.
    From(usize),
    /// As literals, for SQL that a user reads.
    Literal,
}

/// The values that get into SQL.
pub struct Binder {
    values: Values,
    params: Vec<Param>,
}

impl Binder {
    pub fn new(values: Values) -> Binder {
        Binder { values, params: Vec::new() }
    }

    /// The parameter of a value, or its literal.
    pub fn bind(&mut self, param: Param) -> String {
        match self.values {
            Values::Literal => param.literal(),
            Values::From(first) => {
                self.params.push(param);
                format!("${}", first + self.params.len() - 1)
            }
        }
    }

    /// The values to bind, in the order of the parameters' numbers.
    pub fn into_params(self) -> Vec<Param> {
        self.params
    }
}
