//! The column of vectors: its type, the index that fits it, and the distance that queries compute with it. No SPI.

mod index_options;

use serde::Deserialize;

pub use self::index_options::{IndexOptions, Method, Quantization};
use crate::error::{Error, Result};

/// The most dimensions of a column, of either type (pgvector).
pub const MOST_DIMENSIONS: i32 = 16_000;

/// The most dimensions of an index (pgvector), of either type.
pub const MOST_INDEXED: i32 = 4000;

/// The least dimensions of an index over bits: with fewer, the signs tell too little of a vector.
pub const LEAST_QUANTIZED: i32 = 512;

/// The most dimensions of an index over the type vector (pgvector); above, it is over the same vectors as halfvec.
const MOST_INDEXED_AS_VECTOR: i32 = 2000;

/// The type of the column of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Four bytes for each dimension.
    #[default]
    Vector,
    /// Two bytes for each dimension.
    Halfvec,
}

impl ColumnType {
    /// The name of the type in pgvector, which is also the value of the column vector_type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vector => "vector",
            Self::Halfvec => "halfvec",
        }
    }

    /// The type of this name; None if embedd has no vectors of that type.
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Vector, Self::Halfvec].into_iter().find(|of| of.as_str() == name)
    }

    /// The argument vector_type.
    pub fn parse(name: &str) -> Result<Self> {
        Self::of_name(name).ok_or_else(|| Error::BadArgument {
            message: format!("vector type \"{name}\" is not available"),
            detail: Some("Valid values: vector, halfvec.".to_string()),
            hint: None,
        })
    }
}

/// What the key of an index over the vectors is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKey {
    /// The column itself.
    Column,
    /// The column as halfvec.
    Halfvec,
    /// The signs of the elements.
    Bits,
}

/// The column of vectors of one vector table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VectorColumn {
    pub of: ColumnType,
    pub dimensions: i32,
    pub index: IndexOptions,
}

impl VectorColumn {
    /// Whether pgvector can index this many dimensions; otherwise each query reads all rows.
    pub fn can_be_indexed(&self) -> bool {
        self.dimensions <= MOST_INDEXED || self.is_quantized()
    }

    /// Whether the index has only the signs of the vectors' elements.
    pub fn is_quantized(&self) -> bool {
        self.index.quantization == Some(Quantization::Bit)
    }

    /// Whether the vector table has an index of embedd's.
    pub fn is_indexed(&self) -> bool {
        self.index.method == Method::Hnsw && self.can_be_indexed()
    }

    /// Whether vectors are compared as halfvec although the column has vectors: they have too many dimensions for an
    /// index on vector.
    pub fn is_cast(&self) -> bool {
        self.of == ColumnType::Vector
            && self.dimensions > MOST_INDEXED_AS_VECTOR
            && self.can_be_indexed()
            && !self.is_quantized()
    }

    /// The type in which vectors are compared, and which an index that is not quantized needs to serve queries.
    pub fn compared_as(&self) -> ColumnType {
        if self.is_cast() { ColumnType::Halfvec } else { self.of }
    }

    /// The type and the operator that an index needs to serve queries.
    pub fn indexed_as(&self) -> (&'static str, &'static str) {
        if self.is_quantized() { ("bit", "<~>") } else { (self.compared_as().as_str(), "<=>") }
    }

    /// Whether the key of the index is an expression.
    pub fn has_expression(&self) -> bool {
        self.index_key() != IndexKey::Column
    }

    /// The key of the index that embedd makes.
    pub fn index_key(&self) -> IndexKey {
        match (self.is_quantized(), self.is_cast()) {
            (true, _) => IndexKey::Bits,
            (false, true) => IndexKey::Halfvec,
            (false, false) => IndexKey::Column,
        }
    }

    /// A key of an index in SQL.
    pub fn key_sql(&self, key: IndexKey, schema: &str) -> String {
        let dimensions = self.dimensions;
        match key {
            IndexKey::Column => "embedding".to_string(),
            IndexKey::Halfvec => format!("(embedding::{schema}.halfvec({dimensions}))"),
            IndexKey::Bits => format!("({schema}.binary_quantize(embedding)::bit({dimensions}))"),
        }
    }

    /// The Hamming distance of the signs of `embedding` of the row `v` from those of a parameter of type vector, in the form
    /// that an index over bits serves.
    pub fn hamming(&self, schema: &str, parameter: &str) -> String {
        let bits =
            |vector: &str| format!("{schema}.binary_quantize({vector})::bit({})", self.dimensions);
        let (one, other) = (bits("v.embedding"), bits(parameter));
        format!("({one}) operator({schema}.<~>) ({other})")
    }

    /// The type of the column in SQL; `schema` is the quoted schema of pgvector.
    pub fn type_sql(&self, schema: &str) -> String {
        format!("{schema}.{}({})", self.of.as_str(), self.dimensions)
    }

    /// The cosine distance of `embedding` of the row `v` from a parameter of type vector, in the form that an index with this
    /// key serves. What an index over bits brings is compared by the column.
    pub fn distance(&self, key: IndexKey, schema: &str, parameter: &str) -> String {
        let halfvec = format!("{schema}.halfvec({})", self.dimensions);
        let is_cast = key == IndexKey::Halfvec && self.of == ColumnType::Vector;
        let one = if is_cast { format!("::{halfvec}") } else { String::new() };
        let other = match is_cast || self.of == ColumnType::Halfvec {
            false => String::new(),
            true => format!("::{halfvec}"),
        };
        format!("v.embedding{one} operator({schema}.<=>) {parameter}{other}")
    }

