//! The seams in memory, and the contracts that every implementation of a seam keeps.
//!
//! Promise: what holds over these holds over the real ones, for both keep the same contracts: [`log`] is a server's log,
//! [`broker`] is Kafka, [`store`] keeps positions, each with the troubles of its original, on command; [`contract`] says
//! what a seam promises, as functions that run over any implementation.

pub mod broker;
pub mod contract;
pub mod log;
pub mod outlet;
pub mod store;

use std::sync::{Mutex, MutexGuard, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
