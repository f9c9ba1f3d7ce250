//! `outboxd check`: whether the servers are set up as they must be.

use clap::ValueEnum;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, Color, Table};
use serde::Serialize;

use super::{code, show};
use crate::config::Loaded;
use crate::daemon::{DaemonError, preflight};
use crate::preflight::{Check, Report, Status};
use crate::terminal::text::harmless;

/// For whom the answers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table, then what to cure.
    Text,
    /// One object: `verdict`, `checks`, `unavailable`.
    Json,
}

#[derive(Serialize)]
struct Shown<'a> {
    verdict: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

pub(super) async fn check(loaded: &Loaded, format: Format) -> Result<u8, DaemonError> {
    let server_id = loaded.config.mysql.resolve_server_id();
    let asker = preflight::Asker { server_id, relays: false, creates: false };
    let report = preflight::survey(&loaded.config, asker).await?.report;
    let (verdict, code) = verdict(&report);
    match format {
        Format::Text => show(&text(&report)),
        Format::Json => {
            let shown = serde_json::to_string_pretty(&Shown { verdict, report: &report });
            show(&shown.map_err(|error| DaemonError::Internal(error.to_string()))?);
        }
    }
    Ok(code)
}

fn verdict(report: &Report) -> (&'static str, u8) {
    if !report.unavailable.is_empty() {
        ("unavailable", code::UNAVAILABLE)
    } else if report.refuses() {
        ("failed", code::PREFLIGHT)
    } else if report.with(Status::Warned).next().is_some() {
        ("warned", code::CLEAN)
    } else {
        ("passed", code::CLEAN)
    }
}

fn mark(status: Status) -> Cell {
    match status {
        Status::Passed => Cell::new("✓ passed").fg(Color::Green),
        Status::Warned => Cell::new("! warned").fg(Color::Yellow),
        Status::Failed => Cell::new("✗ failed").fg(Color::Red),
    }
}

/// For people: a table, and how to cure what is not as it must be.
pub(super) fn text(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["", "check", "setting", "found"]);
    for check in &report.checks {
        let Check { name, setting, found, .. } = check;
        table.add_row([mark(check.status), Cell::new(name), Cell::new(harmless(setting)), Cell::new(harmless(found))]);
    }
    let mut parts = vec![table.to_string()];
    for status in [Status::Failed, Status::Warned] {
        for Check { setting, expected, found, cure, .. } in report.with(status) {
            let word = if status == Status::Failed { "✗ failed" } else { "! warned" };
            let (setting, expected, found) = (harmless(setting), harmless(expected), harmless(found));
            let cure = cure.as_deref().unwrap_or_default();
            let cure = harmless(cure);
            parts.push(format!("\n{word}: {setting}\n  expected  {expected}\n  found     {found}\n  cure      {cure}"));
        }
    }
    for unavailable in &report.unavailable {
        parts.push(format!("\n✗ unavailable: {unavailable}\n  what only it knows was not checked"));
    }
    let count = |status| report.with(status).count();
    let (passed, warned, failed) = (count(Status::Passed), count(Status::Warned), count(Status::Failed));
    parts.push(format!("\n{passed} passed, {warned} warned, {failed} failed"));
    parts.join("\n")
}
