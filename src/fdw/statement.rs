//! Classifies utility statements on foreign servers and user mappings: which to hide, to report to the worker, or to
//! refuse.

use std::ffi::{CStr, c_char};

use pgrx::PgList;
use pgrx::prelude::*;

use super::{WRAPPER, depend, our_wrapper, questions};
use crate::catalog::LOCAL_PROVIDER;
use crate::error::{Error, Result};

/// What a statement means for providers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Meaning {
    /// Whether the provider or the key of a vector table may change.
    pub changes_a_provider: bool,
    /// Whether its text may hold a key.
    pub holds_a_key: bool,
    /// Whether it grants or revokes privileges on relations, perhaps on sources.
    pub changes_readers: bool,
    /// Whether it revokes them.
    pub revokes: bool,
}

/// Classifies a statement before it runs.
///
/// # Safety
/// The node must be that of a valid utility statement, in a transaction.
pub unsafe fn meaning(node: *mut pg_sys::Node) -> Result<Meaning> {
    let mut meaning = Meaning::default();
    // SAFETY: the tag of a node says what it is, and names in it are terminated.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_CreateForeignServerStmt => {
                let create = node.cast::<pg_sys::CreateForeignServerStmt>();
                meaning.changes_a_provider = CStr::from_ptr((*create).fdwname) == WRAPPER;
                // Server options are not secret, but a rejected option may be.
                meaning.holds_a_key = meaning.changes_a_provider;
                if meaning.changes_a_provider {
                    check_new_name((*create).servername)?;
                }
            }
            pg_sys::NodeTag::T_AlterForeignServerStmt => {
                let alter = node.cast::<pg_sys::AlterForeignServerStmt>();
                meaning.changes_a_provider = is_provider((*alter).servername);
                meaning.holds_a_key = meaning.changes_a_provider;
            }
            pg_sys::NodeTag::T_CreateUserMappingStmt => {
                let create = node.cast::<pg_sys::CreateUserMappingStmt>();
                meaning.changes_a_provider = is_provider((*create).servername);
                meaning.holds_a_key = may_mean_a_provider((*create).servername);
            }
            pg_sys::NodeTag::T_AlterUserMappingStmt => {
                let alter = node.cast::<pg_sys::AlterUserMappingStmt>();
                meaning.changes_a_provider = is_provider((*alter).servername);
                meaning.holds_a_key = may_mean_a_provider((*alter).servername);
            }
            pg_sys::NodeTag::T_DropUserMappingStmt => {
                let drop = node.cast::<pg_sys::DropUserMappingStmt>();
                meaning.changes_a_provider = is_provider((*drop).servername);
            }
            pg_sys::NodeTag::T_RenameStmt => {
                let rename = node.cast::<pg_sys::RenameStmt>();
                if (*rename).renameType == pg_sys::ObjectType::OBJECT_FOREIGN_SERVER {
                    meaning.changes_a_provider = is_provider(text_of((*rename).object));
                }
                if meaning.changes_a_provider {
                    check_new_name((*rename).newname)?;
                    rename_server(text_of((*rename).object), (*rename).newname)?;
                }
            }
            pg_sys::NodeTag::T_AlterOwnerStmt => {
                let alter = node.cast::<pg_sys::AlterOwnerStmt>();
                if (*alter).objectType == pg_sys::ObjectType::OBJECT_FOREIGN_SERVER {
                    meaning.changes_a_provider = is_provider(text_of((*alter).object));
                }
            }
            pg_sys::NodeTag::T_GrantStmt => {
                let grant = node.cast::<pg_sys::GrantStmt>();
                if (*grant).objtype == pg_sys::ObjectType::OBJECT_FOREIGN_SERVER {
                    meaning.changes_a_provider =
                        names((*grant).objects).into_iter().any(|name| is_provider(name));
                }
                meaning.changes_readers =
                    (*grant).objtype == pg_sys::ObjectType::OBJECT_TABLE && our_wrapper().is_some();
                meaning.revokes = meaning.changes_readers && !(*grant).is_grant;
            }
            pg_sys::NodeTag::T_DropStmt => {
                let drop = node.cast::<pg_sys::DropStmt>();
                if takes_the_extension(drop) {
                    keep_vector_tables();
                }
                if (*drop).removeType == pg_sys::ObjectType::OBJECT_FOREIGN_SERVER {
                    meaning.changes_a_provider = drop_servers(drop)?;
                }
            }
            _ => {}
        }
    }
    Ok(meaning)
}

/// Rejects the name of the local provider.
unsafe fn check_new_name(name: *const c_char) -> Result<()> {
    // SAFETY: a name in a statement is terminated.
    match unsafe { CStr::from_ptr(name) }.to_str() {
        Ok(LOCAL_PROVIDER) => Err(Error::ProviderTaken {
            name: LOCAL_PROVIDER.to_string(),
            detail: Some("It is the name of the local model's provider.".to_string()),
        }),
        _ => Ok(()),
    }
}

