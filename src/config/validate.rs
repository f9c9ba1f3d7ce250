//! What types cannot say: required keys, patterns, and values that do not go together.

mod outboxes;

use std::fmt::Display;
use std::time::Duration;

use super::Config;
use super::error::ErrorKind;
use crate::admin::settings::read_token;
use crate::kafka::delivery::{DeliverySettings, Guarantee};
use crate::kafka::security::{self, SecurityError};
use crate::kafka::settings::{KafkaSettings, invalid, is_secret, refusal};
use crate::mysql::cleanup::settings::CleanupSettings;
use crate::mysql::settings::{Keeper, MysqlSettings, PositionsSettings, ServerUrl, address};
use crate::outbox::TopicTemplate;
use crate::relay::settings::RelaySettings;
use crate::telemetry::logging;

/// A problem at a path; its source is found by the path.
pub(super) struct Problem {
    pub(super) kind: ErrorKind,
    pub(super) path: Vec<String>,
    pub(super) expected: String,
    pub(super) found: String,
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, kind: ErrorKind, path: &[&str], expected: impl Display, found: impl Display) {
        let path = path.iter().map(ToString::to_string).collect();
        self.0.push(Problem { kind, path, expected: expected.to_string(), found: found.to_string() });
    }

    fn missing(&mut self, path: &[&str], expected: &str) {
        let variable = path.join("__").to_uppercase();
        let expected = format!("{expected}, in the file or as {}{variable}", super::env::PREFIX);
        self.add(ErrorKind::Missing, path, expected, "nothing");
    }

    fn invalid(&mut self, path: &[&str], expected: impl Display, found: impl Display) {
        self.add(ErrorKind::Invalid, path, expected, found);
    }

    /// Adds a problem unless something holds.
    fn hold(&mut self, holds: bool, path: &[&str], expected: impl Display, found: impl Display) {
        if !holds {
            self.invalid(path, expected, found);
        }
    }
}

/// Everything that is wrong with a configuration whose types are right.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Problems::default();
    mysql(&config.mysql, &mut problems);
    positions(&config.positions, &mut problems);
    kafka(&config.kafka, &mut problems);
    delivery(config, &mut problems);
    relay(&config.relay, &mut problems);
    outboxes::outboxes(&config.outbox, &mut problems);
    cleanup(config, &mut problems);
    if let Some(path) = &config.admin.token_file
        && let Err(error) = read_token(path)
    {
        let found = format!("{} ({error})", path.display());
        problems.invalid(&["admin", "token_file"], "a file with a token, for its owner's and group's eyes only", found);
    }
    if let Err(error) = config.admin.tls.acceptor() {
        problems.invalid(&["admin", "tls", error.key], error.expected, error.found);
    }
    let level = &config.log.level;
    if let Err(error) = logging::filter(level) {
        problems.invalid(&["log", "level"], format!("a level or directives ({error})"), format!("{level:?}"));
    }
    if let Some(endpoint) = &config.otel.endpoint {
        let is_url = ["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme));
        let has_login = endpoint
            .split_once("://")
            .is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')));
        let expected = "a URL such as http://collector:4318, without user and password, which would be shown";
        let found = if has_login { "one with a login" } else { endpoint.as_str() };
        problems.hold(is_url && !has_login, &["otel", "endpoint"], expected, found);
        let expected = "nothing: this outboxd was built without the feature otel";
        problems.hold(cfg!(feature = "otel"), &["otel", "endpoint"], expected, found);
    }
    problems.0
}

fn url(url: &ServerUrl, path: &[&str], problems: &mut Problems) {
    if let Err(error) = url.options() {
        problems.invalid(path, "a URL such as mysql://user@host:3306", format!("{url} ({error})"));
    }
}

