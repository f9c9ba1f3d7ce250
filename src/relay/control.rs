//! The operator's hand on running relays: orders, and their way to each table.
//!
//! Promise: every order is answered, with what it changed or why it changed nothing, and touches the table it names only
//! (R8). An order is carried out by the task that keeps the table, so it cannot meet a relay half-way.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::replay::Plan;
use super::stats::State;
use super::supervisor::Table;
use crate::position::{Aggregate, Pause, Position, StoreError};
use crate::table::TableName;

/// What is to be done with a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Relay nothing until [`Order::Resume`], also after a restart of the process.
    Pause(Pause),
    /// Go on from the durable position.
    Resume,
    /// Try once more what has halted.
    Retry,
    /// Make this the durable position, wherever it lies, and go on from there if the table is relayed.
    Set(Position),
    /// Have no durable position, and begin anew as the table's `start` says if it is relayed.
    Forget,
    /// Publish once more what was published before.
    Replay(Box<Plan>),
    /// Put the events of a parked aggregate back.
    Release(Aggregate),
    /// Be relayed as this says, which is about the same table: drained, and from the durable position on.
    Renew(Box<Table>),
    /// Be relayed no more: drained, saved, and free for whoever wants it.
    Leave,
}

/// What an order has changed: the table's state, or its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// As it was.
    pub before: String,
    /// As it is now.
    pub after: String,
}

/// Why an order changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The daemon does not relay such a table.
    #[error("no table {0} is relayed here")]
    Unknown(TableName),
    /// There is nothing to resume.
    #[error("{0} is not paused")]
    NotPaused(TableName),
    /// There is nothing to retry.
    #[error("{table} has not halted, it is {}", .state.name())]
    NotHalted {
        /// The table.
        table: TableName,
        /// Its state.
        state: State,
    },
    /// The table has halted, so it takes only a retry or a position.
    #[error("{table} has halted: {detail}")]
    Halted {
        /// The table.
        table: TableName,
        /// Why.
        detail: String,
    },
    /// The checks that a start makes have failed.
    #[error("{table} still cannot be relayed: {detail}")]
    Unfit {
        /// The table.
        table: TableName,
        /// What failed, with its cure.
        detail: String,
    },
    /// No relay could go on from the position.
    #[error("{position} is no place to resume: {reason}")]
    Misplaced {
        /// The position.
        position: Position,
        /// Why not.
        reason: String,
    },
    /// There is nothing to go by.
    #[error("{table} publishes nothing again: {reason}")]
    NoReplay {
        /// The table.
        table: TableName,
        /// Why not.
        reason: String,
    },
    /// The aggregate stays parked, or is not.
    #[error("{table}: aggregate {aggregate} is not released: {reason}")]
    NotReleased {
        /// The table.
        table: TableName,
        /// The aggregate.
        aggregate: Aggregate,
        /// Why not.
        reason: String,
    },
    /// The position store refuses, or does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Other orders are waiting.
    #[error("{0} has other orders to carry out first; try again later")]
    Busy(TableName),
    /// The daemon is about to end.
    #[error("the daemon is stopping")]
    Stopping,
}

impl Refusal {
    /// A name for programs, in `snake_case`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown_table",
            Self::NotPaused(_) => "not_paused",
            Self::NotHalted { .. } => "not_halted",
            Self::Halted { .. } => "halted",
            Self::Unfit { .. } => "unfit",
            Self::Misplaced { .. } => "misplaced",
            Self::NoReplay { .. } => "no_replay",
            Self::NotReleased { .. } => "not_released",
            Self::Store(_) => "position_store",
            Self::Busy(_) => "busy",
            Self::Stopping => "stopping",
        }
    }
}

/// What an order led to.
pub type Answer = Result<Done, Refusal>;

/// An order on its way.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) order: Order,
    answer: oneshot::Sender<Answer>,
}

impl Told {
    /// Tells whoever gave the order, who may have gone away.
    pub(super) fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

/// Where a table's orders arrive.
#[derive(Debug)]
pub struct Orders(mpsc::Receiver<Told>);

impl Orders {
    /// The next order; never without one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Told {
        match self.0.recv().await {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }
}

/// Orders that may wait for a table.
const WAITING: usize = 8;

/// The way to every table. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Control {
    tables: Arc<HashMap<TableName, mpsc::Sender<Told>>>,
}

impl Control {
    /// The way to these tables, and where their orders arrive, in the same order.
    pub fn of<'a>(tables: impl IntoIterator<Item = &'a TableName>) -> (Self, Vec<Orders>) {
        let (mut ways, mut ends) = (HashMap::new(), Vec::new());
        for table in tables {
            let (way, end) = mpsc::channel(WAITING);
            ways.insert(table.clone(), way);
            ends.push(Orders(end));
        }
        (Self { tables: Arc::new(ways) }, ends)
    }

    /// The way to these tables besides, and where their orders arrive, in the same order.
    #[must_use]
    pub fn with<'a>(&self, tables: impl IntoIterator<Item = &'a TableName>) -> (Self, Vec<Orders>) {
        let (added, ends) = Self::of(tables);
        let both = self.tables.iter().chain(&*added.tables);
        (Self { tables: Arc::new(both.map(|(table, way)| (table.clone(), way.clone())).collect()) }, ends)
    }

    /// The way to all but these tables.
    #[must_use]
    pub fn without(&self, tables: &[TableName]) -> Self {
        let kept = self.tables.iter().filter(|(table, _)| !tables.contains(table));
        Self { tables: Arc::new(kept.map(|(table, way)| (table.clone(), way.clone())).collect()) }
    }

    /// Gives an order and waits until it is carried out or refused. Dropping the future does not take the order back.
    pub async fn order(&self, table: &TableName, order: Order) -> Answer {
        let way = self.tables.get(table).ok_or_else(|| Refusal::Unknown(table.clone()))?;
        let (answer, answered) = oneshot::channel();
        way.try_send(Told { order, answer }).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Busy(table.clone()),
            TrySendError::Closed(_) => Refusal::Stopping,
        })?;
        answered.await.unwrap_or(Err(Refusal::Stopping))
    }
}
