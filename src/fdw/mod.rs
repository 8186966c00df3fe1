//! Providers as foreign servers and user mappings: resolves the provider of a vector table, with the key a role may
//! use.

pub mod create;
pub mod depend;
pub mod embed;
pub mod hide;
mod nodes;
pub mod options;
pub mod probe;
mod questions;
pub mod statement;
mod tuple;
mod usage;

use std::ffi::{CStr, CString};

use embedd_wire::{Kind, Model, Provider};
use pgrx::prelude::*;

use self::options::{MappingOptions, Pairs, ServerOptions};
use self::tuple::Tuple;
use crate::catalog::{LOCAL_PROVIDER, VectorTable};
use crate::error::{Error, OptionError, Result};
use crate::models::{self, Retirement};
use crate::name::{quote_ident, quote_literal};
use crate::rights::role_name;

pub use self::usage::usage;

/// The foreign-data wrapper of providers.
pub const WRAPPER: &CStr = c"embedd";

/// A provider that is a foreign server.
#[derive(Debug, Clone)]
pub struct Server {
    pub oid: pg_sys::Oid,
    pub name: String,
    pub owner: pg_sys::Oid,
    pub options: ServerOptions,
    /// The options as stored.
    pub pairs: Pairs,
}

impl Server {
    /// The provider with this name; an error if there is none, or the server is not a provider.
    pub fn find(name: &str) -> Result<Server> {
        Server::find_if_any(name)?.ok_or_else(|| Error::UnknownProvider { name: name.to_string() })
    }

    /// The provider with this name; None for the local model.
    pub fn named(name: &str) -> Result<Option<Server>> {
        match name {
            LOCAL_PROVIDER => Ok(None),
            name => Server::find(name).map(Some),
        }
    }

    /// The provider with this name, if there is one.
    pub fn find_if_any(name: &str) -> Result<Option<Server>> {
        let Ok(c_name) = CString::new(name) else { return Ok(None) };
        // SAFETY: a syscache look-up in a transaction, with a terminated name.
        let oid = unsafe { pg_sys::get_foreign_server_oid(c_name.as_ptr(), true) };
        if oid == pg_sys::InvalidOid {
            return Ok(None);
        }
        Server::read(oid)?
            .map(Some)
            .ok_or_else(|| Error::NotAProvider { name: name.to_string(), wrapper: wrapper_of(oid) })
    }

    /// The provider with this oid; None if it does not exist or is not a provider.
    fn read(oid: pg_sys::Oid) -> Result<Option<Server>> {
        let Some(tuple) = Tuple::find(pg_sys::SysCacheIdentifier::FOREIGNSERVEROID, oid, None)
        else {
            return Ok(None);
        };
        // SAFETY: the tuple is one of pg_foreign_server, and the name is terminated within its bytes.
        let (name, owner, wrapper) = unsafe {
            let form = pg_sys::GETSTRUCT(tuple.0).cast::<pg_sys::FormData_pg_foreign_server>();
            let name = CStr::from_ptr((*form).srvname.data.as_ptr()).to_string_lossy().into_owned();
            (name, (*form).srvowner, (*form).srvfdw)
        };
        if Some(wrapper) != our_wrapper() {
            return Ok(None);
        }
        let pairs = tuple.options(
            pg_sys::SysCacheIdentifier::FOREIGNSERVEROID,
            pg_sys::Anum_pg_foreign_server_srvoptions,
        );
        let options = ServerOptions::parse(&pairs)?;
        Ok(Some(Server { oid, name, owner, options, pairs }))
    }

    /// The provider of a vector table; None for the local one.
    ///
    /// It is the server that the table depends on, whatever its current name; a table restored from a dump has no
    /// dependency yet.
    pub fn of_table(table: &VectorTable) -> Result<Option<Server>> {
        if table.provider == LOCAL_PROVIDER {
            return Ok(None);
        }
        if let Some(oid) = depend::server_of(table.relation)
            && let Some(server) = Server::read(oid)?
        {
            return Ok(Some(server));
        }
        Server::named(&table.provider)
    }

    /// Whether a role may use the provider.
    pub fn may_be_used_by(&self, role: pg_sys::Oid) -> bool {
        has_usage(pg_sys::ForeignServerRelationId, self.oid, role)
    }

    /// An error unless the current role may use the provider.
    pub fn check_usage(&self) -> Result<()> {
        // SAFETY: a plain read of the process's own state.
        let role = unsafe { pg_sys::GetUserId() };
        if self.may_be_used_by(role) {
            return Ok(());
        }
        Err(Error::NotAllowed {
            object: format!("provider \"{}\"", self.name),
            hint: format!("Ask its owner for: {}.", self.grant_to(role)),
        })
    }

