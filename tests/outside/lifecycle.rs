//! The processes start and exit with the extension, the server and its settings.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use support::processes::{EMBEDDER, LAUNCHER, SYNC_WORKER, is_alive};
use support::source::{backfill, create_source, create_vector_table, synced_source};
use support::tiny_model::write_tiny_model;
use support::{Cluster, LONG, SHORT, Shared, Shutdown};

/// The cluster of most of these tests.
static SHARED: Shared = Shared::new();

#[test]
fn a_worker_starts_and_exits_with_the_extension() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("comes");
    let first = cluster.sync_worker("comes");
    synced_source(&cluster, "comes", &mut client, "t", 20);
    client
        .batch_execute("SET client_min_messages = warning; DROP EXTENSION embedd CASCADE")
        .unwrap();
    cluster.wait_until(SHORT, "the worker to go", || !is_alive(first));
    // The source is an ordinary table again, and the user keeps the vectors.
    client.batch_execute("UPDATE t SET title = 'nobody notes this'; TRUNCATE t").unwrap();

    client.batch_execute("CREATE EXTENSION embedd").unwrap();
    let second = cluster.sync_worker("comes");
    assert_ne!(first, second);
    // The same name again, for the same source.
    create_vector_table(&mut client, "t");
    synced_source(&cluster, "comes", &mut client, "other", 20);

    // Also within one transaction, before the worker can notice.
    client.batch_execute("DROP EXTENSION embedd CASCADE; CREATE EXTENSION embedd").unwrap();
    synced_source(&cluster, "comes", &mut client, "third", 20);
    client.batch_execute("BEGIN; DROP EXTENSION embedd CASCADE; ROLLBACK").unwrap();
    client.batch_execute("UPDATE third SET title = 'still there'").unwrap();
    cluster.assert_synced("comes", "third");
}

#[test]
fn drop_extension_while_a_backfill_runs() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("busy");
    create_source(&mut client, "t", 5000);
    backfill(&mut client, "t");
    let worker = cluster.sync_worker("busy");
    cluster.wait_for(
        "busy",
        LONG,
        "the backfill to be under way",
        "SELECT synced_rows > 100 FROM embedd.sync_status('t')",
    );
    client
        .batch_execute("SET client_min_messages = warning; SET statement_timeout = '60s'; DROP EXTENSION embedd CASCADE")
        .unwrap();
    cluster.wait_until(SHORT, "the worker to go", || !is_alive(worker));
    client.batch_execute("INSERT INTO t VALUES (0, 'unnoticed', '', 0)").unwrap();
    assert!(cluster.pids_in("busy", SYNC_WORKER).is_empty());
}

#[test]
fn drop_vector_table_and_source_while_a_backfill_runs() {
    let cluster = SHARED.cluster();
    let mut client = cluster.database("dropped");
    for table in ["a", "b", "c"] {
        create_source(&mut client, table, 1500);
        backfill(&mut client, table);
    }
    cluster.wait_for(
        "dropped",
        LONG,
        "the backfill to be under way",
        "SELECT synced_rows > 0 FROM embedd.sync_status('a')",
    );
    let worker = cluster.sync_worker("dropped");
    client.batch_execute("SELECT embedd.drop_vector_table('a')").unwrap();
    client.batch_execute("UPDATE a SET title = 'x'; DROP TABLE a; DROP TABLE b").unwrap();
    // The table without a source reports it, and the third table continues.
    let done = "SELECT sync_status = 'synced' AND rows_pending = 0 FROM embedd.sync_status('c')";
    cluster.wait_for("dropped", LONG, "the third table to be synced", done);
    let lost = "SELECT sync_status = 'error' AND last_error LIKE '%does not exist%' FROM embedd.sync_status('b')";
    cluster.wait_for("dropped", LONG, "the table without a source to be in error", lost);
    client.batch_execute("SELECT embedd.drop_vector_table('b')").unwrap();
    cluster.assert_synced("dropped", "c");
    assert!(is_alive(worker));
}

