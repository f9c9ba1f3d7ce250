//! The transactions of one table's producer.
//!
//! Promise: a transaction is committed whole, with the record of the position it reaches, or never; once it cannot be,
//! every record of it has failed. The next one begins when it is committed. What waits for a broker waits on the producer's
//! thread.

use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::oneshot;

use super::inbox::lock;
use super::{Publisher, Shared, Tag};
use crate::kafka::error::{Cure, Verdict, classify, judge as verdict};
use crate::outlet::{DeliveryError, Rejection};

/// How long one call waits for the broker before it looks whether it is still wanted.
const SLICE: Duration = Duration::from_millis(200);

/// The same for a commit. librdkafka forgets which call is under way when one that is resumed gets no answer from its own
/// thread in time, and ends the process (`Invalid transaction state transition`) when the broker's answer comes just then
/// (2.12.1, `rd_kafka_commit_transaction`, `rd_kafka_txn_endtxn_complete`). Where the time is short, a machine that stands
/// still for a moment suffices. So it is long.
const COMMIT_SLICE: Duration = Duration::from_secs(10);

/// How long an answer to something that may be asked again is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A table's position on its way into the topic of positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kafka) struct PositionRecord {
    pub(in crate::kafka) topic: String,
    pub(in crate::kafka) key: String,
    pub(in crate::kafka) value: String,
}

/// Why a transaction cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::kafka) enum Broken {
    /// No answer in time.
    #[error("{0}")]
    Unavailable(String),
    /// An operator has to act.
    #[error("{0}")]
    Refused(String),
    /// This producer commits nothing any more: fenced, timed out, or in an error that only an abort ends.
    #[error("{0}")]
    Over(String),
}

type Answer = oneshot::Sender<Result<(), Broken>>;

/// What the thread is told to do.
pub(super) enum Order {
    Init(Answer),
    Commit(PositionRecord, Answer),
    Abort(Answer),
}

impl Publisher {
    /// Fences every older producer of the ids, whose open transactions are aborted; then a transaction is open.
    pub(in crate::kafka) async fn init(&self) -> Result<(), Broken> {
        answered(self.ask(Order::Init)).await
    }

    /// Commits what was published so far, and the position with it. Begins at once; nothing is taken meanwhile.
    pub(in crate::kafka) fn commit(
        &self,
        position: PositionRecord,
    ) -> impl Future<Output = Result<(), Broken>> + Send + use<> {
        // A failed transaction says so when it is carried out.
        let _ = self.shared.inbox.close();
        answered(self.ask(|answer| Order::Commit(position, answer)))
    }

    /// Ends the transaction without a trace, so that consumers need not wait for its timeout.
    pub(in crate::kafka) async fn abort(&self) -> Result<(), Broken> {
        answered(self.ask(Order::Abort)).await
    }

    fn ask(&self, order: impl FnOnce(Answer) -> Order) -> oneshot::Receiver<Result<(), Broken>> {
        let (answer, answered) = oneshot::channel();
        lock(&self.shared.orders).push(order(answer));
        self.shared.lanes.wake();
        answered
    }
}

async fn answered(answer: oneshot::Receiver<Result<(), Broken>>) -> Result<(), Broken> {
    answer.await.unwrap_or_else(|_| Err(Broken::Over("the producer has ended".to_owned())))
}

impl Shared {
    pub(super) fn carry_out(&self, order: Order) {
        // Whoever asked may have given up.
        let _ = match order {
            Order::Init(answer) => answer.send(self.init()),
            Order::Commit(position, answer) => {
                let committed = self.commit(&position);
                match &committed {
                    Ok(()) => self.inbox.committed(),
                    Err(broken) => {
                        self.inbox.fail(&DeliveryError::retriable(&position.topic, &broken.to_string()));
                    }
                }
                answer.send(committed)
            }
            Order::Abort(answer) => answer.send(self.patiently(|| self.lanes.native().abort_transaction(SLICE))),
        };
    }

    fn init(&self) -> Result<(), Broken> {
        for lane in self.lanes.all() {
            self.patiently(|| lane.native.init_transactions(SLICE))?;
        }
        self.lanes.native().begin_transaction().map_err(|error| judge(&error))
    }

