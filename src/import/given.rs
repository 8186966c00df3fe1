//! Reads the rows of the caller's query: as the caller, read-only, with the caller's search_path, some at a time.

use std::ffi::{CStr, CString};

use pgrx::prelude::*;
use pgrx::spi::SpiTupleTable;

use super::values::{self, Kind};
use crate::catalog::VectorTable;
use crate::datum::VectorType;
use crate::error::{Error, Result};
use crate::rights::pin_path;
use crate::text_settings::TextSettings;

/// Rows of one fetch.
const ROWS_AT_ONCE: std::ffi::c_long = 64;

/// Where a batch ends: PostgreSQL keeps its vectors in `work_mem` while it stores them.
const MOST_ROWS: usize = 2000;
const MOST_BYTES: usize = 2 * 1024 * 1024;

/// A row of the query.
pub struct Row {
    pub key: String,
    /// What was embedded; None if the query has no text.
    pub text: Option<String>,
    pub vector: Vec<f32>,
}

/// A row of the query, or why it is skipped.
pub enum Taken {
    Row(Row),
    Skipped(String),
}

/// A query that is read.
pub struct Given {
    portal: String,
    /// The output functions of the key, of the text and of the reason.
    key: pg_sys::Oid,
    text: Option<pg_sys::Oid>,
    reason: Option<pg_sys::Oid>,
    vector: Kind,
    columns: usize,
    /// The types of all columns.
    types: Vec<pg_sys::Oid>,
}

impl Given {
    /// Parses a query, checks that it is a SELECT of the right columns, and begins to run it.
    pub fn open(query: &str, has_reasons: bool, vector: &VectorType) -> Result<Self> {
        let text = CString::new(query)
            .map_err(|_| Error::bad_argument("query must not contain a zero byte"))?;
        Spi::connect(|client| {
            let _read_only = ReadOnly::begin();
            // SAFETY: connected to SPI; the text is terminated and outlives the calls.
            let (plan, descriptor) = unsafe {
                let plan = pg_sys::SPI_prepare(text.as_ptr(), 0, std::ptr::null_mut());
                (plan, columns_of_select(plan).ok_or_else(not_a_select)?)
            };
            // SAFETY: the descriptor belongs to the plan.
            let columns = unsafe { (*descriptor).natts } as usize - usize::from(has_reasons);
            if !(2..=3).contains(&columns) {
                return Err(wrong_columns(
                    "query must return two or three columns",
                    format!("It returns {columns}."),
                ));
            }
            // SAFETY: a column of the descriptor.
            let type_of = |n: usize| unsafe { pg_sys::SPI_gettypeid(descriptor, n as i32) };
            if columns == 3 && !is_text(type_of(2)) {
                return Err(wrong_columns(
                    "the second of three columns of query must be a text",
                    format!("It is of type {}.", type_name(type_of(2))),
                ));
            }
            // With another search_path the caller could have any type taken for a vector.
            let kind = {
                let _path = pin_path();
                Kind::of(client, type_of(columns), vector)?
            };
            let Some(kind) = kind else {
                return Err(wrong_columns(
                    "the last column of query must be a vector",
                    format!(
                        "It is of type {}; {} are allowed.",
                        type_name(type_of(columns)),
                        Kind::TYPES
                    ),
                ));
            };
            // SAFETY: a plan of one SELECT without parameters; the portal keeps a copy of it.
            let portal = unsafe {
                let portal = pg_sys::SPI_cursor_open(
                    std::ptr::null(),
                    plan,
                    std::ptr::null_mut(),
                    std::ptr::null(),
                    false,
                );
                CStr::from_ptr((*portal).name).to_string_lossy().into_owned()
            };
            Ok(Self {
                portal,
                key: output_function(type_of(1)),
                text: (columns == 3).then(|| output_function(type_of(2))),
                reason: has_reasons.then(|| output_function(type_of(columns + 1))),
                vector: kind,
                columns,
                types: (1..=columns + usize::from(has_reasons)).map(type_of).collect(),
            })
        })
    }

    /// Whether the query says which text was embedded.
    pub fn has_text(&self) -> bool {
        self.text.is_some()
    }

    /// The next rows; None after the last one.
    pub fn next(&mut self, table: &VectorTable) -> Result<Option<Vec<Taken>>> {
        // The end of the connection to SPI gives back the memory of the rows.
        Spi::connect(|client| {
            let mut cursor = client.find_cursor(&self.portal).map_err(|_| was_closed())?;
            let (mut taken, mut bytes) = (Vec::new(), 0);
            while taken.len() < MOST_ROWS && bytes < MOST_BYTES {
                let mut rows = {
                    let _read_only = ReadOnly::begin();
                    cursor.fetch(ROWS_AT_ONCE)?
                };
                if rows.is_empty() {
                    break;
                }
                // PostgreSQL keeps the code of a source's owner from closing the portal and opening another one of its
                // name; how a value is read must not depend on that.
                if !self.has_columns_of(&rows)? {
                    return Err(was_closed());
                }
                while rows.next().is_some() {
                    let one = self.take(&rows, table)?;
                    if let Taken::Row(Row { text, vector, .. }) = &one {
                        bytes += text.as_ref().map_or(0, String::len) + size_of_val(&vector[..]);
                    }
                    taken.push(one);
                }
            }
            if taken.is_empty() {
                return Ok(None);
            }
            cursor.detach_into_name();
            Ok(Some(taken))
        })
    }

