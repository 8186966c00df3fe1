//! Keeps the providers of questions in step with DROP SERVER and ALTER SERVER RENAME. Vector tables name them, without a
//! dependency in pg_depend, which tells the provider of the documents.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::error::{Error, Result};
use crate::rights::RoleSwitch;
use crate::{catalog, extension};

/// Rejects a drop of a provider by which questions are embedded.
pub fn check_unused(name: &str) -> Result<()> {
    let tables = as_extension(|client| catalog::tables_asking(client, name))?.unwrap_or_default();
    match tables.is_empty() {
        true => Ok(()),
        false => Err(Error::ProviderInUse { name: name.to_string(), tables }),
    }
}

/// Leaves the questions to the provider of the documents.
pub fn forget(name: &str) -> Result<()> {
    as_extension(|client| catalog::forget_asked(client, name)).map(drop)
}

/// Follows a provider to its new name.
pub fn rename(old: &str, new: &str) -> Result<()> {
    as_extension(|client| catalog::rename_asked(client, old, new)).map(drop)
}

/// Runs with the rights of the extension; not where its objects are older than the library, and know no such providers.
fn as_extension<T>(run: impl FnOnce(&mut SpiClient<'_>) -> Result<T>) -> Result<Option<T>> {
    Spi::connect_mut(|client| {
        if !extension::is_updated(client)? {
            return Ok(None);
        }
        let _rights = RoleSwitch::of_extension()?;
        run(client).map(Some)
    })
}