#[test]
fn a_server_start_starts_every_process_and_a_fast_stop_ends_them_in_a_backfill() {
    let cluster = Cluster::builder().never_polling().start();
    let mut client = cluster.database("one");
    cluster.database("two");
    synced_source(&cluster, "one", &mut client, "t", 10);
    create_source(&mut client, "big", 6000);
    backfill(&mut client, "big");
    cluster.wait_for(
        "one",
        LONG,
        "the backfill to be under way",
        "SELECT synced_rows > 100 FROM embedd.sync_status('big')",
    );
    cluster.stop(Shutdown::Fast);
    assert!(!cluster.data().join("pg_stat_tmp/embedd.sock").exists());
    cluster.start_again();
    cluster.pid(EMBEDDER);
    cluster.pid(LAUNCHER);
    cluster.sync_worker("one");
    cluster.sync_worker("two");
    let mut client = cluster.connect("one");
    client.batch_execute("UPDATE t SET title = 'after the restart' WHERE id = 1").unwrap();
    cluster.assert_synced("one", "t");
    cluster.assert_synced("one", "big");
    // Without the extension no database has a worker.
    assert_eq!(cluster.pids(SYNC_WORKER).len(), 2);
}

#[test]
fn a_missing_model_is_an_error_until_it_is_there() {
    let cluster = Cluster::builder()
        .never_polling()
        .set("embedd.local_model_path", "/nowhere/at/all")
        .start();
    let mut client = cluster.database("model");
    create_source(&mut client, "t", 10);
    backfill(&mut client, "t");
    let failed = "SELECT sync_status = 'error' AND last_error LIKE '%/nowhere/at/all%' AND last_error_at IS NOT NULL
                    FROM embedd.sync_status('t')";
    cluster.wait_for("model", LONG, "the status to be error", failed);
    let error = client.query("SELECT embedd.embed('t', 'x')", &[]).unwrap_err();
    let error = error.as_db_error().unwrap().clone();
    assert_eq!(error.code().code(), "F0000", "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("make model")), "{error:?}");
    client.batch_execute("UPDATE t SET title = 'written in the meantime' WHERE id = 1").unwrap();

    let model = cluster.dir().join("another model");
    write_tiny_model(&model, 384, 1, 12, 32, 2).unwrap();
    cluster.configure(&[("embedd.local_model_path", model.to_str().unwrap())]);
    cluster.reload();
    cluster.assert_synced("model", "t");
    let well = "SELECT sync_status = 'synced' AND last_error IS NULL AND last_error_at IS NULL
                  FROM embedd.sync_status('t')";
    cluster.wait_for("model", SHORT, "the error to be over", well);

    // Another model at another path: from now on it computes the vectors.
    let vector = |client: &mut postgres::Client| -> String {
        client.query_one("SELECT embedd.embed('t', 'a text')::text", &[]).unwrap().get(0)
    };
    let before = vector(&mut client);
    let model = cluster.dir().join("model");
    write_tiny_model(&model, 384, 1, 12, 32, 3).unwrap();
    cluster.configure(&[("embedd.local_model_path", model.to_str().unwrap())]);
    cluster.reload();
    cluster.wait_until(SHORT, "the other model to answer", || vector(&mut client) != before);
}

#[test]
fn only_the_servers_user_can_use_the_socket() {
    let cluster = SHARED.cluster();
    cluster.pid(EMBEDDER);
    let mut sockets = Vec::new();
    cluster.wait_until(SHORT, "the socket", || {
        let below = fs::read_dir(cluster.data()).unwrap().flatten().map(|entry| entry.path());
        let directories = below.filter(|path| path.is_dir()).chain([cluster.data()]);
        let entries =
            directories.flat_map(|path| fs::read_dir(path).into_iter().flatten().flatten());
        sockets = entries.filter(|entry| entry.file_type().unwrap().is_socket()).collect();
        !sockets.is_empty()
    });
    assert_eq!(sockets.len(), 1, "{sockets:?}");
    let meta = sockets[0].metadata().unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_eq!(meta.uid(), support::binaries::owner().0);
    if !support::binaries::is_root() {
        return;
    }
    // Directory permissions keep another user out, and so do those of the socket if the directories are opened.
    let code = format!(
        "import socket; socket.socket(socket.AF_UNIX).connect({:?})",
        sockets[0].path().to_str().unwrap()
    );
    let connect = |user: u32| {
        Command::new("python3")
            .args(["-c", &code])
            .uid(user)
            .gid(user)
            .current_dir("/")
            .output()
            .expect("python3 can be run")
    };
    let directories: Vec<_> =
        sockets[0].path().ancestors().skip(1).take(3).map(Path::to_path_buf).collect();
    let set_mode = |mode: u32| {
        for directory in directories.iter().filter(|d| d.starts_with(cluster.dir())) {
            fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set_mode(0o755);
    let (refused, allowed) = (connect(65534), connect(0));
    set_mode(0o700);
    assert!(allowed.status.success(), "{allowed:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("PermissionError"), "{refused:?}");
}
