//! A verdict for people and for programs.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::verdict::{Counts, Finding, Verdict};

/// How many troubled aggregates are written out.
const TROUBLED: usize = 50;

impl Verdict {
    /// Everything as JSON: the figures, the samples, and the first aggregates that are not clean.
    pub fn to_json(&self) -> Value {
        let troubled = self.troubled().take(TROUBLED);
        let troubled: serde_json::Map<_, _> = troubled.map(|(id, counts)| (id.to_string(), figures(counts))).collect();
        json!({
            "clean": self.is_clean(),
            "aggregates": self.aggregates.len(),
            "records": self.records,
            "unresolved": self.unresolved,
            "unfinished": self.unfinished,
            "total": figures(&self.total),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            "troubled": troubled,
        })
    }
}

fn figures(counts: &Counts) -> Value {
    json!({
        "committed": counts.committed,
        "delivered": counts.delivered,
        "missing": counts.missing,
        "ghosts": counts.ghosts,
        "unexpected": counts.unexpected,
        "out_of_order": counts.out_of_order,
        "altered": counts.altered,
        "duplicates": counts.duplicates,
    })
}

fn finding(finding: &Finding) -> Value {
    json!({
        "fault": finding.fault.name(),
        "aggregate": &*finding.aggregate,
        "event": &*finding.event_id,
        "at": finding.place.as_ref().map(ToString::to_string),
        "detail": finding.detail,
    })
}

impl fmt::Display for Verdict {
    /// The small table, and below it what is wrong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = &self.total;
        let rows = [
            ("aggregates", self.aggregates.len() as u64, true),
            ("committed", total.committed, true),
            ("delivered", total.delivered, true),
            ("missing", total.missing, true),
            ("from rolled-back transactions", total.ghosts, true),
            ("out of order", total.out_of_order, true),
            ("duplicates", total.duplicates, true),
            ("never written", total.unexpected, false),
            ("altered", total.altered, false),
            ("outcome unknown (transactions)", self.unresolved, false),
            ("replay unfinished (aggregates)", self.unfinished, false),
        ];
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        for (name, count, always) in rows {
            if always || count > 0 {
                table.add_row([name.to_owned(), count.to_string()]);
            }
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        write!(f, "{table}")?;
        for finding in &self.findings {
            write!(f, "\n{}: event {} of {}", finding.fault.name(), finding.event_id, finding.aggregate)?;
            if let Some(place) = &finding.place {
                write!(f, " at {place}")?;
            }
            write!(f, ": {}", finding.detail)?;
        }
        Ok(())
    }
}
