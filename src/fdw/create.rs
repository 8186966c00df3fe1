//! Creates, changes and drops providers with PostgreSQL's own functions for foreign servers, which check the caller's
//! privileges.

use std::ffi::CStr;

use embedd_wire::Kind;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::nodes::{alter_mapping, alter_server, create_mapping, create_server};
use super::options::{self, MAPPING, MappingOptions, Pairs, ServerOptions};
use super::{Server, depend, has_usage, mapping_pairs, our_wrapper};
use crate::catalog::LOCAL_PROVIDER;
use crate::cluster;
use crate::datum::RawJsonb;
use crate::error::{Error, Result};
use crate::name::quote_ident;
use crate::rights::{RoleSwitch, role_name};
use crate::{catalog, trigger};

/// The arguments of create_provider() and update_provider().
#[derive(Default)]
pub struct ProviderRequest {
    pub name: String,
    /// The service; None for an update, since it cannot be changed.
    pub kind: Option<String>,
    pub api_key: Option<String>,
    pub default_model: Option<String>,
    pub base_url: Option<String>,
    pub options: Option<serde_json::Value>,
}

/// The result of these functions.
pub struct ProviderRow {
    pub oid: pg_sys::Oid,
    pub name: String,
    pub kind: &'static str,
    pub default_model: Option<String>,
    pub base_url: Option<String>,
    pub created_at: Option<TimestampWithTimeZone>,
}

/// Options to set, and names of options to remove (None), of the server and of its user mapping.
struct Changes {
    server: Vec<(String, Option<String>)>,
    mapping: Vec<(String, Option<String>)>,
}

impl ProviderRequest {
    /// The optional arguments.
    pub fn of_arguments(
        api_key: Option<&str>,
        default_model: Option<&str>,
        base_url: Option<&str>,
        options: Option<RawJsonb>,
    ) -> Result<Self> {
        Ok(Self {
            api_key: api_key.map(str::to_string),
            default_model: default_model.map(str::to_string),
            base_url: base_url.map(str::to_string),
            options: options.map(|options| options.parse("options")).transpose()?,
            ..Self::default()
        })
    }

    fn changes(&self) -> Result<Changes> {
        let is_update = self.kind.is_none();
        let options =
            self.options.as_ref().map(|o| options::requested_options(o, is_update)).transpose()?;
        let mut requested_options = options.unwrap_or_default();
        let arguments = [
            ("provider", &self.kind),
            ("default_model", &self.default_model),
            ("base_url", &self.base_url),
            ("api_key", &self.api_key),
        ];
        for (name, value) in arguments {
            let Some(value) = value else { continue };
            let list = match MAPPING.contains(&name) {
                true => &mut requested_options.mapping,
                false => &mut requested_options.server,
            };
            // An option that is both set and removed is set.
            list.retain(|(other, _)| other != name);
            list.push((name.to_string(), Some(value.clone())));
        }
        Ok(Changes { server: requested_options.server, mapping: requested_options.mapping })
    }
}

/// Creates a provider.
pub fn create(wanted: &ProviderRequest) -> Result<ProviderRow> {
    check_may_write("create a provider", c"create_provider()")?;
    check_name(&wanted.name)?;
    let mut changes = wanted.changes()?;
    changes.server.push(("created_at".to_string(), Some(now())));
    let server = apply(&[], &changes.server);
    let parsed = ServerOptions::parse(&server)?;
    let mapping = apply(&[], &changes.mapping);
    // SAFETY: a look-up of the role in force.
    let secrets = MappingOptions::check(&mapping, unsafe { pg_sys::superuser() })?;
    if parsed.kind.needs_key() && secrets.has_nothing() {
        return Err(Error::BadArgument {
            message: format!("provider \"{}\" needs an api_key", wanted.name),
            detail: Some(format!("Service {} requires one.", parsed.kind.as_str())),
            hint: Some(
                "Add api_key => '...'. If every role has its own key, use CREATE SERVER and CREATE USER MAPPING."
                    .to_string(),
            ),
        });
    }
    check_may_create()?;
    check_is_free(&wanted.name)?;
    // Another session may have created one with this name that was not committed at the first look-up.
    PgTryBuilder::new(|| {
        create_server(&wanted.name, &server)?;
        match mapping.is_empty() {
            true => Ok(()),
            false => create_mapping(&wanted.name, &mapping),
        }
    })
    .catch_when(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION, |_| {
        Err(Error::ProviderTaken { name: wanted.name.clone(), detail: None })
    })
    .execute()?;
    trigger::touch_at_commit();
    made(&wanted.name)
}

