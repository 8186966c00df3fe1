//! A program that cannot start: the log and every question report why and what to do, and no server restart is needed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use postgres::Client;

use super::next_after;
use support::processes::{SUPERVISOR, is_alive, kill9};
use support::source::{create_source, synced_source};
use support::{Cluster, LONG, SHORT, Shutdown};

const DB: &str = "postgres";
/// A question that is not cached.
const QUESTION: &str = "SELECT embedd.embed('t', md5(clock_timestamp()::text))";

/// The name of a program that never becomes ready.
const HANGING: &str = "sleep";

/// A cluster whose embedder is a file with this content and mode, or is missing.
fn cluster_with(program: &str, content: &str, mode: u32) -> Cluster {
    let cluster = Cluster::start();
    cluster.create_extension(DB);
    let mut client = cluster.connect(DB);
    synced_source(&cluster, DB, &mut client, "t", 20);
    let path = cluster.dir().join(program);
    if !content.is_empty() {
        fs::write(&path, content).unwrap();
        cluster.give_to_owner(&path);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    let before = super::serving(&mut client).unwrap();
    cluster.configure(&[("embedd.embedder_path", path.display().to_string())]);
    cluster.reload();
    let shown = format!("SELECT current_setting('embedd.embedder_path') = '{}'", path.display());
    cluster.wait_for(DB, SHORT, "the setting to be read", &shown);
    // It applies from the next start on.
    kill9(before);
    cluster
}

/// The error of a question: code, message and hint.
fn refused(client: &mut Client) -> (String, String, String) {
    let error = client.query(QUESTION, &[]).unwrap_err();
    let error = error.as_db_error().unwrap();
    let hint = error.hint().unwrap_or_default().to_string();
    (error.code().code().to_string(), error.message().to_string(), hint)
}

/// The program fails in this way, and it is reported everywhere; with the old setting everything works again.
fn fails_and_is_healed(program: &str, (content, mode): (&str, u32), message: &str, hint: &str) {
    let cluster = cluster_with(program, content, mode);
    let mut client = cluster.connect(DB);
    cluster.wait_until(LONG, "the failure to be reported", || {
        let sql = "SELECT last_error FROM embedd.embedder_status()";
        client
            .query_one(sql, &[])
            .unwrap()
            .get::<_, Option<String>>(0)
            .is_some_and(|e| e.contains(message))
    });
    let (code, said, hinted) = refused(&mut client);
    assert_eq!(code, "08006");
    assert!(said.contains(message), "{said}");
    assert!(hinted.contains(hint), "{hinted}");
    let log = cluster.log();
    assert!(log.contains(message) && log.contains(hint), "{log}");
    // The status of a waiting table reports it too; writers do not wait.
    client.batch_execute("UPDATE t SET title = 'meanwhile' WHERE id = 1").unwrap();
    cluster.wait_until(LONG, "the status to show it", || {
        let sql = "SELECT last_error FROM embedd.sync_status('t')";
        client
            .query_one(sql, &[])
            .unwrap()
            .get::<_, Option<String>>(0)
            .is_some_and(|e| e.contains(message))
    });

    cluster.configure(&[("embedd.embedder_path", "")]);
    cluster.reload();
    next_after(&cluster, &mut client, 0);
    client.query(QUESTION, &[]).unwrap();
    cluster.assert_synced(DB, "t");
    create_source(&mut client, "other", 5);
}

#[test]
fn a_program_that_is_missing() {
    fails_and_is_healed("nowhere", ("", 0), "does not exist", "make install");
}

#[test]
fn a_program_of_another_version() {
    let other = "#!/bin/sh\nread settings\necho '{\"ready\":{\"version\":\"0.0.1\"}}'\nread more\n";
    fails_and_is_healed("other", (other, 0o700), "the embedder has version 0.0.1", "make install");
}

#[test]
fn a_program_that_ends_before_it_is_ready() {
    let broken = "#!/bin/sh\necho 'a library is missing' >&2\nexit 127\n";
    fails_and_is_healed(
        "broken",
        (broken, 0o700),
        "exit code 127 before it was ready (a library is missing)",
        "server log",
    );
}

#[test]
fn a_program_that_hangs_before_it_is_ready() {
    let hanging = "#!/bin/sh\nexec sleep 1000\n";
    fails_and_is_healed(
        "hanging",
        (hanging, 0o700),
        "was terminated by signal 9: Killed before it was ready",
        "server log",
    );
}

/// Whatever program it is and however far it has come, it is gone with the server and with its supervisor.
#[test]
fn a_program_that_hangs_ends_with_its_supervisor() {
    let cluster = cluster_with("hanging", "#!/bin/sh\nexec sleep 1000\n", 0o700);
    let hanging = cluster.pid(HANGING);
    kill9(cluster.pid(SUPERVISOR));
    cluster.wait_until(SHORT, "the program to go", || !is_alive(hanging));
    // Its supervisor ended by kill -9, so the server has restarted its processes.
    let hanging = cluster.successor(HANGING, hanging);
    cluster.stop(Shutdown::Immediate);
    cluster.wait_until(SHORT, "the program to go", || !is_alive(hanging));
}

#[test]
fn a_program_without_permission_to_execute() {
    fails_and_is_healed(
        "locked",
        ("#!/bin/sh\n", 0o600),
        "could not start embedder program",
        "make install",
    );
}
