//! A batch at a provider, as it is noted. Pure.

use std::time::Duration;

/// A batch as it is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub token: String,
    /// Its name at the provider; none while that is not known.
    pub name: Option<String>,
    /// How long ago it was planned.
    pub age: Duration,
    /// Whether another cluster has handed it in, of which this one is a copy.
    pub is_foreign: bool,
}
