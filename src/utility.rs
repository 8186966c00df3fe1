//! The utility hook: makes workers leave a database that is about to be dropped, wakes them after COMMIT PREPARED and
//! changes of providers and privileges, lets a REVOKE take the vectors along, and hides keys in statement texts.

use std::ffi::CStr;

use pgrx::PgList;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::ddl::rewrite;
use crate::error::Error;
use crate::fdw::hide;
use crate::fdw::statement::{self, Meaning};
use crate::grants::{self, Named};
use crate::{shared, transaction, trigger};

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// Installs the hook. Called while the postmaster loads its libraries.
pub fn init() {
    // SAFETY: the postmaster is single-threaded while it loads libraries.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// The hook. It is not guarded, and nothing in it needs to be dropped: an error of the statement unwinds through it as
/// if it were not there, and our own code that may raise errors runs in guarded functions.
#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: PostgreSQL passes a valid statement; the hook chain gets the arguments unchanged.
    unsafe {
        let node = (*statement).utilityStmt;
        let commits_prepared = is_commit_prepared(node);
        let meaning = before(node);
        let error_context = pg_sys::error_context_stack;
        if meaning.holds_a_key {
            // The error context callbacks would quote the statement; after an error PostgreSQL restores them anyway.
            pg_sys::error_context_stack = std::ptr::null_mut();
        }
        let next = match PREVIOUS {
            Some(next) => next,
            None => standard_ProcessUtility,
        };
        next(
            statement,
            query,
            read_only_tree,
            context,
            params,
            environment,
            destination,
            completion,
        );
        if meaning.holds_a_key {
            pg_sys::error_context_stack = error_context;
        }
        if commits_prepared {
            wake();
        }
        if meaning.revokes {
            revoke(node);
        }
        if meaning.changes_a_provider || meaning.changes_readers {
            wake_later();
        }
    }
}

