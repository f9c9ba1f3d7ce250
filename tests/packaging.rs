//! What the daemon is deployed with fits the daemon: image, unit, manifests and package. No servers; `make lint-packaging`
//! asks the linters of those formats.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "what cannot be asked on this machine is said")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use bytesize::ByteSize;
use outboxd::config::Config;
use regex::Regex;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn outboxd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outboxd")).args(arguments).current_dir(root()).output().unwrap()
}

/// Both streams of what is expected to end well.
fn done(output: &Output) -> String {
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    told
}

/// The first number that a pattern finds in a file.
fn number(path: &str, pattern: &str) -> u64 {
    let text = text(path);
    let found = Regex::new(pattern).unwrap().captures(&text).unwrap_or_else(|| panic!("{path} has no {pattern}"));
    found[1].parse().unwrap()
}

/// Answers one request with this status, and gives what was asked for.
fn answers(status: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let size = stream.read(&mut request).unwrap();
        let body = "waits for mysql\n";
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        String::from_utf8_lossy(&request[..size]).lines().next().unwrap().to_owned()
    });
    (address, asked)
}

#[test]
fn health_is_what_the_daemon_says() {
    for (flags, status, code, page) in [
        (&[][..], "200 OK", 0, "GET /readyz HTTP/1.1"),
        (&[][..], "503 Service Unavailable", 1, "GET /readyz HTTP/1.1"),
        (&["--live"][..], "200 OK", 0, "GET /livez HTTP/1.1"),
    ] {
        let (address, asked) = answers(status);
        let output = outboxd(&[&["health", "--address", &address], flags].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert_eq!(asked.join().unwrap(), page);
        assert_eq!(told.contains("waits for mysql"), code == 1, "{told}");
    }
    // Nobody there, and an address by the configuration.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = format!("admin.listen={free}");
    let output = outboxd(&["--config", "config/outboxd.toml", "--set", &listen, "health"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&free.to_string()));
    assert_eq!(outboxd(&["--config", "/none", "health"]).status.code(), Some(64));
}

/// A daemon runs on though its file has a mistake by now, and is as well as before.
#[test]
fn health_takes_no_more_of_the_configuration_than_where_to_ask() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let health = |content: &str| {
        fs::write(file.path(), content).unwrap();
        outboxd(&["--config", file.path().to_str().unwrap(), "health"])
    };
    let (address, asked) = answers("200 OK");
    let elsewhere = "[mysql]\npassword_file = \"/none\"\n[relay]\nno_such_key = 1\nbatch_bytes = \"many\"\n";
    done(&health(&format!("{elsewhere}[admin]\nlisten = \"{address}\"\n")));
    assert_eq!(asked.join().unwrap(), "GET /readyz HTTP/1.1");
    for wrong in ["[admin]\nlisten = \"here\"\n", "[admin]\nlistens = \"127.0.0.1:1\"\n", "[admin\n"] {
        assert_eq!(health(wrong).status.code(), Some(64), "{wrong}");
    }
}

#[test]
fn configurations_that_are_shipped_can_be_used() {
    // Files of the pod that are looked at with the configuration; here they are somewhere else.
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "0123456789abcdef0123456789abcdef").unwrap();
    let keys = ["admin.token_file", "mysql.password_file"].map(|key| format!("{key}={}", secret.path().display()));
    for (path, flags) in [
        ("config/outboxd.toml", &[][..]),
        ("config/local.toml", &[]),
        ("config/kubernetes/outboxd.toml", &["--set", &keys[0], "--set", &keys[1]]),
    ] {
        done(&outboxd(&[&["--config", path], flags, &["config"]].concat()));
    }
}

#[test]
fn every_supervisor_waits_longer_than_a_stop_takes() {
    let grace = Config::default().relay.shutdown_grace.as_secs();
    for (path, pattern) in [
        ("config/systemd/outboxd.service", r"TimeoutStopSec=(\d+)s"),
        ("docker-compose.yml", r"stop_grace_period: (\d+)s"),
        ("config/kubernetes/deployment.yaml", r"terminationGracePeriodSeconds: (\d+)"),
        ("config/kubernetes/sidecar.yaml", r"terminationGracePeriodSeconds: (\d+)"),
    ] {
        // Then it is given up, by name.
        let overdue = grace + grace / 2 + 10;
        let waits = number(path, pattern);
        assert!(waits > overdue, "{path} waits for {waits} s, a stop takes {overdue} s at most");
    }
}

