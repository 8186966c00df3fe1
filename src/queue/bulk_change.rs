//! A change of any number of rows, which keys cannot tell. Pure.

/// What a queue row without keys stands for, the stronger ones last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BulkChange {
    /// The worker that owns the table has begun a task: what other workers have in flight may be older than what the task
    /// is about.
    Recheck,
    /// Rows have gone: TRUNCATE, a partition that was dropped.
    Gone,
    /// Rows may have changed: a partition that was attached, a type that was altered.
    Changed,
}
