//! A test cluster: creating, starting, stopping, connecting, copying to a standby, removing.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, Config, NoTls};

use super::binaries::{
    as_owner, bin_dir, client, output_of, owner, owner_runs, run_detached, stdout_of,
};
use super::tiny_model::write_tiny_model;
use super::wait::LONG;

/// The superuser of every test cluster.
pub const SUPERUSER: &str = "postgres";

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends sessions and writes a checkpoint: `pg_ctl stop -m fast`.
    Fast,
    /// Aborts everything, and the next start recovers: `pg_ctl stop -m immediate`.
    Immediate,
}

/// The options of a cluster.
pub struct Builder {
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    files: Vec<(String, String, String)>,
    bin: PathBuf,
    initdb: Vec<String>,
    listens: bool,
}

/// A cluster with its own directory for everything: data, socket, log, model.
pub struct Cluster {
    dir: PathBuf,
    port: u16,
    /// The directory of the server's programs.
    bin: PathBuf,
    /// Environment variables of the server.
    environment: Vec<(String, String)>,
    /// Whether it listens on 127.0.0.1 too.
    listens: bool,
}

impl Builder {
    /// Adds a line to postgresql.conf; the last one of the same name applies.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Starts the server with this environment variable, each time.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Creates a file next to the data directory, and sets a setting to its path.
    pub fn file(mut self, name: &str, content: &str, setting: &str) -> Self {
        self.files.push((name.into(), content.into(), setting.into()));
        self
    }

    /// Uses the programs of another server, in this directory.
    pub fn server(mut self, bin: &Path) -> Self {
        self.bin = bin.to_path_buf();
        self
    }

    /// Adds an argument to initdb.
    pub fn initdb(mut self, argument: &str) -> Self {
        self.initdb.push(argument.into());
        self
    }

    /// Lets the server listen on 127.0.0.1, for clients that know no sockets.
    pub fn listening(mut self) -> Self {
        self.listens = true;
        self
    }

    /// Leaves embedd out of shared_preload_libraries.
    pub fn not_preloaded(self) -> Self {
        self.set("shared_preload_libraries", "")
    }

    /// Sets the poll interval so high that a missing wake-up shows.
    pub fn never_polling(self) -> Self {
        self.set("embedd.poll_interval", "1h")
    }

    /// Enables fsync like a real server, for meaningful measurements.
    pub fn durable(self) -> Self {
        self.set("fsync", "on")
    }

