//! Whose connections are open.
//!
//! Promise: no address has more than its share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

/// How many connections each address has.
#[derive(Clone)]
pub(super) struct Guests {
    of_one: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The place of a connection among all, and among those of its address; given back when this is dropped.
pub(super) struct Place {
    guests: Guests,
    address: IpAddr,
    _among_all: OwnedSemaphorePermit,
}

impl Guests {
    pub(super) fn new(of_one: usize) -> Self {
        Self { of_one, open: Arc::default() }
    }

    /// A place for one more of this address; `None` when it has all that it may.
    pub(super) fn place(&self, address: IpAddr, among_all: OwnedSemaphorePermit) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.of_one {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Place { guests: self.clone(), address, _among_all: among_all })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.guests.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn given_an_address_with_all_that_it_may_have_when_it_comes_again_then_others_still_have_a_place() {
        let (all, guests) = (Arc::new(Semaphore::new(8)), Guests::new(2));
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let place = async |address| guests.place(address, Arc::clone(&all).acquire_owned().await.unwrap());
        let (first, second) = (place(one).await, place(one).await);
        assert!(first.is_some() && second.is_some() && place(one).await.is_none());
        assert_eq!(all.available_permits(), 6, "who is turned away takes no place");
        let third = place(other).await;
        assert!(third.is_some());
        drop(first);
        assert!(place(one).await.is_some());
        drop((second, third));
        assert_eq!((all.available_permits(), guests.open.lock().unwrap().len()), (8, 0));
    }
}
