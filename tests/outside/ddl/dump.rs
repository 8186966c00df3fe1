//! A dump is restored into another database of the same cluster, where the columns of the source have other numbers.

use super::{answers, synced, wait_noted};
use support::binaries;
use support::source::stored_text;

#[test]
fn a_dump_is_restored_next_to_its_origin_and_written_to_at_once() {
    let (cluster, mut client) = synced("origin", 40);
    client
        .batch_execute(
            "ALTER TABLE t ADD COLUMN first text, ADD COLUMN more text;
             ALTER TABLE t DROP COLUMN first;
             ALTER TABLE t DROP COLUMN price;
             ALTER TABLE t ADD COLUMN price integer;
             ALTER TABLE t RENAME title TO headline;
             UPDATE t SET price = id",
        )
        .unwrap();
    wait_noted(
        &cluster,
        "origin",
        "columns::text ~ 'headline' AND column_numbers = ARRAY[2, 3, 7]::smallint[]",
    );
    cluster.assert_synced("origin", "t");
    client
        .batch_execute("SELECT embedd.pause_sync('t'); UPDATE t SET body = 'waits' WHERE id = 1")
        .unwrap();
    client.batch_execute("SELECT embedd.resume_sync('t')").unwrap();
    cluster.assert_synced("origin", "t");
    let file = cluster.dir().join("dump.sql");
    let mut dump = cluster.client("pg_dump", "origin");
    dump.arg("-f").arg(&file);
    binaries::output_of(dump);
    cluster.create_database("copy");
    let mut restore = cluster.psql_command("copy");
    // The writes follow the restored rows in the same session.
    restore.args(["-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).args([
        "-c",
        "UPDATE public.t SET headline = 'written at once' WHERE id = 2; DELETE FROM public.t WHERE id = 3;
         UPDATE public.t SET id = 400, price = 41 WHERE id = 4; INSERT INTO public.t VALUES (500, 'new', 'row', 'x', 1)",
    ]);
    binaries::output_of(restore);
    cluster.wait_for(
        "copy",
        super::LONG,
        "the copy to be accepted",
        "SELECT extension_id = (SELECT oid FROM pg_extension WHERE extname = 'embedd')
            AND column_numbers = ARRAY[2, 3, 5]::smallint[] FROM embedd.vector_tables",
    );
    cluster.assert_synced("copy", "t");
    let mut copy = cluster.connect("copy");
    assert_eq!(stored_text(&mut copy, "t", "2").unwrap(), "Title: written at once\nbody of 2");
    assert_eq!(answers(&mut copy, r#"{"price": 41}"#), 1);
    copy.batch_execute("UPDATE t SET more = 'not watched'; UPDATE t SET price = 7 WHERE id = 7; TRUNCATE t; INSERT INTO t VALUES (1, 'a')")
        .unwrap();
    cluster.assert_synced("copy", "t");
    // The original continues as before.
    client
        .batch_execute(
            "UPDATE t SET headline = 'of the origin' WHERE id = 1; DELETE FROM t WHERE id = 9",
        )
        .unwrap();
    cluster.assert_synced("origin", "t");
}
