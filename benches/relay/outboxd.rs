//! The daemon as it is installed, with its defaults.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::Running;
use crate::stage::{Database, Kafka, Start};

/// What differs from the defaults, beside addresses, tables and topic: nothing is encrypted, here or elsewhere, and positions
/// begin at the place that is measured from.
pub(crate) const SETTINGS: &str = "mysql.tls.mode = \"disabled\", outbox.start = \"gtid=…\"";

/// A daemon that is running.
pub(crate) struct Daemon {
    pub(crate) running: Running,
    address: String,
    agent: ureq::Agent,
}

impl Daemon {
    /// Starts one for the first `tables` tables. Positions of a daemon before are forgotten.
    pub(crate) async fn spawn(
        (database, kafka): (&Database, &Kafka),
        (from, tables, topic): (&Start, usize, &str),
        (folder, exactly_once): (&Path, bool),
    ) -> Self {
        Self::spawn_with((database, kafka), (from, tables, topic), (folder, exactly_once), &[]).await
    }

    /// The same, with further settings.
    pub(crate) async fn spawn_with(
        (database, kafka): (&Database, &Kafka),
        (from, tables, topic): (&Start, usize, &str),
        (folder, exactly_once): (&Path, bool),
        further: &[(&'static str, String)],
    ) -> Self {
        database.run("DELETE FROM outboxd.outboxd_positions").await;
        // Free now, and known before the daemon says so.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut settings = vec![
            ("KAFKA__BOOTSTRAP_SERVERS", kafka.address()),
            ("OUTBOX__0__TOPIC", topic.to_owned()),
            ("OUTBOX__0__START", format!("gtid={}", from.gtids)),
            ("ADMIN__LISTEN", address.clone()),
        ];
        if exactly_once {
            settings.push(("DELIVERY__GUARANTEE", "exactly_once".to_owned()));
            settings.push(("DELIVERY__TRANSACTIONAL_ID", kafka.fresh_name("benchmark")));
            settings.push(("POSITIONS__TOPIC", kafka.positions().await));
        }
        settings.extend_from_slice(further);
        let mut command = command("run", database, tables);
        command.envs(settings.into_iter().map(|(name, value)| (format!("OUTBOXD__{name}"), value)));
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let running = Running::spawn(&command, folder.join("outboxd.log"));
        Self { running, address, agent }
    }

    /// Waits until every table is relayed.
    pub(crate) fn ready(&mut self) {
        let Self { running, address, agent } = self;
        let url = format!("http://{address}/readyz");
        let ready = || agent.get(&url).call().is_ok_and(|answer| answer.status().as_u16() == 200);
        running.until("the daemon is ready", Duration::from_mins(1), |_| ready());
    }

    /// Counts the events of all tables that Kafka has acknowledged, by the daemon's own word.
    pub(crate) fn counter(&self) -> impl Fn() -> u64 + use<> {
        let (agent, url) = (self.agent.clone(), format!("http://{}/metrics", self.address));
        move || {
            let page = agent.get(&url).call().ok().and_then(|mut answer| answer.body_mut().read_to_string().ok());
            let page = page.unwrap_or_default();
            let lines = page.lines().filter(|line| line.starts_with("outboxd_events_total"));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
        }
    }
}

/// The program that is measured instead of the one that was built with the benchmarks, if one is.
pub(crate) fn other() -> Option<OsString> {
    std::env::var_os("OUTBOXD_PROGRAM")
}

/// Whether the one that was built with the benchmarks was compiled by a profile, as `make bench PROFILE=…` has it.
pub(crate) const fn by_profile() -> bool {
    option_env!("OUTBOXD_PROFILE").is_some()
}

fn program() -> OsString {
    other().unwrap_or_else(|| env!("CARGO_BIN_EXE_outboxd").into())
}

/// The program for the first `tables` tables; what Kafka it is for does not matter to all that it can do.
fn command(subcommand: &str, database: &Database, tables: usize) -> Command {
    let mut command = Command::new(program());
    command.args(["--config", "/dev/null", subcommand]).envs([
        ("OUTBOXD__MYSQL__URL", format!("mysql://admin:admin@127.0.0.1:{}", database.port())),
        ("OUTBOXD__MYSQL__TLS__MODE", "disabled".to_owned()),
        ("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9092".to_owned()),
        ("OUTBOXD__OUTBOX__0__TABLES", format!("delivery.delivery-outbox{{1..{tables}}}")),
        ("OUTBOXD__OUTBOX__0__TOPIC", "delivery".to_owned()),
    ]);
    command
}

/// Creates the first `tables` tables, and that of the positions.
pub(crate) fn migrate(database: &Database, tables: usize) {
    let done = command("migrate", database, tables).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The version as it tells itself.
pub(crate) fn version() -> String {
    let told = Command::new(program()).arg("--version").output().unwrap();
    String::from_utf8_lossy(&told.stdout).trim().to_owned()
}
