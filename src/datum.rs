//! Types that need their own conversion between Rust and PostgreSQL: vector, jsonb, text[] and regclass.

use std::cell::Cell;

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::DatumWithOid;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiTupleTable};

use crate::error::{Error, Result};

/// Lets a function take a type through its FromDatum, as pgrx's own types do; this value stands for a NULL, which nothing
/// reads.
macro_rules! argument {
    ($type:ident, $null:expr) => {
        // SAFETY: the declared SQL type is the one that FromDatum reads.
        unsafe impl<'fcx> ArgAbi<'fcx> for $type {
            unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                // SAFETY: as above.
                unsafe { arg.unbox_arg_using_from_datum().unwrap_or($type($null)) }
            }

            unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> pgrx::nullable::Nullable<Self> {
                // SAFETY: as above.
                unsafe { arg.unbox_arg_using_from_datum().into() }
            }
        }
    };
}

argument!(Vector, Vec::new());
argument!(RawJsonb, Vec::new());
argument!(RegClass, pg_sys::InvalidOid);
argument!(Texts, Vec::new());

/// The first column of each row that has one.
pub fn texts(rows: SpiTupleTable<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for row in rows {
        found.extend(row.get::<String>(1)?);
    }
    Ok(found)
}

/// pgvector's type `vector` in this database.
#[derive(Clone, Debug)]
pub struct VectorType {
    pub oid: pg_sys::Oid,
    pub array_oid: pg_sys::Oid,
    /// The quoted schema of the type and its operators.
    pub schema: String,
}

impl VectorType {
    /// Finds the type through its extension, so that no search_path can substitute another.
    pub fn find(client: &SpiClient<'_>) -> Result<Self> {
        thread_local! {
            /// The oids of extension, type and array type as last found in this session.
            static KNOWN: Cell<Option<[pg_sys::Oid; 3]>> = const { Cell::new(None) };
        }
        // SAFETY: a catalog look-up in a transaction.
        let extension = unsafe { pg_sys::get_extension_oid(c"vector".as_ptr(), true) };
        let known = KNOWN.get().filter(|known| known[0] == extension);
        let [_, oid, array_oid] = match known {
            Some(known) => known,
            None => {
                let (oid, array_oid) = Self::find_oids(client)?;
                KNOWN.set(Some([extension, oid, array_oid]));
                [extension, oid, array_oid]
            }
        };
        let schema = crate::relation::schema_of_type(oid)
            .ok_or(Error::Damaged { what: "no type \"vector\"".to_string() })?;
        Ok(Self { oid, array_oid, schema })
    }

    fn find_oids(client: &SpiClient<'_>) -> Result<(pg_sys::Oid, pg_sys::Oid)> {
        let rows = client.select(
            "select t.oid, t.typarray
               from pg_catalog.pg_extension e
               join pg_catalog.pg_type t on t.typnamespace = e.extnamespace and t.typname = 'vector'
              where e.extname = 'vector'",
            None,
            &[],
        )?;
        if rows.is_empty() {
            return Err(Error::Damaged { what: "no extension \"vector\"".to_string() });
        }
        match rows.first().get_two::<pg_sys::Oid, pg_sys::Oid>()? {
            (Some(oid), Some(array_oid)) => Ok((oid, array_oid)),
            _ => Err(Error::Damaged { what: "type \"vector\"".to_string() }),
        }
    }

    /// A vector as an argument of a statement.
    pub fn argument<'a>(&self, values: &[f32]) -> DatumWithOid<'a> {
        // SAFETY: the datum has the layout of the type that the oid names.
        unsafe { DatumWithOid::new(vector_datum(values), self.oid) }
    }

