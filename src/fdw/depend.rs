//! Dependencies on foreign servers in pg_depend: vector tables, and user mappings.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::Server;
use crate::catalog::{self, LOCAL_PROVIDER, VectorTable};
use crate::error::{Error, Result};

/// The oids of pg_depend and its two indexes (catalog/pg_depend.h), the same in every version.
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

/// The tables that depend on a foreign server, without foreign tables, which depend on it by themselves.
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

/// Scans pg_depend for rows with this object in the columns `keys`, and returns their columns `wanted`.
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

/// Makes a table depend on a foreign server or on none, instead of any other; a server with dependent tables cannot be
/// dropped.
pub fn depend_on(relation: pg_sys::Oid, server: Option<&Server>) -> Result<()> {
    forget(relation);
    let Some(server) = server else { return Ok(()) };
    pin(server)?;
    // SAFETY: a lock of this transaction, until its end.
    unsafe { pg_sys::LockRelationOid(relation, TABLE_LOCK) };
    if exists(relation) {
        record(relation, server.oid);
    }
    Ok(())
}

/// Makes changes and drops of a foreign server wait until the transaction ends; an error if it is gone already.
pub fn pin(server: &Server) -> Result<()> {
    lock(server.oid, pg_sys::RowShareLock);
    match Server::read(server.oid)? {
        Some(_) => Ok(()),
        None => Err(Error::UnknownProvider { name: server.name.clone() }),
    }
}

/// Locks a foreign server until the transaction ends; changes committed before are visible then.
pub fn lock(server: pg_sys::Oid, mode: u32) {
    let mode = mode as pg_sys::LOCKMODE;
    // SAFETY: a lock in a transaction.
    unsafe { pg_sys::LockDatabaseObject(pg_sys::ForeignServerRelationId, server, 0, mode) };
}

/// The lock that makes a DROP TABLE wait. A dependency recorded for a dropped table stays for good, and DROP SERVER
/// would then fail for ever.
const TABLE_LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

/// Whether a relation exists now; the caller has locked it.
fn exists(relation: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up in a transaction.
    unsafe { pg_sys::get_rel_relkind(relation) != 0 }
}

/// Records the dependency; the caller has locked the server and the table, and both exist.
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
    // SAFETY: writes a catalog in a transaction; only dependencies of the table on foreign servers are deleted.
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

/// The user mappings of a foreign server. Needs the privilege to read them.
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

/// Removes the dependencies of a server's tables, so that the tables survive its drop.
pub fn free_tables_of(server: pg_sys::Oid) {
    tables_of(server).into_iter().for_each(forget);
}

/// Locks a server and a table that depends on it, if that needs no waiting.
fn try_lock(relation: pg_sys::Oid, server: pg_sys::Oid) -> bool {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: locks of this transaction, until its end.
    unsafe {
        pg_sys::ConditionalLockRelationOid(relation, TABLE_LOCK)
            && pg_sys::ConditionalLockDatabaseObject(
                pg_sys::ForeignServerRelationId,
                server,
                0,
                lock,
            )
    }
}

/// Updates a vector table in memory with the current name of its provider. True if [`follow`] has to record the name,
/// or the missing dependency. Writes nothing.
pub fn refresh_provider(table: &mut VectorTable) -> bool {
    if table.relation_name.is_none() {
        return false;
    }
    match server_of(table.relation) {
        // A server with invalid options must not keep the vector tables from being read.
        Some(oid) => match Server::read(oid) {
            Ok(Some(server)) if server.name != table.provider && server.name != LOCAL_PROVIDER => {
                table.provider = server.name;
                true
            }
            _ => false,
        },
        None if table.provider == LOCAL_PROVIDER => false,
        // A table without USAGE on a server must not block its drop.
        None => {
            matches!(Server::find_if_any(&table.provider), Ok(Some(s)) if s.may_be_used_by(table.owner))
        }
    }
}

/// Records the new name of a vector table's provider, or the dependency that a table restored from a dump lacks. Skips
/// a server or a table that is being changed or dropped, or was dropped since the worker read it.
pub fn record_provider(client: &mut SpiClient<'_>, table: &VectorTable) -> Result<()> {
    if server_of(table.relation).is_some() {
        return catalog::set_provider(client, table.id, &table.provider);
    }
    if let Ok(Some(server)) = Server::find_if_any(&table.provider)
        && try_lock(table.relation, server.oid)
        && exists(table.relation)
        && Server::read(server.oid).is_ok_and(|server| server.is_some())
    {
        record(table.relation, server.oid);
    }
    Ok(())
}
