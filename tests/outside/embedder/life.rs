//! The program and its supervisor: what it inherits, how it ends, and what is reported about it.

use std::fs;

use super::{next_after, serving};
use support::processes::{EMBEDDER, Frozen, SUPERVISOR, is_alive, kill9, terminate};
use support::source::synced_source;
use support::{Cluster, SHORT, Shutdown};

const DB: &str = "postgres";

#[test]
fn it_inherits_only_the_socket() {
    let cluster = Cluster::start();
    let program = cluster.pid(EMBEDDER);
    let (mut sockets, mut pipes) = (0, 0);
    for entry in fs::read_dir(format!("/proc/{program}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        match target.split(':').next() {
            Some("socket") => sockets += 1,
            Some("pipe") => pipes += 1,
            Some("anon_inode") => {}
            _ => panic!("the embedder has {target} open"),
        }
    }
    assert!(sockets >= 1 && pipes >= 2, "{sockets} sockets, {pipes} pipes");
    let maps = fs::read_to_string(format!("/proc/{program}/maps")).unwrap();
    assert!(!maps.contains("/dev/zero") && !maps.contains("SYSV"), "shared memory is mapped");
    // The kernel kills it before any process of the server.
    let adjusted = |pid: i32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(adjusted(program).trim(), "1000");
    assert_ne!(adjusted(cluster.pid(SUPERVISOR)).trim(), "1000");
}

#[test]
fn it_ends_with_every_kind_of_shutdown() {
    let cluster = Cluster::start();
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        for is_frozen in [false, true] {
            let program = cluster.pid(EMBEDDER);
            let frozen = is_frozen.then(|| Frozen::new(program));
            cluster.stop(how);
            cluster.wait_until(SHORT, "the program to go", || !is_alive(program));
            drop(frozen);
            assert!(
                !cluster.data().join("pg_stat_tmp/embedd.sock").exists()
                    || how == Shutdown::Immediate
            );
            cluster.start_again();
        }
    }
}

#[test]
fn its_state_is_reported() {
    let cluster = Cluster::start();
    cluster.create_extension(DB);
    let mut client = cluster.connect(DB);
    synced_source(&cluster, DB, &mut client, "t", 20);
    let question = "SELECT count(*) FROM embedd.query('t', 'told twice', 5)";
    client.query(question, &[]).unwrap();
    client.query(question, &[]).unwrap();
    let program = cluster.pid(EMBEDDER);
    let sql = "SELECT pid, since <= clock_timestamp(), restarts, rss > 1000000, model_loaded, requests_in_flight,
                      cache_bytes > 0, cache_hits, cache_misses, last_error FROM embedd.embedder_status()";
    let row = client.query_one(sql, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (program, true, 0i64));
    assert_eq!((row.get(3), row.get(4), row.get(5)), (true, true, 0i64));
    assert!(
        row.get::<_, bool>(6) && row.get::<_, i64>(7) >= 1 && row.get::<_, i64>(8) >= 1,
        "{row:?}"
    );
    assert_eq!(row.get::<_, Option<String>>(9), None);

    // Its row in pg_stat_activity is that of its supervisor, and names the program.
    let sql = "SELECT pid, query LIKE '%process ' || $1, state FROM pg_stat_activity WHERE backend_type = 'embedd embedder'";
    let row = client.query_one(sql, &[&program.to_string()]).unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (cluster.pid(SUPERVISOR), true, "idle"));

    // A frozen program is reported as far as its state is known, without a long wait.
    let frozen = Frozen::new(program);
    let sql = "SELECT pid, restarts, rss, requests_in_flight FROM embedd.embedder_status()";
    let row = client.query_one(sql, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1)), (program, 0i64));
    assert_eq!((row.get::<_, Option<i64>>(2), row.get::<_, Option<i64>>(3)), (None, None));
    drop(frozen);

    kill9(program);
    let next = next_after(&cluster, &mut client, program);
    let restarts = "SELECT restarts FROM embedd.embedder_status()";
    assert_eq!(client.query_one(restarts, &[]).unwrap().get::<_, i64>(0), 1);
    // An administrator may terminate it, and its supervisor, without ending a session.
    terminate(next);
    let third = next_after(&cluster, &mut client, next);
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'embedd embedder'";
    client.query(ended, &[]).unwrap();
    next_after(&cluster, &mut client, third);
    client.query(question, &[]).unwrap();
}

#[test]
fn its_memory_limit_follows_the_setting() {
    let cluster = Cluster::start();
    cluster.create_extension(DB);
    let program = cluster.pid(EMBEDDER);
    let limit = || {
        let limits = fs::read_to_string(format!("/proc/{program}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max data size")).unwrap();
        line.split_ascii_whitespace().nth(3).unwrap().to_string()
    };
    assert_eq!(limit(), "unlimited");
    for (setting, bytes) in [("300MB", "314572800"), ("0", "unlimited"), ("2GB", "2147483648")] {
        cluster.configure(&[("embedd.embedder_memory_limit", setting)]);
        cluster.reload();
        cluster.wait_until(SHORT, "the limit to be set", || limit() == bytes);
    }
    assert_eq!(serving(&mut cluster.connect(DB)), Some(program));
}