fn mysql(settings: &MysqlSettings, problems: &mut Problems) {
    if settings.url.is_empty() {
        problems.missing(&["mysql", "url"], "a URL such as mysql://user@host:3306");
    } else {
        url(&settings.url, &["mysql", "url"], problems);
    }
    for (entry, text) in settings.addresses.iter().enumerate() {
        let path = ["mysql", "addresses", &entry.to_string()];
        problems.hold(address(text, 3306).is_some(), &path, "a server such as host:3306", format!("{text:?}"));
    }
    if let Err(error) = settings.login().password() {
        problems.invalid(&["mysql", "password_file"], "a file with the password", error);
    }
    if let Err(error) = settings.tls.options() {
        problems.invalid(&["mysql", "tls", error.key], error.expected, error.found);
    }
    problems.hold(settings.server_id != Some(0), &["mysql", "server_id"], "an id from 1 up", 0);
    let MysqlSettings { connect_timeout, heartbeat, silence_deadline, .. } = *settings;
    for (key, value) in [("connect_timeout", connect_timeout), ("heartbeat", heartbeat)] {
        problems.hold(!value.is_zero(), &["mysql", key], "a duration longer than 0s", "0s");
    }
    problems.hold(
        silence_deadline > heartbeat,
        &["mysql", "silence_deadline"],
        format!("a duration longer than mysql.heartbeat ({})", humantime::format_duration(heartbeat)),
        humantime::format_duration(silence_deadline),
    );
}

fn positions(settings: &PositionsSettings, problems: &mut Problems) {
    if let Some(positions) = &settings.url {
        url(positions, &["positions", "url"], problems);
    }
    if let Some(login) = settings.login() {
        if let Err(error) = login.password() {
            problems.invalid(&["positions", "password_file"], "a file with the password", error);
        }
    } else {
        let expected = "nothing without positions.url: the server of [mysql] has its own";
        problems.hold(settings.password.is_none(), &["positions", "password"], expected, "a password");
        let found = settings.password_file.as_deref().map_or_else(String::new, |path| path.display().to_string());
        problems.hold(settings.password_file.is_none(), &["positions", "password_file"], expected, found);
    }
    let topic = &settings.topic;
    let fixed = TopicTemplate::parse(topic).is_ok_and(|template| template.fixed().is_some());
    problems.hold(fixed, &["positions", "topic"], "the name of a topic", format!("{topic:?}"));
    for (key, name) in [("schema", &settings.schema), ("table", &settings.table)] {
        let fits = (1..=64).contains(&name.chars().count());
        problems.hold(fits, &["positions", key], "a name of 1 to 64 characters", format!("{name:?}"));
    }
}

fn kafka(settings: &KafkaSettings, problems: &mut Problems) {
    let servers = &settings.bootstrap_servers;
    if servers.is_empty() {
        problems.missing(&["kafka", "bootstrap_servers"], "brokers such as host:9092,other:9092");
    } else if servers.split(',').any(|server| {
        let server = server.trim();
        let port = server.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        server.is_empty() || server.starts_with(':') || port.is_some_and(|port| port.parse::<u16>().is_err())
    }) {
        let expected = "brokers such as host:9092,other:9092";
        problems.invalid(&["kafka", "bootstrap_servers"], expected, format!("{servers:?}"));
    }
    for (name, value) in settings.properties.iter() {
        let path = ["kafka", "properties", name];
        let found = if is_secret(name) { "***".to_owned() } else { format!("{value:?}") };
        if let Some(reason) = refusal(name, value).or_else(|| security::taken(settings, name)) {
            let expected = format!("`{name}` to be left alone, because {reason}");
            problems.add(ErrorKind::Refused, &path, expected, found);
        } else if let Some(reason) = invalid(name, value) {
            problems.invalid(&path, format!("what librdkafka takes ({reason})"), found);
        }
    }
    if let Err(SecurityError { section, key, expected, found }) = security::properties(settings) {
        problems.invalid(&["kafka", section, key], expected, found);
    }
    let KafkaSettings { partitions, replication_factor, .. } = *settings;
    problems.hold(partitions >= 1, &["kafka", "partitions"], "at least 1", partitions);
    problems.hold(replication_factor >= 1, &["kafka", "replication_factor"], "at least 1", replication_factor);
}

