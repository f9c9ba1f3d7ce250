//! A Kafka that is secured as in production: TLS, certificates of clients, logins, tokens, and grants.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use outboxd::services::Service;
use outboxd::table::TableName;
use serde_json::{Value, json};

use crate::certificates::{Authority, Signed};
use crate::daemon::Daemon;
use crate::exactly_once::exactly_once;
use crate::kafka_admin::{KafkaAdmin, Operation, Resource};
use crate::stage::{Setup, Stage, script, until};

const PASSWORD: &str = "only-for-this-relay";
const KEY_PASSWORD: &str = "only-for-this-key";

/// One broker with a listener of each kind; the one without TLS and login is the administrator's.
struct Secured {
    kafka: Service,
    authority: Authority,
    /// A certificate of the relay's, its key with and without a password.
    own: [Signed; 2],
}

/// The security tests share it. Ends with the process.
static SECURED: OnceLock<Secured> = OnceLock::new();

impl Secured {
    fn get() -> &'static Self {
        SECURED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let authority = Authority::new();
        let Signed { cert, key } = authority.sign("localhost", None);
        let own = [Some(KEY_PASSWORD), None].map(|password| authority.sign("relay", password));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let store = authority.folder().join("keystore.pem");
        std::fs::write(&store, read(&key) + &read(&cert)).unwrap();
        let plain = format!("PlainLoginModule required user_relay=\"{PASSWORD}\";");
        let modules = "org.apache.kafka.common.security";
        let settings = [
            "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},TLS://127.0.0.1:{port1},\
             MTLS://127.0.0.1:{port2},LOGIN://127.0.0.1:{port3},TOKEN://127.0.0.1:{port4}"
                .to_owned(),
            "advertised.listeners=PLAINTEXT://127.0.0.1:{port},TLS://localhost:{port1},MTLS://localhost:{port2},\
             LOGIN://localhost:{port3},TOKEN://localhost:{port4}"
                .to_owned(),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,MTLS:SSL,LOGIN:SASL_SSL,\
             TOKEN:SASL_SSL"
                .to_owned(),
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
            "super.users=User:ANONYMOUS;User:CN=relay".to_owned(),
            "ssl.keystore.type=PEM".to_owned(),
            format!("ssl.keystore.location={}", store.display()),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", authority.file().display()),
            "listener.name.mtls.ssl.client.auth=required".to_owned(),
            "listener.name.login.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
            format!("listener.name.login.plain.sasl.jaas.config={modules}.plain.{plain}"),
            format!("listener.name.login.scram-sha-256.sasl.jaas.config={modules}.scram.ScramLoginModule required;"),
            format!("listener.name.login.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;"),
            "listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER".to_owned(),
            format!(
                "listener.name.token.oauthbearer.sasl.jaas.config={modules}.oauthbearer.OAuthBearerLoginModule required \
                 unsecuredLoginStringClaim_sub=\"broker\";"
            ),
        ];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let kafka = Service::hold_with_ports(script(), "kafka-4.1", &settings, 4).unwrap();
        let admin = KafkaAdmin::at(kafka.port());
        admin.scram("relay", PASSWORD, 1);
        for user in ["relay", "granted", "transactional"] {
            admin.scram(user, PASSWORD, 2);
        }
        Self { kafka, authority, own }
    }

    fn admin(&self) -> KafkaAdmin {
        KafkaAdmin::at(self.kafka.port())
    }

    /// The listeners' addresses: TLS, with a certificate, with a login, with a token.
    fn addresses(&self) -> [String; 4] {
        let ports = self.kafka.ports();
        [0, 1, 2, 3].map(|listener| format!("localhost:{}", ports[listener]))
    }

    /// A stage whose servers are up, with the topic but without grants.
    async fn stage(&'static self, setup: Setup) -> Stage {
        let brokers = format!("127.0.0.1:{}", self.kafka.port());
        setup.brokers(&brokers).up().await
    }

    /// What the relay needs to write to a topic.
    fn may_write(&self, principal: &str, topic: &str) {
        let operations = [Operation::Write, Operation::Describe, Operation::DescribeConfigs];
        self.admin().allow(principal, Resource::Topic(topic), &operations);
    }
}

