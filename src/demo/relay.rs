//! The daemon: a child process of this very executable, configured by its environment alone.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::DemoError;
use super::stage::{SHARDS, Stage, TOPIC};
use crate::admin::pages::TableStatus;
use crate::status::client::Client;

/// How long the daemon may take until it is ready, or gone.
const PATIENCE: Duration = Duration::from_mins(1);

/// Lines of the log that a failure shows.
const TAIL: usize = 30;

/// How to start the daemon, where it logs, and where it answers.
pub(super) struct Relay {
    folder: TempDir,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    address: String,
    child: Option<Child>,
}

impl Relay {
    /// Nothing is started yet.
    pub(super) fn new(stage: &Stage, arguments: Vec<OsString>) -> Result<Self, DemoError> {
        // Free now, and the same after each restart.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let environment = [
            ("MYSQL__URL", format!("mysql://outboxd@127.0.0.1:{}", stage.mysql_port())),
            ("MYSQL__PASSWORD", "outboxd".to_owned()),
            ("KAFKA__BOOTSTRAP_SERVERS", stage.bootstrap_servers()),
            ("OUTBOX__0__TABLES", SHARDS.to_owned()),
            ("OUTBOX__0__TOPIC", TOPIC.to_owned()),
            ("OUTBOX__0__START", "earliest".to_owned()),
            ("ADMIN__LISTEN", address.clone()),
        ];
        let others = stage.standby().map(|standby| {
            // A primary that is gone is noticed at once.
            [
                ("MYSQL__ADDRESSES", format!("[\"127.0.0.1:{}\"]", standby.port())),
                ("MYSQL__HEARTBEAT", "300ms".to_owned()),
            ]
        });
        let environment = environment.into_iter().chain(others.into_iter().flatten());
        let environment = environment.map(|(key, value)| (format!("{}{key}", crate::config::PREFIX), value)).collect();
        let folder = tempfile::Builder::new().prefix("outboxd-demo.").tempdir()?;
        Ok(Self { folder, arguments, environment, address, child: None })
    }

    /// Where it answers.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Where it logs.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.path().join("outboxd.log")
    }

    /// Creates the tables, which the relay's own account may not.
    pub(super) async fn migrate(&self, stage: &Stage) -> Result<(), DemoError> {
        let key = |name: &str| format!("{}MYSQL__{name}", crate::config::PREFIX);
        let mut migrate = self.outboxd("migrate")?;
        migrate
            .env(key("URL"), format!("mysql://admin@127.0.0.1:{}", stage.mysql_port()))
            .env(key("PASSWORD"), "admin");
        let status = migrate.status().await?;
        if status.success() { Ok(()) } else { Err(self.failure("`outboxd migrate`", status)) }
    }

    /// Starts it, and gives its process id. To be called where the caller's thread lives as long as the process: the
    /// daemon dies with it.
    pub(super) fn start(&mut self) -> Result<u32, DemoError> {
        let child = self.outboxd("run")?.spawn()?;
        let id = child.id().unwrap_or_default();
        self.child = Some(child);
        Ok(id)
    }

    /// Waits until it is ready.
    pub(super) async fn ready(&mut self) -> Result<(), DemoError> {
        let client = Client::new(&self.address, Duration::from_secs(1));
        let answers = async {
            while client.ready().await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            error = self.ended() => Err(error),
            ready = timeout(PATIENCE, answers) => {
                ready.map_err(|_| DemoError::Daemon("the relay does not get ready".to_owned(), self.tail()))
            }
        }
    }

    /// Waits until its log says this.
    pub(super) async fn says(&mut self, what: &str) -> Result<(), DemoError> {
        let log = self.log();
        let said = async {
            while !fs::read_to_string(&log).is_ok_and(|text| text.contains(what)) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            error = self.ended() => Err(error),
            said = timeout(PATIENCE, said) => {
                said.map_err(|_| DemoError::Daemon(format!("the relay does not say {what}"), self.tail()))
            }
        }
    }

    /// Waits until it says of every table that nothing waits.
    pub(super) async fn drained(&mut self) -> Result<(), DemoError> {
        let client = Client::new(&self.address, Duration::from_secs(1));
        let idle = |tables: &[TableStatus]| tables.iter().all(|table| table.in_flight == 0 && table.lag_seconds == 0.0);
        let drains = async {
            while !client.tables().await.is_ok_and(|tables| idle(&tables)) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            error = self.ended() => Err(error),
            drained = timeout(PATIENCE, drains) => {
                drained.map_err(|_| DemoError::Daemon("the relay does not come to rest".to_owned(), self.tail()))
            }
        }
    }

    /// SIGKILL: no chance to save or to say goodbye.
    pub(super) async fn kill(&mut self) -> Result<(), DemoError> {
        match self.child.take() {
            Some(mut child) => Ok(child.kill().await?),
            None => Ok(()),
        }
    }

    /// SIGTERM: it drains, saves and leaves with 0.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(id) = child.id() {
            Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        }
        match timeout(PATIENCE, child.wait()).await {
            Ok(status) => {
                let status = status?;
                if status.success() { Ok(()) } else { Err(self.failure("the relay", status)) }
            }
            Err(_) => Err(DemoError::Daemon("the relay does not stop".to_owned(), self.tail())),
        }
    }

    /// Waits until it ends by itself, which it should not; never, where it does not run.
    pub(super) async fn ended(&mut self) -> DemoError {
        match &mut self.child {
            Some(child) => match child.wait().await {
                Ok(status) => self.failure("the relay", status),
                Err(error) => error.into(),
            },
            None => std::future::pending().await,
        }
    }

    fn failure(&self, what: &str, status: ExitStatus) -> DemoError {
        DemoError::Daemon(format!("{what} ended with {status}"), self.tail())
    }

    fn tail(&self) -> String {
        tail(&fs::read_to_string(self.log()).unwrap_or_default(), TAIL)
    }

    fn outboxd(&self, subcommand: &str) -> Result<Command, DemoError> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        // The kernel kills it when this process is gone, however it went.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(std::env::current_exe()?);
        command.args(&self.arguments).arg(subcommand);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(crate::config::PREFIX) {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A Ctrl-C is for the demo, which then stops what it started.
        command.process_group(0).kill_on_drop(true);
        Ok(command)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Dead before its servers and its folder go; if it is so already, all the better.
        let Some(mut child) = self.child.take() else { return };
        let _ = child.start_kill();
        while matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The last lines of a text.
pub(super) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The configuration file and `--set`s as arguments; without a file none is looked for.
pub fn arguments(file: Option<&Path>, sets: &[String]) -> Vec<OsString> {
    let mut arguments = vec!["--config".into(), file.unwrap_or(Path::new("/dev/null")).into()];
    for set in sets {
        arguments.extend(["--set".into(), set.into()]);
    }
    arguments
}
