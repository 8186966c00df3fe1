//! Where PostgreSQL's programs are, and who runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The operating system user that runs clusters when the tests run as root, whom initdb refuses.
const CLUSTER_USER: &str = "postgres";

/// The pg_config that PG_CONFIG names, else that of the newest server of Debian's packages, else the one in PATH.
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

/// One answer of pg_config, for instance of `--bindir`.
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

/// Does this process run as root?
pub fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// User and group id of those who run the clusters.
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

/// A PostgreSQL program, to be run by the clusters' user, from a directory that this user can enter.
pub fn as_owner(name: &str) -> Command {
    owner_runs(&program(name))
}

/// The same of any program.
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

/// A PostgreSQL client program, run by the user of the tests, who can read the checkout.
pub fn client(name: &str) -> Command {
    let mut command = Command::new(program(name));
    isolate(&mut command);
    command
}

/// Takes away what the caller's environment would change: connection settings, language, the home directory.
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

/// Runs a command that has to succeed and returns what it printed.
pub fn stdout_of(command: Command) -> String {
    String::from_utf8_lossy(&output_of(command).stdout).into_owned()
}

/// Runs a command that has to succeed; when it does not, panics with all it said.
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

/// Runs a program that leaves a server behind, which would hold a pipe open; what it says goes to a file instead.
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
