//! What depends on a foreign server, as PostgreSQL itself keeps it: vector tables, and the keys for it.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::Server;
use crate::catalog::{self, LOCAL_PROVIDER, VectorTable};
use crate::error::{Error, Result};

/// pg_depend and its two indexes (catalog/pg_depend.h); these numbers are the same in every version.
const DEPEND: pg_sys::Oid = pg_sys::Oid::from_u32(2608);
const BY_DEPENDER: pg_sys::Oid = pg_sys::Oid::from_u32(2673);
const BY_REFERENCE: pg_sys::Oid = pg_sys::Oid::from_u32(2674);

/// The foreign server that a table depends on.
pub fn server_of(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let depender = (pg_sys::RelationRelationId, relation);
    let found = scan(BY_DEPENDER, [1, 2], depender, [4, 5]);
    found
        .into_iter()
        .find(|(class, _)| *class == pg_sys::ForeignServerRelationId)
        .map(|(_, oid)| oid)
}

/// The tables that depend on a foreign server; foreign tables do so by themselves and are none of ours.
fn tables_of(server: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let reference = (pg_sys::ForeignServerRelationId, server);
    let found = scan(BY_REFERENCE, [4, 5], reference, [1, 2]);
    found
        .into_iter()
        .filter(|(class, _)| *class == pg_sys::RelationRelationId)
        .map(|(_, oid)| oid)
        // SAFETY: a syscache look-up in a transaction.
        .filter(|oid| unsafe { pg_sys::get_rel_relkind(*oid) } != pg_sys::RELKIND_FOREIGN_TABLE as std::ffi::c_char)
        .collect()
}

/// Rows of pg_depend: those with this object in the columns `keys`, and what they have in the columns `wanted`.
fn scan(
    index: pg_sys::Oid,
    keys: [pg_sys::AttrNumber; 2],
    object: (pg_sys::Oid, pg_sys::Oid),
    wanted: [i32; 2],
) -> Vec<(pg_sys::Oid, pg_sys::Oid)> {
    let mut found = Vec::new();
    // SAFETY: a scan in a transaction; every pointer is used while the scan is open, and both keys and both wanted
    // columns are oids that are never null.
    unsafe {
        let depend = pg_sys::table_open(DEPEND, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let mut conditions = [pg_sys::ScanKeyData::default(); 2];
        for (condition, (column, value)) in
            conditions.iter_mut().zip(keys.into_iter().zip([object.0, object.1]))
        {
            pg_sys::ScanKeyInit(
                condition,
                column,
                pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                pg_sys::Oid::from(pg_sys::F_OIDEQ),
                pg_sys::Datum::from(value),
            );
        }
        let scan = pg_sys::systable_beginscan(
            depend,
            index,
            true,
            std::ptr::null_mut(),
            2,
            conditions.as_mut_ptr(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let oid = |column: i32| {
                let mut is_null = false;
                let value = pg_sys::SPI_getbinval(tuple, (*depend).rd_att, column, &mut is_null);
                pg_sys::Oid::from(value.value() as u32)
            };
            found.push((oid(wanted[0]), oid(wanted[1])));
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(depend, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
    found
}

/// Makes a table depend on a foreign server, or on none, in place of any other: from then on the server is not dropped
/// under it.
pub fn depend_on(relation: pg_sys::Oid, server: Option<&Server>) -> Result<()> {
    forget(relation);
    let Some(server) = server else { return Ok(()) };
    let lock = pg_sys::RowShareLock as pg_sys::LOCKMODE;
    // SAFETY: a change or a drop of the server waits for the lock, which is held until the transaction ends.
    unsafe { pg_sys::LockDatabaseObject(pg_sys::ForeignServerRelationId, server.oid, 0, lock) };
    match Server::read(server.oid)? {
        Some(_) => record(relation, server.oid),
        None => return Err(Error::UnknownProvider { name: server.name.clone() }),
    }
    Ok(())
}

/// Writes the dependency; the server is locked.
fn record(relation: pg_sys::Oid, server: pg_sys::Oid) {
    let address =
        |class, object| pg_sys::ObjectAddress { classId: class, objectId: object, objectSubId: 0 };
    let depender = address(pg_sys::RelationRelationId, relation);
    let referenced = address(pg_sys::ForeignServerRelationId, server);
    // SAFETY: writes a catalog in a transaction, and lets the rest of the transaction see it.
    unsafe {
        pg_sys::recordDependencyOn(
            &depender,
            &referenced,
            pg_sys::DependencyType::DEPENDENCY_NORMAL,
        );
        pg_sys::CommandCounterIncrement();
    }
}

fn forget(relation: pg_sys::Oid) {
    // SAFETY: writes a catalog in a transaction; only dependencies of the table on foreign servers go.
    unsafe {
        pg_sys::deleteDependencyRecordsForClass(
            pg_sys::RelationRelationId,
            relation,
            pg_sys::ForeignServerRelationId,
            pg_sys::DependencyType::DEPENDENCY_NORMAL as std::ffi::c_char,
        );
        pg_sys::CommandCounterIncrement();
    }
}

/// The user mappings of a foreign server. Takes the rights to read them.
pub fn mappings_of(client: &mut SpiClient<'_>, server: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    let rows = client.update(
        "select u.oid from pg_catalog.pg_user_mapping u where u.umserver = $1",
        None,
        &[server.into()],
    )?;
    let mut mappings = Vec::new();
    for row in rows {
        mappings.extend(row.get::<pg_sys::Oid>(1)?);
    }
    Ok(mappings)
}

/// Makes a server's tables independent of it, so that they stay when it goes.
pub fn free_tables_of(server: pg_sys::Oid) {
    tables_of(server).into_iter().for_each(forget);
}

fn try_lock(server: pg_sys::Oid) -> bool {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: a lock of this transaction, given back with its end.
    unsafe {
        pg_sys::ConditionalLockDatabaseObject(pg_sys::ForeignServerRelationId, server, 0, lock)
    }
}

/// Finds the provider of a vector table under the name that it has now. True when that, or that the table depends on it,
/// is to be noted with [`follow`]. Writes nothing.
pub fn look(table: &mut VectorTable) -> bool {
    if table.relation_name.is_none() {
        return false;
    }
    match server_of(table.relation) {
        // A server with options that cannot be read is no reason not to read the vector tables.
        Some(oid) => match Server::read(oid) {
            Ok(Some(server)) if server.name != table.provider && server.name != LOCAL_PROVIDER => {
                table.provider = server.name;
                true
            }
            _ => false,
        },
        None if table.provider == LOCAL_PROVIDER => false,
        // Nobody's server is kept from being dropped by a table that may not use it.
        None => {
            matches!(Server::find_if_any(&table.provider), Ok(Some(s)) if s.may_be_used_by(table.owner))
        }
    }
}

/// Notes what has happened to the provider of a vector table: its new name, or, for a table that came with a dump, that
/// it depends on its provider. One that is being changed or dropped is not waited for.
pub fn follow(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    if server_of(table.relation).is_some() {
        return catalog::set_provider(client, table.id, &table.provider);
    }
    if let Ok(Some(server)) = Server::find_if_any(&table.provider)
        && try_lock(server.oid)
        && Server::read(server.oid).is_ok_and(|server| server.is_some())
    {
        record(table.relation, server.oid);
    }
    Ok(())
}
