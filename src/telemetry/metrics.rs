//! Metrics: what relays and the tail tell of themselves, in Prometheus' text form.
//!
//! Promise: values are read when somebody asks, so relays pay for plain counters only; what is counted stays with whoever
//! counts it, so nothing begins anew with another [`Metrics`]. Each metric stands in one list (`tables`, `process`), from
//! which docs/metrics.md is written.

mod family;
mod page;
mod process;
mod tables;

use std::sync::Arc;

#[cfg(target_os = "linux")]
use prometheus::core::Collector;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, TextEncoder};

pub use self::page::markdown;

use self::process::{PROCESS, Process};
use self::tables::TABLES;
use crate::outlet::Reach;
use crate::relay::stats::{TableStats, TailStats, now_micros};

/// Every metric of the daemon.
pub struct Metrics {
    process: Process,
    #[cfg(target_os = "linux")]
    system: ProcessCollector,
}

impl Metrics {
    /// Metrics of these tables, their tail, and whether Kafka can be reached.
    pub fn new(tables: Vec<Arc<TableStats>>, tail: Arc<TailStats>, reach: Arc<Reach>) -> Self {
        Self {
            process: Process { tables, tail, reach },
            #[cfg(target_os = "linux")]
            system: ProcessCollector::for_self(),
        }
    }

    /// The tables.
    pub fn tables(&self) -> &[Arc<TableStats>] {
        &self.process.tables
    }

    /// Whether Kafka can be reached.
    pub fn reach(&self) -> &Reach {
        &self.process.reach
    }

    /// The tail.
    pub fn tail(&self) -> &TailStats {
        &self.process.tail
    }

    /// The text form, as of now.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.families(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Those that have something to tell.
    fn families(&self) -> Vec<MetricFamily> {
        let now = now_micros();
        let tables: Vec<_> =
            self.process.tables.iter().map(|stats| (Some(stats.table.to_string()), &**stats)).collect();
        let told = TABLES.iter().map(|family| family.tell(&tables, now));
        let told = told.chain(PROCESS.iter().map(|family| family.tell(&[(None, &self.process)], now)));
        #[cfg(target_os = "linux")]
        let told = told.chain(self.system.collect());
        told.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::position::Margin;
    use crate::table::TableName;

    #[test]
    fn given_tables_when_asked_then_each_metric_has_its_value_and_unknown_ones_are_left_out() {
        let stats = Arc::new(TableStats::new(TableName::new("d", "o")));
        stats.events.store(7, Relaxed);
        stats.delivery.observe(2_000, 3);
        stats.delivery.observe(90_000_000_000, 1);
        let metrics = Metrics::new(vec![Arc::clone(&stats)], Arc::default(), Arc::default());
        let text = metrics.text().unwrap();
        for line in [
            "# TYPE outboxd_events_total counter",
            "outboxd_events_total{table=\"d.o\"} 7",
            "outboxd_delivery_seconds_bucket{table=\"d.o\",le=\"0.001\"} 0",
            "outboxd_delivery_seconds_bucket{table=\"d.o\",le=\"0.0025\"} 3",
            "outboxd_delivery_seconds_bucket{table=\"d.o\",le=\"+Inf\"} 4",
            "outboxd_delivery_seconds_sum{table=\"d.o\"} 90000.006",
            "outboxd_delivery_seconds_count{table=\"d.o\"} 4",
            "outboxd_relay_state{table=\"d.o\",state=\"starting\"} 1",
            "outboxd_relay_state{table=\"d.o\",state=\"halted\"} 0",
            "outboxd_tail_reconnects_total{cause=\"silence\"} 0",
            concat!("outboxd_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        assert!(!text.contains("outboxd_until_purge_seconds"), "nobody has looked");
        stats.set_margin(Margin { seconds: None, bytes: Some(5), behind: None });
        let text = metrics.text().unwrap();
        assert!(text.contains("outboxd_until_purge_seconds{table=\"d.o\"} inf"), "{text}");
        assert!(text.contains("outboxd_until_purge_bytes{table=\"d.o\"} 5") && !text.contains("position_behind_bytes"));
        #[cfg(target_os = "linux")]
        assert!(text.contains("process_resident_memory_bytes "));
    }

    #[test]
    fn given_metrics_made_anew_when_asked_then_counters_go_on() {
        let stats = Arc::new(TableStats::new(TableName::new("d", "o")));
        let of = |tables| Metrics::new(tables, Arc::default(), Arc::default());
        stats.events.store(3, Relaxed);
        of(vec![Arc::clone(&stats)]).text().unwrap();
        stats.events.store(5, Relaxed);
        let text = of(vec![stats]).text().unwrap();
        assert!(text.contains("outboxd_events_total{table=\"d.o\"} 5\n"), "{text}");
    }
}
