//! A full disk stops a re-backfill, and neither queries nor the vector table; with space again it goes on.

use std::fs;
use std::process::Command;

use support::source::{relation, wait_status, wait_synced};
use support::{Cluster, LONG};

use super::{IS_CLEAN, change, dimensions, synced};

const DB: &str = "disk";

/// Lets no file of a tablespace grow while a file named by DISK_IS_FULL is there.
const SHIM: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <errno.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/stat.h>
    #include <sys/uio.h>
    #include <unistd.h>

    static int is_full(int fd, off_t end)
    {
        char link[64], path[4096];
        struct stat file;
        const char *flag = getenv("DISK_IS_FULL");
        if (!flag || access(flag, F_OK) != 0 || fstat(fd, &file) != 0 || end <= file.st_size)
            return 0;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        if (length < 0)
            return 0;
        path[length] = 0;
        return strstr(path, "/pg_tblspc/") != NULL;
    }

    #define WRITE(name) \
        ssize_t name(int fd, const void *data, size_t size, off_t at) \
        { \
            ssize_t (*next)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, #name); \
            if (is_full(fd, at + size)) { errno = ENOSPC; return -1; } \
            return next(fd, data, size, at); \
        }
    WRITE(pwrite)
    WRITE(pwrite64)

    #define WRITE_PARTS(name) \
        ssize_t name(int fd, const struct iovec *parts, int count, off_t at) \
        { \
            ssize_t (*next)(int, const struct iovec *, int, off_t) = dlsym(RTLD_NEXT, #name); \
            size_t size = 0; \
            for (int n = 0; n < count; n++) size += parts[n].iov_len; \
            if (is_full(fd, at + size)) { errno = ENOSPC; return -1; } \
            return next(fd, parts, count, at); \
        }
    WRITE_PARTS(pwritev)
    WRITE_PARTS(pwritev64)

    #define ALLOCATE(name) \
        int name(int fd, off_t at, off_t size) \
        { \
            int (*next)(int, off_t, off_t) = dlsym(RTLD_NEXT, #name); \
            return is_full(fd, at + size) ? ENOSPC : next(fd, at, size); \
        }
    ALLOCATE(posix_fallocate)
    ALLOCATE(posix_fallocate64)
"#;

#[test]
fn a_full_tablespace_stops_the_load_and_no_query() {
    let dir = std::env::temp_dir().join(format!("embedd-disk-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (source, library, flag) = (dir.join("disk.c"), dir.join("disk.so"), dir.join("full"));
    fs::write(&source, SHIM).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(compiled.success());
    let cluster = Cluster::builder()
        .set("allow_in_place_tablespaces", "on")
        .environment("LD_PRELOAD", &library.to_string_lossy())
        .environment("DISK_IS_FULL", &flag.to_string_lossy())
        .start();
    cluster.connect("postgres").batch_execute("CREATE TABLESPACE small LOCATION ''").unwrap();
    let mut client = synced(&cluster, DB, 2000);
    let table = relation(&mut client, "t");
    client.batch_execute(&format!("ALTER TABLE {table} SET TABLESPACE small")).unwrap();
    client
        .batch_execute("SELECT embedd.update_vector_table('t', embedding_dimensions => 64)")
        .unwrap();
    fs::write(&flag, "").unwrap();
    client.batch_execute("SELECT embedd.backfill('t')").unwrap();
    wait_status(&cluster, DB, "t", "last_error LIKE 're-backfill: %No space left on device%'");
    let rows = client.query("SELECT id FROM embedd.query('t', 'row 5', 10)", &[]).unwrap();
    assert_eq!((rows.len(), dimensions(&mut client)), (10, 32));
    // Given up, nothing is left.
    client.batch_execute("SELECT embedd.discard('t')").unwrap();
    cluster.wait_for(DB, LONG, "nothing to be left", IS_CLEAN);
    fs::remove_file(&flag).unwrap();
    change(&mut client, "embedding_dimensions => 64");
    fs::write(&flag, "").unwrap();
    wait_status(&cluster, DB, "t", "last_error LIKE 're-backfill: %No space left on device%'");
    fs::remove_file(&flag).unwrap();
    wait_synced(&cluster, DB, "t");
    assert_eq!(dimensions(&mut client), 64);
    cluster.wait_for(DB, LONG, "the replaced table to be dropped", IS_CLEAN);
    fs::remove_dir_all(&dir).unwrap();
}
