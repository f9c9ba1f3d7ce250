//! The relay: from the log to the outlets, one ordered task per table.
//!
//! Promise: records of a table are published in commit order (R1), a position covers only what is acknowledged (R2),
//! memory is bounded in bytes (R5), and a table that cannot go on halts by name while the others do (R6, R8).
//!
//! [`tail`] reads the log, [`assembler`] turns its events into batches per table, [`queue`] carries them to the relays,
//! a [`worker`] publishes them, [`window`] knows what is acknowledged, and [`supervisor`] keeps it all going. A table that
//! the tail had to let go of is brought back to it by its [`feeder`], by the rules of the [`meeting`]. An operator's orders
//! come by [`control`], [`places`] finds positions for them,
//! and a [`replay`] publishes again.

pub mod assembler;
pub mod backoff;
pub mod control;
pub mod feeder;
mod lags;
pub mod meeting;
pub mod places;
pub mod queue;
pub mod replay;
pub mod settings;
pub mod spans;
pub mod stats;
pub mod supervisor;
pub mod tail;
pub mod turns;
pub mod window;
pub mod worker;

use std::sync::Arc;

use crate::position::Position;
use crate::source::{Batch, Fault};

/// What a relay gets from the tail, in log order.
#[derive(Debug)]
pub enum Item {
    /// Rows to publish.
    Batch(Batch),
    /// Nothing for this table up to here.
    Progress(Arc<Position>),
    /// A transaction has updated rows, which an outbox should not see: so many events of it.
    Updates(u64),
    /// The log is that of another server now, where the table has to find its place anew.
    Displaced(String),
    /// The table's events cannot be relayed from here on.
    Fault {
        /// Why.
        fault: Fault,
        /// Right behind the transaction that it is a fault of; `None` where it is none's, or where that ends is not known.
        behind: Option<Arc<Position>>,
    },
}

impl Item {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Displaced(_) | Self::Fault { .. })
    }

    /// The position that the table has reached once this and everything before it is relayed; `None` if it tells none.
    pub fn position(&self) -> Option<&Arc<Position>> {
        match self {
            Self::Batch(batch) => Some(batch.position()),
            Self::Progress(position) => Some(position),
            Self::Updates(_) | Self::Displaced(_) | Self::Fault { .. } => None,
        }
    }

    /// What queue limits count, in bytes.
    pub fn memory(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.memory(),
            Self::Progress(_) | Self::Updates(_) | Self::Displaced(_) | Self::Fault { .. } => 0,
        }
    }
}