    /// Whether the current role has the rights of the provider's owner.
    pub fn may_be_changed(&self) -> bool {
        // SAFETY: a look-up of roles in a transaction.
        unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), self.owner) }
    }

    /// An error with this hint unless the current role has the rights of the provider's owner.
    pub fn check_owner(&self, hint: impl FnOnce() -> String) -> Result<()> {
        if self.may_be_changed() {
            return Ok(());
        }
        Err(Error::NotAllowed { object: format!("provider \"{}\"", self.name), hint: hint() })
    }

    /// The statement that grants a role the use of the provider.
    fn grant_to(&self, role: pg_sys::Oid) -> String {
        let role = quote_ident(&role_name(role));
        format!("GRANT USAGE ON FOREIGN SERVER {} TO {role}", quote_ident(&self.name))
    }

    /// Everything that the embedder needs, with the key of a role: the role's own mapping takes precedence over that
    /// of PUBLIC.
    pub fn for_role(&self, role: pg_sys::Oid) -> Result<Provider> {
        let kind = self.options.kind;
        let mapping = Mapping::of_role(self, role)?;
        let (is_own, secrets) = mapping.map_or_else(Default::default, |m| (m.is_own, m.options));
        if kind.needs_key() && secrets.has_nothing() {
            return Err(Error::NoApiKey {
                provider: self.name.clone(),
                role: role_name(role),
                has_mapping: is_own,
                hint: self.key_hint(is_own, role, "ADD"),
            });
        }
        // SAFETY: a look-up of a role in a transaction.
        let may_refer = unsafe { pg_sys::superuser_arg(self.owner) };
        // Otherwise an owner could have files of the server sent to an address of his choice.
        if secrets.is_reference() && !may_refer {
            return Err(Error::KeyReference {
                provider: self.name.clone(),
                hint: self.key_hint(is_own, role, "SET"),
            });
        }
        Ok(Provider {
            api_key: secrets.api_key,
            may_refer,
            headers: secrets.headers,
            ..self.without_key()
        })
    }

    /// The same without its key and its headers, for what is not sent.
    pub fn without_key(&self) -> Provider {
        Provider {
            name: self.name.clone(),
            // SAFETY: a plain global of the process.
            database: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            server: self.oid.to_u32(),
            kind: self.options.kind,
            base_url: self.options.base_url.clone(),
            key_header: self.options.key_header.clone(),
            encoding: self.options.encoding,
            limits: self.options.limits.clone(),
            ..Provider::local()
        }
    }

    /// A hint how the current role can set the key that a role uses, in its own mapping with this action; otherwise, whom
    /// to ask.
    fn key_hint(&self, is_own: bool, role: pg_sys::Oid, action: &str) -> String {
        // SAFETY: a plain read of the process's own state.
        let user = match unsafe { pg_sys::GetUserId() } == role {
            true => "CURRENT_USER".to_string(),
            false => quote_ident(&role_name(role)),
        };
        let server = quote_ident(&self.name);
        match (is_own, self.may_be_changed()) {
            (true, _) => format!(
                "Set it: ALTER USER MAPPING FOR {user} SERVER {server} OPTIONS ({action} api_key '...')."
            ),
            (false, true) => format!(
                "Set it: SELECT embedd.update_provider({}, api_key => '...').",
                quote_literal(&self.name)
            ),
            (false, false) => format!(
                "For a key of the role's own: CREATE USER MAPPING FOR {user} SERVER {server} OPTIONS (api_key '...'). For a common key, ask the provider's owner."
            ),
        }
    }

    /// The same after the service has rejected the key.
    fn new_key_hint(&self, role: pg_sys::Oid) -> String {
        self.key_hint(mapping_pairs(self.oid, role).is_some(), role, "SET")
    }
}

/// The provider of a vector table with the key of its owner, who pays even if another role queries the table.
///
/// Uses PostgreSQL's caches only, so it is cheap enough for every batch and every question.
pub fn provider(table: &VectorTable) -> Result<Provider> {
    for_owner(Server::of_table(table)?, &table.name, table.owner)
}

/// A provider with the key of the owner of a vector table; None is the local model.
pub fn for_owner(server: Option<Server>, table: &str, owner: pg_sys::Oid) -> Result<Provider> {
    let Some(server) = server else { return Ok(Provider::local()) };
    if !server.may_be_used_by(owner) {
        return Err(Error::NoUsage {
            provider: server.name.clone(),
            role: role_name(owner),
            table: table.to_string(),
            hint: format!("{}.", server.grant_to(owner)),
        });
    }
    server.for_role(owner)
}

/// The provider and the model, as the catalog had it when the table was read.
pub fn resolve(table: &VectorTable) -> Result<(Provider, Model)> {
    let provider = provider(table)?;
    let model = model(table, provider.kind);
    Ok((provider, model))
}