    /// Whether rows have the columns of the query.
    fn has_columns_of(&self, rows: &SpiTupleTable<'_>) -> Result<bool> {
        let mut found = Vec::with_capacity(self.types.len());
        for n in 1..=rows.columns()? {
            found.push(rows.column_type_oid(n)?.value());
        }
        Ok(found == self.types)
    }

    /// The current row of those fetched.
    fn take(&self, rows: &SpiTupleTable<'_>, table: &VectorTable) -> Result<Taken> {
        let skipped = |reason: &str| Ok(Taken::Skipped(reason.to_string()));
        if let Some(output) = self.reason
            && let Some(reason) = rows.get_datum_by_ordinal(self.columns + 1)?
        {
            return skipped(&shown(output, reason));
        }
        let Some(key) = rows.get_datum_by_ordinal(1)? else {
            return skipped("unknown_key");
        };
        let Some(vector) = rows.get_datum_by_ordinal(self.columns)? else {
            return skipped("no_vector");
        };
        // SAFETY: a value of the column whose type this kind is.
        let vector = unsafe { self.vector.read(vector) };
        if let Some(reason) = values::unfit(&vector, table.dimensions) {
            return skipped(reason);
        }
        let text = match self.text {
            Some(output) => rows.get_datum_by_ordinal(2)?.map(|text| shown(output, text)),
            None => None,
        };
        Ok(Taken::Row(Row { key: shown(self.key, key), text, vector }))
    }
}

/// Makes the transaction read-only until it is dropped, after an error too: neither the query nor a function in it
/// writes.
struct ReadOnly {
    before: bool,
}

impl ReadOnly {
    fn begin() -> Self {
        // SAFETY: a plain variable of the process's own transaction, which its end resets.
        unsafe {
            let before = pg_sys::XactReadOnly;
            pg_sys::XactReadOnly = true;
            Self { before }
        }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::XactReadOnly = self.before };
    }
}

/// The columns of a plan that is a single SELECT; None for any other.
///
/// # Safety
/// The plan is one of SPI's that was not freed, or null.
unsafe fn columns_of_select(plan: pg_sys::SPIPlanPtr) -> Option<pg_sys::TupleDesc> {
    // SAFETY: the lists of a plan hold what their names say.
    unsafe {
        if plan.is_null() {
            return None;
        }
        let source: *mut pg_sys::CachedPlanSource =
            the_only(pg_sys::SPI_plan_get_plan_sources(plan))?.cast();
        let query: *mut pg_sys::Query = the_only((*source).query_list)?.cast();
        let is_select = (*query).commandType == pg_sys::CmdType::CMD_SELECT
            && !(*query).hasModifyingCTE
            && !(*source).resultDesc.is_null();
        is_select.then_some((*source).resultDesc)
    }
}

/// The only element of a list; None if there are none or several.
///
/// # Safety
/// A list of pointers, or null.
unsafe fn the_only(list: *mut pg_sys::List) -> Option<*mut std::ffi::c_void> {
    // SAFETY: the caller's promise.
    unsafe { (!list.is_null() && (*list).length == 1).then(|| (*(*list).elements).ptr_value) }
}

fn not_a_select() -> Error {
    Error::BadArgument {
        message: "query must be a single SELECT".to_string(),
        detail: Some("It runs read-only, with your rights.".to_string()),
        hint: None,
    }
}

fn was_closed() -> Error {
    Error::Failed {
        sqlstate: PgSqlErrorCode::ERRCODE_INVALID_CURSOR_STATE,
        message: "query was closed while its rows were imported".to_string(),
    }
}

fn wrong_columns(message: &str, detail: String) -> Error {
    Error::BadArgument {
        message: message.to_string(),
        detail: Some(detail),
        hint: Some(
            "Return the key of the source row, the text that was embedded, and the vector: SELECT id, content, embedding FROM ... . Without the text, the vector is taken for that of the row's present text.".to_string(),
        ),
    }
}

/// Whether a type is one of PostgreSQL's string types.
fn is_text(type_oid: pg_sys::Oid) -> bool {
    let (mut category, mut is_preferred) = (0, false);
    // SAFETY: a syscache look-up in a transaction.
    unsafe {
        pg_sys::get_type_category_preferred(type_oid, &mut category, &mut is_preferred);
    }
    category as u8 == pg_sys::TYPCATEGORY_STRING
}

/// A type as users see it.
fn type_name(type_oid: pg_sys::Oid) -> String {
    // SAFETY: a syscache look-up in a transaction; the name is copied.
    unsafe { CStr::from_ptr(pg_sys::format_type_be(type_oid)).to_string_lossy().into_owned() }
}

fn output_function(type_oid: pg_sys::Oid) -> pg_sys::Oid {
    let (mut function, mut is_varlena) = (pg_sys::InvalidOid, false);
    // SAFETY: a syscache look-up in a transaction.
    unsafe { pg_sys::getTypeOutputInfo(type_oid, &mut function, &mut is_varlena) };
    function
}

/// A value as text, with the settings under which keys are compared.
fn shown(output: pg_sys::Oid, datum: pg_sys::Datum) -> String {
    let _settings = TextSettings::fixed();
    // SAFETY: a value of the type whose output function this is; the text is copied.
    unsafe {
        CStr::from_ptr(pg_sys::OidOutputFunctionCall(output, datum)).to_string_lossy().into_owned()
    }
}
