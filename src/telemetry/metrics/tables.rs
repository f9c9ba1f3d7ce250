//! The metrics of each table.

use std::sync::atomic::Ordering::Relaxed;

use super::family::{Family, Of, real};
use crate::relay::stats::{RETRIES, State, TableStats};

/// The help is also for docs/metrics.md.
pub(super) const TABLES: &[Family<TableStats>] = &[
    Family {
        name: "outboxd_events_total",
        help: "Events acknowledged by Kafka",
        of: Of::Count(|stats| stats.events.load(Relaxed)),
    },
    Family {
        name: "outboxd_published_bytes_total",
        help: "Bytes of keys and values handed to Kafka",
        of: Of::Count(|stats| stats.bytes.load(Relaxed)),
    },
    Family {
        name: "outboxd_delivery_seconds",
        help: "From the commit of an event to its acknowledgement, with all of its batch; rows of a snapshot and what is replayed do not count",
        of: Of::Times(|stats| &stats.delivery),
    },
    Family {
        name: "outboxd_lag_seconds",
        help: "Age of the oldest event that is read and not acknowledged: now minus its commit time; where none waits 0, or how late the table is read while it is apart from the others",
        of: Of::Seconds(TableStats::lag_seconds),
    },
    Family {
        name: "outboxd_relay_state",
        help: "1 for the state that the relay is in, 0 for the others",
        of: Of::LevelBy("state", |stats| {
            let now = stats.state();
            State::ALL.map(|state| (state.name(), u64::from(state == now))).to_vec()
        }),
    },
    Family {
        name: "outboxd_halts_total",
        help: "Halts by reason, which is the name of the halt",
        of: Of::CountBy("reason", |stats| stats.halts().into_iter().collect()),
    },
    Family {
        name: "outboxd_retries_total",
        help: "Fresh starts of the relay from its durable position, by what failed",
        of: Of::CountBy("class", |stats| RETRIES.into_iter().zip(stats.retries()).collect()),
    },
    Family {
        name: "outboxd_in_flight_events",
        help: "Events handed to Kafka and not acknowledged",
        of: Of::Level(|stats| stats.in_flight.load(Relaxed)),
    },
    Family {
        name: "outboxd_in_flight_bytes",
        help: "Memory that these take, which relay.in_flight_bytes bounds",
        of: Of::Level(|stats| stats.in_flight_bytes.load(Relaxed)),
    },
    Family {
        name: "outboxd_queue_bytes",
        help: "Memory of rows between the reader and the relay, which relay.queue_bytes bounds",
        of: Of::Level(|stats| stats.queue.bytes()),
    },
    Family {
        name: "outboxd_position_age_seconds",
        help: "Since the position was saved, or, before this process has saved it, since it was read from the store",
        of: Of::Seconds(TableStats::position_age_seconds),
    },
    Family {
        name: "outboxd_position_behind_bytes",
        help: "Bytes of log behind the saved position, at most: by whole files where it is by GTID",
        of: Of::Known(|stats| stats.margin()?.behind.map(real)),
    },
    Family {
        name: "outboxd_until_purge_seconds",
        help: "Until the server may delete what comes after the saved position; +Inf for never",
        of: Of::Known(|stats| Some(stats.margin()?.seconds.map_or(f64::INFINITY, real))),
    },
    Family {
        name: "outboxd_until_purge_bytes",
        help: "Bytes of log until a server that bounds its size (max_binlog_total_size of MariaDB) does the same; +Inf where it does not",
        of: Of::Known(|stats| Some(stats.margin()?.bytes.map_or(f64::INFINITY, real))),
    },
    Family {
        name: "outboxd_checkpoint_seconds",
        help: "How long saves of the position took; with exactly-once delivery, commits of Kafka transactions",
        of: Of::Times(|stats| &stats.checkpoints),
    },
    Family {
        name: "outboxd_position_save_retries_total",
        help: "Saves of the position that failed and were tried again",
        of: Of::Count(|stats| stats.save_retries.load(Relaxed)),
    },
    Family {
        name: "outboxd_kafka_transactions_total",
        help: "Exactly-once delivery: Kafka transactions by outcome, committed or aborted; what is aborted is published again",
        of: Of::CountBy("outcome", |stats| {
            vec![("committed", stats.transactions.load(Relaxed)), ("aborted", stats.aborts.load(Relaxed))]
        }),
    },
    Family {
        name: "outboxd_table_detached_seconds",
        help: "Since the shared reader does not feed the table; 0 while it does",
        of: Of::Seconds(TableStats::detached_seconds),
    },
    Family {
        name: "outboxd_table_detaches_total",
        help: "How often the shared reader let go of the table because its queue stayed full",
        of: Of::Count(|stats| stats.detaches.load(Relaxed)),
    },
    Family {
        name: "outboxd_parked_aggregates",
        help: "Aggregates that are parked now",
        of: Of::Level(|stats| stats.parked().len() as u64),
    },
    Family {
        name: "outboxd_parked_events",
        help: "Events of these that are parked now",
        of: Of::Level(|stats| stats.parked().events()),
    },
    Family {
        name: "outboxd_parked_events_total",
        help: "Events that were parked",
        of: Of::Count(|stats| stats.parked_total.load(Relaxed)),
    },
    Family {
        name: "outboxd_dead_letters_total",
        help: "Events that were set aside alone (delivery.on_poison = \"dead_letter\"); each is a hole in the order of its aggregate",
        of: Of::Count(|stats| stats.dead_letters.load(Relaxed)),
    },
    Family {
        name: "outboxd_misrouted_events_total",
        help: "Events that the rule of outbox.shard has in another table; they are relayed, and their order with the other events of the aggregate is not certain",
        of: Of::Count(|stats| stats.misrouted.load(Relaxed)),
    },
    Family {
        name: "outboxd_updates_ignored_total",
        help: "UPDATEs seen on the outbox table, which are not relayed",
        of: Of::Count(|stats| stats.updates.load(Relaxed)),
    },
    Family {
        name: "outboxd_source_lost_transactions_total",
        help: "Transactions within the position of the table that the server lost in a failover; which ones stands in the log",
        of: Of::Count(|stats| stats.lost_transactions.load(Relaxed)),
    },
    Family {
        name: "outboxd_table_recoveries_total",
        help: "How often the table was read again because the log had lost what came next",
        of: Of::Count(|stats| stats.recoveries.load(Relaxed)),
    },
    Family {
        name: "outboxd_snapshot_rows",
        help: "Rows that the snapshot of the table has dealt with, in the table or deleted meanwhile, also before this process",
        of: Of::Level(|stats| stats.snapshot_rows.load(Relaxed)),
    },
    Family {
        name: "outboxd_snapshot_table_rows",
        help: "About how many rows the table has, while it is read itself; 0 otherwise",
        of: Of::Level(|stats| stats.snapshot_total.load(Relaxed)),
    },
    Family {
        name: "outboxd_cleaned_rows_total",
        help: "Rows deleted by cleaning",
        of: Of::Count(|stats| stats.cleaned.load(Relaxed)),
    },
    Family {
        name: "outboxd_table_rows",
        help: "About how many rows the table has, by the estimate of the server; asked after each cleaning, and only with cleanup.keep",
        of: Of::Known(|stats| Some(real(stats.kept()?.rows))),
    },
    Family {
        name: "outboxd_table_bytes",
        help: "About how many bytes of data and indexes the table has; asked likewise",
        of: Of::Known(|stats| Some(real(stats.kept()?.bytes))),
    },
];
