//! Private real servers for a test: they end with the process, whatever ends it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// One server held by `scripts/services hold`. Its standard input is the leash: when this process ends, it ends.
pub(crate) struct Server {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn hold(name: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
        let mut child = Command::new(script)
            .args(["hold", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/services runs");
        let commands = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut server = Self { child, commands, answers, port: 0 };
        let ready = server.answer();
        let port = ready.split_whitespace().find_map(|word| word.strip_prefix("port="));
        server.port = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{name}: {ready}"));
        server
    }

    /// Says `kill`, `stop`, `start`, `pause` or `resume`, and waits until it is done.
    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("the server is held");
        let answer = self.answer();
        assert!(!answer.starts_with("error"), "{command}: {answer}");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the server is held");
        line.trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = writeln!(self.commands, "quit");
        let _ = self.child.wait();
    }
}