    /// Creates the cluster and starts it.
    pub fn start(self) -> Cluster {
        let mut cluster = Cluster::in_new_directory();
        cluster.environment = self.environment;
        cluster.bin = self.bin;
        cluster.listens = self.listens;
        let mut initdb = owner_runs(&cluster.bin.join("initdb"));
        initdb.args([
            "-A",
            "trust",
            "-U",
            SUPERUSER,
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ]);
        initdb.arg(cluster.data()).args(self.initdb);
        output_of(initdb);

        let mut settings: Vec<(String, String)> = [
            ("shared_preload_libraries", "embedd"),
            ("fsync", "off"),
            ("max_worker_processes", "16"),
            ("max_prepared_transactions", "5"),
            ("max_connections", "60"),
            ("shared_buffers", "32MB"),
            ("log_line_prefix", "%m [%p] %b %d "),
            ("log_error_verbosity", "verbose"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
        let model = cluster.dir.join("model");
        write_tiny_model(&model, 384, 1, 12, 32, 1).expect("the tiny model can be written");
        settings.push(("embedd.local_model_path".into(), model.display().to_string()));
        for (name, content, setting) in self.files {
            let path = cluster.dir.join(name);
            fs::write(&path, content).expect("the file can be written");
            settings.push((setting, path.display().to_string()));
        }
        settings.extend(self.settings);
        cluster.configure(&settings);
        cluster.start_again();
        cluster
    }
}

impl Cluster {
    /// A running cluster for most tests: embedd preloaded, a tiny model, no fsync.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A builder for other options.
    pub fn builder() -> Builder {
        Builder {
            settings: Vec::new(),
            environment: Vec::new(),
            files: Vec::new(),
            bin: bin_dir(),
            initdb: Vec::new(),
            listens: false,
        }
    }

    /// A directory with a short name (socket paths are limited) that only the clusters' user and root can enter.
    fn in_new_directory() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/tmp/embedd-test-{}-{number}", std::process::id()));
        if dir.exists() {
            fs::remove_dir_all(&dir).expect("what a process of the same id left can be removed");
        }
        DirBuilder::new().mode(0o700).create(&dir).expect("the cluster's directory can be made");
        let (bin, environment) = (bin_dir(), Vec::new());
        let cluster = Self { dir, port: free_port(), bin, environment, listens: false };
        let socket = cluster.socket_dir();
        fs::create_dir(&socket).expect("the socket's directory can be made");
        let (user, group) = owner();
        for path in [&cluster.dir, &socket] {
            chown(path, Some(user), Some(group)).expect("the directory can be given away");
        }
        cluster
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The directory to use as host.
    pub fn socket_dir(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// The port, which is part of the socket's name; few servers listen on TCP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A directory of the test's own next to the data directory, removed with the cluster.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends settings to postgresql.conf. They apply after the next start or [`Cluster::reload`].
    pub fn configure<N: AsRef<str>, V: AsRef<str>>(&self, settings: &[(N, V)]) {
        let path = self.data().join("postgresql.conf");
        let mut text = fs::read_to_string(&path).expect("postgresql.conf can be read");
        for (name, value) in settings {
            let value = value.as_ref().replace('\'', "''");
            writeln!(text, "{} = '{value}'", name.as_ref()).expect("a String can be written to");
        }
        fs::write(&path, text).expect("postgresql.conf can be written");
    }

    /// Reloads the settings: `pg_ctl reload`.
    pub fn reload(&self) {
        output_of(self.pg_ctl(&["reload"]));
    }

    /// Starts a server that was stopped or has crashed, and waits until it accepts connections.
    pub fn start_again(&self) {
        let options = format!(
            "-c listen_addresses={} -c unix_socket_directories={} -p {}",
            if self.listens { "127.0.0.1" } else { "" },
            self.socket_dir().display(),
            self.port
        );
        let mut start = self.pg_ctl(&["start", "-w", "-t", "90", "-o", &options, "-l"]);
        start.arg(self.log_path());
        start.envs(self.environment.iter().map(|(name, value)| (name, value)));
        run_detached(start, &self.dir.join("pg_ctl.log"));
    }

    /// Stops the server and waits for it. Panics if that takes more than a minute.
    pub fn stop(&self, how: Shutdown) {
        let mode = match how {
            Shutdown::Fast => "fast",
            Shutdown::Immediate => "immediate",
        };
        output_of(self.pg_ctl(&["stop", "-w", "-t", "60", "-m", mode]));
    }

    /// Stops and starts.
    pub fn restart(&self, how: Shutdown) {
        self.stop(how);
        self.start_again();
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Command {
        let mut command = owner_runs(&self.bin.join("pg_ctl"));
        command.arg("-D").arg(self.data()).args(arguments);
        command
    }

    /// A running hot standby of this cluster: pg_basebackup -R.
    pub fn standby(&self) -> Self {
        let standby = self.base_backup(&["-R"]);
        standby.configure(&[("hot_standby", "on")]);
        standby.start_again();
        standby
    }

    /// A copy of this cluster, not started: pg_basebackup.
    pub fn base_backup(&self, arguments: &[&str]) -> Self {
        let copied = Self::in_new_directory();
        let mut copy = as_owner("pg_basebackup");
        copy.args(["-U", SUPERUSER, "-X", "stream", "-c", "fast", "--no-sync"]).args(arguments);
        copy.arg("-D").arg(copied.data());
        copy.arg("-h").arg(self.socket_dir()).arg("-p").arg(self.port.to_string());
        output_of(copy);
        copied
    }

    /// Promotes a standby.
    pub fn promote(&self) {
        output_of(self.pg_ctl(&["promote", "-w", "-t", "60"]));
    }

    /// The connection settings, which can be changed (user, options) before connecting.
    pub fn config(&self, db: &str) -> Config {
        let mut config = Config::new();
        config.host_path(self.socket_dir()).port(self.port).user(SUPERUSER).dbname(db);
        config
    }

    /// Tries once to connect as superuser.
    pub fn try_connect(&self, db: &str) -> Result<Client, postgres::Error> {
        self.config(db).connect(NoTls)
    }

    /// A session as superuser. Waits for a server that is starting; other errors panic.
    pub fn connect(&self, db: &str) -> Client {
        self.connect_with(&self.config(db))
    }

    /// A session as another role.
    pub fn connect_as(&self, db: &str, role: &str) -> Client {
        self.connect_with(self.config(db).user(role))
    }

    fn connect_with(&self, config: &Config) -> Client {
        let mut client = None;
        self.wait_until(LONG, "the server to accept a connection", || {
            match config.connect(NoTls) {
                Ok(open) => {
                    client = Some(open);
                    true
                }
                Err(error) if error.code().is_some_and(|code| code.code() != "57P03") => {
                    panic!("connecting: {error:?}")
                }
                Err(_) => false,
            }
        });
        client.expect("just connected")
    }

    /// Runs statements through psql, for what a client library does not support (meta-commands, COPY from a file), and
    /// returns the rows, with columns separated by `|`. An error panics.
    pub fn psql(&self, db: &str, sql: &str) -> String {
        let mut command = self.psql_command(db);
        command.args(["-v", "ON_ERROR_STOP=1", "-c", sql]);
        stdout_of(command).trim_end().to_string()
    }

    /// psql, for further arguments.
    pub fn psql_command(&self, db: &str) -> Command {
        let mut command = self.client("psql", db);
        command.args(["-X", "-A", "-t", "-q"]);
        command
    }

    /// A client program of PostgreSQL (psql, pg_dump, pg_restore) for a database, for further arguments.
    pub fn client(&self, program: &str, db: &str) -> Command {
        let mut command = client(program);
        command.args(["-U", SUPERUSER, "-d", db]);
        command.arg("-h").arg(self.socket_dir()).arg("-p").arg(self.port.to_string());
        command
    }

    /// Creates a database.
    pub fn create_database(&self, db: &str) {
        self.psql("postgres", &format!("CREATE DATABASE \"{db}\""));
    }

    /// Creates the extension in a database, and pgvector with it.
    pub fn create_extension(&self, db: &str) {
        self.psql(db, "SET client_min_messages = warning; CREATE EXTENSION embedd CASCADE");
    }

    /// The path of the server log.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// Gives a file or directory created by the test to the clusters' user.
    pub fn give_to_owner(&self, path: &Path) {
        let (user, group) = owner();
        chown(path, Some(user), Some(group)).expect("the file can be given away");
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("the mode can be set");
    }
}

impl Drop for Cluster {
    /// Stops the server, and removes the cluster unless the test failed: then its log is of interest.
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            super::processes::thaw(pid);
        }
        if self.postmaster().is_some() {
            let stopped = self.pg_ctl(&["stop", "-w", "-t", "60", "-m", "immediate"]).output();
            if !stopped.is_ok_and(|output| output.status.success()) {
                eprintln!("the server in {} could not be stopped", self.dir.display());
                return;
            }
        }
        if std::thread::panicking() {
            eprintln!(
                "the cluster is kept in {}, its log is {}",
                self.dir.display(),
                self.log_path().display()
            );
        } else if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{} could not be removed: {error}", self.dir.display());
        }
    }
}

/// A free TCP port.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port can be had");
    listener.local_addr().expect("a listener has an address").port()
}
