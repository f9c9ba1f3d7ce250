//! Positions in memory: many sessions over one store, with fences, locks and outages.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::planted::{self, Bug};
use crate::position::{Claim, Claimed, Parked, Pause, Position, PositionStore, Saved, StoreError};
use crate::table::TableName;

#[derive(Debug, Default)]
struct Row {
    position: Option<Position>,
    /// Something has been written there that is no position.
    garbled: bool,
    pause: Option<Pause>,
    parked: Parked,
    epoch: u64,
    owner: u64,
    /// The session that holds the table now.
    held_by: Option<u64>,
    /// Its claims have broken: nothing changes until another one.
    broken: bool,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<TableName, Row>,
    sessions: u64,
    /// So many requests fail yet.
    failing: u64,
    saves: Vec<(TableName, Position)>,
}

impl Row {
    fn position(&self, table: &TableName) -> Result<Option<Position>, StoreError> {
        if self.garbled { Err(StoreError::unreadable(table, "on command")) } else { Ok(self.position.clone()) }
    }
}

impl State {
    /// The row of a claim that counts.
    fn row(&mut self, claim: &Claim) -> Result<&mut Row, StoreError> {
        let Claim { table, epoch: ours } = claim;
        let row = self.rows.entry(table.clone()).or_default();
        if row.broken {
            return Err(StoreError::Broken("on command".to_owned()));
        }
        if row.epoch != *ours && !planted::is(Bug::FenceIgnored) {
            return Err(StoreError::Fenced { table: table.clone(), ours: *ours, theirs: row.epoch });
        }
        Ok(row)
    }
}

/// The place; clones are one.
#[derive(Debug, Clone, Default)]
pub struct MemoryPositions {
    state: Arc<Mutex<State>>,
}

impl MemoryPositions {
    /// A process's way to the store.
    pub fn session(&self) -> MemoryStore {
        let mut state = lock(&self.state);
        state.sessions += 1;
        MemoryStore { positions: self.clone(), session: state.sessions }
    }

    /// The next requests of any session fail as unavailable.
    pub fn fail(&self, requests: u64) {
        lock(&self.state).failing = requests;
    }

    /// The way to the store that the table was claimed with is over, until it is claimed again.
    pub fn break_claim(&self, table: &TableName) {
        lock(&self.state).rows.entry(table.clone()).or_default().broken = true;
    }

    /// What is stored as the table's position is not readable any more.
    pub fn garble(&self, table: &TableName) {
        lock(&self.state).rows.entry(table.clone()).or_default().garbled = true;
    }

    /// A process is gone, or its connection: what it held is free.
    pub fn sever(&self, session: &MemoryStore) {
        for row in lock(&self.state).rows.values_mut() {
            row.held_by.take_if(|holder| *holder == session.session);
        }
    }

    /// The durable position of a table.
    pub fn position(&self, table: &TableName) -> Option<Position> {
        lock(&self.state).rows.get(table)?.position.clone()
    }

    /// The parked aggregates of a table.
    pub fn parked(&self, table: &TableName) -> Parked {
        lock(&self.state).rows.get(table).map(|row| row.parked.clone()).unwrap_or_default()
    }

    /// Every save that was taken, in order.
    pub fn saves(&self) -> Vec<(TableName, Position)> {
        lock(&self.state).saves.clone()
    }
}

/// One process's session. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    positions: MemoryPositions,
    session: u64,
}

impl MemoryStore {
    fn with<T>(&self, request: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = lock(&self.positions.state);
        if state.failing > 0 {
            state.failing -= 1;
            return Err(StoreError::Unavailable("on command".to_owned()));
        }
        request(&mut state)
    }
}

impl PositionStore for MemoryStore {
    async fn claim(&self, table: &TableName) -> Result<Claimed, StoreError> {
        self.with(|state| {
            let row = state.rows.entry(table.clone()).or_default();
            if let Some(holder) = row.held_by.filter(|holder| *holder != self.session) {
                return Err(StoreError::Owned { table: table.clone(), owner: format!("session {holder}") });
            }
            (row.held_by, row.owner, row.broken) = (Some(self.session), self.session, false);
            row.epoch += 1;
            let claim = Claim { table: table.clone(), epoch: row.epoch };
            let (position, pause, parked) = (row.position(table), row.pause.clone(), row.parked.clone());
            Ok(Claimed { claim, position, pause, parked })
        })
    }

    async fn keep(&self, claim: &Claim, position: &Position, parked: Option<&Parked>) -> Result<(), StoreError> {
        self.with(|state| {
            let Claim { table, .. } = claim;
            let row = state.row(claim)?;
            let forward = |durable: &Position| durable.partial_cmp(position).is_some_and(Ordering::is_le);
            if let Some(durable) = row.position(table)?.filter(|durable| !forward(durable)) {
                let (from, to) = (durable.to_string(), position.to_string());
                return Err(StoreError::Backwards { table: table.clone(), from, to });
            }
            row.position = Some(position.clone());
            if let Some(parked) = parked {
                row.parked = parked.clone();
            }
            state.saves.push((table.clone(), position.clone()));
            Ok(())
        })
    }

    async fn set(&self, claim: &Claim, position: &Position) -> Result<(), StoreError> {
        self.with(|state| {
            let row = state.row(claim)?;
            (row.position, row.garbled) = (Some(position.clone()), false);
            Ok(())
        })
    }

    async fn forget(&self, claim: &Claim) -> Result<(), StoreError> {
        self.with(|state| {
            let row = state.row(claim)?;
            (row.position, row.garbled) = (None, false);
            Ok(())
        })
    }

    async fn pause(&self, claim: &Claim, pause: Option<&Pause>) -> Result<(), StoreError> {
        self.with(|state| {
            state.row(claim)?.pause = pause.cloned();
            Ok(())
        })
    }

    async fn release(&self, claim: &Claim) -> Result<(), StoreError> {
        self.with(|state| {
            if let Some(row) = state.rows.get_mut(&claim.table) {
                row.held_by.take_if(|holder| *holder == self.session);
            }
            Ok(())
        })
    }

    async fn list(&self) -> Result<Vec<Saved>, StoreError> {
        self.with(|state| {
            let saved = |(table, row): (&TableName, &Row)| Saved {
                table: table.clone(),
                position: row.position(table),
                epoch: row.epoch,
                owner: format!("session {}", row.owner),
                saved_micros: 0,
                pause: row.pause.clone(),
                parked: row.parked.clone(),
            };
            Ok(state.rows.iter().map(saved).collect())
        })
    }
}