unsafe extern "C-unwind" {
    /// PostgreSQL's own function (tcop/utility.h): pg_sys has only a guarded wrapper, through which an error cannot
    /// unwind.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const std::ffi::c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

#[pg_guard]
unsafe extern "C-unwind" fn before(node: *mut pg_sys::Node) -> Meaning {
    // SAFETY: outside a valid transaction (also after an error in one) no catalog may be read, so it returns.
    if !unsafe { pg_sys::IsTransactionState() } {
        return Meaning::default();
    }
    // SAFETY: the node is that of a valid statement.
    if let Some(database) = unsafe { database_to_leave(node) } {
        shared::ask_to_leave(database);
    }
    // SAFETY: the same.
    unsafe { rewrite::note(node) };
    // SAFETY: the same.
    match unsafe { statement::meaning(node) } {
        Ok(meaning) => {
            if meaning.holds_a_key {
                hide::statement();
            }
            meaning
        }
        Err(error) => {
            ErrorReport::from(error).report(PgLogLevel::ERROR);
            Meaning::default()
        }
    }
}

/// After a change of a provider or of privileges, wakes the workers at commit.
#[pg_guard]
unsafe extern "C-unwind" fn wake_later() {
    trigger::touch_at_commit();
}

/// After a REVOKE on relations. What fails is left to a worker: the statement of the user must not fail for it.
#[pg_guard]
unsafe extern "C-unwind" fn revoke(node: *mut pg_sys::Node) {
    // SAFETY: the node is that of a valid GrantStmt, as its meaning says.
    let named = unsafe { named(node.cast()) };
    // What the REVOKE has written is to be seen.
    // SAFETY: inside the transaction of the statement.
    unsafe { pg_sys::CommandCounterIncrement() };
    let outcome =
        transaction::nested(|| Spi::connect_mut(|client| grants::follow_revoke(client, &named)));
    if let Err(failure) = outcome
        && failure.is_canceled()
    {
        ErrorReport::from(Error::from(failure)).report(PgLogLevel::ERROR);
    }
}

/// The relations or schemas that a GRANT or REVOKE on tables names.
unsafe fn named(statement: *mut pg_sys::GrantStmt) -> Named {
    let mut named = Named::default();
    // SAFETY: a list of RangeVar, or of String where all relations of schemas are meant; look-ups in a transaction.
    unsafe {
        for object in PgList::<pg_sys::Node>::from_pg((*statement).objects).iter_ptr() {
            match (*object).type_ {
                pg_sys::NodeTag::T_RangeVar => {
                    let relation = pg_sys::RangeVarGetRelidExtended(
                        object.cast(),
                        pg_sys::NoLock as pg_sys::LOCKMODE,
                        pg_sys::RVROption::RVR_MISSING_OK,
                        None,
                        std::ptr::null_mut(),
                    );
                    named.relations.push(relation);
                }
                pg_sys::NodeTag::T_String => {
                    let schema = CStr::from_ptr((*object.cast::<pg_sys::String>()).sval);
                    named.schemas.push(schema.to_string_lossy().into_owned());
                }
                _ => {}
            }
        }
    }
    named
}

/// After COMMIT PREPARED: another session queued the keys, perhaps long ago.
#[pg_guard]
unsafe extern "C-unwind" fn wake() {
    // The keys may have been queued for another number of workers, too.
    // SAFETY: a plain global of the process.
    shared::touch(unsafe { pg_sys::MyDatabaseId });
}

/// The database that sync workers have to leave for this statement, if the role may run it.
unsafe fn database_to_leave(node: *mut pg_sys::Node) -> Option<pg_sys::Oid> {
    // SAFETY: the tag of a node says what it is.
    unsafe {
        let name = match (*node).type_ {
            pg_sys::NodeTag::T_DropdbStmt => (*node.cast::<pg_sys::DropdbStmt>()).dbname,
            pg_sys::NodeTag::T_RenameStmt => {
                let rename = node.cast::<pg_sys::RenameStmt>();
                if (*rename).renameType != pg_sys::ObjectType::OBJECT_DATABASE {
                    return None;
                }
                (*rename).subname
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => {
                let alter = node.cast::<pg_sys::AlterDatabaseStmt>();
                option_value((*alter).options, c"tablespace")?;
                (*alter).dbname
            }
            pg_sys::NodeTag::T_CreatedbStmt => {
                option_value((*node.cast::<pg_sys::CreatedbStmt>()).options, c"template")?
            }
            _ => return None,
        };
        if name.is_null() {
            return None;
        }
        let database = pg_sys::get_database_oid(name, true);
        (database != pg_sys::InvalidOid && owns_database(database)).then_some(database)
    }
}

/// The string value of an option of a statement.
unsafe fn option_value(options: *mut pg_sys::List, name: &CStr) -> Option<*mut std::ffi::c_char> {
    // SAFETY: options is a list of DefElem, or NIL.
    unsafe {
        PgList::<pg_sys::DefElem>::from_pg(options).iter_ptr().find_map(|element| {
            let found = CStr::from_ptr((*element).defname) == name && !(*element).arg.is_null();
            found.then(|| pg_sys::defGetString(element))
        })
    }
}

#[cfg(not(feature = "pg15"))]
unsafe fn owns_database(database: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up in a transaction.
    unsafe { pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, pg_sys::GetUserId()) }
}

#[cfg(feature = "pg15")]
unsafe fn owns_database(database: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up in a transaction.
    unsafe { pg_sys::pg_database_ownercheck(database, pg_sys::GetUserId()) }
}

unsafe fn is_commit_prepared(node: *mut pg_sys::Node) -> bool {
    // SAFETY: the tag of a node says what it is.
    unsafe {
        (*node).type_ == pg_sys::NodeTag::T_TransactionStmt
            && (*node.cast::<pg_sys::TransactionStmt>()).kind
                == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED
    }
}
