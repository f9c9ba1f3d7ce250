//! Which Kafka records go to, and which of librdkafka's properties may be changed.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use secrecy::SecretString;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::security::{SaslSettings, TlsSettings};

/// What stands for a secret wherever settings are shown.
const HIDDEN: &str = "***";

/// The cluster records are delivered to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct KafkaSettings {
    /// Brokers to begin with, `host:port`, separated by commas; required.
    pub bootstrap_servers: String,
    /// TLS to the brokers.
    pub tls: TlsSettings,
    /// The login at the brokers.
    pub sasl: SaslSettings,
    /// Passed to librdkafka as they are; see [`refusal`] for those that are not.
    pub properties: Properties,
    /// Whether topics that do not exist are created at start; those of a template are not known by then.
    pub create_topics: bool,
    /// Partitions of a topic that is created.
    pub partitions: i32,
    /// Replicas of a topic that is created.
    pub replication_factor: i16,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            bootstrap_servers: String::new(),
            tls: TlsSettings::default(),
            sasl: SaslSettings::default(),
            properties: Properties::default(),
            create_topics: false,
            partitions: 1,
            replication_factor: 1,
        }
    }
}

#[allow(clippy::ref_option, reason = "serde asks for a reference")]
pub(super) fn hidden<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| HIDDEN).serialize(serializer)
}

/// Properties of librdkafka. Secrets among them are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Every name with its value, secrets too.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One property's value, also of a secret.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().map(|(name, value)| (name, if is_secret(name) { HIDDEN } else { value }))
    }
}

impl FromIterator<(String, String)> for Properties {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

/// Secrets become `***`.
impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.shown() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, Scalar>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(name, Scalar(value))| (name, value)).collect())
    }
}

/// A text, or a number or truth value as text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a boolean")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar(value.to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
        if value.is_finite() {
            Ok(Scalar(value.to_string()))
        } else {
            Err(E::invalid_value(Unexpected::Float(value), &self))
        }
    }
}

/// Whether a property's value must not be shown.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passphrase", "secret", "key.pem", "private.key", "token.value", "oauthbearer.config", "jaas"]
        .iter()
        .any(|part| name.contains(part))
}

/// Why a property may not have this value: it would weaken a promise, or the daemon sets it itself.
pub fn refusal(name: &str, value: &str) -> Option<&'static str> {
    let is = |allowed: &[&str]| allowed.iter().any(|one| value.trim().eq_ignore_ascii_case(one));
    match name.to_ascii_lowercase().as_str() {
        "acks" | "request.required.acks" if !is(&["all", "-1"]) => {
            Some("anything but `all` loses acknowledged records when a broker fails")
        }
        "enable.idempotence" if !is(&["true"]) => Some("without it a retry can repeat or reorder records"),
        "max.in.flight" | "max.in.flight.requests.per.connection"
            if !value.trim().parse::<u32>().is_ok_and(|most| (1..=5).contains(&most)) =>
        {
            Some("idempotence keeps the order of 1 to 5 requests in flight, not of more")
        }
        "retries" | "message.send.max.retries" => Some("records are retried until they are acknowledged"),
        "message.timeout.ms" | "delivery.timeout.ms" => {
            Some("a record that times out would leave a gap; the daemon decides how long to wait")
        }
        "transactional.id" => Some("it is made of `delivery.transactional_id` and the table's name"),
        "transaction.timeout.ms" => Some("it has its own key, `delivery.transaction_timeout`"),
        "isolation.level" => Some("positions are read from committed transactions only"),
        "partitioner" | "partitioner_cb" => {
            Some("the partition comes from the key by murmur2, so that other producers agree")
        }
        "bootstrap.servers" | "metadata.broker.list" => Some("it has its own key, `kafka.bootstrap_servers`"),
        "enable.gapless.guarantee" => Some("the daemon sets it, so that nothing overtakes a refused record"),
        "queuing.strategy" => Some("only first in, first out keeps the order"),
        "delivery.report.only.error" => Some("positions are saved by reports of success"),
        "test.mock.num.brokers" | "test.mock.broker.rtt" => Some("records would go to a broker that does not exist"),
        "opaque" | "interceptors" | "default_topic_conf" | "enabled_events" | "msg_order_cmp" => {
            Some("it is internal to the client")
        }
        name if name.ends_with("_cb") => Some("it is internal to the client"),
        _ => None,
    }
}

/// What librdkafka has against a property, if anything; needs no broker.
pub fn invalid(name: &str, value: &str) -> Option<String> {
    let mut config = ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Err(rdkafka::error::KafkaError::ClientConfig(_, description, ..)) => {
            Some(if is_secret(name) { "librdkafka does not take this value".to_owned() } else { description })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_properties_that_weaken_a_promise_when_asked_then_they_are_refused() {
        for (name, value) in [
            ("acks", "1"),
            ("request.required.acks", "0"),
            ("enable.idempotence", "false"),
            ("max.in.flight", "6"),
            ("max.in.flight.requests.per.connection", "many"),
            ("retries", "3"),
            ("message.send.max.retries", "3"),
            ("message.timeout.ms", "1000"),
            ("delivery.timeout.ms", "1000"),
            ("transactional.id", "x"),
            ("transaction.timeout.ms", "1000"),
            ("isolation.level", "read_uncommitted"),
            ("partitioner", "random"),
            ("Bootstrap.Servers", "h"),
            ("enable.gapless.guarantee", "true"),
            ("queuing.strategy", "lifo"),
            ("delivery.report.only.error", "true"),
            ("dr_msg_cb", "x"),
        ] {
            assert!(refusal(name, value).is_some(), "{name}={value}");
        }
    }

    #[test]
    fn given_harmless_properties_when_asked_then_they_pass() {
        for (name, value) in [
            ("acks", "all"),
            ("acks", "-1"),
            ("enable.idempotence", "true"),
            ("max.in.flight", "5"),
            ("compression.type", "lz4"),
            ("linger.ms", "5"),
            ("sasl.password", "x"),
        ] {
            assert_eq!((refusal(name, value), invalid(name, value)), (None, None), "{name}={value}");
        }
    }

    #[test]
    fn given_what_librdkafka_does_not_know_when_asked_then_it_says_so() {
        assert!(invalid("compression.typo", "lz4").is_some());
        assert!(invalid("compression.type", "lz5").is_some());
    }

    #[test]
    fn given_secret_properties_when_shown_then_they_are_hidden() {
        for name in ["sasl.password", "ssl.key.password", "ssl.keystore.password", "ssl.key.pem"] {
            assert!(is_secret(name), "{name}");
        }
        assert!(is_secret("sasl.oauthbearer.client.secret") && !is_secret("ssl.key.location"));
        let properties: Properties = [("sasl.password".to_owned(), "hunter2".to_owned())].into_iter().collect();
        assert_eq!(format!("{properties:?}"), r#"{"sasl.password": "***"}"#);
        assert_eq!(serde_json::to_string(&properties).unwrap(), r#"{"sasl.password":"***"}"#);
    }
}