    /// Asks again until there is an answer, for so long as it may take.
    fn patiently(&self, ask: impl Fn() -> Result<(), KafkaError>) -> Result<(), Broken> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ask().map_err(|error| judge(&error)) {
                Err(Broken::Unavailable(_)) if Instant::now() < deadline && !self.stopped() => self.pause(),
                answer => return answer,
            }
        }
    }

    /// A commit that has begun ends one way or the other: the coordinator decides, if need be by the transaction's timeout.
    fn commit(&self, position: &PositionRecord) -> Result<(), Broken> {
        let PositionRecord { topic, key, value } = position;
        self.failure()?;
        loop {
            let record: BaseRecord<'_, [u8], [u8], usize> = BaseRecord::with_opaque_to(topic, Tag::POSITION.0)
                .partition(0)
                .key(key.as_bytes())
                .payload(value.as_bytes());
            match self.send(record) {
                Ok(()) => break,
                Err(Code::QueueFull) if !self.stopped() => self.pause(),
                Err(code) => {
                    let error = of_position(classify(code, topic), value.len());
                    self.inbox.fail(&error);
                    return Err((&error).into());
                }
            }
        }
        let mut reported = self.read_reports();
        while !reported {
            self.failure()?;
            if self.stopped() {
                return Err(Broken::Unavailable("given up".to_owned()));
            }
            reported = self.await_reports();
        }
        self.failure()?;
        loop {
            match self.lanes.native().commit_transaction(COMMIT_SLICE).map_err(|error| judge(&error)) {
                Ok(()) => break,
                Err(Broken::Unavailable(_)) if !self.stopped() => self.pause(),
                Err(broken) => return Err(broken),
            }
        }
        self.lanes.next().begin_transaction().map_err(|error| judge(&error))?;
        self.lanes.take_turns();
        Ok(())
    }

    fn failure(&self) -> Result<(), Broken> {
        self.inbox.failure().map_or(Ok(()), |error| Err((&error).into()))
    }
}

impl From<&DeliveryError> for Broken {
    /// What the failure of a record is for its transaction.
    fn from(error: &DeliveryError) -> Self {
        match error {
            DeliveryError::Definite(_) => Self::Refused(error.to_string()),
            _ => Self::Over(error.to_string()),
        }
    }
}

/// What an error is for the record of a position, of so many bytes. It is no event's, so there is nothing to set aside, and
/// the same position will not be taken the next time either.
pub(super) fn of_position(error: DeliveryError, bytes: usize) -> DeliveryError {
    let DeliveryError::Poison { refusal, .. } = error else { return error };
    let reason = format!("a position with all that is parked, {bytes} bytes: {}", refusal.reason);
    DeliveryError::Definite(Rejection { name: "store_refused", reason, ..refusal })
}

/// What an answer about a transaction means.
fn judge(error: &KafkaError) -> Broken {
    let KafkaError::Transaction(native) = error else { return Broken::Unavailable(error.to_string()) };
    let text = native.string();
    match verdict(native.code()) {
        Verdict::Halt(Cure { cure, .. }) => Broken::Refused(format!("{text}; {cure}")),
        _ if native.is_retriable() => Broken::Unavailable(text),
        _ => Broken::Over(text),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::types::RDKafkaErrorCode as Code;

    use super::*;

    #[test]
    fn given_a_code_of_a_record_that_is_refused_when_it_is_that_of_a_position_then_the_store_refuses_for_good() {
        for code in [Code::MessageSizeTooLarge, Code::MessageBatchTooLarge, Code::PolicyViolation] {
            let error = of_position(classify(code, "positions"), 1_234_567);
            assert!(matches!(&error, DeliveryError::Definite(refusal) if refusal.name == "store_refused"), "{error:?}");
            let broken = Broken::from(&error);
            assert!(matches!(&broken, Broken::Refused(_)), "{broken:?}");
        }
        let told = Broken::from(&of_position(classify(Code::MessageSizeTooLarge, "positions"), 1_234_567)).to_string();
        assert!(told.contains("topic positions: ") && told.contains(" 1234567 bytes"), "{told}");
        assert!(told.contains("max.message.bytes") && told.contains("message.max.bytes"), "{told}");
        let passing = classify(Code::NotEnoughReplicas, "positions");
        assert_eq!(of_position(passing.clone(), 1), passing);
        assert!(matches!(Broken::from(&passing), Broken::Over(_)));
    }
}
