//! `outboxd decode`: what binlog files hold of outbox tables, without a server.
//!
//! Promise: a line for every row that was committed, in commit order, and none for another; what could not be decoded is
//! said on standard error, and in the exit code.

mod held;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use self::held::Transactions;
use super::{code, say, unusable};
use crate::config::{ConfigErrors, Loaded};
use crate::daemon::DaemonError;
use crate::mysql::archive::{Archive, ArchiveError};
use crate::source::{Fault, ForeignDml, LogEvent};
use crate::table::TablePattern;

#[derive(Args)]
pub(super) struct DecodeArguments {
    /// Binlog files in the order in which they were written; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Tables such as `schema.table{1..4}` or `schema.*` [default: the outbox tables of the configuration]
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_parser = TablePattern::parse)]
    tables: Vec<TablePattern>,
    /// Names for the columns of tables whose columns have none in the log; without them they are c1, c2 and so on
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    columns: Vec<String>,
    /// One object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Json,
}

/// What a run came to.
#[derive(Default)]
struct Outcome {
    updates: u64,
    deletes: u64,
    truncates: u64,
    faults: u64,
    unreadable: u64,
}

impl Outcome {
    fn fault(&mut self, fault: &Fault) {
        self.faults += 1;
        say(&fault.to_string());
    }

    fn code(&self) -> u8 {
        if self.faults > 0 {
            code::DATA
        } else if self.unreadable > 0 {
            code::NO_INPUT
        } else {
            code::CLEAN
        }
    }
}

pub(super) fn decode(
    arguments: DecodeArguments,
    loaded: impl FnOnce() -> Result<Loaded, ConfigErrors>,
) -> Result<u8, DaemonError> {
    let DecodeArguments { files, mut tables, columns, format: Format::Json } = arguments;
    if tables.is_empty() {
        tables = configured(&loaded().map_err(|errors| unusable(&errors))?)?;
    }
    let mut outcome = Outcome::default();
    let mut transactions = Transactions::new(BufWriter::new(io::stdout().lock()));
    match run(&files, Archive::new(tables, columns), &mut transactions, &mut outcome) {
        Ok(()) => {}
        // Who reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(code::CLEAN),
        Err(error) => return Err(DaemonError::Internal(format!("the output cannot be written: {error}"))),
    }
    let Outcome { updates, deletes, truncates, faults, unreadable } = outcome;
    let (rows, committed) = transactions.written();
    say(&format!(
        "{rows} rows of {committed} transactions; passed over: {updates} UPDATE, {deletes} DELETE and {truncates} TRUNCATE events; \
         {faults} not decoded, {unreadable} files not read"
    ));
    Ok(outcome.code())
}

fn configured(loaded: &Loaded) -> Result<Vec<TablePattern>, DaemonError> {
    let patterns = loaded.config.outbox.iter().flat_map(|block| &block.tables);
    let patterns: Result<_, _> = patterns.map(|pattern| TablePattern::parse(pattern)).collect();
    patterns.map_err(|error| DaemonError::Configuration(error.to_string()))
}

/// Only errors of the output are errors here.
fn run(
    files: &[PathBuf],
    mut archive: Archive,
    transactions: &mut Transactions<impl Write>,
    outcome: &mut Outcome,
) -> io::Result<()> {
    for path in files {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let opened = open(path).map_err(ArchiveError::Read).and_then(|input| archive.open(&name, input));
        let ended = match opened {
            Ok(()) => read(&name, &mut archive, transactions, outcome)?,
            Err(error) => Err(error),
        };
        transactions.abandon();
        match ended {
            Ok(()) => {}
            Err(ArchiveError::Fault(fault)) => outcome.fault(&fault),
            Err(ArchiveError::Read(error)) => {
                outcome.unreadable += 1;
                say(&format!("{}: {error}", path.display()));
            }
        }
    }
    for (xid, rows) in transactions.prepared() {
        let detail = format!("{rows} rows were left out: how it ended stands in no file that was read");
        outcome.fault(&Fault { name: "xa_prepared", detail, at: format!("XA transaction {xid}") });
    }
    transactions.flush()
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    if path == Path::new("-") { Ok(Box::new(io::stdin().lock())) } else { Ok(Box::new(File::open(path)?)) }
}

/// Reads one file. The outer error is one of the output.
fn read(
    name: &str,
    archive: &mut Archive,
    transactions: &mut Transactions<impl Write>,
    outcome: &mut Outcome,
) -> io::Result<Result<(), ArchiveError>> {
    loop {
        let event = match archive.next() {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        match event {
            LogEvent::Begin { txn, commit_micros } => transactions.begin(&txn, commit_micros),
            LogEvent::Rows { slot, rows } => {
                let place = format!("{name}:{}", archive.offset());
                let table = archive.table(slot);
                rows.json(&mut |row| match row {
                    Ok(columns) => transactions.row(table, &place, columns),
                    Err(fault) => {
                        let detail = format!("{table}: {}", fault.detail);
                        outcome.fault(&Fault { detail, at: place.clone(), ..fault });
                        Ok(())
                    }
                })?;
            }
            LogEvent::Foreign { kind, .. } => match kind {
                ForeignDml::Update => outcome.updates += 1,
                ForeignDml::Delete => outcome.deletes += 1,
                ForeignDml::Truncate => outcome.truncates += 1,
                ForeignDml::Drop => {}
            },
            LogEvent::Savepoint { name } => transactions.savepoint(&name),
            LogEvent::RollbackTo { name } => transactions.rollback_to(&name)?,
            LogEvent::Prepare { xid } => transactions.prepare(xid),
            LogEvent::Settle { xid, commit } => transactions.settle(&xid, commit),
            LogEvent::Commit => transactions.commit()?,
            LogEvent::Rollback => transactions.abandon(),
            LogEvent::Fault { slot, fault } => {
                let table = slot.map(|slot| format!("{}: ", archive.table(slot))).unwrap_or_default();
                let at = format!("{name}:{}", archive.offset());
                outcome.fault(&Fault { detail: format!("{table}{}", fault.detail), at, ..fault });
            }
            LogEvent::XaStart | LogEvent::Progress => {}
        }
    }
}
