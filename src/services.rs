//! Private real servers for the demo and the tests, held by `scripts/services`.
//!
//! Promise: a server ends with this process, whatever ends it, and leaves nothing behind. The held script's standard
//! input is the leash: when it closes, the server is stopped and its folder removed.

mod front;

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub use self::front::Front;

/// One held server, on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    port: u16,
    ports: Vec<u16>,
    dir: PathBuf,
}

impl Service {
    /// Starts the server `name` (`mysql-9.7`, `mariadb-10.11`, `mariadb-11.8`, `kafka-4.1`) by `script`, with server settings
    /// as `KEY=VALUE`, and waits until it is ready.
    pub fn hold(script: &Path, name: &str, settings: &[&str]) -> io::Result<Self> {
        Self::start(script, name, settings, &[])
    }

    /// The same with its data in this folder.
    pub fn hold_in(folder: &Path, script: &Path, name: &str, settings: &[&str]) -> io::Result<Self> {
        Self::start(script, name, settings, &["--dir", &folder.to_string_lossy()])
    }

    /// The same with so many further ports, which settings name as `{port1}`, `{port2}`, ….
    pub fn hold_with_ports(script: &Path, name: &str, settings: &[&str], ports: u8) -> io::Result<Self> {
        Self::start(script, name, settings, &["--ports", &ports.to_string()])
    }

    /// A further broker of the cluster that a Kafka has begun.
    pub fn join(&self, script: &Path, settings: &[&str]) -> io::Result<Self> {
        Self::start(script, &self.name, settings, &["--join", &self.dir.to_string_lossy()])
    }

    /// The same on a disk of its own, of so many MiB, for what happens when it is full. The disk is in memory and in a mount
    /// namespace of the server's, so this takes `unshare` and a system that lets this user make one.
    pub fn hold_on_disk(script: &Path, name: &str, settings: &[&str], mebibytes: u32) -> io::Result<Self> {
        const DISK: &str = "/srv";
        let mount = "mount -t tmpfs -o \"size=$1m\" outboxd \"$2\" && shift 2 && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", mount, "sh", &mebibytes.to_string(), DISK]).arg(script);
        let mut service = Self::spawn(command, name, settings, &["--dir", DISK])?;
        // What this process sees of that namespace.
        service.dir = format!("/proc/{}/root{}", service.child.id(), service.dir.display()).into();
        Ok(service)
    }

    fn start(script: &Path, name: &str, settings: &[&str], options: &[&str]) -> io::Result<Self> {
        Self::spawn(Command::new(script), name, settings, options)
    }

    fn spawn(mut command: Command, name: &str, settings: &[&str], options: &[&str]) -> io::Result<Self> {
        command.args(["hold", name]).args(options);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipe to the held server"));
        };
        let answers = BufReader::new(answers);
        let (ports, dir) = (Vec::new(), PathBuf::new());
        let mut service = Self { name: name.to_owned(), child, commands, answers, port: 0, ports, dir };
        let ready = service.answer()?;
        let said = |key: &str| ready.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        service.dir = said("dir").map(PathBuf::from).unwrap_or_default();
        let ports = said("ports").unwrap_or_default().split(',');
        service.ports = ports.filter_map(|port| port.parse().ok()).collect();
        let port = said("port").and_then(|port| port.parse().ok());
        service.port = port.ok_or_else(|| io::Error::other(format!("{name} is not ready: {ready}")))?;
        Ok(service)
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The further ports that were asked for.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Its folder, with its files below `data`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Says `stop`, `kill`, `pause`, `resume` or `start`, and waits until it is done.
    pub fn tell(&mut self, command: &str) -> io::Result<()> {
        writeln!(self.commands, "{command}")?;
        let answer = self.answer()?;
        if answer.is_empty() || answer.starts_with("error") {
            return Err(io::Error::other(format!("{}: {command}: {answer}", self.name)));
        }
        Ok(())
    }

    fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The answer to `quit` is the script's end; whether it went well, its own exit tells nobody here.
        let _ = writeln!(self.commands, "quit");
        let _ = self.child.wait();
    }
}