/// The model of a vector table, for a provider of this kind.
pub fn model(table: &VectorTable, kind: Kind) -> Model {
    let known = table.known_models.get(kind.as_str());
    let mut model = models::model(kind, &table.model, table.dimensions as u32, known);
    // The prefixes are those of the table's creation: with others its vectors would not be comparable.
    model.query_prefix = table.stored.query_prefix.clone();
    model.document_prefix = table.stored.document_prefix.clone();
    model
}

/// The retirement of a vector table's model, if it is within a year or past.
pub fn retirement(table: &VectorTable) -> Option<Retirement> {
    let kind = match Server::of_table(table).ok()? {
        None => Kind::Local,
        Some(server) => server.options.kind,
    };
    table.known_models.get(kind.as_str()).and_then(Retirement::of)
}

/// Validates the options of an object of embedd's wrapper. PostgreSQL calls it with all options that the object will
/// have.
pub fn check_options(options: &[String], catalog: pg_sys::Oid) -> Result<()> {
    let pairs: Pairs = options
        .iter()
        .map(|option| option.split_once('=').unwrap_or((option, "")))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    // SAFETY: a look-up of the role in force.
    let is_superuser = unsafe { pg_sys::superuser() };
    match catalog {
        pg_sys::ForeignServerRelationId => drop(ServerOptions::parse(&pairs)?),
        pg_sys::UserMappingRelationId => drop(MappingOptions::check(&pairs, is_superuser)?),
        // The wrapper itself has no options, and it has no foreign tables.
        _ => {
            if let Some((name, _)) = pairs.first() {
                return Err(
                    OptionError::Unknown { name: name.clone(), valid: String::new() }.into()
                );
            }
        }
    }
    Ok(())
}

/// The options of a user mapping.
#[derive(Default)]
struct Mapping {
    /// Whether it is the role's own mapping, not that of PUBLIC.
    is_own: bool,
    options: MappingOptions,
}

impl Mapping {
    /// The mapping that applies to a role: its own, otherwise that of PUBLIC.
    fn of_role(server: &Server, role: pg_sys::Oid) -> Result<Option<Mapping>> {
        for (user, is_own) in [(role, true), (pg_sys::InvalidOid, false)] {
            if let Some(pairs) = mapping_pairs(server.oid, user) {
                return Ok(Some(Mapping { is_own, options: MappingOptions::parse(&pairs)? }));
            }
        }
        Ok(None)
    }
}

/// The stored options of a user mapping; user 0 is PUBLIC. None if there is no such mapping.
fn mapping_pairs(server: pg_sys::Oid, user: pg_sys::Oid) -> Option<Pairs> {
    let cache = pg_sys::SysCacheIdentifier::USERMAPPINGUSERSERVER;
    let tuple = Tuple::find(cache, user, Some(server))?;
    Some(tuple.options(cache, pg_sys::Anum_pg_user_mapping_umoptions))
}

/// The oid of embedd's wrapper; None if the extension has none (yet).
pub fn our_wrapper() -> Option<pg_sys::Oid> {
    // SAFETY: a syscache look-up in a transaction.
    let oid = unsafe { pg_sys::get_foreign_data_wrapper_oid(WRAPPER.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// The name of the wrapper of a foreign server.
fn wrapper_of(server: pg_sys::Oid) -> String {
    // SAFETY: look-ups in a transaction of a server that was just seen; the name is copied.
    unsafe {
        let server = pg_sys::GetForeignServer(server);
        let wrapper = pg_sys::GetForeignDataWrapper((*server).fdwid);
        CStr::from_ptr((*wrapper).fdwname).to_string_lossy().into_owned()
    }
}

/// Whether a role has USAGE on a foreign server or a foreign-data wrapper.
#[cfg(not(feature = "pg15"))]
fn has_usage(class: pg_sys::Oid, object: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let usage = pg_sys::ACL_USAGE as pg_sys::AclMode;
    // SAFETY: a look-up of rights in a transaction.
    unsafe { pg_sys::object_aclcheck(class, object, role, usage) == pg_sys::AclResult::ACLCHECK_OK }
}

#[cfg(feature = "pg15")]
fn has_usage(class: pg_sys::Oid, object: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let usage = pg_sys::ACL_USAGE as pg_sys::AclMode;
    // SAFETY: a look-up of rights in a transaction.
    let result = unsafe {
        match class == pg_sys::ForeignServerRelationId {
            true => pg_sys::pg_foreign_server_aclcheck(object, role, usage),
            false => pg_sys::pg_foreign_data_wrapper_aclcheck(object, role, usage),
        }
    };
    result == pg_sys::AclResult::ACLCHECK_OK
}
