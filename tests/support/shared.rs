//! A cluster shared by the tests of one module, so that each test only needs a database.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Builder, Cluster};

/// A cluster that exists while a test of the module uses it. Each test creates its own databases.
///
///     static SHARED: Shared = Shared::new();
///     let cluster = SHARED.cluster();
///
/// Each module has its own static, so that database names, the server log and killed processes do not interfere.
pub struct Shared {
    cluster: Mutex<Weak<Cluster>>,
    builder: fn() -> Builder,
}

impl Shared {
    /// A cluster that never polls, with worker slots for many databases.
    #[allow(clippy::new_without_default, reason = "only a static has one")]
    pub const fn new() -> Self {
        Self::of(|| Cluster::builder().never_polling().set("max_worker_processes", "64"))
    }

    /// A cluster with other options.
    pub const fn of(builder: fn() -> Builder) -> Self {
        Self { cluster: Mutex::new(Weak::new()), builder }
    }

    /// The running cluster, or a new one.
    pub fn cluster(&self) -> Arc<Cluster> {
        let mut running = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new((self.builder)().start());
            *running = Arc::downgrade(&cluster);
            cluster
        })
    }
}
