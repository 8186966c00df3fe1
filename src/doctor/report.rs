//! Collects findings. Each check runs in a subtransaction: its error becomes a finding.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::finding::{Finding, State};
use crate::error::Result;
use crate::transaction::{self, TxError};

/// How long a check waits for a lock.
const LOCK_TIMEOUT: &str = "1s";

/// Runs a function in a subtransaction with a short lock timeout, and releases its locks at once.
pub fn bounded<R>(
    look: impl FnOnce(&SpiClient<'_>) -> Result<R>,
) -> std::result::Result<R, TxError> {
    transaction::nested_read(|| {
        Spi::connect(|client| {
            client.select(
                "select pg_catalog.set_config('lock_timeout', $1, true)",
                None,
                &[LOCK_TIMEOUT.into()],
            )?;
            look(client)
        })
    })
}

/// The findings so far.
#[derive(Default)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Runs a check of an object, or of the database as a whole. Only a cancelled statement is an error.
    pub fn check(
        &mut self,
        check: &'static str,
        object: &str,
        look: impl FnOnce(&SpiClient<'_>) -> Result<Vec<Finding>>,
    ) -> Result<()> {
        let looked = bounded(look);
        match looked {
            Ok(found) => self.findings.extend(found),
            Err(failure) if failure.is_canceled() => return Err(failure.into()),
            Err(failure) => self.add(Finding::warning(
                check,
                object,
                format!("this could not be checked: {}", failure.message),
            )),
        }
        Ok(())
    }

    /// Whether a check has a finding.
    pub fn has(&self, check: &str) -> bool {
        self.findings.iter().any(|found| found.check == check)
    }

    /// Whether a known problem explains why a vector table of this provider has status error.
    pub fn explains(&self, table: &str, provider: &str) -> bool {
        let mut problems = self.findings.iter().filter(|found| found.state != State::Warning);
        problems.any(|found| match found.object.as_deref() {
            Some(object) if OF_TABLES.contains(&found.check) => object == table,
            Some(object) => found.check == "provider" && [table, provider].contains(&object),
            None => false,
        })
    }
}

/// Checks whose findings explain the status error of a vector table.
const OF_TABLES: [&str; 9] = [
    "vector_table",
    "source",
    "columns",
    "key",
    "policies",
    "children",
    "view",
    "triggers",
    "subscription",
];
