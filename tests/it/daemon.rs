//! A running daemon.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use crate::stage::until;

/// Shorter ones may be parts of words.
const SHORTEST_SECRET: usize = 8;

/// A running `outboxd run`; killed when dropped, and when the test process dies. It fails its test if anything that it shows
/// holds a secret that it was given.
pub(crate) struct Daemon {
    child: Child,
    secrets: Vec<String>,
    /// Has no name, so that it goes with the last who has it open.
    log: File,
}

impl Daemon {
    pub(crate) fn spawn(command: &Command) -> Self {
        let log = tempfile::tempfile().unwrap();
        let mut leashed = Command::new("setpriv");
        leashed.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        leashed.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        leashed.stdin(Stdio::null()).stderr(log.try_clone().unwrap());
        Self { child: leashed.spawn().unwrap(), secrets: secrets(command), log }
    }

    /// Nothing that it was given in confidence is in what it shows.
    fn keeps_its_secrets(&self, place: &str, text: &str) {
        for secret in &self.secrets {
            assert!(!text.contains(secret), "the secret {secret} is in {place}:\n{text}");
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        let mut bytes = vec![0; usize::try_from(self.log.metadata().unwrap().len()).unwrap()];
        self.log.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Waits until it logs this text.
    pub(crate) async fn logs(&self, text: &str) {
        until(&format!("the log says {text}"), async || self.log().contains(text)).await;
    }

    /// Where its admin listener is; `None` while there is none.
    pub(crate) fn address(&self) -> Option<String> {
        let log = self.log();
        let (_, after) = log.split_once("admin_listening address=")?;
        after.split_whitespace().next().map(ToOwned::to_owned)
    }

    /// The body of an admin page, and its status; `None` while it does not listen.
    pub(crate) fn page(&self, path: &str) -> Option<(u16, String)> {
        let address = self.address()?;
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(format!("http://{address}{path}")).call().ok()?;
        let body = answer.body_mut().read_to_string().ok()?;
        self.keeps_its_secrets(path, &body);
        // Now, because nothing is left of it once it has ended. It has, where this is empty.
        let arguments = std::fs::read(format!("/proc/{}/cmdline", self.id())).unwrap_or_default();
        self.keeps_its_secrets("its command line", &String::from_utf8_lossy(&arguments));
        Some((answer.status().as_u16(), body))
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn ready(&self) {
        until("the daemon is ready", async || self.relays_all()).await;
    }

    fn relays_all(&self) -> bool {
        self.page("/readyz").is_some_and(|(status, _)| status == 200)
    }

    /// Waits until `/readyz` says that it waits, and this of the reason.
    pub(crate) async fn waits_for(&self, reason: &str) {
        until(&format!("/readyz says {reason}"), async || {
            self.page("/readyz").is_some_and(|(status, body)| status == 503 && body.contains(reason))
        })
        .await;
    }

    /// The sum of a metric over all tables.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.try_metric(name).unwrap()
    }

    /// The same; `None` while it does not listen.
    pub(crate) fn try_metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.page("/metrics")?;
        let lines = text.lines().filter(|line| line.starts_with(name));
        Some(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// The most memory that it has held so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.try_peak_memory().unwrap()
    }

    /// The same; `None` when it has ended.
    pub(crate) fn try_peak_memory(&self) -> Option<u64> {
        self.status("VmHWM:")
    }

    /// The memory that it holds, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:").unwrap()
    }

    fn status(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024)
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status().unwrap().success());
    }

    /// Kills it in a state that it passes quickly: it runs a little at a time and stands still while it is looked at.
    pub(crate) async fn kill_when(self, name: &str, mut holds: impl FnMut() -> bool) {
        until(name, async || {
            self.signal("STOP");
            let held = holds();
            if !held {
                self.signal("CONT");
            }
            held
        })
        .await;
        self.kill();
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it relays every table; `None` once it has ended by itself.
    pub(crate) fn is_ready(&mut self) -> Option<bool> {
        let ready = self.relays_all();
        self.child.try_wait().unwrap().is_none().then_some(ready)
    }

    /// Waits until it has ended by itself, and gives the exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        until("the daemon ends", async || self.child.try_wait().unwrap().is_some()).await;
        self.child.wait().unwrap().code()
    }

    /// SIGTERM, and the exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        // Before its first words, a signal does what the system does with it.
        self.logs("admin_listening").await;
        self.signal("TERM");
        let code = self.ended().await;
        if code != Some(0) {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        code
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        } else {
            self.keeps_its_secrets("its log", &self.log());
        }
    }
}

/// What a command is given in confidence by its environment: passwords, secrets and tokens, also in files and in URLs.
fn secrets(command: &Command) -> Vec<String> {
    let given = command.get_envs().filter_map(|(key, value)| Some((key.to_str()?, value?.to_str()?)));
    let secrets = given.filter_map(|(key, value)| {
        let key = key.to_ascii_lowercase();
        let is_secret = |key: &str| ["password", "secret", "token"].iter().any(|end| key.ends_with(end));
        match key.strip_suffix("_file") {
            Some(key) if is_secret(key) => Some(std::fs::read_to_string(value).ok()?.trim_end().to_owned()),
            None if is_secret(&key) => Some(value.to_owned()),
            None if key.ends_with("url") => {
                let (_, rest) = value.split_once("://")?;
                let (login, _) = rest.split_once('@')?;
                Some(login.split_once(':')?.1.to_owned())
            }
            _ => None,
        }
    });
    secrets.filter(|secret| secret.len() >= SHORTEST_SECRET).collect()
}
