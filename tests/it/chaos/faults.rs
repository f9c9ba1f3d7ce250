//! What can go wrong, drawn at random.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// Whom a fault concerns; two at once concern different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Relay,
    Mysql,
    Kafka,
    Store,
}

/// A network to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Mysql,
    Kafka,
}

/// What another configuration has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Less may be published before it is saved.
    Limits,
    /// Another header, for which every relay starts again.
    Header,
    /// One table fewer.
    Table,
}

/// One fault. It lasts for as long as the timeline says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL, and a new one afterwards.
    RelayKilled,
    /// SIGTERM, and a new one.
    RelayRestarted,
    /// SIGSTOP and SIGCONT.
    RelayFrozen,
    /// Frozen, while another takes over; then it wakes up.
    RelayReplaced,
    /// Another is started for the same tables.
    SecondRelay,
    /// The daemon's wall clock is off by so many seconds, and then right again.
    ClockJump(i64),
    /// It takes over a changed configuration, and then the former one again.
    Reloaded(Change),
    /// SIGKILL.
    MysqlKilled,
    /// SIGSTOP and SIGCONT.
    MysqlFrozen,
    /// SIGKILL.
    KafkaKilled,
    /// SIGSTOP and SIGCONT.
    KafkaFrozen,
    /// Connections break at both ends.
    Cut(Line),
    /// Nothing gets through, and nobody is told.
    HalfOpen(Line),
    /// Everything is so many milliseconds late.
    Slow(Line, u32),
    /// Connections carry no more bytes a second.
    Throttled(Line, u32),
    /// Some of the records on their way to Kafka arrive damaged, over a network that is so many milliseconds late.
    Damaged(u32),
    /// The server ends the daemon's connections.
    ConnectionsKilled,
    /// The server's log goes on in a new file.
    LogRotated,
    /// The table of positions is locked.
    StoreLocked,
    /// The table of positions is full, by the error of a server whose disk is.
    StoreFull,
}

impl Fault {
    /// Draws one; with exactly once, positions are in Kafka, and an owner can be replaced without a word.
    pub(super) fn draw(rng: &mut Rng, exactly_once: bool) -> Self {
        let line = if rng.bool() { Line::Mysql } else { Line::Kafka };
        loop {
            let fault = match rng.u32(0..25) {
                0..4 => Self::RelayKilled,
                4 => Self::RelayRestarted,
                5 => Self::RelayFrozen,
                6 => Self::RelayReplaced,
                7 => Self::SecondRelay,
                8 => Self::ClockJump(rng.i64(-20..20)),
                9 | 10 => Self::MysqlKilled,
                11 => Self::MysqlFrozen,
                12 | 13 => Self::KafkaKilled,
                14 => Self::KafkaFrozen,
                15 => Self::Cut(line),
                16 => Self::HalfOpen(line),
                17 => Self::Slow(line, rng.u32(5..200)),
                18 => Self::Throttled(line, rng.u32(20_000..200_000)),
                19 => Self::ConnectionsKilled,
                20 => Self::LogRotated,
                21 => Self::Reloaded(Change::Table),
                22 => Self::Reloaded(if rng.bool() { Change::Limits } else { Change::Header }),
                23 => Self::Damaged(rng.u32(20..200)),
                _ if rng.bool() => Self::StoreLocked,
                _ => Self::StoreFull,
            };
            let fits = match fault {
                Self::RelayReplaced => exactly_once,
                Self::StoreLocked | Self::StoreFull => !exactly_once,
                _ => true,
            };
            if fits {
                return fault;
            }
        }
    }

    pub(super) fn target(self) -> Target {
        match self {
            Self::RelayKilled
            | Self::RelayRestarted
            | Self::RelayFrozen
            | Self::RelayReplaced
            | Self::SecondRelay
            | Self::ClockJump(_)
            | Self::Reloaded(_) => Target::Relay,
            Self::KafkaKilled | Self::KafkaFrozen | Self::Damaged(_) => Target::Kafka,
            Self::Cut(line) | Self::HalfOpen(line) | Self::Slow(line, _) | Self::Throttled(line, _) => match line {
                Line::Mysql => Target::Mysql,
                Line::Kafka => Target::Kafka,
            },
            Self::MysqlKilled | Self::MysqlFrozen | Self::ConnectionsKilled | Self::LogRotated => Target::Mysql,
            Self::StoreLocked | Self::StoreFull => Target::Store,
        }
    }

    /// Whether the two can be at once. The table of positions is in MySQL.
    pub(super) fn goes_with(self, other: Self) -> bool {
        let (one, other) = (self.target(), other.target());
        let same_server = |a, b| a == Target::Mysql && b == Target::Store;
        one != other && !same_server(one, other) && !same_server(other, one)
    }

    /// Whether it ends only with both servers there: so long an heir is not ready, and a configuration not taken over.
    pub(super) fn ends_with_servers(self) -> bool {
        matches!(self, Self::RelayReplaced | Self::Reloaded(_))
    }

    /// How long it lasts.
    pub(super) fn duration(self, rng: &mut Rng) -> Duration {
        let millis = match self {
            // Longer than the longest wait for a full queue, now and then.
            Self::KafkaFrozen | Self::HalfOpen(_) if rng.u32(0..3) == 0 => rng.u64(8_000..14_000),
            Self::RelayFrozen | Self::RelayReplaced | Self::SecondRelay => rng.u64(1_000..8_000),
            Self::Cut(_) | Self::ConnectionsKilled | Self::LogRotated => 0,
            _ => rng.u64(0..4_000),
        };
        Duration::from_millis(millis)
    }

    /// Its kind, for the summary.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::RelayKilled => "kill -9 of the relay",
            Self::RelayRestarted => "relay restarted",
            Self::RelayFrozen => "relay frozen",
            Self::RelayReplaced => "relay frozen and replaced, wakes up as a zombie",
            Self::SecondRelay => "second relay for the same tables",
            Self::ClockJump(_) => "clock of the relay jumps, up to 20 s",
            Self::Reloaded(_) => "configuration reloaded, and back",
            Self::MysqlKilled => "kill -9 of MySQL or MariaDB",
            Self::MysqlFrozen => "MySQL or MariaDB frozen",
            Self::KafkaKilled => "kill -9 of the Kafka broker",
            Self::KafkaFrozen => "Kafka broker frozen",
            Self::Cut(_) => "connections cut",
            Self::HalfOpen(_) => "connections half-open",
            Self::Slow(..) => "network delayed",
            Self::Throttled(..) => "network throttled",
            Self::Damaged(_) => "records damaged on their way, network delayed",
            Self::ConnectionsKilled => "connections killed by the server",
            Self::LogRotated => "binlog rotated",
            Self::StoreLocked => "position table locked",
            Self::StoreFull => "position table full",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