    /// Vectors, or NULL for rows without text, as an array argument of a statement.
    pub fn array_argument<'a>(&self, vectors: &[Option<&[f32]>]) -> DatumWithOid<'a> {
        let mut values: Vec<pg_sys::Datum> =
            vectors.iter().map(|v| v.map_or(pg_sys::Datum::from(0usize), vector_datum)).collect();
        let mut nulls: Vec<bool> = vectors.iter().map(Option::is_none).collect();
        let mut length = [values.len() as i32];
        let mut lower_bound = [1];
        // SAFETY: values and nulls have `length` elements of a varlena type aligned as int.
        unsafe {
            let array = pg_sys::construct_md_array(
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                1,
                length.as_mut_ptr(),
                lower_bound.as_mut_ptr(),
                self.oid,
                -1,
                false,
                pg_sys::TYPALIGN_INT as std::ffi::c_char,
            );
            DatumWithOid::new(pg_sys::Datum::from(array), self.array_oid)
        }
    }
}

/// Bytes of a pgvector value before its elements: varlena header, int16 dimensions, int16 unused.
const VECTOR_HEADER: usize = 8;

/// A vector in pgvector's layout, in the current memory context.
fn vector_datum(values: &[f32]) -> pg_sys::Datum {
    let size = VECTOR_HEADER + size_of_val(values);
    // SAFETY: palloc gives `size` bytes, and everything written lies within them.
    unsafe {
        let memory = pg_sys::palloc(size).cast::<u8>();
        pgrx::set_varsize_4b(memory.cast(), size as i32);
        memory.add(4).cast::<i16>().write_unaligned(values.len() as i16);
        memory.add(6).cast::<i16>().write_unaligned(0);
        std::ptr::copy_nonoverlapping(
            values.as_ptr().cast::<u8>(),
            memory.add(VECTOR_HEADER),
            size_of_val(values),
        );
        pg_sys::Datum::from(memory)
    }
}

/// The vector that a SQL function takes or returns.
pub struct Vector(pub Vec<f32>);

impl IntoDatum for Vector {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(vector_datum(&self.0))
    }

    fn type_oid() -> pg_sys::Oid {
        // Known only at run time; needed only for SPI arguments, which this type is not.
        pg_sys::InvalidOid
    }
}

impl FromDatum for Vector {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type_oid: pg_sys::Oid,
    ) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller says that this is a vector, which is a varlena: its header says how many elements there are.
        unsafe {
            let plain = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<u8>();
            let elements = pgrx::varsize_any(plain.cast()).saturating_sub(VECTOR_HEADER) / 4;
            let first = plain.add(VECTOR_HEADER).cast::<f32>();
            Some(Self((0..elements).map(|at| first.add(at).read_unaligned()).collect()))
        }
    }
}

// SAFETY: the value is put into memory of PostgreSQL's before it is returned.
unsafe impl BoxRet for Vector {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: a datum of the declared return type.
        unsafe { fcinfo.return_raw_datum(vector_datum(&self.0)) }
    }
}

// SAFETY: the SQL name is that of the type whose layout vector_datum() writes.
unsafe impl SqlTranslatable for Vector {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Vector);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("vector"));
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("vector")));
}

/// A jsonb value that is passed on without parsing.
pub struct RawJsonb(Vec<u8>);

impl RawJsonb {
    /// Parses a JSON text.
    pub fn from_text(text: &str) -> Result<Self> {
        let text = std::ffi::CString::new(text)
            .map_err(|_| Error::bad_argument("JSON must not contain a zero byte"))?;
        // SAFETY: the input function takes a C string, and what it returns is a jsonb. What is not JSON raises an error.
        unsafe {
            let datum = pg_sys::Datum::from(text.as_ptr());
            pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(datum)])
                .and_then(|value| Self::from_polymorphic_datum(value, false, pg_sys::JSONBOID))
                .ok_or(Error::Damaged { what: "jsonb".to_string() })
        }
    }

    /// Parses the value with serde, which supports a smaller range of numbers and less nesting than PostgreSQL.
    pub fn parse(&self, argument: &'static str) -> Result<serde_json::Value> {
        // SAFETY: the bytes are those of a jsonb; its text is copied before its memory goes.
        let text = unsafe {
            let datum = pg_sys::Datum::from(self.0.as_ptr());
            let text = pgrx::direct_function_call_as_datum(pg_sys::jsonb_out, &[Some(datum)])
                .ok_or(Error::NullArgument { argument })?;
            std::ffi::CStr::from_ptr(text.cast_mut_ptr()).to_string_lossy().into_owned()
        };
        serde_json::from_str(&text).map_err(|error| Error::BadArgument {
            message: format!("{argument} cannot be parsed"),
            detail: Some(format!("The JSON parser reports: {error}.")),
            hint: None,
        })
    }
}

