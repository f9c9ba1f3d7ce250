//! The metrics of the process: its reader of the log, its clients of Kafka, its memory.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::family::{Family, Of, real};
use crate::outlet::{Reach, Word};
use crate::relay::stats::{TableStats, TailStats};
use crate::source::connects;

/// What tells of the process.
pub(super) struct Process {
    pub(super) tables: Vec<Arc<TableStats>>,
    pub(super) tail: Arc<TailStats>,
    pub(super) reach: Arc<Reach>,
}

impl Process {
    fn sum(&self, of: impl Fn(&TableStats) -> u64) -> u64 {
        self.tables.iter().map(|stats| of(stats)).sum()
    }

    /// Bytes of rows whose transactions have not ended yet, at the shared reader and at those of single tables.
    fn held_bytes(&self) -> u64 {
        self.tail.held_bytes.load(Relaxed) + self.sum(|stats| stats.reader.held_bytes.load(Relaxed))
    }
}

/// The help is also for docs/metrics.md.
pub(super) const PROCESS: &[Family<Process>] = &[
    Family {
        name: "outboxd_build_info",
        help: "1; which version this is",
        of: Of::LevelBy("version", |_| vec![(env!("CARGO_PKG_VERSION"), 1)]),
    },
    Family {
        name: "outboxd_tail_connected",
        help: "1 while the binlog is open",
        of: Of::Level(|process| process.tail.connected.load(Relaxed).into()),
    },
    Family {
        name: "outboxd_tail_idle",
        help: "1 while there is no table to read the binlog for: all are paused, have halted, or are read on their own; it is not open then",
        of: Of::Level(|process| process.tail.idle.load(Relaxed).into()),
    },
    Family {
        name: "outboxd_tail_silence_seconds",
        help: "Since anything was heard of the server while it is waited for: a quiet one shows every mysql.heartbeat that it is there",
        of: Of::Seconds(|process, now| process.tail.silence_seconds(now)),
    },
    Family {
        name: "outboxd_tail_lag_seconds",
        help: "How long after its commit the transaction was read that was read last; 0 when there was none in the last second",
        of: Of::Seconds(|process, _| process.tail.late_seconds()),
    },
    Family {
        name: "outboxd_tail_log_file",
        help: "The number in the name of the binlog file that is read",
        of: Of::Known(|process| Some(real(process.tail.place()?.file))),
    },
    Family {
        name: "outboxd_tail_log_offset_bytes",
        help: "How far that file is read",
        of: Of::Known(|process| Some(real(process.tail.place()?.offset))),
    },
    Family {
        name: "outboxd_tail_reconnects_total",
        help: "How often the binlog had to be opened again, by cause: unreachable, connection, silence, server (another is to be read from), definition (of a table)",
        of: Of::CountBy("cause", |process| {
            process.tail.reconnects().into_iter().map(|(parting, count)| (parting.name(), count)).collect()
        }),
    },
    Family {
        name: "outboxd_mysql_connects_total",
        help: "Connections to servers of logs and positions by outcome, opened or failed",
        of: Of::CountBy("outcome", |_| connects::counted().to_vec()),
    },
    Family {
        name: "outboxd_kafka_connected",
        help: "1 while a broker is connected",
        of: Of::Level(|process| process.reach.is_connected().into()),
    },
    Family {
        name: "outboxd_kafka_connections",
        help: "Connections to brokers that are up, of the producers of all tables",
        of: Of::Level(|process| process.reach.all().connections),
    },
    Family {
        name: "outboxd_kafka_disconnects_total",
        help: "Connections to brokers that ended",
        of: Of::Count(|process| process.reach.all().disconnects),
    },
    Family {
        name: "outboxd_kafka_queue_records",
        help: "Records that the producers hold, sent or not",
        of: Of::Level(|process| process.reach.all().queued_records),
    },
    Family {
        name: "outboxd_kafka_request_retries_total",
        help: "Requests to brokers that were sent again",
        of: Of::Count(|process| process.reach.all().retries),
    },
    Family {
        name: "outboxd_kafka_request_errors_total",
        help: "Requests to brokers that could not be sent, or answers that could not be read",
        of: Of::Count(|process| process.reach.all().errors),
    },
    Family {
        name: "outboxd_kafka_request_timeouts_total",
        help: "Requests to brokers that were not answered in time",
        of: Of::Count(|process| process.reach.all().timeouts),
    },
    Family {
        name: "outboxd_kafka_request_mean_seconds",
        help: "How long brokers took to answer, on average of the last seconds in which there was an answer",
        of: Of::Known(|process| {
            let Word { answers, answers_took, .. } = process.reach.all();
            (answers > 0).then(|| answers_took.as_secs_f64() / real(answers))
        }),
    },
    Family {
        name: "outboxd_kafka_request_p99_seconds",
        help: "How long the slowest one in a hundred took, at the slowest broker",
        of: Of::Known(|process| {
            Some(process.reach.all()).filter(|all| all.answers > 0).map(|all| all.slow_answer.as_secs_f64())
        }),
    },
    Family {
        name: "outboxd_memory_bytes",
        help: "Memory by pool, over all tables and readers: queue (rows for the relays), transaction (rows whose transaction has not ended), in_flight (records not acknowledged), client (the part of these that librdkafka holds: keys and values)",
        of: Of::LevelBy("pool", |process| {
            vec![
                ("queue", process.sum(|stats| stats.queue.bytes())),
                ("transaction", process.held_bytes()),
                ("in_flight", process.sum(|stats| stats.in_flight_bytes.load(Relaxed))),
                ("client", process.reach.all().queued_bytes),
            ]
        }),
    },
];
