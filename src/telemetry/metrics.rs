//! Metrics: what relays and the tail tell of themselves, in Prometheus' text form.

mod trouble;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus::{Encoder, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use self::trouble::Trouble;
use crate::outlet::Reach;
use crate::relay::stats::{State, TableStats, TailStats, now_micros};

/// Every metric of the daemon. Values are read when somebody asks, so relays pay for plain counters only.
pub struct Metrics {
    registry: Registry,
    tables: Vec<Arc<TableStats>>,
    tail: Arc<TailStats>,
    reach: Arc<Reach>,
    events: IntCounterVec,
    bytes: IntCounterVec,
    updates: IntCounterVec,
    misrouted: IntCounterVec,
    save_retries: IntCounterVec,
    in_flight: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    lag: GaugeVec,
    position_age: GaugeVec,
    lost_transactions: IntCounterVec,
    recoveries: IntCounterVec,
    detaches: IntCounterVec,
    detached: GaugeVec,
    until_purge: GaugeVec,
    until_purge_bytes: GaugeVec,
    behind: GaugeVec,
    snapshot_rows: IntGaugeVec,
    snapshot_table_rows: IntGaugeVec,
    cleaned: IntCounterVec,
    kept_rows: IntGaugeVec,
    kept_bytes: IntGaugeVec,
    state: IntGaugeVec,
    connected: IntGauge,
    kafka_connected: IntGauge,
    reconnects: IntCounter,
    trouble: Trouble,
}

impl Metrics {
    /// Metrics of these tables, their tail, and whether Kafka can be reached.
    pub fn new(
        tables: Vec<Arc<TableStats>>,
        tail: Arc<TailStats>,
        reach: Arc<Reach>,
    ) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), &["table"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let real = |name: &str, help: &str| -> Result<GaugeVec, prometheus::Error> {
            let metric = GaugeVec::new(Opts::new(name, help), &["table"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let single = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let reconnects = IntCounter::new("outboxd_tail_reconnects_total", "How often the binlog was opened again")?;
        registry.register(Box::new(reconnects.clone()))?;
        Ok(Self {
            events: counter("outboxd_events_total", "Events acknowledged by Kafka")?,
            bytes: counter("outboxd_published_bytes_total", "Bytes of keys and values handed to Kafka")?,
            updates: counter(
                "outboxd_updates_ignored_total",
                "UPDATE events on the outbox table, which are not relayed",
            )?,
            misrouted: counter(
                "outboxd_misrouted_events_total",
                "Events that the rule of `shard` has in another table; they are relayed",
            )?,
            save_retries: counter(
                "outboxd_position_save_retries_total",
                "Saves of the position that failed and were tried again",
            )?,
            in_flight: gauge("outboxd_in_flight_events", "Events handed to Kafka and not acknowledged", &["table"])?,
            queue_bytes: gauge("outboxd_queue_bytes", "Bytes between the tail and the relay", &["table"])?,
            lag: real(
                "outboxd_lag_seconds",
                "Now minus commit time of the oldest event not acknowledged; 0 when none waits",
            )?,
            position_age: real(
                "outboxd_position_age_seconds",
                "Since the position was saved; 0 before the first save",
            )?,
            lost_transactions: counter(
                "outboxd_source_lost_transactions_total",
                "Transactions within the table's position that the server lost in a failover",
            )?,
            recoveries: counter(
                "outboxd_table_recoveries_total",
                "How often the table was read again because the log had lost what came next",
            )?,
            detaches: counter(
                "outboxd_table_detaches_total",
                "How often the tail let go of the table because its queue stayed full",
            )?,
            detached: real(
                "outboxd_table_detached_seconds",
                "Since the shared tail does not feed the table; 0 while it does",
            )?,
            until_purge: real(
                "outboxd_until_purge_seconds",
                "Until the server may delete what comes after the saved position; +Inf for never",
            )?,
            until_purge_bytes: real(
                "outboxd_until_purge_bytes",
                "Bytes of log until a server that bounds its size does the same; +Inf where it does not",
            )?,
            behind: real(
                "outboxd_position_behind_bytes",
                "Bytes of log behind the saved position, at most: by whole files where it is by GTID",
            )?,
            snapshot_rows: gauge(
                "outboxd_snapshot_rows",
                "Rows that the table's snapshot has dealt with, in the table or deleted meanwhile",
                &["table"],
            )?,
            snapshot_table_rows: gauge(
                "outboxd_snapshot_table_rows",
                "About how many rows the table has while it is read itself; 0 otherwise",
                &["table"],
            )?,
            cleaned: counter("outboxd_cleaned_rows_total", "Rows deleted by cleaning")?,
            kept_rows: gauge("outboxd_table_rows", "About how many rows the table has, after cleaning", &["table"])?,
            kept_bytes: gauge("outboxd_table_bytes", "About how large the table is, after cleaning", &["table"])?,
            state: gauge("outboxd_relay_state", "1 for the state the relay is in", &["table", "state"])?,
            connected: single("outboxd_tail_connected", "1 while the binlog is open")?,
            kafka_connected: single("outboxd_kafka_connected", "1 while a broker is connected")?,
            reconnects,
            trouble: Trouble::new(&registry)?,
            registry,
            tables,
            tail,
            reach,
        })
    }

    /// The tables.
    pub fn tables(&self) -> &[Arc<TableStats>] {
        &self.tables
    }

    /// Whether Kafka can be reached.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The tail.
    pub fn tail(&self) -> &TailStats {
        &self.tail
    }

    /// The text form, as of now.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let now = now_micros();
        for stats in &self.tables {
            let name = stats.table.to_string();
            let labels = [name.as_str()];
            for (metric, value) in [
                (&self.events, &stats.events),
                (&self.bytes, &stats.bytes),
                (&self.updates, &stats.updates),
                (&self.misrouted, &stats.misrouted),
                (&self.save_retries, &stats.save_retries),
                (&self.lost_transactions, &stats.lost_transactions),
                (&self.recoveries, &stats.recoveries),
                (&self.detaches, &stats.detaches),
                (&self.cleaned, &stats.cleaned),
            ] {
                let counter = metric.with_label_values(&labels);
                counter.inc_by(value.load(Relaxed).saturating_sub(counter.get()));
            }
            self.trouble.tell(stats, &name);
            let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            self.in_flight.with_label_values(&labels).set(signed(stats.in_flight.load(Relaxed)));
            self.queue_bytes.with_label_values(&labels).set(signed(stats.queue_bytes.load(Relaxed)));
            self.snapshot_rows.with_label_values(&labels).set(signed(stats.snapshot_rows.load(Relaxed)));
            self.snapshot_table_rows.with_label_values(&labels).set(signed(stats.snapshot_total.load(Relaxed)));
            if let Some(kept) = stats.kept() {
                self.kept_rows.with_label_values(&labels).set(signed(kept.rows));
                self.kept_bytes.with_label_values(&labels).set(signed(kept.bytes));
            }
            self.detached.with_label_values(&labels).set(stats.detached_seconds(now));
            self.lag.with_label_values(&labels).set(stats.lag_seconds(now));
            let saved = stats.saved_micros.load(Relaxed);
            #[allow(clippy::cast_precision_loss, reason = "an age of 285 years is exact enough")]
            let age = if saved == 0 { 0.0 } else { now.saturating_sub(saved) as f64 / 1e6 };
            self.position_age.with_label_values(&labels).set(age);
            if let Some(margin) = stats.margin() {
                #[allow(clippy::cast_precision_loss, reason = "for people and alerts")]
                let value = |known: Option<u64>| known.map_or(f64::INFINITY, |known| known as f64);
                self.until_purge.with_label_values(&labels).set(value(margin.seconds));
                self.until_purge_bytes.with_label_values(&labels).set(value(margin.bytes));
                if margin.behind.is_some() {
                    self.behind.with_label_values(&labels).set(value(margin.behind));
                }
            }
            for state in State::ALL {
                self.state.with_label_values(&[name.as_str(), state.name()]).set(i64::from(stats.state() == state));
            }
        }
        self.connected.set(i64::from(self.tail.connected.load(Relaxed)));
        self.kafka_connected.set(i64::from(self.reach.is_connected()));
        self.reconnects.inc_by(self.tail.reconnects.load(Relaxed).saturating_sub(self.reconnects.get()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