impl FromDatum for RawJsonb {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type_oid: pg_sys::Oid,
    ) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller says that this is a jsonb, which is a varlena.
        unsafe {
            let plain = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            let size = pgrx::varsize_any(plain);
            Some(Self(std::slice::from_raw_parts(plain.cast::<u8>(), size).to_vec()))
        }
    }
}

impl IntoDatum for RawJsonb {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        // SAFETY: palloc gives as many bytes as are copied.
        unsafe {
            let memory = pg_sys::palloc(self.0.len()).cast::<u8>();
            std::ptr::copy_nonoverlapping(self.0.as_ptr(), memory, self.0.len());
            Some(pg_sys::Datum::from(memory))
        }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: the bytes are put into memory of PostgreSQL's before they are returned.
unsafe impl BoxRet for RawJsonb {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: a datum of the declared return type; into_datum() never gives NULL.
        unsafe {
            match self.into_datum() {
                Some(datum) => fcinfo.return_raw_datum(datum),
                None => fcinfo.return_null(),
            }
        }
    }
}

// SAFETY: the SQL name is that of the type whose bytes are kept.
unsafe impl SqlTranslatable for RawJsonb {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(RawJsonb);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

/// A relation given as regclass, which is not opened: it may not exist.
pub struct RegClass(pub pg_sys::Oid);

impl FromDatum for RegClass {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type_oid: pg_sys::Oid,
    ) -> Option<Self> {
        (!is_null).then(|| Self(pg_sys::Oid::from(datum.value() as u32)))
    }
}

// SAFETY: the SQL name is that of the type whose value is taken.
unsafe impl SqlTranslatable for RegClass {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(RegClass);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("regclass"));
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("regclass")));
}

/// The elements of a text[], without NULLs. In a database with another encoding they may not be valid UTF-8, which
/// pgrx's own arrays assume: invalid bytes are replaced.
pub struct Texts(pub Vec<String>);

impl FromDatum for Texts {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _type_oid: pg_sys::Oid,
    ) -> Option<Self> {
        if is_null {
            return None;
        }
        let (mut elements, mut nulls, mut length) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: the caller says that this is a text[]; its elements are copied while they are there.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            pg_sys::deconstruct_array(
                array.cast::<pg_sys::ArrayType>(),
                pg_sys::TEXTOID,
                -1,
                false,
                pg_sys::TYPALIGN_INT as std::ffi::c_char,
                &mut elements,
                &mut nulls,
                &mut length,
            );
            let texts = (0..length as usize).filter(|i| !*nulls.add(*i)).map(|i| {
                let text = pg_sys::pg_detoast_datum_packed((*elements.add(i)).cast_mut_ptr());
                let (start, size) = (pgrx::vardata_any(text), pgrx::varsize_any_exhdr(text));
                let bytes = std::slice::from_raw_parts(start.cast::<u8>(), size);
                String::from_utf8_lossy(bytes).into_owned()
            });
            Some(Self(texts.collect()))
        }
    }
}

impl IntoDatum for Texts {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.0.into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTARRAYOID
    }
}

// SAFETY: the SQL name is that of the type whose elements are copied.
unsafe impl SqlTranslatable for Texts {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Texts);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: std::result::Result<SqlMappingRef, ArgumentError> =
        Ok(SqlMappingRef::literal("text[]"));
    const RETURN_SQL: std::result::Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("text[]")));
}
