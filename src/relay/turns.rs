//! Turns: how many may do something at the same time, which may change meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A turn, until it is dropped.
pub type Turn = OwnedSemaphorePermit;

/// So many turns at a time; who asks first is first. Clones are the same turns.
#[derive(Debug, Clone)]
pub struct Turns {
    free: Arc<Semaphore>,
    all: Arc<Mutex<usize>>,
}

impl Turns {
    /// So many.
    pub fn new(turns: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(turns)), all: Arc::new(Mutex::new(turns)) }
    }

    /// A turn, if one is free.
    pub fn now(&self) -> Option<Turn> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// A turn, when it comes.
    pub async fn next(&self) -> Option<Turn> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// So many from now on; turns that are too many by that end by themselves, and nobody has them after that.
    pub fn resize(&self, turns: usize) {
        let before = std::mem::replace(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner), turns);
        self.free.add_permits(turns.saturating_sub(before));
        let surplus = u32::try_from(before.saturating_sub(turns)).unwrap_or(u32::MAX);
        if surplus > 0 {
            let free = Arc::clone(&self.free);
            tokio::spawn(async move {
                if let Ok(taken) = free.acquire_many_owned(surplus).await {
                    taken.forget();
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fewer_turns_count_once_those_that_are_taken_have_ended() {
        let turns = Turns::new(3);
        let mut taken: Vec<_> = (0..3).map(|_| turns.now().unwrap()).collect();
        turns.resize(1);
        tokio::task::yield_now().await;
        for _ in 0..2 {
            taken.pop();
            tokio::task::yield_now().await;
            assert!(turns.now().is_none());
        }
        taken.pop();
        let one = turns.next().await.unwrap();
        assert!(turns.now().is_none());
        turns.resize(2);
        assert!(turns.now().is_some());
        drop(one);
        turns.resize(2);
        assert_eq!(turns.free.available_permits(), 2);
    }
}
