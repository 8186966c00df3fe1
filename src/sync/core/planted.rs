//! Faults that tests plant in the state machine, to see that its model finds them. A build without tests has none.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A scan does not load again what was in flight when it began.
    ScanIgnoresInFlight,
    /// A queue row counts as complete with its first key.
    RowCompleteWithFirstKey,
    /// A page counts as complete when it is read.
    CheckpointTooEarly,
    /// Transactions that had not ended are not looked for later.
    CursorForgetsOpen,
    /// A key that is in flight is taken again.
    KeyInTwoBatches,
    /// Keys that have changed since they were loaded are stored unseen.
    StoreTrustsOldKeys,
    /// A batch with a locked row is tried again as a whole.
    NoBisect,
    /// Vectors that cannot be stored are dropped.
    DropsVectors,
    /// A shadow is swapped in before all of the source is read.
    SwapsTooEarly,
    /// What a scan has found is dropped although its task is open.
    DropsFound,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault in this thread's state machines, or takes it out.
#[cfg(test)]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Whether a fault is planted.
#[cfg(test)]
pub fn is_planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

/// Whether a fault is planted: never.
#[cfg(not(test))]
pub const fn is_planted(_: Fault) -> bool {
    false
}