#[test]
fn the_image_runs_as_nobody_and_asks_the_binary_for_its_health() {
    let file = text("Dockerfile");
    let last = file.rsplit_once("\nFROM ").unwrap().1;
    let user = Regex::new(r"(?m)^USER (\d+):(\d+)$").unwrap();
    assert!(user.captures(last).is_some_and(|user| &user[1] != "0" && &user[2] != "0"), "{last}");
    assert_eq!(number("config/kubernetes/deployment.yaml", r"runAsUser: (\d+)"), number("Dockerfile", r"USER (\d+)"));
    // Words of the health check and of the default command are ones that the binary knows.
    let words = Regex::new(r#"CMD \["(?:outboxd", ")?([a-z]+)"\]"#).unwrap();
    let commands: Vec<_> = words.captures_iter(last).map(|found| found[1].to_owned()).collect();
    assert_eq!(commands, ["health", "run"]);
    for command in commands {
        done(&outboxd(&[&command, "--help"]));
    }
}

/// What the image is made of, once the compiler is done: the build's own commands, over this binary and in this folder.
#[test]
fn the_build_of_the_image_ends_with_its_root() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let file = text("Dockerfile").replace("\\\n", " ");
    let steps = file.lines().find(|line| line.starts_with("RUN ")).unwrap();
    let (_, after) = steps.split_once("cargo build").unwrap();
    let (_, commands) = after.split_once("&&").unwrap();
    let commands = commands
        .replace("target/release/outboxd", env!("CARGO_BIN_EXE_outboxd"))
        .replace("/usr/local/bin/outboxd", &place("outboxd"))
        .replace("/image", &place("image"))
        .replace(&format!("scripts{}", place("image")), "scripts/image");
    done(&Command::new("bash").args(["-euc", &commands]).current_dir(root()).output().unwrap());
    let inside = folder.path().join("image/usr/local/bin/outboxd");
    let version = done(&Command::new(inside).arg("--version").output().unwrap());
    assert_eq!(version.trim(), concat!("outboxd ", env!("CARGO_PKG_VERSION")));
}

/// A limit of memory holds all that the defaults allow a few tables, also while they are read themselves.
#[test]
fn manifests_leave_the_memory_that_the_defaults_may_take() {
    let relay = Config::default().relay;
    let all = |each: &[ByteSize], times: u64| each.iter().map(ByteSize::as_u64).sum::<u64>() * times;
    let tables = all(&[relay.queue_bytes, relay.in_flight_bytes], 16);
    let read = all(&[relay.snapshot_keys_bytes], relay.snapshot_readers as u64);
    let taken = (64 << 20) + tables + read + relay.transaction_hold_bytes.as_u64();
    for path in ["config/kubernetes/deployment.yaml", "config/kubernetes/sidecar.yaml"] {
        let limit = number(path, r"limits: \{ memory: (\d+)Mi") << 20;
        assert!(limit >= taken, "{path}: {limit} bytes are less than {taken}");
    }
}

/// The root of the image holds all that the binary needs to start; the compiler's machine is not there to help out.
#[test]
fn the_binary_starts_in_the_root_of_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let made = Command::new(root().join("scripts/image-root")).arg(env!("CARGO_BIN_EXE_outboxd")).arg(&image).output();
    done(&made.unwrap());
    let mut inside = Command::new("unshare");
    inside.args(["--map-root-user", "/usr/sbin/chroot"]).arg(&image);
    if !Command::new("unshare").args(["--map-root-user", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no user namespaces here");
        return;
    }
    let version = done(&inside.args(["/usr/local/bin/outboxd", "--version"]).output().unwrap());
    assert_eq!(version.trim(), concat!("outboxd ", env!("CARGO_PKG_VERSION")));
}

fn has_systemd() -> bool {
    let has = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !has {
        eprintln!("skipped: systemd-analyze is not here; scripts/setup installs it");
    }
    has
}

#[test]
fn the_unit_is_one_that_systemd_takes_and_calls_confined() {
    if !has_systemd() {
        return;
    }
    // As the package installs it.
    let scratch = tempfile::tempdir().unwrap();
    let units = scratch.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    fs::create_dir_all(scratch.path().join("usr/bin")).unwrap();
    fs::copy(root().join("config/systemd/outboxd.service"), units.join("outboxd.service")).unwrap();
    fs::copy("/bin/true", scratch.path().join("usr/bin/outboxd")).unwrap();
    let analyze = |arguments: &[&str]| {
        let root = format!("--root={}", scratch.path().display());
        let output = Command::new("systemd-analyze").args(arguments).arg(root).arg("outboxd.service").output().unwrap();
        done(&output)
    };
    let told = analyze(&["verify", "--man=no", "--recursive-errors=no"]);
    assert!(!told.contains("outboxd.service:"), "{told}");
    // In tenths of what is left exposed, of 10.0.
    analyze(&["security", "--offline=true", "--threshold=20"]);
}

