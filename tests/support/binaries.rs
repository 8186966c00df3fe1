//! Finds PostgreSQL's programs, and runs them as the right user.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The operating system user for clusters when the tests run as root, since initdb refuses root.
const CLUSTER_USER: &str = "postgres";

/// The pg_config named by PG_CONFIG, otherwise that of the newest Debian server packages, otherwise the one in PATH.
pub fn pg_config() -> PathBuf {
    if let Some(path) = std::env::var_os("PG_CONFIG").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let newest = (15..=18)
        .rev()
        .map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")))
        .find(|bin| bin.join("postgres").exists());
    newest.map_or_else(|| "pg_config".into(), |bin| bin.join("pg_config"))
}

/// A single answer of pg_config, for example to `--bindir`.
pub fn pg_config_says(option: &str) -> PathBuf {
    let mut command = Command::new(pg_config());
    command.arg(option);
    stdout_of(command).trim_end().into()
}

/// The directory of PostgreSQL's programs.
pub fn bin_dir() -> PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| pg_config_says("--bindir")).clone()
}

/// The full path of one of PostgreSQL's programs.
pub fn program(name: &str) -> PathBuf {
    bin_dir().join(name)
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// User and group id of the clusters' user.
pub fn owner() -> (u32, u32) {
    static OWNER: OnceLock<(u32, u32)> = OnceLock::new();
    *OWNER.get_or_init(|| {
        let user = is_root().then_some(CLUSTER_USER);
        let id = |what: &str| {
            let mut command = Command::new("id");
            command.arg(what).args(user);
            stdout_of(command).trim_end().parse().expect("id prints a number")
        };
        (id("-u"), id("-g"))
    })
}

/// A PostgreSQL program, run by the clusters' user from a directory that this user can enter.
pub fn as_owner(name: &str) -> Command {
    owner_runs(&program(name))
}

/// The same for any program.
pub fn owner_runs(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={CLUSTER_USER}"))
            .arg(format!("--regid={CLUSTER_USER}"))
            .args(["--init-groups", "--"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    isolate(&mut command);
    command
}

/// A PostgreSQL client program, run by the tests' own user, who can read the checkout.
pub fn client(name: &str) -> Command {
    let mut command = Command::new(program(name));
    isolate(&mut command);
    command
}

/// Removes environment variables that would change the result: connection settings, language, home directory.
fn isolate(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
        .current_dir("/")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null());
}

/// Runs a command that must succeed, and returns its output.
pub fn stdout_of(command: Command) -> String {
    String::from_utf8_lossy(&output_of(command).stdout).into_owned()
}

/// Runs a command that must succeed; otherwise panics with all its output.
pub fn output_of(mut command: Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs a program that starts a server, which would keep a pipe open, so the output goes to a file.
pub fn run_detached(mut command: Command, log: &std::path::Path) {
    let out = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("the log file can be opened");
    let again = out.try_clone().expect("the log file can be shared");
    let status = command
        .stdout(out)
        .stderr(again)
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = || std::fs::read_to_string(log).unwrap_or_default();
    assert!(
        status.success(),
        "{command:?} failed with {status}\n{}",
        super::wait::tail(&said(), 40)
    );
}
