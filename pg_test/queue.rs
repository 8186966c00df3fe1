//! Keys in the queue: packed, in order, and read back unchanged.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::queue::{self, BulkChange, Change, ChangedKeys, KEYS_PER_ROW, Row};
    use crate::shared::WorkerIndex;

    const ALL: WorkerIndex = WorkerIndex { index: 0, count: 1 };

    fn read(table_id: i32, after: i64) -> Vec<Row> {
        let reading = Spi::connect(|client| queue::read(client, ALL, &[(table_id, after)], 100));
        reading.expect("read").rows
    }

    fn keys_of(row: Row) -> Vec<String> {
        match row.change {
            Change::Keys(keys) => keys,
            Change::Bulk(_) => Vec::new(),
        }
    }

    fn noted(keys: impl IntoIterator<Item = String>) -> ChangedKeys {
        let mut noted = ChangedKeys::default();
        keys.into_iter().for_each(|key| noted.push(key.as_bytes()));
        noted
    }

    #[pg_test]
    fn keys_are_packed_and_come_back_in_order() {
        let keys: Vec<String> = (0..2 * KEYS_PER_ROW + 5).map(|n| format!("key {n}")).collect();
        queue::write(77, &noted(keys.clone()), 0);
        let rows = read(77, 0);
        assert_eq!(rows.len(), 3);
        let mut found = Vec::new();
        for row in rows {
            found.extend(keys_of(row));
        }
        assert_eq!(found, keys);
    }

    #[pg_test]
    fn long_keys_make_shorter_rows() {
        queue::write(78, &noted((0..20).map(|n| format!("{n}{}", "x".repeat(100_000)))), 0);
        let rows = read(78, 0);
        assert!(rows.len() >= 6, "{} rows", rows.len());
    }

    #[pg_test]
    fn a_change_of_any_number_of_rows_has_no_keys() {
        for (table_id, change) in [(79, BulkChange::Changed), (80, BulkChange::Gone)] {
            let mut noted = ChangedKeys::default();
            noted.bulk_change = Some(change);
            queue::write(table_id, &noted, 0);
            let rows = read(table_id, 0);
            assert!(rows.len() == 1 && rows[0].change == Change::Bulk(change));
        }
    }

    #[pg_test]
    fn rows_before_the_position_are_found_by_their_transaction_only() {
        for n in 0..4 {
            queue::write(81, &noted([n.to_string()]), 0);
        }
        let rows = read(81, 0);
        let all: Vec<i64> = rows.iter().map(|r| r.id).collect();
        assert_eq!(all.len(), 4);
        assert_eq!(read(81, all[1]).iter().map(|r| r.id).collect::<Vec<_>>(), all[2..]);
        let ids = |transaction: u64, above: i64, upto: i64, limit: i64| -> Vec<i64> {
            let between = [(81, above, upto)];
            let rows = Spi::connect(|c| queue::read_of(c, ALL, &[transaction], &between, limit));
            rows.expect("read").iter().map(|row| row.id).collect()
        };
        let mine = rows[0].transaction;
        assert_eq!(ids(mine, 0, all[2], 100), all[..3]);
        assert_eq!(ids(mine, all[0], all[3], 100), all[1..]);
        assert_eq!(ids(mine, all[0], all[3], 2), all[1..3]);
        assert!(ids(3, 0, all[3], 100).is_empty());
    }

    fn of_portions(table_id: i32, count: u16) -> Vec<String> {
        let mut found = Vec::new();
        for index in 0..count {
            let portion = WorkerIndex { index, count };
            let reading =
                Spi::connect(|client| queue::read(client, portion, &[(table_id, 0)], 100));
            for row in reading.expect("read").rows {
                let keys = keys_of(row);
                assert!(keys.iter().all(|key| queue::worker_of(key.as_bytes(), count) == index));
                found.extend(keys);
            }
        }
        found.sort_by_key(|key| key.parse::<i32>().ok());
        found
    }

    #[pg_test]
    fn rows_for_another_number_of_workers_are_shared_out_again() {
        let id = Spi::get_one::<i32>(
            "create table shared_out (id text primary key, body text);
             select embedd.create_vector_table('shared', 'shared_out', '[{\"name\": \"body\", \"role\": \"embedding\"}]');
             select id from embedd.vector_tables where name = 'shared'",
        );
        let id = id.expect("query").expect("a vector table");
        let keys: Vec<String> = (0..2500).map(|n| n.to_string()).collect();
        queue::write(id, &noted(keys.clone()), 0);
        // Of a vector table that no longer exists.
        queue::write(82, &noted(keys.clone()), 0);
        assert!(Spi::connect_mut(|client| queue::share_out(client, 3)).expect("share out"));
        assert!(read(id, 0).is_empty() && read(82, 0).is_empty());
        assert_eq!(of_portions(id, 3), keys);
        assert!(of_portions(82, 3).is_empty());
        assert!(!Spi::connect_mut(|client| queue::share_out(client, 3)).expect("share out"));
        assert_eq!(of_portions(id, 3), keys);
    }

    #[pg_test]
    fn the_trigger_writes_early_in_a_large_transaction() {
        Spi::run(
            "create table noted_early (id text primary key, body text);
             select embedd.create_vector_table('early', 'noted_early', '[{\"name\": \"body\", \"role\": \"embedding\"}]');
             insert into noted_early select 'a rather long key for a row ' || n, '' from generate_series(1, 50000) n",
        )
        .expect("statements");
        // The rest is written before COMMIT, which a test does not reach.
        let rows = Spi::get_one::<i64>("select count(*) from embedd.queue").expect("query");
        assert!(rows.is_some_and(|rows| (20..=51).contains(&rows)), "{rows:?} rows");
    }
}
