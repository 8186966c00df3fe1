//! kill -9 at each step of a swap leaves the vector table as it was, and the next start goes on.

use std::thread;

use postgres::Client;
use support::processes::kill9;
use support::source::{relation, wait_synced};
use support::{Cluster, LONG};

use super::{IS_CLEAN, change, columns, dimensions, synced};

const DB: &str = "steps";

/// Has the worker stop at one of its DDL statements: at the `at`-th of a transaction.
const STOPS: &str = "
    CREATE UNLOGGED TABLE stops (at integer, xid bigint, seen integer);
    CREATE FUNCTION step() RETURNS event_trigger LANGUAGE plpgsql AS $$
    DECLARE
        number integer;
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type = 'embedd sync worker') THEN
            RETURN;
        END IF;
        UPDATE public.stops SET seen = CASE WHEN xid = txid_current() THEN seen + 1 ELSE 1 END, xid = txid_current()
        RETURNING CASE WHEN seen = at THEN seen END INTO number;
        IF number IS NOT NULL THEN
            PERFORM pg_sleep(600);
        END IF;
    END
    $$;
    CREATE EVENT TRIGGER step ON ddl_command_end EXECUTE FUNCTION step()";

fn assert_as_before(client: &mut Client) {
    assert_eq!(dimensions(client), 32);
    let rows =
        client.query("SELECT embedded_text FROM embedd.query('t', 'row 5', 10)", &[]).unwrap();
    let texts: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(texts.len() == 10 && texts.iter().all(|text| text.starts_with("A: ")), "{texts:?}");
}

#[test]
fn a_kill_at_each_step_of_a_swap() {
    let cluster = Cluster::start();
    let mut client = synced(&cluster, DB, 100);
    let table = relation(&mut client, "t");
    client
        .batch_execute(&format!(
            "CREATE INDEX by_n ON {table} ((metadata ->> 'title')); GRANT SELECT ON {table} TO PUBLIC;
             {STOPS}; INSERT INTO stops VALUES (2)"
        ))
        .unwrap();
    change(&mut client, &format!("columns => '{}', embedding_dimensions => 64", columns("B: ")));
    let mut steps = 0;
    loop {
        let stopped = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'embedd sync worker' AND wait_event = 'PgSleep'";
        let mut pid: Option<i32> = None;
        let mut is_swapped = false;
        cluster.wait_until(LONG, "the worker to stop in the swap, or the swap", || {
            let Ok(mut client) = cluster.try_connect(DB) else { return false };
            pid = client.query_opt(stopped, &[]).ok().flatten().map(|row| row.get(0));
            is_swapped = dimensions(&mut client) == 64;
            pid.is_some() || is_swapped
        });
        let Some(pid) = pid else { break };
        steps += 1;
        let mut client = cluster.connect(DB);
        // An unlogged table is empty after the crash.
        let next = client.query_one("SELECT at + 1 FROM stops", &[]).unwrap().get::<_, i32>(0);
        kill9(pid);
        cluster.wait_until(LONG, "the server to be there again", || {
            thread::yield_now();
            let Ok(mut client) = cluster.try_connect(DB) else { return false };
            client
                .execute(
                    "INSERT INTO stops SELECT $1 WHERE NOT EXISTS (SELECT FROM stops)",
                    &[&next],
                )
                .is_ok()
        });
        let mut client = cluster.connect(DB);
        assert_as_before(&mut client);
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
