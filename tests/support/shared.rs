//! A cluster that the tests of one module share, so that a test costs a database and not a server.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Builder, Cluster};

/// A cluster that is there while a test of the module holds it. Each test makes databases of its own in it.
///
///     static SHARED: Shared = Shared::new();
///     let cluster = SHARED.cluster();
///
/// Each module has a static of its own: names of databases, the server's log and the processes that a test kills stay
/// within the module.
pub struct Shared {
    cluster: Mutex<Weak<Cluster>>,
    builder: fn() -> Builder,
}

impl Shared {
    /// A cluster that never polls, with places for the workers of many databases.
    #[allow(clippy::new_without_default, reason = "only a static has one")]
    pub const fn new() -> Self {
        Self::of(|| Cluster::builder().never_polling().set("max_worker_processes", "64"))
    }

    /// A cluster of other settings.
    pub const fn of(builder: fn() -> Builder) -> Self {
        Self { cluster: Mutex::new(Weak::new()), builder }
    }

    /// The cluster that runs, or a new one.
    pub fn cluster(&self) -> Arc<Cluster> {
        let mut running = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new((self.builder)().start());
            *running = Arc::downgrade(&cluster);
            cluster
        })
    }
}
