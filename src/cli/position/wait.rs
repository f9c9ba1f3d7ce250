//! `outboxd position wait`: waits until tables are past a place in the log.
//!
//! Promise: it ends well only when everything of these tables that the log has in front of that place is acknowledged.

use std::cmp::Ordering;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::place::{Log, configured};
use crate::cli::hand::chosen;
use crate::cli::{code, show};
use crate::config::Loaded;
use crate::daemon::store::Store;
use crate::daemon::{self, DaemonError};
use crate::position::{Position, PositionStore};

/// How often the saved positions are looked at.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(in crate::cli) struct WaitArguments {
    /// Tables as the configuration writes them: names, ranges, lists, wildcards
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    /// What they have to be past: a position (gtid=SET, domains=LIST, file=NAME:OFFSET), or `newest`, the end that the log
    /// has now
    #[arg(long, value_name = "POSITION", default_value = "newest")]
    past: String,
}

pub(super) async fn wait(arguments: WaitArguments, loaded: Loaded) -> Result<u8, DaemonError> {
    let WaitArguments { tables, past } = arguments;
    let (log, _) = daemon::servers(&loaded.config)?;
    let known: Vec<_> = configured(&loaded.config, &log).await?.into_iter().map(|table| table.subscription).collect();
    let names: Vec<_> = known.iter().map(|subscription| subscription.table.clone()).collect();
    let mut waiting = chosen(&tables, &names)?;
    let past = Log::new(&loaded.config, log, known).place(&past).await?;
    show(&format!("waiting until {} tables are past {past}", waiting.len()));
    let store = Store::new(&loaded.config, Duration::ZERO)?;
    loop {
        let saved = store.list().await?;
        let mut still = Vec::new();
        for table in waiting {
            let position = match saved.iter().find(|saved| saved.table == table).map(|saved| &saved.position) {
                Some(Ok(position)) => position.as_ref(),
                Some(Err(unreadable)) => return Err(unreadable.clone().into()),
                None => None,
            };
            match position.map_or(Past::NotYet, |position| past_of(position, &past)) {
                Past::Yes => show(&format!("{table} is past it")),
                Past::NotYet => still.push(table),
                Past::Never => {
                    let found = position.map_or_else(String::new, ToString::to_string);
                    let why = format!(
                        "{table} stands at {found}, which is of another kind than {past}: say --past in its terms"
                    );
                    return Err(DaemonError::Configuration(why));
                }
            }
        }
        waiting = still;
        if waiting.is_empty() {
            return Ok(code::CLEAN);
        }
        sleep(AGAIN).await;
    }
}

/// Whether a table is past a place.
#[derive(Debug, PartialEq, Eq)]
enum Past {
    Yes,
    NotYet,
    /// The two cannot be compared, whatever comes.
    Never,
}

/// A table whose own rows are still read has not published what came before its place in the log.
fn past_of(position: &Position, place: &Position) -> Past {
    if position.point.kind() != place.point.kind() {
        return Past::Never;
    }
    let is_past = position.scan.is_none() && place.partial_cmp(position).is_some_and(Ordering::is_le);
    if is_past { Past::Yes } else { Past::NotYet }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_place_when_tables_are_asked_then_one_that_still_reads_its_rows_is_not_past_it() {
        const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let place: Position = format!("gtid={A}:1-5").parse().unwrap();
        for (position, expected) in [
            (format!("gtid={A}:1-5"), Past::Yes),
            (format!("gtid={A}:1-9"), Past::Yes),
            (format!("gtid={A}:1-4"), Past::NotYet),
            (format!("gtid={A}:1-4:6-9"), Past::NotYet),
            (format!("gtid={A}:1-9 scan 3 after 3 until 9"), Past::NotYet),
            ("file=binlog.000003:4".to_owned(), Past::Never),
        ] {
            assert_eq!(past_of(&position.parse().unwrap(), &place), expected, "{position}");
        }
    }
}
