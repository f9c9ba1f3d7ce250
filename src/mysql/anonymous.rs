//! Anonymous transactions that a GTID set would pass over.
//!
//! Promise: a stream that is opened at a set does not begin behind transactions without GTIDs that came after it. A server
//! begins to read in the last file at whose beginning nothing was missing from the set. Where `gtid_mode` was switched off
//! and on again in the meantime, a file before that one has what was committed without GTIDs, and the server says nothing.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use super::files;
use crate::position::GtidSet;

/// How many events of a file are looked at: its description, what it begins after, and the beginning of a transaction.
const FIRST: usize = 10;

/// The file with such transactions, if there is one.
pub(super) async fn passed_over(conn: &mut Conn, saved: &GtidSet) -> Result<Option<String>, Error> {
    let files: Vec<Row> = conn.query("SHOW BINARY LOGS").await?;
    let files: Vec<String> = files.iter().filter_map(|row| row.get(0)).collect();
    // Files begin after more and more; the server begins with the last of those whose beginning is covered.
    let (mut covered, mut beyond) = (0, files.len());
    while covered < beyond {
        let middle = covered + (beyond - covered) / 2;
        match Beginning::of(conn, &files[middle]).await?.after {
            Some(begins) if begins.is_subset(saved) => covered = middle + 1,
            _ => beyond = middle,
        }
    }
    for (nth, file) in files[..covered].iter().rev().enumerate() {
        let beginning = Beginning::of(conn, file).await?;
        // Transactions of the set are in this file, or in one behind it: what is before them came before.
        if beginning.after.is_none_or(|begins| !saved.is_subset(&begins)) {
            return Ok(None);
        }
        if nth > 0 && beginning.anonymous {
            return Ok(Some(file.clone()));
        }
    }
    Ok(None)
}

/// What a file begins with.
struct Beginning {
    /// The transactions before it.
    after: Option<GtidSet>,
    /// Whether one of its first events is that of an anonymous transaction.
    anonymous: bool,
}

impl Beginning {
    async fn of(conn: &mut Conn, file: &str) -> Result<Self, Error> {
        // The server shows nothing at all of a file with a damaged event among them. Whoever reads it will say so.
        let events = match files::first_events(conn, file, FIRST).await {
            Err(Error::Server(_)) => files::first_events(conn, file, files::HEAD).await?,
            shown => shown?,
        };
        let after = files::previous_gtids(&events).and_then(|after| after.parse().ok());
        Ok(Self { after, anonymous: files::of_kind(&events, "Anonymous_Gtid").is_some() })
    }
}
