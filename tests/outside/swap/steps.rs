//! kill -9 at each step of a swap leaves the vector table as it was, and the next start goes on.

use support::processes::{is_alive, kill9};
use support::source::{relation, wait_synced};
use support::{Cluster, LONG};

use super::{IS_CLEAN, change, columns, synced};

const DB: &str = "steps";

/// Has the worker stop at one of its DDL statements: at the `at`-th of a transaction.
const STOPS: &str = "
    CREATE TABLE stop_at (at integer);
    CREATE UNLOGGED TABLE seen (xid bigint, statements integer);
    INSERT INTO stop_at VALUES (2);
    CREATE FUNCTION step() RETURNS event_trigger LANGUAGE plpgsql AS $$
    DECLARE
        number integer;
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type = 'embedd sync worker') THEN
            RETURN;
        END IF;
        -- A crash empties it, and so does a transaction that is rolled back.
        UPDATE public.seen SET statements = statements + 1 WHERE xid = txid_current() RETURNING statements INTO number;
        IF NOT FOUND THEN
            INSERT INTO public.seen VALUES (txid_current(), 1);
            number := 1;
        END IF;
        IF number = (SELECT at FROM public.stop_at) THEN
            PERFORM pg_sleep(600);
        END IF;
    END
    $$;
    CREATE EVENT TRIGGER step ON ddl_command_end EXECUTE FUNCTION step()";

/// The prefixes of the texts that a query brings, and the dimensions of the vector table; an error while the server
/// restarts.
fn state(cluster: &Cluster) -> Result<(Vec<String>, i32), postgres::Error> {
    let mut client = cluster.try_connect(DB)?;
    let rows = client.query(
        "SELECT DISTINCT left(embedded_text, 2), count(*) OVER () FROM embedd.query('t', 'row 5', 10)",
        &[],
    )?;
    Ok((rows.iter().map(|row| row.get(0)).collect(), dimensions(cluster)?))
}

/// The dimensions of the vector table that queries read.
fn dimensions(cluster: &Cluster) -> Result<i32, postgres::Error> {
    let sql = "SELECT embedding_dimensions FROM embedd.vector_tables WHERE name = 't' AND replaces IS NULL";
    Ok(cluster.try_connect(DB)?.query_one(sql, &[])?.get(0))
}

/// The worker that has stopped in a step.
fn stopped(cluster: &Cluster) -> Option<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'embedd sync worker' AND wait_event = 'PgSleep'";
    cluster.try_connect(DB).ok()?.query_opt(sql, &[]).ok()?.map(|row| row.get(0))
}

#[test]
fn a_kill_at_each_step_of_a_swap() {
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 100);
    let table = relation(&mut client, "t");
    client
        .batch_execute(&format!(
            "CREATE INDEX by_n ON {table} ((metadata ->> 'title')); GRANT SELECT ON {table} TO PUBLIC; {STOPS}"
        ))
        .unwrap();
    change(&mut client, &format!("columns => '{}', embedding_dimensions => 64", columns("B: ")));
    drop(client);
    let mut steps = 0;
    loop {
        let (mut pid, mut is_swapped) = (None, false);
        cluster.wait_until(LONG, "the worker to stop in the swap, or the swap", || {
            pid = stopped(&cluster);
            // A query would wait for the lock of a swap that has stopped.
            is_swapped = pid.is_none() && dimensions(&cluster).is_ok_and(|size| size == 64);
            pid.is_some() || is_swapped
        });
        let Some(pid) = pid else { break };
        steps += 1;
        cluster.connect(DB).batch_execute("UPDATE stop_at SET at = at + 1").unwrap();
        kill9(pid);
        let mut found = None;
        cluster.wait_until(LONG, "the server to be there again", || {
            found = state(&cluster).ok().filter(|_| !is_alive(pid));
            found.is_some()
        });
        let found = found.unwrap();
        // The next start may have swapped already, where this was the last step.
        let one_of = [("A:", 32), ("B:", 64)].map(|(text, size)| (vec![text.to_string()], size));
        assert!(one_of.contains(&found), "{found:?}");
    }
    assert!(steps >= 8, "the swap was stopped at {steps} steps");
    cluster.connect(DB).batch_execute("DROP EVENT TRIGGER step").unwrap();
    wait_synced(&cluster, DB, "t");
    cluster.wait_for(DB, LONG, "the replaced table to be dropped", IS_CLEAN);
    let sql =
        "SELECT has_table_privilege('public', $1, 'SELECT') AND to_regclass('by_n') IS NOT NULL";
    let is_carried: bool = cluster.connect(DB).query_one(sql, &[&table]).unwrap().get(0);
    assert!(is_carried);
}
