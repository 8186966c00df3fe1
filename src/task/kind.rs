//! What a task is: its kind, its phase, and how far it is. Pure.

/// What a scan goes through, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Rows of the vector table whose source row may be gone.
    Orphans,
    /// New texts are at the batch API of the provider.
    ProviderBatch,
    /// Rows of the source, in the order of their keys.
    Source,
    /// The vector indexes, which were dropped for the load.
    Index,
    /// The shadow is complete, and takes the place of the vector table that it replaces.
    Swap,
}

impl Phase {
    /// The word in embedd.tasks.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orphans => "orphans",
            Self::ProviderBatch => "provider_batch",
            Self::Source => "source",
            Self::Index => "index",
            Self::Swap => "swap",
        }
    }

    /// The phase of a word in embedd.tasks.
    pub fn of(word: &str) -> Self {
        match word {
            "index" => Self::Index,
            "swap" => Self::Swap,
            "source" => Self::Source,
            "provider_batch" => Self::ProviderBatch,
            _ => Self::Orphans,
        }
    }
}

/// What the texts of a task cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Price {
    /// They are embedded one request after the other.
    #[default]
    Standard,
    /// They go to the batch API of the provider.
    Batch,
}

impl Price {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
        }
    }

    /// The price with this name.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Standard, Self::Batch].into_iter().find(|price| price.as_str() == word)
    }
}

/// What a task is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first load of a vector table.
    Backfill,
    /// Every row is looked at again, also those that have failed.
    Rebackfill,
    /// Source and vector table are compared, and what differs is put right.
    Reconcile,
}

impl Kind {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Rebackfill => "rebackfill",
            Self::Reconcile => "reconcile",
        }
    }

    /// The kind of a word in embedd.tasks.
    pub fn of(word: &str) -> Self {
        match word {
            "backfill" => Self::Backfill,
            "rebackfill" => Self::Rebackfill,
            _ => Self::Reconcile,
        }
    }
}

/// A task that has begun and has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: i64,
    pub kind: Kind,
    pub phase: Phase,
    /// Every key up to this one is complete in this phase.
    pub last_key: Option<String>,
    /// How often it was begun, resumed or restarted: a scan knows by this number whether the task is still its own.
    pub attempt: i32,
    /// Whether it fills a table that was empty before.
    pub fills: bool,
    /// Whether new texts go to the batch API of the provider.
    pub is_batch_price: bool,
}

impl Task {
    /// Whether all that it finds is new, so that nothing has to be compared: the first load that was never interrupted.
    pub fn is_first_load(&self) -> bool {
        self.fills && self.attempt <= 1
    }
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub phase: Phase,
    pub last_key: Option<String>,
    /// Rows of the source that were read since the last checkpoint, and how many of them differed.
    pub rows: i64,
    pub different: i64,
}
