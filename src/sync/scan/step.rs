//! What a step of a scan comes back with.

/// What a step of a scan has brought.
pub enum Step {
    /// The keys of another page that are to be looked at, to be noted with [`super::Scan::add_page`].
    Page(NewPage),
    /// Nothing to read before pages are done, or before the indexes are built.
    Wait,
    /// The scan is over.
    Done,
    /// Its task has ended or was asked for anew since.
    Overtaken,
}

/// A page that was read.
pub struct NewPage {
    pub keys: Vec<String>,
    pub(super) last: String,
    pub(super) rows: i64,
    pub(super) different: i64,
    pub(super) handed: Vec<(u16, i64)>,
    /// Whether its keys have gone from the source.
    pub has_gone: bool,
}

impl NewPage {
    /// Whether other workers have a part of it to do.
    pub fn is_shared(&self) -> bool {
        !self.handed.is_empty()
    }
}
