//! TLS to real servers: what each mode takes, what it refuses, and what is said of it.

use serde_json::Value;

use crate::account::{self, PASSWORD};
use crate::certificates::{Authority, Signed};
use crate::daemon::Daemon;
use crate::stage::{Setup, Stage};

const SERVERS: [&str; 3] = ["mysql-9.7", "mariadb-10.11", "mariadb-11.8"];

const PASSPHRASE: &str = "only-for-this-key";

/// One way to connect.
#[derive(Default)]
struct Way<'a> {
    user: &'a str,
    host: &'a str,
    mode: &'a str,
    ca: Option<&'a Authority>,
    identity: Option<&'a Signed>,
    key_password: Option<&'a str>,
}

impl Way<'_> {
    fn keys(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        let Self { user, host, .. } = self;
        let file = |path: &std::path::Path| path.display().to_string();
        let mut keys = vec![
            ("MYSQL__URL", format!("mysql://{user}@{host}:{}", stage.mysql.port())),
            ("MYSQL__TLS__MODE", self.mode.to_owned()),
            ("LOG__LEVEL", "trace,rustls=off,h2=off".to_owned()),
        ];
        keys.extend(self.ca.map(|ca| ("MYSQL__TLS__CA", file(&ca.file()))));
        keys.extend(self.identity.map(|own| ("MYSQL__TLS__CERT", file(&own.cert))));
        keys.extend(self.identity.map(|own| ("MYSQL__TLS__KEY", file(&own.key))));
        keys.extend(self.key_password.map(|password| ("MYSQL__TLS__KEY_PASSWORD", password.to_owned())));
        keys
    }

    fn command(&self, stage: &Stage, arguments: &[&str]) -> std::process::Command {
        let mut command = stage.outboxd(arguments);
        command.envs(self.keys(stage).into_iter().map(|(key, value)| (format!("OUTBOXD__{key}"), value)));
        command
    }

    /// The check of this name, and the exit code.
    fn check(&self, stage: &Stage) -> (Option<i32>, Value, String) {
        let output = self.command(stage, &["check", "--format", "json"]).output().unwrap();
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let tls = shown["checks"].as_array().unwrap().iter().find(|check| check["name"] == "tls").cloned();
        (output.status.code(), tls.unwrap_or_default(), shown["unavailable"].to_string())
    }

    /// An event gets through, whose connections are all of this way.
    async fn delivers(&self, stage: &Stage, id: &str) {
        let daemon = Daemon::spawn(&self.command(stage, &["run"]));
        event(stage, id).await;
        stage.delivered(id).await;
        assert!(!daemon.log().contains(PASSPHRASE));
        assert_eq!(daemon.terminate().await, Some(0));
    }

    /// The check fails, and tells this of what was found and of the cure.
    #[track_caller]
    fn is_refused(&self, stage: &Stage, found: &str, cure: &str) {
        let (code, tls, unavailable) = self.check(stage);
        let text = |key: &str| tls[key].as_str().unwrap_or_default().to_owned();
        assert!(text("setting").starts_with("mysql.tls.mode"), "{tls:#}, {unavailable}");
        assert!(text("found").contains(found) && text("cure").contains(cure), "{tls:#}");
        assert_eq!((code, text("status").as_str()), (Some(78), "failed"), "{tls:#}");
    }
}

async fn event(stage: &Stage, id: &str) {
    let table = stage.outboxes[0].quoted();
    let values = format!("('{id}', 'a', 'k', 'T', '{{}}')");
    stage.sql([format!("INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES {values}")]).await;
}

async fn users(stage: &Stage) {
    for (user, requires) in [("any", "NONE"), ("safe", "SSL"), ("sure", "X509")] {
        stage.sql([format!("CREATE USER {user} IDENTIFIED BY '{PASSWORD}' REQUIRE {requires}")]).await;
        stage.sql(account::grants(user)).await;
    }
}

