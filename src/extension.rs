//! The extension in this database: whether it is there, and whether its objects are those of this library.

use pgrx::pg_sys;

use crate::error::Result;

/// The oid of the extension, which tells it from one that was dropped and created again; None when it is not there.
pub fn oid() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction.
    let oid = unsafe { pg_sys::get_extension_oid(c"embedd".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether the objects in the database are those of this library, which ALTER EXTENSION UPDATE brings.
pub fn is_updated(client: &pgrx::spi::SpiClient<'_>) -> Result<bool> {
    let rows = client.select(
        "select extversion = $1 from pg_catalog.pg_extension where extname = 'embedd'",
        None,
        &[env!("CARGO_PKG_VERSION").into()],
    )?;
    Ok(!rows.is_empty() && rows.first().get_one::<bool>()? == Some(true))
}
