//! Vectors as datums: pgvector reads what Rust writes.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::datum::VectorType;

    fn kind() -> VectorType {
        Spi::connect(VectorType::find).expect("pgvector is there")
    }

    #[pg_test]
    fn a_vector_argument_is_the_same_as_its_text_form() {
        let kind = kind();
        let text = Spi::get_one_with_args::<String>(
            "select $1::text",
            &[kind.argument(&[1.0, -2.5, 0.0, f32::MIN_POSITIVE])],
        );
        assert_eq!(text, Ok(Some("[1,-2.5,0,1.1754944e-38]".to_string())));
    }

    #[pg_test]
    fn an_array_of_vectors_may_hold_null() {
        let kind = kind();
        let vectors = [Some([1.0, 2.0].as_slice()), None, Some([3.0, 4.0].as_slice())];
        let found = Spi::get_one_with_args::<String>(
            "select string_agg(coalesce(v::text, 'null'), ' ' order by n) from unnest($1) with ordinality u(v, n)",
            &[kind.array_argument(&vectors)],
        );
        assert_eq!(found, Ok(Some("[1,2] null [3,4]".to_string())));
    }

    #[pg_test]
    fn an_empty_array_of_vectors_has_no_elements() {
        let kind = kind();
        let found = Spi::get_one_with_args::<i64>(
            "select count(*) from unnest($1)",
            &[kind.array_argument(&[])],
        );
        assert_eq!(found, Ok(Some(0)));
    }
}