/// Whether a foreign server exists and is a provider.
unsafe fn is_provider(name: *const c_char) -> bool {
    let Some(wrapper) = our_wrapper() else { return false };
    if name.is_null() {
        return false;
    }
    // SAFETY: look-ups in a transaction, with a terminated name.
    unsafe {
        let server = pg_sys::get_foreign_server_oid(name, true);
        server != pg_sys::InvalidOid && (*pg_sys::GetForeignServer(server)).fdwid == wrapper
    }
}

/// Whether a name is that of a provider, or of no server: then it may be misspelt.
unsafe fn may_mean_a_provider(name: *const c_char) -> bool {
    // SAFETY: a look-up in a transaction, with a terminated name.
    unsafe {
        our_wrapper().is_some()
            && !name.is_null()
            && (pg_sys::get_foreign_server_oid(name, true) == pg_sys::InvalidOid
                || is_provider(name))
    }
}

/// Whether DROP SERVER drops a provider. With CASCADE the vector tables stay, because they do not belong to the owner
/// of the provider.
unsafe fn drop_servers(drop: *const pg_sys::DropStmt) -> Result<bool> {
    // SAFETY: a valid statement, and look-ups in a transaction.
    unsafe {
        let providers: Vec<_> =
            names((*drop).objects).into_iter().filter(|name| is_provider(*name)).collect();
        for name in &providers {
            let server = pg_sys::GetForeignServerByName(*name, false);
            // Other roles are refused by PostgreSQL.
            if !pg_sys::has_privs_of_role(pg_sys::GetUserId(), (*server).owner) {
                continue;
            }
            // The lock of the drop itself: a vector table that names the provider meanwhile is seen, or sees the drop.
            depend::lock((*server).serverid, pg_sys::AccessExclusiveLock);
            let name = CStr::from_ptr(*name).to_string_lossy();
            if (*drop).behavior == pg_sys::DropBehavior::DROP_CASCADE {
                depend::free_tables_of((*server).serverid);
                questions::forget(&name)?;
            } else {
                questions::check_unused(&name)?;
            }
        }
        Ok(!providers.is_empty())
    }
}

/// Lets questions follow a provider to its new name; a role that may not rename it is refused by PostgreSQL.
unsafe fn rename_server(old: *const c_char, new: *const c_char) -> Result<()> {
    // SAFETY: names of a statement are terminated, and the provider exists.
    unsafe {
        let server = pg_sys::GetForeignServerByName(old, false);
        if !pg_sys::has_privs_of_role(pg_sys::GetUserId(), (*server).owner) {
            return Ok(());
        }
        depend::lock((*server).serverid, pg_sys::AccessExclusiveLock);
        let (old, new) =
            (CStr::from_ptr(old).to_string_lossy(), CStr::from_ptr(new).to_string_lossy());
        questions::rename(&old, &new)
    }
}

/// Whether a DROP includes the extension and everything that depends on it.
unsafe fn takes_the_extension(drop: *const pg_sys::DropStmt) -> bool {
    // SAFETY: a valid statement; these kinds of objects are named by one text each.
    unsafe {
        let taken: &[&CStr] = match (*drop).removeType {
            pg_sys::ObjectType::OBJECT_EXTENSION => &[c"embedd", c"vector"],
            pg_sys::ObjectType::OBJECT_SCHEMA => &[c"embedd"],
            _ => return false,
        };
        (*drop).behavior == pg_sys::DropBehavior::DROP_CASCADE
            && names((*drop).objects)
                .into_iter()
                .any(|name| !name.is_null() && taken.contains(&CStr::from_ptr(name)))
    }
}

/// Removes the dependencies of vector tables, so that paid vectors survive DROP EXTENSION.
unsafe fn keep_vector_tables() {
    let Some(wrapper) = our_wrapper() else { return };
    let mut servers = Vec::new();
    // SAFETY: a scan in a transaction; every pointer is used while the scan is open.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(pg_sys::ForeignServerRelationId, lock);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_foreign_server>();
            if (*form).srvfdw == wrapper {
                servers.push((*form).oid);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    servers.into_iter().for_each(depend::free_tables_of);
}

/// The names in a list of a statement.
unsafe fn names(list: *mut pg_sys::List) -> Vec<*const c_char> {
    // SAFETY: a list of nodes, or NIL.
    unsafe { PgList::<pg_sys::Node>::from_pg(list).iter_ptr().map(|node| text_of(node)).collect() }
}

/// The text of a string node; null for any other.
unsafe fn text_of(node: *mut pg_sys::Node) -> *const c_char {
    // SAFETY: the tag of a node says what it is.
    unsafe {
        match !node.is_null() && (*node).type_ == pg_sys::NodeTag::T_String {
            true => (*node.cast::<pg_sys::String>()).sval,
            false => std::ptr::null(),
        }
    }
}