fn serving(server: &'static str, settings: impl IntoIterator<Item = String>) -> Setup {
    settings.into_iter().fold(Stage::of().server(server).shards(1), Setup::setting)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_takes_what_it_should_and_refuses_the_rest() {
    let (ours, other) = (Authority::new(), Authority::new());
    for server in SERVERS {
        let stage = serving(server, ours.of_server("localhost")).up().await;
        users(&stage).await;
        let way = |user, host, mode, ca| Way { user, host, mode, ca, ..Way::default() };
        for (id, way) in [
            ("disabled", way("any", "127.0.0.1", "disabled", None)),
            ("preferred", way("safe", "127.0.0.1", "preferred", None)),
            ("required", way("safe", "127.0.0.1", "required", None)),
            ("verify_ca", way("safe", "127.0.0.1", "verify_ca", Some(&ours))),
            ("verify_identity", way("safe", "localhost", "verify_identity", Some(&ours))),
        ] {
            way.delivers(&stage, id).await;
            let (code, tls, unavailable) = way.check(&stage);
            let encrypted = tls["found"].as_str().unwrap().starts_with("TLSv1.");
            assert_eq!((code, encrypted), (Some(0), id != "disabled"), "{server}: {tls:#} {unavailable}");
        }
        let authority = "set mysql.tls.ca";
        way("safe", "localhost", "verify_identity", Some(&other)).is_refused(&stage, "certificate verify", authority);
        way("safe", "localhost", "verify_ca", None).is_refused(&stage, "certificate verify failed", authority);
        let other_name = way("safe", "127.0.0.1", "verify_identity", Some(&ours));
        other_name.is_refused(&stage, "mismatch", "connect to a name that the certificate has");
        let mut refused = Daemon::spawn(&other_name.command(&stage, &["run"]));
        assert_eq!(refused.ended().await, Some(78));
        assert!(refused.log().contains("mismatch"), "{}", refused.log());
        let (code, _, unavailable) = way("safe", "127.0.0.1", "disabled", None).check(&stage);
        assert!(code == Some(69) && unavailable.contains("Access denied"), "{server}: {unavailable}");
        stage.sql(["SET GLOBAL require_secure_transport = ON"]).await;
        let plain = way("any", "127.0.0.1", "disabled", None);
        if server == "mariadb-10.11" {
            // It says no more to anybody.
            assert!(plain.check(&stage).2.contains("Access denied"));
        } else {
            plain.is_refused(&stage, "require_secure_transport", "set mysql.tls.mode");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_our_own_is_shown() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (open, locked) = (ours.sign("outboxd", None), ours.sign("outboxd", Some(PASSPHRASE)));
    let foreign = other.sign("outboxd", None);
    for server in SERVERS {
        let stage = serving(server, ours.of_server("localhost")).up().await;
        users(&stage).await;
        let way = |identity, key_password| Way {
            user: "sure",
            host: "localhost",
            mode: "verify_identity",
            ca: Some(&ours),
            identity,
            key_password,
        };
        way(Some(&open), None).delivers(&stage, "open").await;
        way(Some(&locked), Some(PASSPHRASE)).delivers(&stage, "locked").await;
        let (code, _, unavailable) = way(None, None).check(&stage);
        assert!(code == Some(69) && unavailable.contains("Access denied"), "{server}: {unavailable}");
        way(Some(&foreign), None).is_refused(&stage, "alert", "set mysql.tls.cert and mysql.tls.key");
    }
}

/// Given a daemon at work with its own certificate, when the server's and then the daemon's files are those of another authority,
/// then connections are refused in between, and the daemon goes on without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_renewed_count_from_the_next_connection_on() {
    for (server, reload) in
        [("mysql-9.7", "ALTER INSTANCE RELOAD TLS"), ("mariadb-10.11", "FLUSH SSL"), ("mariadb-11.8", "FLUSH SSL")]
    {
        let (first, next, held) = (Authority::new(), Authority::new(), Authority::new());
        let stage = serving(server, first.of_server("localhost")).up().await;
        users(&stage).await;
        let identity = held.sign("outboxd", None);
        held.takes_over(&first, "outboxd");
        let (ca, identity) = (Some(&held), Some(&identity));
        let way = Way { user: "sure", host: "localhost", mode: "verify_identity", ca, identity, key_password: None };
        let daemon = Daemon::spawn(&way.command(&stage, &["run"]));
        event(&stage, "before").await;
        stage.delivered("before").await;

        first.takes_over(&next, "localhost");
        stage.sql([reload]).await;
        stage.kill_readers().await;
        daemon.logs("certificate verify failed").await;
        held.takes_over(&next, "outboxd");
        event(&stage, "after").await;
        stage.delivered("after").await;
        assert_eq!(daemon.terminate().await, Some(0), "{server}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_only_where_tls_is_asked_for() {
    for (server, without) in
        [("mysql-9.7", "tls_version="), ("mariadb-10.11", "skip-ssl=1"), ("mariadb-11.8", "skip-ssl=1")]
    {
        let stage = serving(server, [without.to_owned()]).up().await;
        users(&stage).await;
        let way = |mode| Way { user: "any", host: "127.0.0.1", mode, ..Way::default() };
        way("preferred").delivers(&stage, "preferred").await;
        way("required").is_refused(&stage, "a server that offers no TLS", "give the server a certificate");
        let (code, tls, _) = way("preferred").check(&stage);
        assert_eq!((code, tls["found"].as_str()), (Some(0), Some("no encryption")), "{tls:#}");
    }
}

/// Problems of the keys themselves are told by name, with all others, before any server is asked.
#[test]
fn files_that_do_not_fit_are_told_by_their_keys() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (open, locked) = (ours.sign("outboxd", None), ours.sign("outboxd", Some(PASSPHRASE)));
    let foreign = other.sign("outboxd", None);
    let told = |keys: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_outboxd"));
        command.arg("config").env("OUTBOXD__MYSQL__URL", "mysql://u@h").env("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", "h:1");
        command.env("OUTBOXD__OUTBOX__0__TABLES", "d.t").env("OUTBOXD__OUTBOX__0__TOPIC", "t");
        command.envs(keys.iter().map(|(key, value)| (format!("OUTBOXD__MYSQL__TLS__{key}"), value)));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let path = |path: &std::path::Path| path.display().to_string();
    let (ca, key, cert) = (path(&ours.file()), path(&open.key), path(&open.cert));
    let missing = path(&ours.folder().join("none.pem"));
    let (locked_cert, locked_key, foreign_key) = (path(&locked.cert), path(&locked.key), path(&foreign.key));
    for (keys, expected) in [
        (vec![("MODE", "verify_ca"), ("CA", &missing)], "mysql.tls.ca: expected a file of certificates, PEM, found"),
        (
            vec![("MODE", "verify_ca"), ("CA", &key)],
            "mysql.tls.ca: expected a file of certificates, PEM, found none in",
        ),
        (vec![("MODE", "required"), ("CA", &ca)], "mysql.tls.ca: expected mysql.tls.mode = \"verify_ca\""),
        (vec![("CERT", &cert)], "mysql.tls.key: expected the file with the key"),
        (vec![("KEY", &key)], "mysql.tls.cert: expected the certificate of"),
        (vec![("CERT", &key), ("KEY", &key)], "mysql.tls.cert: expected a certificate, PEM, found none in"),
        (vec![("CERT", &cert), ("KEY", &cert)], "mysql.tls.key: expected a private key, PEM, found none in"),
        (vec![("CERT", &cert), ("KEY", &foreign_key)], "mysql.tls.key: expected the key of the certificate in"),
        (vec![("CERT", &locked_cert), ("KEY", &locked_key)], "mysql.tls.key_password: expected the password of"),
        (
            vec![("CERT", &locked_cert), ("KEY", &locked_key), ("KEY_PASSWORD", "a-wrong-one")],
            "mysql.tls.key_password: expected the password of",
        ),
        (
            vec![("MODE", "disabled"), ("CERT", &cert), ("KEY", &key)],
            "mysql.tls.cert: expected a mysql.tls.mode with TLS",
        ),
        (vec![("MODE", "verify")], "mysql.tls.mode: expected \"disabled\" or \"preferred\" or"),
    ] {
        let (code, text) = told(&keys);
        assert!(code == Some(64) && text.contains(expected), "{expected}\n{text}");
        assert!(!text.contains("a-wrong-one"), "{text}");
    }
    let both = [("CERT", locked_cert.as_str()), ("KEY", locked_key.as_str()), ("KEY_PASSWORD", PASSPHRASE)];
    assert_eq!(told(&both).0, Some(0));
}