/// A unit whose program is elsewhere ends with 203/EXEC, and a user that is not there with 217/USER.
#[test]
fn who_installs_by_the_walk_through_has_what_the_unit_names() {
    let (unit, page) = (text("config/systemd/outboxd.service"), text("docs/walkthrough.md"));
    let named = |pattern: &str| Regex::new(pattern).unwrap().captures(&unit).unwrap()[1].to_owned();
    let (folder, user) = (named(r"ExecStart=(/\S+/)outboxd "), named(r"User=(\S+)"));
    let installs: Vec<_> = page.lines().filter(|line| line.contains("install -m 755 target/release/outboxd")).collect();
    assert!(installs.len() == 2 && installs.iter().all(|line| line.ends_with(&folder)), "{installs:?}");
    assert!(text("config/systemd/outboxd.sysusers").contains(&format!("u {user} ")));
    for step in
        ["config/systemd/outboxd.sysusers /usr/lib/sysusers.d/", "systemd-sysusers", "LoadCredential=mysql-password:"]
    {
        assert!(page.contains(step), "{step}");
    }
    assert!(unit.contains("#LoadCredential=mysql-password:/etc/outboxd/mysql-password"));
}

#[test]
fn a_halt_or_a_wrong_configuration_is_not_restarted() {
    let unit = text("config/systemd/outboxd.service");
    let codes = [outboxd::cli::code::HALTED, outboxd::cli::code::CONFIGURATION, outboxd::cli::code::PREFLIGHT];
    assert!(
        unit.contains(&format!("RestartPreventExitStatus={}", codes.map(|code| code.to_string()).join(" "))),
        "{unit}"
    );
}

#[test]
fn the_package_has_everything_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let man = folder.path().join("man");
    done(&outboxd(&["man", "--dir", man.to_str().unwrap()]));
    for page in ["outboxd.1", "outboxd-run.1", "outboxd-position-set.1"] {
        let page = fs::read_to_string(man.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(page.contains(".SH NAME") && page.contains("outboxd"), "{page}");
    }
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef outboxd"), ("fish", "complete -c outboxd")] {
        assert!(done(&outboxd(&["completions", shell])).contains(word), "{shell}");
    }
    let package = text("Cargo.toml");
    let package = package.split("[package.metadata.deb]").nth(1).unwrap().split("\n[").next().unwrap();
    let asset = Regex::new(r#"(?m)^  \["([^"]+)", "([^"]+)", "\d+"\]"#).unwrap();
    let mut targets = Vec::new();
    for found in asset.captures_iter(package) {
        let (from, to) = (&found[1], &found[2]);
        targets.push(to.to_owned());
        let is_made = from.starts_with("target/");
        let there = root().join(from.replace("**/*", "adr/0001-one-package.md")).is_file();
        assert!(is_made || there, "{from} is not there");
    }
    let unit = text("config/systemd/outboxd.service");
    assert!(unit.contains("ExecStart=/usr/bin/outboxd ") && targets.iter().any(|to| to == "usr/bin/"), "{targets:?}");
    assert!(unit.contains("--config /etc/outboxd/outboxd.toml") && targets.iter().any(|to| to == "etc/outboxd/"));
    let account = text("config/systemd/outboxd.sysusers");
    assert!(account.starts_with("u outboxd ") && unit.contains("\nUser=outboxd\n"), "{account}");
}

/// An administrator may delete the configuration, and dpkg does not bring it back.
#[test]
fn an_upgrade_of_the_package_does_without_a_configuration() {
    if fs::exists("/etc/outboxd/outboxd.toml").unwrap() {
        eprintln!("skipped: the package is installed here");
        return;
    }
    let commands = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/true", commands.path().join("systemd-sysusers")).unwrap();
    let path = format!("{}:{}", commands.path().display(), std::env::var("PATH").unwrap());
    let script = root().join("config/debian/postinst");
    done(&Command::new("sh").arg(script).args(["configure", "0.1.0-1"]).env("PATH", path).output().unwrap());
}

#[test]
fn every_command_that_is_shown_has_a_manual_page_with_its_options() {
    let folder = tempfile::tempdir().unwrap();
    done(&outboxd(&["man", "--dir", folder.path().to_str().unwrap()]));
    let help = done(&outboxd(&["--help"]));
    let commands = Regex::new(r"(?m)^  ([a-z][a-z-]+)  ").unwrap();
    let mut count = 0;
    for found in commands.captures_iter(help.split("Options:").next().unwrap()).filter(|found| &found[1] != "help") {
        let page = folder.path().join(format!("outboxd-{}.1", &found[1]));
        assert!(page.is_file(), "{}", page.display());
        count += 1;
    }
    assert!(count > 12, "{count} commands: has the help another form now?");
}

#[test]
fn the_demo_only_writes_where_it_is_told_to_and_keeps_the_password_to_itself() {
    let url = "mysql://app:s3cret-0f-the-app@localhost:x";
    let output =
        Command::new(env!("CARGO_BIN_EXE_outboxd")).arg("demo").env("OUTBOXD_DEMO_WRITE_TO", url).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(told.contains("mysql://USER:PASSWORD@HOST:PORT") && !told.contains("s3cret"), "{told}");
}

#[test]
fn manifests_have_the_version_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(text("config/kubernetes/kustomization.yaml").contains(&format!("newTag: \"{version}\"")));
    assert!(text("config/kubernetes/sidecar.yaml").contains(&format!("image: outboxd:{version}\n")));
}
