//! `outboxd import-debezium`: tables go on where a Debezium connector has stopped.

use std::path::PathBuf;

use clap::Args;

use super::hand::chosen;
use super::{code, say, show};
use crate::config::Loaded;
use crate::daemon::DaemonError;
use crate::daemon::store::{self, Adopted};
use crate::debezium::{Offsets, java};
use crate::kafka::offsets;
use crate::position::Position;
use crate::table::TableName;

/// Save the place where a Debezium connector has stopped as the position of every configured table that has none.
///
/// With one connector per table, import each with `--connector` and `--table`.
///
/// Stop the connector first. Nothing is lost; the events of the transaction that it was in are published again.
#[derive(Args)]
pub(super) struct ImportArguments {
    /// Connect's topic of offsets (`offset.storage.topic`), in the cluster of the configuration
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    topic: Option<String>,
    /// The file of offsets of Connect's standalone mode (`offset.storage.file.filename`)
    #[arg(long)]
    file: Option<PathBuf>,
    /// The connector's name, where there are several
    #[arg(long)]
    connector: Option<String>,
    /// The tables that it published: names, ranges, lists, wildcards [default: all that are configured]
    #[arg(long = "table", value_name = "TABLE", num_args = 1..)]
    tables: Vec<String>,
    /// Say what would be saved, and save nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn import(arguments: ImportArguments, loaded: &Loaded) -> Result<u8, DaemonError> {
    let ImportArguments { topic, file, connector, tables, dry_run } = arguments;
    let offsets = match (topic, file) {
        (Some(topic), _) => {
            let kafka = loaded.config.kafka.clone();
            let read = tokio::task::spawn_blocking(move || offsets::read(&kafka, &topic)).await;
            let read = read.map_err(|error| DaemonError::Internal(error.to_string()))?;
            Offsets::of(read.map_err(|error| DaemonError::Server(error.to_string()))?)
        }
        (None, file) => {
            let file = file.unwrap_or_default();
            let read = std::fs::read(&file).map_err(|error| error.to_string());
            match read.and_then(|bytes| java::entries(&bytes).map_err(|error| error.to_string())) {
                Ok(entries) => Offsets::of(entries),
                Err(error) => {
                    say(&format!("{}: {error}", file.display()));
                    return Ok(code::NO_INPUT);
                }
            }
        }
    };
    let (connector, position) = match offsets.position(connector.as_deref()) {
        Ok(found) => found,
        Err(error) => {
            say(&error.to_string());
            return Ok(code::DATA);
        }
    };
    show(&format!("connector {connector} goes on at {position}"));
    let connectors = offsets.connectors();
    let choose = |known: &[(TableName, Option<Position>)]| starting(&tables, &connectors, known);
    for (table, adopted) in store::adopt(&loaded.config, &position, choose, dry_run).await? {
        match adopted {
            Adopted::Saved if dry_run => show(&format!("{table}: would start there")),
            Adopted::Saved => show(&format!("{table}: starts there")),
            Adopted::Had(own) => show(&format!("{table}: left alone, it has a position of its own: {own}")),
        }
    }
    Ok(code::CLEAN)
}

/// The tables that may start where the connector has stopped: those that are named, else all. Among several connectors
/// nothing says which tables were whose, and the place of one that was ahead would skip events of the others' tables.
fn starting(
    patterns: &[String],
    connectors: &[String],
    known: &[(TableName, Option<Position>)],
) -> Result<Vec<TableName>, DaemonError> {
    let names: Vec<_> = known.iter().map(|(table, _)| table.clone()).collect();
    if !patterns.is_empty() {
        return chosen(patterns, &names);
    }
    let without = known.iter().filter(|(_, own)| own.is_none()).count();
    if connectors.len() > 1 && without > 1 {
        return Err(DaemonError::Configuration(format!(
            "several connectors have left their places there ({}), and {without} tables have no position; say by \
             --table which tables this connector published",
            connectors.join(", ")
        )));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_of_several_is_not_given_to_several_tables_unasked() {
        let tables = |own: Option<&str>| {
            let own = own.map(|text| text.parse::<Position>().unwrap());
            [("d.a".parse::<TableName>().unwrap(), None), ("d.b".parse().unwrap(), own)]
        };
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (one, two) = (texts(&["c1"]), texts(&["c1", "c2"]));
        let count = |patterns: &[&str], connectors: &[String], own| {
            starting(&texts(patterns), connectors, &tables(own))
                .map(|tables| tables.len())
                .map_err(|error| error.to_string())
        };
        assert_eq!(count(&[], &one, None), Ok(2));
        assert_eq!(count(&["d.a"], &two, None), Ok(1));
        assert_eq!(count(&["d.*"], &two, None), Ok(2), "it was asked for");
        assert_eq!(count(&[], &two, Some("file=b.000001:4")), Ok(2), "only one has no position");
        let refused = count(&[], &two, None).unwrap_err();
        assert!(refused.contains("(c1, c2)") && refused.contains("--table"), "{refused}");
        assert!(count(&["d.c"], &two, None).is_err());
    }
}
