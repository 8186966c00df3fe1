//! Reads vectors of every type in which they are kept: vector, halfvec, and arrays of floating-point numbers.

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::datum::VectorType;
use crate::error::Result;

/// The type of a column of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Vector,
    Halfvec,
    Reals,
    Doubles,
}

impl Kind {
    /// The types of all kinds, for messages.
    pub const TYPES: &'static str = "vector, halfvec, real[] and double precision[]";

    /// The kind of a type; None if its values are no vectors.
    pub fn of(
        client: &SpiClient<'_>,
        type_oid: pg_sys::Oid,
        vector: &VectorType,
    ) -> Result<Option<Self>> {
        // SAFETY: a look-up in a transaction.
        let base = unsafe { pg_sys::getBaseType(type_oid) };
        Ok(match base {
            pg_sys::FLOAT4ARRAYOID => Some(Self::Reals),
            pg_sys::FLOAT8ARRAYOID => Some(Self::Doubles),
            _ if base == vector.oid => Some(Self::Vector),
            _ if is_halfvec(client, base, vector)? => Some(Self::Halfvec),
            _ => None,
        })
    }

    /// The elements of a value; an element that is NULL is not a number.
    ///
    /// # Safety
    /// The datum is a value of this kind's type.
    pub unsafe fn read(self, datum: pg_sys::Datum) -> Vec<f32> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Vector => elements::<f32>(datum).to_vec(),
                Self::Halfvec => elements::<u16>(datum).iter().map(|bits| half(*bits)).collect(),
                Self::Reals => Vec::<Option<f32>>::from_datum(datum, false)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|element| element.unwrap_or(f32::NAN))
                    .collect(),
                Self::Doubles => Vec::<Option<f64>>::from_datum(datum, false)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|element| element.map_or(f32::NAN, |element| element as f32))
                    .collect(),
            }
        }
    }
}

/// Whether a type is pgvector's halfvec.
fn is_halfvec(client: &SpiClient<'_>, base: pg_sys::Oid, vector: &VectorType) -> Result<bool> {
    let rows = client.select(
        "select 1 from pg_catalog.pg_type t join pg_catalog.pg_type v on v.typnamespace = t.typnamespace
          where t.oid = $1 and t.typname = 'halfvec' and v.oid = $2",
        None,
        &[base.into(), vector.oid.into()],
    )?;
    Ok(!rows.is_empty())
}

/// The elements of a vector or halfvec: behind the varlena header an int16 with their number, an int16 that is unused,
/// and the elements.
///
/// # Safety
/// The datum has this layout, with elements of type `T`.
unsafe fn elements<'a, T>(datum: pg_sys::Datum) -> &'a [T] {
    // SAFETY: the caller's promise; the detoasted value is aligned as an int and lives as long as the fetched rows. The
    // elements lie within it.
    unsafe {
        let value = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
        let most = pgrx::varsize_any(value).saturating_sub(8) / size_of::<T>();
        let value = value.cast::<u8>();
        let number = value.add(4).cast::<i16>().read_unaligned();
        std::slice::from_raw_parts(value.add(8).cast::<T>(), most.min(number.max(0) as usize))
    }
}

/// The value of a half-precision number.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

/// Why a vector cannot be stored in a vector table of these dimensions.
pub fn unfit(values: &[f32], dimensions: i32) -> Option<&'static str> {
    if values.len() != dimensions as usize {
        return Some("other_dimensions");
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Some("not_finite");
    }
    // It has no direction, so no cosine.
    values.iter().all(|value| *value == 0.0).then_some("zero_vector")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_is_the_number_it_stands_for() {
        let numbers =
            [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8)];
        for (bits, number) in numbers {
            assert_eq!(half(bits), number, "{bits:#x}");
        }
        assert_eq!(half(0x7bff), 65504.0);
        assert_eq!(half(0xfc00), f32::NEG_INFINITY);
        assert!(half(0x7e00).is_nan());
        assert_eq!(half(0), 0.0);
    }

    #[test]
    fn a_vector_that_cannot_be_stored_has_a_reason() {
        assert_eq!(unfit(&[1.0, 0.0], 2), None);
        assert_eq!(unfit(&[1.0], 2), Some("other_dimensions"));
        assert_eq!(unfit(&[1.0, f32::NAN], 2), Some("not_finite"));
        assert_eq!(unfit(&[1.0, f32::INFINITY], 2), Some("not_finite"));
        assert_eq!(unfit(&[0.0, -0.0], 2), Some("zero_vector"));
    }
}