/// Changes a provider; omitted arguments leave their options as they are.
pub fn update(wanted: &ProviderRequest) -> Result<ProviderRow> {
    check_may_write("change a provider", c"update_provider()")?;
    let server = lock_to_change(&wanted.name, || match wanted.api_key {
        Some(_) => format!(
            "For a key of your own: CREATE USER MAPPING FOR CURRENT_USER SERVER {} OPTIONS (api_key '...').",
            quote_ident(&wanted.name)
        ),
        None => "Only its owner and members of that role may change it.".to_string(),
    })?;
    let changes = wanted.changes()?;
    let old = mapping_pairs(server.oid, pg_sys::InvalidOid);
    let mapping = apply(old.as_deref().unwrap_or_default(), &changes.mapping);
    ServerOptions::parse(&apply(&server.pairs, &changes.server))?;
    if !changes.mapping.is_empty() {
        // SAFETY: a look-up of the role in force.
        MappingOptions::check(&mapping, unsafe { pg_sys::superuser() })?;
    }
    if !changes.server.is_empty() {
        alter_server(&server.name, &server.pairs, &changes.server)?;
    }
    match old {
        _ if changes.mapping.is_empty() => {}
        Some(old) => alter_mapping(&server.name, &old, &changes.mapping)?,
        None if mapping.is_empty() => {}
        None => create_mapping(&server.name, &mapping)?,
    }
    trigger::touch_at_commit();
    made(&wanted.name)
}

/// Drops a provider that no vector table uses, with all its keys.
pub fn remove(client: &mut SpiClient<'_>, name: &str) -> Result<()> {
    check_may_write("drop a provider", c"drop_provider()")?;
    let hint = || "Only its owner and members of that role may drop it.".to_string();
    let server = lock_to_change(name, hint)?;
    let rights = RoleSwitch::of_extension()?;
    // The lock may have been waited for while tables were created, so this uses a new snapshot.
    let tables = catalog::users_of_provider(client, server.oid, &server.name)?;
    if !tables.is_empty() {
        return Err(Error::ProviderInUse { name: server.name, tables });
    }
    let mappings = depend::mappings_of(client, server.oid)?;
    drop(rights);
    for mapping in mappings {
        delete(pg_sys::UserMappingRelationId, mapping);
    }
    delete(pg_sys::ForeignServerRelationId, server.oid);
    trigger::touch_at_commit();
    Ok(())
}

fn delete(class: pg_sys::Oid, object: pg_sys::Oid) {
    let address = pg_sys::ObjectAddress { classId: class, objectId: object, objectSubId: 0 };
    // SAFETY: drops an object in a transaction, which fails if other objects depend on it.
    unsafe { pg_sys::performDeletion(&address, pg_sys::DropBehavior::DROP_RESTRICT, 0) }
}

fn check_may_write(action: &'static str, function: &CStr) -> Result<()> {
    cluster::check_writable(action)?;
    // SAFETY: raises PostgreSQL's own error in a read-only transaction.
    unsafe { pg_sys::PreventCommandIfReadOnly(function.as_ptr()) };
    Ok(())
}