async fn secured() -> &'static Secured {
    tokio::task::spawn_blocking(Secured::get).await.unwrap()
}

/// One way to connect, by the names of keys below `kafka`.
#[derive(Clone)]
struct Way(Vec<(&'static str, String)>);

impl Way {
    fn to(address: &str) -> Self {
        let way = Self(vec![("BOOTSTRAP_SERVERS", address.to_owned()), ("TLS__MODE", "verify_identity".to_owned())]);
        way.with("TLS__CA", Secured::get().authority.file().display())
    }

    #[allow(clippy::needless_pass_by_value, reason = "values are made where it is called")]
    fn with(&self, key: &'static str, value: impl ToString) -> Self {
        let mut keys = self.0.clone();
        keys.retain(|(known, _)| *known != key);
        keys.push((key, value.to_string()));
        Self(keys)
    }

    fn login(&self, mechanism: &str) -> Self {
        self.with("SASL__MECHANISM", mechanism).with("SASL__USERNAME", "relay").with("SASL__PASSWORD", PASSWORD)
    }

    fn command(&self, stage: &Stage, arguments: &[&str]) -> Command {
        let mut command = stage.outboxd(arguments);
        for (key, value) in &self.0 {
            // A key that is emptied is as if it were not set.
            if value.is_empty() {
                command.env_remove(format!("OUTBOXD__KAFKA__{key}"));
            } else {
                command.env(format!("OUTBOXD__KAFKA__{key}"), value);
            }
        }
        command
    }

    fn run(&self, stage: &Stage) -> Daemon {
        Daemon::spawn(&self.command(stage, &["run"]))
    }

    /// An event gets through, and no secret is in the log at any level.
    async fn delivers(&self, stage: &Stage, id: &str) {
        let daemon = Daemon::spawn(self.command(stage, &["run"]).env("OUTBOXD__LOG__LEVEL", "trace"));
        stage
            .sql([format!(
                "INSERT INTO {} (id, aggregatetype, aggregateid, type, payload) VALUES ('{id}', 'a', 'k', 'T', '{{}}')",
                stage.outboxes[0].quoted()
            )])
            .await;
        stage.delivered(id).await;
        daemon.signal("TERM");
        daemon.logs("relay_drained").await;
        let log = daemon.log();
        assert!(
            !log.contains(PASSWORD) && !log.contains(KEY_PASSWORD) && !log.contains(TOKEN),
            "a secret is in the log"
        );
    }

    /// The check of this name fails, and tells this of what was found and of the cure.
    #[track_caller]
    fn is_refused(&self, stage: &Stage, name: &str, found: &str, cure: &str) {
        let output = self.command(stage, &["check", "--format", "json"]).output().unwrap();
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let check = shown["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).cloned();
        let check = check.unwrap_or_else(|| panic!("{shown:#}"));
        let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
        assert!(text("found").contains(found) && text("cure").contains(cure), "{check:#}");
        assert_eq!((output.status.code(), text("status").as_str()), (Some(78), "failed"), "{check:#}");
    }

    /// The configuration is refused, and this is said of this key.
    #[track_caller]
    fn is_wrong(&self, stage: &Stage, key: &str, found: &str) {
        let output = self.command(stage, &["config"]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(64) && text.contains(key) && text.contains(found), "{text}");
        assert!(!text.contains(PASSWORD) && !text.contains(KEY_PASSWORD), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_certificates_and_logins_are_taken_and_what_is_wrong_is_named() {
    let secured = secured().await;
    let stage = secured.stage(Stage::of().shards(1)).await;
    secured.may_write("User:relay", &stage.topic);
    let [tls, mtls, login, _] = secured.addresses();
    let [locked, open] = &secured.own;
    let plain = stage.bootstrap();
    let tls = Way::to(&tls);
    let certificate =
        |own: &Signed| Way::to(&mtls).with("TLS__CERT", own.cert.display()).with("TLS__KEY", own.key.display());
    let with_password = certificate(locked).with("TLS__KEY_PASSWORD", KEY_PASSWORD);
    let login = Way::to(&login);

    // Each in a process of its own, so side by side.
    let other = Authority::new();
    let stranger = other.sign("relay", None);
    let strange = Way::to(&mtls).with("TLS__CERT", stranger.cert.display()).with("TLS__KEY", stranger.key.display());
    let none = |way: &Way| way.with("TLS__MODE", "disabled").with("TLS__CA", "");
    let by_address = tls.0[0].1.replace("localhost", "127.0.0.1");
    let refused = [
        (tls.with("TLS__CA", other.file().display()), "kafka_tls", "certificate", "kafka.tls.ca"),
        (tls.with("BOOTSTRAP_SERVERS", by_address), "kafka_tls", "mismatch", "verify_ca"),
        (tls.with("BOOTSTRAP_SERVERS", &plain), "kafka_tls", "a listener without TLS", "kafka.tls.mode = \"disabled\""),
        (none(&tls), "kafka_tls", "a listener that speaks TLS", "kafka.tls.mode = \"verify_identity\""),
        (Way::to(&mtls), "kafka_tls", "", "kafka.tls.cert"),
        (strange, "kafka_tls", "", "kafka.tls.cert"),
        (login.clone(), "kafka_login", "PLAIN", "kafka.sasl.mechanism = \"scram-sha-512\""),
        (tls.login("plain"), "kafka_login", "wants none", "leave [kafka.sasl] out"),
        (login.login("plain").with("SASL__PASSWORD", "wrong"), "kafka_login", "Invalid", "kafka.sasl.password"),
        (
            login.login("scram-sha-256").with("SASL__PASSWORD", "wrong"),
            "kafka_login",
            "credentials",
            "kafka.sasl.password",
        ),
    ];
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for (way, name, found, cure) in &refused {
                let stage = &stage;
                scope.spawn(move || way.is_refused(stage, name, found, cure));
            }
        });
    });

    let file = secured.authority.folder().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let by_file = login.login("scram-sha-512").with("SASL__PASSWORD", "").with("SASL__PASSWORD_FILE", file.display());
    for (id, way) in [
        ("e-tls", tls.clone()),
        ("e-own", certificate(open)),
        ("e-locked", with_password.clone()),
        ("e-plain", login.login("plain")),
        ("e-scram-256", login.login("scram-sha-256")),
        ("e-scram-512", by_file),
    ] {
        way.delivers(&stage, id).await;
    }

    certificate(locked).is_wrong(&stage, "kafka.tls.key_password", "nothing");
    with_password.with("TLS__KEY", stranger.key.display()).is_wrong(&stage, "kafka.tls.key", "another key");
    login.login("plain").with("SASL__PASSWORD", "").is_wrong(&stage, "kafka.sasl.password", "nothing");
    let twice = login.login("plain").with("PROPERTIES__SASL_PASSWORD", PASSWORD);
    twice.is_wrong(&stage, "kafka.properties.sasl.password", "***");
    let shown = with_password.login("plain").command(&stage, &["config"]).output().unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("***") && !text.contains(PASSWORD) && !text.contains(KEY_PASSWORD), "{text}");
}

/// Of a token in seconds, so short that a test sees it renewed.
const LIFETIME: i64 = 20;

const TOKEN: &str = "eyJhbGciOiJub25lIn0";

/// A token endpoint: gives tokens that no one has signed to whoever knows the secret.
fn token_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap());
        }
    });
    url
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !String::from_utf8_lossy(&request).contains("grant_type=") {
        let mut part = [0; 4096];
        let length = stream.read(&mut part)?;
        if length == 0 {
            return Ok(());
        }
        request.extend(&part[..length]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let knows = openssl::base64::encode_block(format!("relay-client:{PASSWORD}").as_bytes());
    let authorized = request.contains(&format!("Basic {knows}")) && request.contains("scope=kafka");
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({"sub": "service", "iat": now - 1, "exp": now + LIFETIME}).to_string();
    let claims = openssl::base64::encode_block(claims.as_bytes()).replace('+', "-").replace('/', "_").replace('=', "");
    let (status, body) = if authorized {
        (
            "200 OK",
            json!({"access_token": format!("{TOKEN}.{claims}."), "expires_in": LIFETIME, "token_type": "Bearer"}),
        )
    } else {
        ("401 Unauthorized", json!({"error": "invalid_client", "error_description": "unknown secret"}))
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    write!(stream, "{head}connection: close\r\n\r\n{body}")
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_and_renewed_under_load_with_both_guarantees() {
    let secured = secured().await;
    let url = token_endpoint();
    let way = Way::to(&secured.addresses()[3])
        .with("SASL__MECHANISM", "oauthbearer")
        .with("SASL__TOKEN_URL", &url)
        .with("SASL__CLIENT_ID", "relay-client")
        .with("SASL__CLIENT_SECRET", PASSWORD)
        .with("SASL__SCOPE", "kafka");
    for once in [false, true] {
        let setup = Stage::of();
        let stage =
            secured.stage(if once { exactly_once(setup).set("KAFKA__CREATE_TOPICS", "true") } else { setup }).await;
        secured.may_write("User:service", &stage.topic);
        if once {
            let kept = stage.setting("POSITIONS__TOPIC");
            secured.may_keep_positions("User:service", &stage, &kept).await;
        } else {
            let wrong = way.with("SASL__CLIENT_SECRET", "wrong");
            wrong.is_refused(&stage, "kafka_login", "401", "client_secret");
        }
        let writing = stage.write(61).await;
        let daemon = way.run(&stage);
        daemon.ready().await;
        let began = tokio::time::Instant::now();
        writing.more(300).await;
        while !once && began.elapsed().as_secs() < LIFETIME.unsigned_abs() + 4 {
            writing.more(100).await;
        }
        daemon.ready().await;
        let journal = writing.stop().await;
        assert!(!daemon.log().contains(TOKEN) && !daemon.log().contains(PASSWORD));
        let verdict = stage.judge(&journal, daemon).await;
        assert!(!once || verdict.total.duplicates == 0, "{verdict}");
    }
}

/// The reason that a daemon's relays halted for.
#[track_caller]
fn halted(daemon: &Daemon, name: &str, cure: &str) {
    let log = daemon.log();
    let halts: Vec<_> = log.lines().filter(|line| line.contains("relay_halted")).collect();
    let told = halts.iter().any(|line| line.contains(&format!("reason=\"{name}\"")) && line.contains(cure));
    assert!(told, "{halts:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_halts_by_name_and_goes_on_once_it_is() {
    let secured = secured().await;
    let names: Vec<_> = (1..=4).map(|n| TableName::new("delivery", &format!("delivery-outbox{n}"))).collect();
    let setup = Stage::of()
        .tables("delivery.delivery-outbox{1..3}", names)
        .set("OUTBOX__1__TABLES", "delivery.delivery-outbox4")
        .set("OUTBOX__1__START", "earliest");
    let other = format!("forbidden-{}", fastrand::u32(..));
    let stage = secured.stage(setup.set("OUTBOX__1__TOPIC", &other)).await;
    stage.create(&other).await;
    let way = Way::to(&secured.addresses()[2]).login("scram-sha-512").with("SASL__USERNAME", "granted");
    let user = "User:granted";
    let admin = secured.admin();

    // Nothing is granted: no topic is seen.
    way.is_refused(&stage, "topic", "not there", "grant DESCRIBE");
    // It may look, and not write: no producer comes to be.
    for topic in [&stage.topic, &other] {
        admin.allow(user, Resource::Topic(topic), &[Operation::Describe]);
    }
    let writing = stage.write(62).await;
    let mut daemon = way.run(&stage);
    assert_eq!(daemon.ended().await, Some(1), "every table has halted");
    halted(&daemon, "cluster_forbidden", "kafka-acls.sh --add --operation Write");
    // One topic may be written to, the other not: its tables alone halt.
    secured.may_write(user, &stage.topic);
    let daemon = way.run(&stage);
    daemon.logs("relay_halted").await;
    halted(&daemon, "topic_forbidden", "kafka-acls.sh --add --operation Write");
    writing.more(200).await;
    secured.may_write(user, &other);
    let address = daemon.address().unwrap();
    let retried = stage.outboxd(&["retry", "delivery.delivery-outbox4", "--address", &address]).output().unwrap();
    assert!(retried.status.success(), "{retried:?}");
    daemon.ready().await;
    writing.more(200).await;
    let journal = writing.stop().await;
    stage.judge_of(&journal, daemon, &[&stage.topic, &other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_of_exactly_once_are_named_one_by_one() {
    let secured = secured().await;
    let stage = secured.stage(exactly_once(Stage::of().shards(1))).await;
    let (user, admin) = ("User:transactional", secured.admin());
    let positions = stage.setting("POSITIONS__TOPIC");
    let way = Way::to(&secured.addresses()[2]).login("scram-sha-512").with("SASL__USERNAME", "transactional");
    secured.may_write(user, &stage.topic);
    secured.create_positions(&stage, &positions).await;
    let writing = stage.write(63).await;
    admin.allow(user, Resource::Topic(&positions), &[Operation::Describe]);
    let refused = async |cure: &str| {
        let mut daemon = way.run(&stage);
        assert_eq!(daemon.ended().await, Some(1));
        halted(&daemon, "not_claimed", cure);
    };

    refused("--transactional-id").await;
    let ids = stage.setting("DELIVERY__TRANSACTIONAL_ID");
    admin.allow(user, Resource::TransactionalIds(&ids), &[Operation::Write, Operation::Describe]);
    refused("--operation Write").await;
    admin.allow(user, Resource::Topic(&positions), &[Operation::Write]);
    // There is no position to be read before the first one is written.
    let daemon = way.run(&stage);
    daemon.ready().await;
    writing.more(100).await;
    assert_eq!(daemon.terminate().await, Some(0));
    refused("--group outboxd-positions").await;
    admin.allow(user, Resource::Group("outboxd-positions"), &[Operation::Read]);
    refused("--operation Read --operation Write").await;
    admin.allow(user, Resource::Topic(&positions), &[Operation::Read]);
    let daemon = way.run(&stage);
    daemon.ready().await;
    writing.more(100).await;
    let journal = writing.stop().await;
    let verdict = stage.judge(&journal, daemon).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
}

impl Secured {
    async fn create_positions(&self, stage: &Stage, topic: &str) {
        use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
        let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
        stage.kafka_admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
    }

    /// All that positions in Kafka need.
    async fn may_keep_positions(&self, principal: &str, stage: &Stage, topic: &str) {
        self.create_positions(stage, topic).await;
        let admin = self.admin();
        admin.allow(principal, Resource::Topic(topic), &[Operation::Read, Operation::Write, Operation::Describe]);
        admin.allow(principal, Resource::Group("outboxd-positions"), &[Operation::Read]);
        let ids = stage.setting("DELIVERY__TRANSACTIONAL_ID");
        admin.allow(principal, Resource::TransactionalIds(&ids), &[Operation::Write, Operation::Describe]);
    }
}

/// Given relays at load, when their certificate is replaced, then they go on with the new one, and nothing comes twice; one
/// that the brokers do not take is used, too, and replaced again.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_replaced_is_used_without_a_restart() {
    let secured = secured().await;
    let stage = secured.stage(Stage::of().shards(2)).await;
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert", "key"].map(|name| folder.path().join(name));
    let put = |signed: &Signed| {
        for (from, to) in [(&signed.cert, &cert), (&signed.key, &key)] {
            let next = folder.path().join("next");
            std::fs::copy(from, &next).unwrap();
            std::fs::rename(next, to).unwrap();
        }
    };
    put(&secured.own[1]);
    let way = Way::to(&secured.addresses()[1]).with("TLS__CERT", cert.display()).with("TLS__KEY", key.display());
    let daemon = way.run(&stage);
    daemon.ready().await;
    let claims = || daemon.log().matches("table_claimed").count();
    let writing = stage.write(crate::stage::seed()).await;
    writing.more(100).await;
    put(&secured.own[1]);
    until("both relays have started again", async || claims() == 4).await;
    writing.more(100).await;
    put(&Authority::new().sign("relay", None));
    until("they have the stranger's certificate", async || claims() == 6).await;
    daemon.waits_for("no Kafka broker is connected").await;
    put(&secured.own[1]);
    daemon.ready().await;
    let journal = writing.stop().await;
    let verdict = stage.judge(&journal, daemon).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
}
