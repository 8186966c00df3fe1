//! Counts what waits in the queue for a vector table, at the same cost however much that is.

use pgrx::spi::SpiClient;

use crate::cluster;
use crate::error::Result;
use crate::shared;

/// What waits in the queue for one vector table.
pub struct Pending {
    /// Keys; a row that stands for any number counts as one.
    pub keys: i64,
    /// Seconds since the oldest of them was noted.
    pub age: Option<f64>,
    /// Whether there are more rows than were counted.
    pub is_estimated: bool,
}

/// Rows of the queue that are counted; of more the number is estimated.
const COUNTED: i64 = 10_000;

/// What waits for one vector table. Begins where each worker has noted that all is done, so that what vacuum could not
/// take away yet is not gone through.
pub fn pending(client: &SpiClient<'_>, table_id: i32) -> Result<Pending> {
    // As arrays, whose length the planner knows: of a series it expects so much that it would compile the query first.
    let (portions, portion): (Vec<i16>, Vec<i16>) = (1..=shared::MAX_WORKERS_PER_DATABASE as i16)
        .flat_map(|count| (0..count).map(move |index| (count, index)))
        .unzip();
    let rows = client.select(
        "select coalesce(sum(q.keys), 0)::bigint, extract(epoch from pg_catalog.clock_timestamp() - min(q.noted_at))::float8,
                count(*), max(q.id), (select case when is_called then last_value else 0 end from embedd.queue_id_seq)
           from (select i.portions, i.portion, coalesce(s.done_id, 0) as done_id,
                        coalesce(s.open_transactions, '{}') as open_transactions
                   from unnest($4, $5) i(portions, portion)
                   left join embedd.sync_state s
                     on s.table_id = $1 and s.portions = i.portions and s.portion = i.portion) p
          cross join lateral (
                (select q.id, q.noted_at, greatest(q.key_count, 1) as keys from embedd.queue q
                  where q.table_id = $1 and q.portions = p.portions and q.portion = p.portion and q.id > p.done_id
                    and q.system_id = $2
                  order by q.id limit $3)
                 union all
                select q.id, q.noted_at, greatest(q.key_count, 1) from embedd.queue q
                 where q.transaction = any (p.open_transactions) and q.id <= p.done_id and q.table_id = $1
                   and q.portions = p.portions and q.portion = p.portion and q.system_id = $2) q",
        None,
        &[
            table_id.into(),
            cluster::system_id().into(),
            COUNTED.into(),
            portions.into(),
            portion.into(),
        ],
    )?;
    let row = rows.first();
    let (mut keys, count) =
        (row.get::<i64>(1)?.unwrap_or_default(), row.get::<i64>(3)?.unwrap_or_default());
    let is_estimated = count >= COUNTED;
    if is_estimated {
        // At the most as many rows more as ids were given out since, each with as many keys.
        let more = row.get::<i64>(5)?.unwrap_or_default() - row.get::<i64>(4)?.unwrap_or_default();
        keys += more.max(0) * keys / count;
    }
    Ok(Pending { keys, age: row.get(2)?, is_estimated })
}
