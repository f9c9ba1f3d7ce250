//! A measured program: a child process, what it has used, and its end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Units of processor time in `/proc`, each second; Linux shows so many to every program.
const TICKS: f64 = 100.0;

/// Processor seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// One thread of a program.
#[derive(Debug, Clone)]
pub(crate) struct Thread {
    pub(crate) id: String,
    pub(crate) name: String,
    /// How often it has gone to sleep by itself, and so was woken.
    pub(crate) waits: u64,
    /// Nanoseconds on a processor.
    pub(crate) nanos: u64,
}

/// What a process has used so far, by its id.
pub(crate) fn cpu(id: u32) -> Cpu {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name may hold anything, also blanks; what follows the last bracket does not.
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let seconds = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / TICKS;
    Cpu { user: seconds(11), system: seconds(12) }
}

/// A line of `/proc/ID/status` in bytes.
fn memory(id: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|text| text.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A running program. Killed when dropped, and when this process dies.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    pub(crate) started: Instant,
}

impl Running {
    /// Starts it, its output into a file.
    pub(crate) fn spawn(command: &Command, log: PathBuf) -> Self {
        let mut leashed = Command::new("setpriv");
        leashed.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        leashed.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let file = File::create(&log).unwrap();
        leashed.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let started = Instant::now();
        Self { child: leashed.spawn().unwrap(), log, started }
    }

    pub(crate) fn cpu(&self) -> Cpu {
        cpu(self.child.id())
    }

    /// Bytes in memory now.
    pub(crate) fn resident(&self) -> u64 {
        memory(self.child.id(), "VmRSS:")
    }

    /// The most bytes in memory so far.
    pub(crate) fn peak(&self) -> u64 {
        memory(self.child.id(), "VmHWM:")
    }

    pub(crate) fn threads(&self) -> Vec<Thread> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let read = |path: &Path, file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        let thread = |path: PathBuf| {
            let status = read(&path, "status");
            let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let used = read(&path, "schedstat");
            Thread {
                id: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                name: read(&path, "comm").trim().to_owned(),
                waits: waits.and_then(|count| count.trim().parse().ok()).unwrap_or(0),
                nanos: used.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0),
            }
        };
        tasks.map(|task| thread(task.unwrap().path())).collect()
    }

    /// Everything it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Panics with the end of its log if it has ended.
    pub(crate) fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            self.fail(&format!("it ended with {status}"));
        }
    }

    pub(crate) fn fail(&self, why: &str) -> ! {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        panic!("{why}; the end of {}:\n{}", self.log.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
    }

    /// Waits until something holds; panics when it does not within the time.
    pub(crate) fn until(&mut self, what: &str, patience: Duration, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !holds(self) {
            self.must_run();
            if Instant::now() > deadline {
                self.fail(&format!("{what}: not within {patience:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(asked.unwrap().success());
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                self.fail("it does not stop");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a part of this very program in a process of its own, and gives the line that it prints.
pub(crate) fn run_part(arguments: &[String]) -> String {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(std::env::current_exe().unwrap()).args(arguments);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(child.wait().unwrap().success(), "{arguments:?} failed");
    line
}
