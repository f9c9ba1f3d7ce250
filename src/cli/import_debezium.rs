//! `outboxd import-debezium`: tables go on where a Debezium connector has stopped.

use std::path::PathBuf;

use clap::Args;

use super::{code, say, show};
use crate::config::Loaded;
use crate::daemon::DaemonError;
use crate::daemon::store::{self, Adopted};
use crate::debezium::{Offsets, java};
use crate::kafka::offsets;

/// Save the place where a Debezium connector has stopped as the position of every configured table that has none.
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
    /// Say what would be saved, and save nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn import(arguments: ImportArguments, loaded: &Loaded) -> Result<u8, DaemonError> {
    let ImportArguments { topic, file, connector, dry_run } = arguments;
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
    for (table, adopted) in store::adopt(&loaded.config, &position, dry_run).await? {
        match adopted {
            Adopted::Saved if dry_run => show(&format!("{table}: would start there")),
            Adopted::Saved => show(&format!("{table}: starts there")),
            Adopted::Had(own) => show(&format!("{table}: left alone, it has a position of its own: {own}")),
        }
    }
    Ok(code::CLEAN)
}
