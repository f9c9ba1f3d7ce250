//! The store seam: a place where positions are durable.
//!
//! Promise: a table has one owner at a time. A claim raises the table's epoch; every save names the epoch it was
//! claimed under and is refused once another claim has raised it, so a process that was paused and wakes up late cannot
//! move a position that is no longer its own. A save that would move a position backwards is refused too (R3): only
//! [`PositionStore::set`] and [`PositionStore::forget`] do, on an operator's explicit command.

use std::fmt;
use std::future::Future;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Parked, Position};
use crate::table::TableName;

/// The right to save a table's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose position.
    pub table: TableName,
    /// Raised by each claim; 1 is the first.
    pub epoch: u64,
}

/// What a claim finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The right to save.
    pub claim: Claim,
    /// The durable position; `None` for a table that has never saved one. What is not readable stays as it is, and no save
    /// is taken, until it is set or forgotten.
    pub position: Result<Option<Position>, StoreError>,
    /// Somebody wants the table not to be relayed.
    pub pause: Option<Pause>,
    /// Aggregates whose events are set aside, as of the position.
    pub parked: Parked,
}

/// A table is not to be relayed until somebody says otherwise; kept with the position, so that a restart changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who wants it.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
    /// Why, if that was said.
    pub reason: Option<String>,
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {} at {:.0}", self.by, self.at)?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// A durable position as an operator wants to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Whose position.
    pub table: TableName,
    /// Where the table resumes; `None` when it was claimed but has not saved yet. The error is about this row alone.
    pub position: Result<Option<Position>, StoreError>,
    /// The epoch of the last claim.
    pub epoch: u64,
    /// Who claimed it last: host and process id.
    pub owner: String,
    /// When it was saved last, in microseconds since the Unix epoch, by the store's clock.
    pub saved_micros: u64,
    /// Somebody wants the table not to be relayed.
    pub pause: Option<Pause>,
    /// Aggregates whose events are set aside.
    pub parked: Parked,
}

/// Why a position could not be claimed, read or saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached; trying again later is the cure.
    #[error("the position store is unavailable: {0}")]
    Unavailable(String),
    /// A live process holds the table.
    #[error("{table} is relayed by {owner}; stop that process first")]
    Owned {
        /// The table.
        table: TableName,
        /// Host and process id of the owner.
        owner: String,
    },
    /// Another process has claimed the table since.
    #[error("{table} was taken over: epoch {ours} is ours, {theirs} is in the store")]
    Fenced {
        /// The table.
        table: TableName,
        /// The epoch of our claim.
        ours: u64,
        /// The epoch in the store.
        theirs: u64,
    },
    /// The position to save is not at or after the durable one.
    #[error("{table}: refused to move the position from {from} to {to}")]
    Backwards {
        /// The table.
        table: TableName,
        /// The durable position.
        from: String,
        /// The position to save.
        to: String,
    },
    /// What is in the store is not readable; an operator has to look.
    #[error("{table}: the stored position is not readable: {reason}")]
    Unreadable {
        /// The table.
        table: TableName,
        /// Why.
        reason: String,
    },
    /// The way to the store that the claim came with is broken, and what it carried with it given up; claiming the table
    /// again, from its durable position, is the cure.
    #[error("the claim is broken: {0}")]
    Broken(String),
    /// The store refuses for good: a missing table or grant.
    #[error("{0}")]
    Refused(String),
}

impl StoreError {
    /// What is stored of a table is not readable.
    pub fn unreadable(table: &TableName, reason: impl fmt::Display) -> Self {
        Self::Unreadable { table: table.clone(), reason: reason.to_string() }
    }
}

/// The table that a row of a store is about. One that names none is nobody's, and is told of as it is.
pub fn table_of_row(row: &str) -> (TableName, Result<(), StoreError>) {
    match row.parse::<TableName>() {
        Ok(table) => (table, Ok(())),
        Err(error) => {
            let table = TableName::new("", row);
            let unreadable = StoreError::unreadable(&table, error);
            (table, Err(unreadable))
        }
    }
}

/// A place where positions are durable.
pub trait PositionStore: Send + Sync + 'static {
    /// Claims a table for this process, raising its epoch. Also one whose position is not readable, so that an operator can
    /// set another.
    fn claim(&self, table: &TableName) -> impl Future<Output = Result<Claimed, StoreError>> + Send;
    /// Makes a position durable; when it returns, a crash does not undo it. Saving the same one again is no error.
    fn save(&self, claim: &Claim, position: &Position) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.keep(claim, position, None)
    }
    /// As [`PositionStore::save`], and with the position, at once with it, which aggregates are parked; without that they are
    /// what they were. Nothing else changes them.
    fn keep(
        &self,
        claim: &Claim,
        position: &Position,
        parked: Option<&Parked>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Makes a position durable wherever it lies, also before the durable one. For an operator's
    /// explicit command, and for a position of a history that is no more.
    fn set(&self, claim: &Claim, position: &Position) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Makes the table one that has never saved a position. For an operator's explicit command, and for a position that is
    /// kept elsewhere from now on.
    fn forget(&self, claim: &Claim) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Makes it durable that the table is not to be relayed, or with `None` that it is. To be asked for while nothing else
    /// is under way for the claim.
    fn pause(&self, claim: &Claim, pause: Option<&Pause>) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Gives a claim back, so that the next process need not wait.
    fn release(&self, claim: &Claim) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Forgets that this process has ever claimed a table: when it claims it again, that is as the first time, whoever has
    /// had it meanwhile. For a table that is given up on purpose.
    fn leave(&self, _table: &TableName) {}
    /// Every stored position, by table name; one that is not readable hides no other.
    fn list(&self) -> impl Future<Output = Result<Vec<Saved>, StoreError>> + Send;
}
