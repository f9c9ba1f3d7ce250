//! How much a relay holds, how often it saves, and how it waits.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::position::{Position, PositionError};

/// What every relay keeps to. Sizes are in memory, per table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelaySettings {
    /// Rows that wait between the log and one table's relay.
    #[serde(with = "crate::size")]
    pub queue_bytes: ByteSize,
    /// Rows that go through the queue as one batch.
    #[serde(with = "crate::size")]
    pub batch_bytes: ByteSize,
    /// A transaction's rows are held until its end is seen, up to this size; a larger one is relayed as it comes.
    #[serde(with = "crate::size")]
    pub transaction_hold_bytes: ByteSize,
    /// Records sent and not acknowledged.
    #[serde(with = "crate::size")]
    pub in_flight_bytes: ByteSize,
    /// How long a full queue may keep the tail from tables that have nothing to do; then the table is detached.
    #[serde(with = "humantime_serde")]
    pub detach_after: Duration,
    /// Detached tables that read the log on their own at the same time.
    pub catch_up_readers: usize,
    /// Tables that are read themselves at the same time.
    pub snapshot_readers: usize,
    /// The keys that such a reader remembers: of rows that the log brings while the table is read.
    #[serde(with = "crate::size")]
    pub snapshot_keys_bytes: ByteSize,
    /// Acknowledged events after which the position is saved before the interval is over; bounds what a crash repeats.
    pub max_unsaved_events: u64,
    /// How often a position is saved while events flow.
    #[serde(with = "humantime_serde")]
    pub checkpoint_interval: Duration,
    /// How often a position is saved while the table is quiet.
    #[serde(with = "humantime_serde")]
    pub idle_checkpoint_interval: Duration,
    /// How long a stopping daemon waits for records in flight.
    #[serde(with = "humantime_serde")]
    pub shutdown_grace: Duration,
    /// What an UPDATE of an outbox row leads to.
    pub on_update: OnUpdate,
    /// The first wait before something failed is tried again.
    #[serde(with = "humantime_serde")]
    pub retry_initial: Duration,
    /// The longest such wait.
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            queue_bytes: ByteSize::mib(2),
            batch_bytes: ByteSize::kib(256),
            transaction_hold_bytes: ByteSize::mib(8),
            in_flight_bytes: ByteSize::mib(2),
            detach_after: Duration::from_millis(200),
            catch_up_readers: 4,
            snapshot_readers: 2,
            snapshot_keys_bytes: ByteSize::mib(128),
            max_unsaved_events: 50_000,
            checkpoint_interval: Duration::from_secs(1),
            idle_checkpoint_interval: Duration::from_mins(1),
            shutdown_grace: Duration::from_secs(25),
            on_update: OnUpdate::Warn,
            retry_initial: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
        }
    }
}

/// What an UPDATE of an outbox row leads to. It is never published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUpdate {
    /// It is counted and warned of.
    #[default]
    Warn,
    /// The table's relay halts.
    Halt,
}

/// What becomes of a table whose position the log no longer reaches back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPurged {
    /// It halts.
    #[default]
    Halt,
    /// It is read itself once more, and then what the log still has; it halts where rows are seen to be gone.
    RecoverFromTable,
}

/// Where a table without a saved position starts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Start {
    /// With the rows that are in the table; then the log, from where they end.
    #[default]
    Snapshot,
    /// At the oldest binlog the server still has.
    Earliest,
    /// At the end of the binlog.
    Now,
    /// At this position.
    At(Box<Position>),
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot => f.write_str("snapshot"),
            Self::Earliest => f.write_str("earliest"),
            Self::Now => f.write_str("now"),
            Self::At(position) => position.fmt(f),
        }
    }
}

impl FromStr for Start {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "snapshot" => Ok(Self::Snapshot),
            "earliest" => Ok(Self::Earliest),
            "now" => Ok(Self::Now),
            text => match text.parse() {
                Ok(position) => Ok(Self::At(Box::new(position))),
                Err(PositionError::Kind(_)) => Err(StartError::Unknown),
                Err(error) => Err(StartError::Position(error)),
            },
        }
    }
}

impl From<Start> for String {
    fn from(start: Start) -> Self {
        start.to_string()
    }
}

impl TryFrom<String> for Start {
    type Error = StartError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A text does not say where to start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// It is none of the words, and no position.
    #[error("expected \"snapshot\", \"earliest\", \"now\", or a position: gtid=SET, domains=LIST or file=NAME:OFFSET")]
    Unknown,
    /// It is a position that is not readable.
    #[error(transparent)]
    Position(PositionError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_any_size_when_written_and_read_then_it_is_the_same() {
        for bytes in [0, 1, 1023, 1024, 16 << 20, (16 << 20) + 1, 3 << 30] {
            let settings = RelaySettings { queue_bytes: ByteSize(bytes), ..RelaySettings::default() };
            let text = serde_json::to_string(&settings).unwrap();
            assert_eq!(serde_json::from_str::<RelaySettings>(&text).unwrap(), settings, "{text}");
        }
        let text = serde_json::to_string(&RelaySettings::default()).unwrap();
        assert!(text.contains(r#""queue_bytes":"2 MiB","batch_bytes":"256 KiB""#), "{text}");
    }

    #[test]
    fn a_start_is_a_word_or_a_position() {
        for text in ["snapshot", "earliest", "now", "domains=0-1-7", "file=b.000001:4"] {
            assert_eq!(text.parse::<Start>().unwrap().to_string(), text);
        }
        assert_eq!("latest".parse::<Start>(), Err(StartError::Unknown));
        assert!(matches!("gtid=1".parse::<Start>(), Err(StartError::Position(_))));
    }

    #[test]
    fn given_numbers_when_read_then_they_are_bytes() {
        let settings: RelaySettings = serde_json::from_str(r#"{"queue_bytes": 4096, "retry_max": "1m"}"#).unwrap();
        assert_eq!((settings.queue_bytes, settings.retry_max), (ByteSize::kib(4), Duration::from_mins(1)));
        assert!(serde_json::from_str::<RelaySettings>(r#"{"queue_bytes": -1}"#).is_err());
    }
}
