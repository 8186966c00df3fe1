//! The extension in this database: whether it exists, and whether its objects match this library.

use pgrx::pg_sys;

use crate::error::Result;

/// The oid of the extension, which differs after DROP and CREATE EXTENSION; None if it does not exist.
pub fn oid() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction.
    let oid = unsafe { pg_sys::get_extension_oid(c"embedd".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether the objects in the database match this library; ALTER EXTENSION UPDATE makes them match.
pub fn is_updated(client: &pgrx::spi::SpiClient<'_>) -> Result<bool> {
    let rows = client.select(
        "select extversion = $1 from pg_catalog.pg_extension where extname = 'embedd'",
        None,
        &[env!("CARGO_PKG_VERSION").into()],
    )?;
    Ok(!rows.is_empty() && rows.first().get_one::<bool>()? == Some(true))
}

/// The version of pgvector in this database; empty if it is not installed.
pub fn vector_version(client: &pgrx::spi::SpiClient<'_>) -> Result<String> {
    let rows = client.select(
        "select extversion from pg_catalog.pg_extension where extname = 'vector'",
        None,
        &[],
    )?;
    match rows.is_empty() {
        true => Ok(String::new()),
        false => Ok(rows.first().get_one::<String>()?.unwrap_or_default()),
    }
}

/// Whether a version is older than another, by number; a suffix after a hyphen is ignored.
pub fn is_older(version: &str, than: &str) -> bool {
    numbers(version) < numbers(than)
}

fn numbers(version: &str) -> Vec<u32> {
    let plain = version.split('-').next().unwrap_or_default();
    plain.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (one, other) in [
            ("0.8.0", "0.8.2"),
            ("0.8.9", "0.8.10"),
            ("0.8", "0.8.1"),
            ("0.8.1-dev", "0.8.2"),
            ("", "0.8.2"),
        ] {
            assert!(is_older(one, other) && !is_older(other, one), "{one} {other}");
        }
        assert!(!is_older("0.8.4", "0.8.4") && !is_older("1.0", "0.8.4"));
    }
}
