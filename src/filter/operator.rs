//! The operators of a filter, and which fields take them.

use super::{Field, FilterType};

/// The operators.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Eq,
    Ne,
    /// An ordering comparison, with its SQL operator.
    Order(&'static str),
    In,
    Nin,
    /// Every value is an element.
    All,
    Prefix,
    Exists,
}

impl Operator {
    /// Parses the name of an operator, with or without a leading `$`.
    pub(super) fn parse(name: &str) -> Option<Operator> {
        match name.strip_prefix('$').unwrap_or(name) {
            "eq" => Some(Operator::Eq),
            "ne" | "neq" => Some(Operator::Ne),
            "gt" => Some(Operator::Order(">")),
            "gte" => Some(Operator::Order(">=")),
            "lt" => Some(Operator::Order("<")),
            "lte" => Some(Operator::Order("<=")),
            "in" => Some(Operator::In),
            "nin" => Some(Operator::Nin),
            "all" => Some(Operator::All),
            "prefix" => Some(Operator::Prefix),
            "exists" => Some(Operator::Exists),
            _ => None,
        }
    }

    /// Whether a field takes it: lists have no order, and only texts have a beginning.
    pub(super) fn is_allowed(self, field: &Field) -> bool {
        match self {
            Operator::Order(_) => !field.is_list && field.filter_type != FilterType::Boolean,
            Operator::Prefix => !field.is_list && field.filter_type == FilterType::Keyword,
            Operator::All => field.is_list,
            _ => true,
        }
    }

    /// The operators of a field, as a sentence.
    pub(super) fn allowed(field: &Field) -> String {
        let name = field.filter_type.as_str();
        if field.is_list {
            return format!(
                "It may hold lists with elements of filter_type {name}, which take eq, ne, neq, in, nin, all and exists."
            );
        }
        let order = match field.filter_type {
            FilterType::Boolean => "",
            FilterType::Keyword => "gt, gte, lt, lte, prefix, ",
            _ => "gt, gte, lt, lte, ",
        };
        format!("Its filter_type is {name}, which takes eq, ne, neq, {order}in, nin and exists.")
    }
}
