//! What has to change before a transaction that was rolled back can succeed. Pure.

/// Who or what is to blame for a transaction that was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The data of one of its rows.
    Row,
    /// A lock that another session has on one of its rows.
    LockedRow,
    /// It took too long, or was canceled.
    Slow,
    /// The table as a whole, or the server.
    Table,
}