/// Rejects a name that a foreign server cannot have as it is.
fn check_name(name: &str) -> Result<()> {
    if name == LOCAL_PROVIDER {
        return Err(Error::ProviderTaken {
            name: name.to_string(),
            detail: Some("It is the name of the local model's provider.".to_string()),
        });
    }
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Error::bad_argument(
            "provider name must not be empty or contain control characters",
        ));
    }
    match name.len() {
        0..=63 => Ok(()),
        length => Err(Error::ProviderNameTooLong { length }),
    }
}

/// Rejects a role that may not create providers, since a provider makes the server call any address.
fn check_may_create() -> Result<()> {
    // SAFETY: a plain read of the process's own state.
    let role = unsafe { pg_sys::GetUserId() };
    let wrapper = our_wrapper()
        .ok_or_else(|| Error::Damaged { what: "no foreign-data wrapper \"embedd\"".to_string() })?;
    if has_usage(pg_sys::ForeignDataWrapperRelationId, wrapper, role) {
        return Ok(());
    }
    Err(Error::NotAllowed {
        object: "foreign-data wrapper embedd".to_string(),
        hint: format!(
            "Ask a superuser for: GRANT USAGE ON FOREIGN DATA WRAPPER embedd TO {}.",
            quote_ident(&role_name(role))
        ),
    })
}

fn check_is_free(name: &str) -> Result<()> {
    let detail = match Server::find(name) {
        Err(Error::UnknownProvider { .. }) => return Ok(()),
        Err(Error::NotAProvider { wrapper, .. }) => {
            Some(format!("It is a foreign server of foreign-data wrapper \"{wrapper}\"."))
        }
        _ => None,
    };
    Err(Error::ProviderTaken { name: name.to_string(), detail })
}

/// The provider with this name; an error for the local one.
fn find_to_change(name: &str) -> Result<Server> {
    match name {
        LOCAL_PROVIDER => Err(Error::BadArgument {
            message: "provider \"local\" is a part of embedd".to_string(),
            detail: Some("It can be neither changed nor dropped.".to_string()),
            hint: None,
        }),
        name => Server::find(name),
    }
}

/// Finds a provider for its owner, and locks it against concurrent changes, drops and new uses; the hint is for other
/// roles.
fn lock_to_change(name: &str, hint: impl Fn() -> String) -> Result<Server> {
    let mut server = find_to_change(name)?;
    loop {
        server.check_owner(&hint)?;
        // Not the lock of a DROP: the worker ignores a provider that is being dropped (depend::record_provider).
        depend::lock(server.oid, pg_sys::ExclusiveLock);
        // While the lock was waited for it may have been renamed, dropped or given to another owner, and its name
        // reused.
        let again = find_to_change(name)?;
        if again.oid == server.oid && again.owner == server.owner {
            return Ok(again);
        }
        server = again;
    }
}

fn made(name: &str) -> Result<ProviderRow> {
    let server = Server::find(name)?;
    let created_at = server.pairs.into_iter().find(|(name, _)| name == "created_at");
    Ok(ProviderRow {
        oid: server.oid,
        name: server.name,
        kind: Kind::as_str(server.options.kind),
        default_model: server.options.default_model,
        base_url: server.options.base_url,
        created_at: created_at.and_then(|(_, text)| text.parse().ok()),
    })
}

/// The transaction's start time in the format of the option created_at.
fn now() -> String {
    pgrx::datum::datetime_support::transaction_timestamp()
        .to_iso_string_with_timezone("UTC")
        .map(|text| text.replace("+00:00", "Z"))
        .unwrap_or_default()
}

/// Applies changes to options.
fn apply(old: &[(String, String)], changes: &[(String, Option<String>)]) -> Pairs {
    let mut pairs = old.to_vec();
    for (name, value) in changes {
        let place = pairs.iter().position(|(other, _)| other == name);
        match (place, value) {
            (Some(place), Some(value)) => pairs[place].1.clone_from(value),
            (Some(place), None) => drop(pairs.remove(place)),
            (None, Some(value)) => pairs.push((name.clone(), value.clone())),
            (None, None) => {}
        }
    }
    pairs
}