    /// An expression of type vector as a value of the column.
    pub fn stored(&self, schema: &str, expression: &str) -> String {
        match self.of {
            ColumnType::Vector => expression.to_string(),
            ColumnType::Halfvec => format!("{expression}::{}", self.type_sql(schema)),
        }
    }

    /// The definition of the index from the access method on, as pg_get_indexdef() writes it; `class` is an operator
    /// class for [`VectorColumn::indexed_as`].
    pub fn index_definition(&self, schema: &str, class: &str) -> String {
        let key = self.key_sql(self.index_key(), schema);
        format!(" USING hnsw ({key} {class}){}", self.index.with_clause())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(of: ColumnType, dimensions: i32) -> VectorColumn {
        VectorColumn { of, dimensions, index: IndexOptions::default() }
    }

    #[test]
    fn distance_and_index_have_the_same_form() {
        use ColumnType::{Halfvec, Vector};
        for (of, dimensions, distance, key) in [
            (Vector, 2000, "v.embedding operator(x.<=>) $1", "embedding"),
            (
                Vector,
                2001,
                "v.embedding::x.halfvec(2001) operator(x.<=>) $1::x.halfvec(2001)",
                "(embedding::x.halfvec(2001))",
            ),
            (
                Vector,
                4000,
                "v.embedding::x.halfvec(4000) operator(x.<=>) $1::x.halfvec(4000)",
                "(embedding::x.halfvec(4000))",
            ),
            (Halfvec, 384, "v.embedding operator(x.<=>) $1::x.halfvec(384)", "embedding"),
            (Halfvec, 4000, "v.embedding operator(x.<=>) $1::x.halfvec(4000)", "embedding"),
        ] {
            let column = column(of, dimensions);
            assert_eq!(column.distance(column.index_key(), "x", "$1"), distance);
            assert_eq!(column.index_definition("x", "c"), format!(" USING hnsw ({key} c)"));
            assert!(column.is_indexed());
        }
    }

    #[test]
    fn above_4000_dimensions_the_column_itself_is_compared_without_an_index() {
        for (of, distance) in [
            (ColumnType::Vector, "v.embedding operator(x.<=>) $1"),
            (ColumnType::Halfvec, "v.embedding operator(x.<=>) $1::x.halfvec(4001)"),
        ] {
            let column = column(of, 4001);
            assert!(!column.can_be_indexed() && !column.is_indexed() && !column.is_cast());
            assert_eq!(column.compared_as(), of);
            assert_eq!(column.distance(column.index_key(), "x", "$1"), distance);
        }
    }

    #[test]
    fn an_index_over_bits_has_a_distance_of_its_own() {
        let index = IndexOptions { quantization: Some(Quantization::Bit), ..Default::default() };
        for (of, dimensions) in [(ColumnType::Vector, 16_000), (ColumnType::Halfvec, 768)] {
            let column = VectorColumn { of, dimensions, index: index.clone() };
            assert!(column.is_indexed() && column.has_expression() && !column.is_cast());
            assert_eq!((column.compared_as(), column.indexed_as()), (of, ("bit", "<~>")));
            assert_eq!(
                column.index_definition("x", "c"),
                format!(" USING hnsw ((x.binary_quantize(embedding)::bit({dimensions})) c)")
            );
            assert_eq!(
                column.hamming("x", "$1"),
                format!(
                    "(x.binary_quantize(v.embedding)::bit({dimensions})) operator(x.<~>) (x.binary_quantize($1)::bit({dimensions}))"
                )
            );
        }
    }

    #[test]
    fn an_index_of_the_user_may_have_another_key() {
        let vectors = column(ColumnType::Vector, 384);
        assert_eq!(
            vectors.distance(IndexKey::Halfvec, "x", "$1"),
            "v.embedding::x.halfvec(384) operator(x.<=>) $1::x.halfvec(384)"
        );
        assert_eq!(vectors.distance(IndexKey::Bits, "x", "$1"), "v.embedding operator(x.<=>) $1");
        let keys = [IndexKey::Column, IndexKey::Halfvec, IndexKey::Bits]
            .map(|key| vectors.key_sql(key, "x"));
        let expected = [
            "embedding",
            "(embedding::x.halfvec(384))",
            "(x.binary_quantize(embedding)::bit(384))",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn values_are_cast_to_the_type_of_the_column() {
        assert_eq!(column(ColumnType::Vector, 3).stored("x", "n.e"), "n.e");
        assert_eq!(column(ColumnType::Halfvec, 3).stored("x", "n.e"), "n.e::x.halfvec(3)");
        assert_eq!(column(ColumnType::Vector, 3).type_sql("x"), "x.vector(3)");
    }

    #[test]
    fn there_are_two_types() {
        assert_eq!(ColumnType::parse("halfvec").ok(), Some(ColumnType::Halfvec));
        assert!(["", "Vector", "bit", "sparsevec"].iter().all(|n| ColumnType::parse(n).is_err()));
    }
}
