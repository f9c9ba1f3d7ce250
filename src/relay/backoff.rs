//! Waiting longer after each failure: capped, with jitter, so that many relays do not knock together.

use std::time::Duration;

/// The waits between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// From `initial`, doubling up to `most`.
    pub fn new(initial: Duration, most: Duration) -> Self {
        Self { initial, most, next: initial }
    }

    /// How long to wait now: between half and all of the current step.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// After a success: the next wait is short again.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for step in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.wait();
            assert!(
                wait >= Duration::from_millis(step / 2) && wait <= Duration::from_millis(step),
                "{wait:?} of {step}"
            );
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(100));
    }
}