fn delivery(config: &Config, problems: &mut Problems) {
    let DeliverySettings { guarantee, commit_interval, commit_events, transactional_id, transaction_timeout, .. } =
        &config.delivery;
    if let Err((key, found)) = config.delivery.aside() {
        problems.invalid(&["delivery", key], "the name of a topic, in which {topic} may be", format!("{found:?}"));
    }
    if *guarantee == Guarantee::ExactlyOnce && config.positions.store == Some(Keeper::Mysql) {
        let expected = "\"kafka\", for delivery.guarantee = \"exactly_once\" commits records and positions together";
        problems.invalid(&["positions", "store"], expected, "\"mysql\"");
    }
    problems.hold(!commit_interval.is_zero(), &["delivery", "commit_interval"], "a duration longer than 0s", "0s");
    problems.hold(*commit_events > 0, &["delivery", "commit_events"], "at least 1", 0);
    let named = !transactional_id.is_empty();
    problems.hold(named, &["delivery", "transactional_id"], "the beginning of an id", "\"\"");
    let least = (*commit_interval * 2).max(Duration::from_secs(1));
    let most = Duration::from_millis(i32::MAX.unsigned_abs().into());
    problems.hold(
        (least..=most).contains(transaction_timeout),
        &["delivery", "transaction_timeout"],
        format!("at least 1s and twice delivery.commit_interval ({})", humantime::format_duration(*commit_interval)),
        humantime::format_duration(*transaction_timeout),
    );
}

fn cleanup(config: &Config, problems: &mut Problems) {
    let CleanupSettings { keep, interval, .. } = config.cleanup;
    problems.hold(!interval.is_zero(), &["cleanup", "interval"], "a duration longer than 0s", "0s");
    let Some(keep) = keep else { return };
    problems.hold(!keep.is_zero(), &["cleanup", "keep"], "a duration longer than 0s", "0s");
    for (index, block) in config.outbox.iter().enumerate() {
        if block.columns.timestamp.is_none() {
            let path = ["outbox", &index.to_string(), "columns", "timestamp"];
            problems.missing(&path, "the column with a row's time, by which cleanup.keep tells its age");
        }
    }
}

fn relay(settings: &RelaySettings, problems: &mut Problems) {
    let RelaySettings { queue_bytes, batch_bytes, in_flight_bytes, retry_initial, retry_max, .. } = *settings;
    problems.hold(batch_bytes.as_u64() > 0, &["relay", "batch_bytes"], "more than 0 bytes", batch_bytes);
    for (key, size) in [("queue_bytes", queue_bytes), ("in_flight_bytes", in_flight_bytes)] {
        let expected = format!("at least relay.batch_bytes ({batch_bytes})");
        problems.hold(size >= batch_bytes && size.as_u64() > 0, &["relay", key], expected, size);
    }
    problems.hold(settings.catch_up_readers > 0, &["relay", "catch_up_readers"], "at least 1", 0);
    problems.hold(settings.snapshot_readers > 0, &["relay", "snapshot_readers"], "at least 1", 0);
    problems.hold(settings.max_unsaved_events > 0, &["relay", "max_unsaved_events"], "at least 1", 0);
    for (key, value) in [
        ("checkpoint_interval", settings.checkpoint_interval),
        ("idle_checkpoint_interval", settings.idle_checkpoint_interval),
        ("retry_initial", retry_initial),
    ] {
        problems.hold(!value.is_zero(), &["relay", key], "a duration longer than 0s", "0s");
    }
    let expected = format!("at least relay.retry_initial ({})", humantime::format_duration(retry_initial));
    let found = humantime::format_duration(retry_max);
    problems.hold(retry_max >= retry_initial, &["relay", "retry_max"], expected, found);
}
