//! Collects what the checks find. Each looks in a transaction of its own inside that of the caller: its error is a finding.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::finding::{Finding, State};
use crate::error::Result;
use crate::transaction::{self, TxError};

/// How long a check waits for a lock that another session has on what it reads.
const LOCK_TIMEOUT: &str = "1s";

/// Looks at something in a transaction of its own inside that of the caller, with little patience for locks, which are given
/// back at once.
pub fn bounded<R>(
    look: impl FnOnce(&SpiClient<'_>) -> Result<R>,
) -> std::result::Result<R, TxError> {
    transaction::nested_look(|| {
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

/// What was found so far.
#[derive(Default)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    /// Notes a finding.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Runs a check of an object, or of the whole where there is none. Only a cancelled statement is an error.
    pub fn look(
        &mut self,
        check: &'static str,
        object: &str,
        look: impl FnOnce(&SpiClient<'_>) -> Result<Vec<Finding>>,
    ) -> Result<()> {
        let looked = bounded(look);
        match looked {
            Ok(found) => self.findings.extend(found),
            Err(failure) if failure.is_cancelled() => return Err(failure.into()),
            Err(failure) => self.add(Finding::warning(
                check,
                object,
                format!("this could not be looked at: {}", failure.message),
            )),
        }
        Ok(())
    }

    /// Whether a check has found anything.
    pub fn has(&self, check: &str) -> bool {
        self.findings.iter().any(|found| found.check == check)
    }

    /// Whether a problem is known that explains why a vector table of this provider is in error.
    pub fn explains(&self, table: &str, provider: &str) -> bool {
        let mut problems = self.findings.iter().filter(|found| found.state != State::Warning);
        problems.any(|found| match found.object.as_deref() {
            Some(object) if OF_TABLES.contains(&found.check) => object == table,
            Some(object) => found.check == "provider" && [table, provider].contains(&object),
            None => false,
        })
    }
}

/// Checks whose findings explain an error in the status of a vector table.
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
