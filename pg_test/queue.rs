//! Keys on their way into the queue: packed, in order, and read back as they were.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::queue::{self, KEYS_PER_ROW, Noted};

    fn noted(keys: impl IntoIterator<Item = String>) -> Noted {
        let mut noted = Noted::default();
        keys.into_iter().for_each(|key| noted.push(key.as_bytes()));
        noted
    }

    #[pg_test]
    fn keys_are_packed_and_come_back_in_order() {
        let keys: Vec<String> = (0..2 * KEYS_PER_ROW + 5).map(|n| format!("key {n}")).collect();
        queue::write(77, &noted(keys.clone()), 0);
        let rows = Spi::connect(|client| queue::read(client, &[(77, 0)], &[], 10)).expect("read");
        assert_eq!(rows.len(), 3);
        let read: Vec<String> = rows.into_iter().filter_map(|r| r.keys).flatten().collect();
        assert_eq!(read, keys);
    }

    #[pg_test]
    fn long_keys_make_shorter_rows() {
        queue::write(78, &noted((0..20).map(|n| format!("{n}{}", "x".repeat(100_000)))), 0);
        let rows = Spi::connect(|client| queue::read(client, &[(78, 0)], &[], 100)).expect("read");
        assert!(rows.len() >= 6, "{} rows", rows.len());
    }

    #[pg_test]
    fn a_change_of_any_number_of_rows_has_no_keys() {
        let mut whole = Noted::default();
        whole.whole_table = true;
        queue::write(79, &whole, 0);
        let rows = Spi::connect(|client| queue::read(client, &[(79, 0)], &[], 10)).expect("read");
        assert!(rows.len() == 1 && rows[0].keys.is_none());
    }

    #[pg_test]
    fn known_rows_and_those_before_the_mark_are_not_read_again() {
        for n in 0..4 {
            queue::write(80, &noted([n.to_string()]), 0);
        }
        let ids = |after, known: &[i64]| -> Vec<i64> {
            let rows = Spi::connect(|client| queue::read(client, &[(80, after)], known, 10));
            rows.expect("read").iter().map(|r| r.id).collect()
        };
        let all = ids(0, &[]);
        assert_eq!(all.len(), 4);
        assert_eq!(ids(all[0], &[all[2]]), [all[1], all[3]]);
    }

    #[pg_test]
    fn the_trigger_writes_early_when_a_transaction_notes_much() {
        Spi::run(
            "create table noted_early (id text primary key, body text);
             select embedd.create_vector_table('early', 'noted_early', '[{\"name\": \"body\", \"role\": \"embedding\"}]');
             insert into noted_early select 'a rather long key for a row ' || n, '' from generate_series(1, 50000) n",
        )
        .expect("statements");
        // The rest is written before commit, which a test does not reach.
        let rows = Spi::get_one::<i64>("select count(*) from embedd.queue").expect("query");
        assert!(rows.is_some_and(|rows| (20..=51).contains(&rows)), "{rows:?} rows");
    }
}
