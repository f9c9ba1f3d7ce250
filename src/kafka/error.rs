//! What Kafka's errors mean: one table of every code that librdkafka has.
//!
//! Promise: a code has one meaning, wherever in this room it comes from; docs/errors.md has the same table, and a test
//! holds the two together. Whatever it means, nothing is passed over: a relay that tries again does so from its durable
//! position, in order.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::outlet::{DeliveryError, Failing, Rejection};

/// What an error means for the table that it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Time cures it: the relay starts again from its durable position, after the wait of `relay.retry_initial`, doubled
    /// up to `relay.retry_max`. Most of them librdkafka has tried again itself before it tells.
    Retry,
    /// This producer, or consumer, is over; as for [`Verdict::Retry`], with a new one.
    Fatal,
    /// An operator has to act.
    Halt(Cure),
    /// This event cannot be delivered, others can: `delivery.on_poison` says what becomes of it.
    Park(Cure),
}

/// What an operator sees, and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cure {
    /// Stable name for alerts and documents.
    pub(super) name: &'static str,
    /// What to do.
    pub(super) cure: &'static str,
}

const fn halt(name: &'static str, cure: &'static str) -> Verdict {
    Verdict::Halt(Cure { name, cure })
}

const fn park(name: &'static str, cure: &'static str) -> Verdict {
    Verdict::Park(Cure { name, cure })
}

/// Connections, elections, load, and storage that comes back; credentials, too, which are replaced while daemons run.
const RETRY: &[Code] = &[
    Code::BadMessage,
    Code::BadCompression,
    Code::BrokerTransportFailure,
    Code::Resolve,
    Code::MessageTimedOut,
    Code::AllBrokersDown,
    Code::OperationTimedOut,
    Code::QueueFull,
    Code::ISRInsufficient,
    Code::NodeUpdate,
    Code::SSL,
    Code::WaitingForCoordinator,
    Code::InProgress,
    Code::PreviousInProgress,
    Code::Conflict,
    Code::Authentication,
    Code::Outdated,
    Code::TimedOutQueue,
    Code::WaitCache,
    Code::Interrupted,
    Code::Partial,
    Code::Underflow,
    Code::Retry,
    Code::UnknownBroker,
    Code::DestroyBroker,
    Code::Unknown,
    Code::InvalidMessage,
    Code::LeaderNotAvailable,
    Code::NotLeaderForPartition,
    Code::RequestTimedOut,
    Code::BrokerNotAvailable,
    Code::ReplicaNotAvailable,
    Code::StaleControllerEpoch,
    Code::NetworkException,
    Code::CoordinatorLoadInProgress,
    Code::CoordinatorNotAvailable,
    Code::NotCoordinator,
    Code::NotEnoughReplicas,
    Code::NotEnoughReplicasAfterAppend,
    Code::UnsupportedSASLMechanism,
    Code::IllegalSASLState,
    Code::NotController,
    Code::ConcurrentTransactions,
    Code::OperationNotAttempted,
    Code::KafkaStorageError,
    Code::LogDirNotFound,
    Code::SaslAuthenticationFailed,
    Code::ReassignmentInProgress,
    Code::DelegationTokenAuthDisabled,
    Code::DelegationTokenNotFound,
    Code::DelegationTokenOwnerMismatch,
    Code::DelegationTokenRequestNotAllowed,
    Code::DelegationTokenAuthorizationFailed,
    Code::DelegationTokenExpired,
    Code::FetchSessionIdNotFound,
    Code::InvalidFetchSessionEpoch,
    Code::ListenerNotFound,
    Code::FencedLeaderEpoch,
    Code::UnknownLeaderEpoch,
    Code::StaleBrokerEpoch,
    Code::OffsetNotAvailable,
    Code::PreferredLeaderNotAvailable,
    Code::EligibleLeadersNotAvailable,
    Code::UnstableOffsetCommit,
    Code::ThrottlingQuotaExceeded,
    Code::InconsistentVoterSet,
    Code::RebootstrapRequired,
];

/// What ends a producer: its sequence has a gap, its epoch or id is not that of the broker, its transaction is over. So do
/// failures within the client, whose state nobody knows then.
const FATAL: &[Code] = &[
    Code::BrokerDestroy,
    Code::Fail,
    Code::CriticalSystemResource,
    Code::FileSystem,
    Code::State,
    Code::PurgeQueue,
    Code::PurgeInflight,
    Code::Fatal,
    Code::Inconsistent,
    Code::GaplessGuarantee,
    Code::Fenced,
    Code::OffsetOutOfRange,
    Code::OutOfOrderSequenceNumber,
    Code::DuplicateSequenceNumber,
    Code::InvalidProducerEpoch,
    Code::InvalidTransactionalState,
    Code::InvalidProducerIdMapping,
    Code::TransactionCoordinatorFenced,
    Code::UnknownProducerId,
    Code::ProducerFenced,
    Code::AutoOffsetReset,
    Code::LogTruncation,
];

/// What a relay's own requests never lead to: consumer groups, administration, serialization, and marks within the client. Taken
/// for what ends the client, should one come all the same.
const FOREIGN: &[Code] = &[
    Code::PartitionEOF,
    Code::InvalidArgument,
    Code::UnknownGroup,
    Code::ExistingSubscription,
    Code::AssignPartitions,
    Code::RevokePartitions,
    Code::UnknownProtocol,
    Code::NotImplemented,
    Code::NoOffset,
    Code::KeySerialization,
    Code::ValueSerialization,
    Code::KeyDeserialization,
    Code::ValueDeserialization,
    Code::ReadOnly,
    Code::NoEnt,
    Code::InvalidType,
    Code::PollExceeded,
    Code::NotConfigured,
    Code::Application,
    Code::AssignmentLost,
    Code::Noop,
    Code::InvalidDifferentRecord,
    Code::NoError,
    Code::OffsetMetadataTooLarge,
    Code::IllegalGeneration,
    Code::InconsistentGroupProtocol,
    Code::InvalidGroupId,
    Code::UnknownMemberId,
    Code::InvalidSessionTimeout,
    Code::RebalanceInProgress,
    Code::InvalidCommitOffsetSize,
    Code::TopicAlreadyExists,
    Code::InvalidPartitions,
    Code::InvalidReplicationFactor,
    Code::InvalidReplicaAssignment,
    Code::InvalidConfig,
    Code::InvalidRequest,
    Code::SecurityDisabled,
    Code::InvalidPrincipalType,
    Code::NonEmptyGroup,
    Code::GroupIdNotFound,
    Code::TopicDeletionDisabled,
    Code::MemberIdRequired,
    Code::GroupMaxSizeReached,
    Code::FencedInstanceId,
    Code::ElectionNotNeeded,
    Code::NoReassignmentInProgress,
    Code::GroupSubscribedToTopic,
    Code::ResourceNotFound,
    Code::DuplicateResource,
    Code::UnacceptableCredential,
    Code::InvalidUpdateVersion,
    Code::FeatureUpdateFailed,
    Code::PrincipalDeserializationFailure,
    Code::FencedMemberEpoch,
    Code::UnreleasedInstanceId,
    Code::UnsupportedAssignor,
    Code::StaleMemberEpoch,
    Code::UnknownSubscriptionId,
    Code::TelemetryTooLarge,
];

/// Every code and what it means.
const TABLE: &[(Verdict, &[Code])] = &[
    (Verdict::Retry, RETRY),
    (Verdict::Fatal, FATAL),
    (Verdict::Fatal, FOREIGN),
    (
        halt("topic_missing", "create the topic"),
        &[Code::UnknownTopic, Code::UnknownTopicOrPartition, Code::UnknownTopicId],
    ),
    (
        halt(
            "topic_forbidden",
            "kafka-acls.sh --add --operation Write --operation Describe --topic …, for the account",
        ),
        &[Code::TopicAuthorizationFailed],
    ),
    (
        halt("group_forbidden", "kafka-acls.sh --add --operation Read --group …, for the account"),
        &[Code::GroupAuthorizationFailed],
    ),
    (
        halt(
            "cluster_forbidden",
            "kafka-acls.sh --add --operation Write --topic …, for the account: whoever may write to some topic may write \
             idempotently (brokers before 2.8: --operation IdempotentWrite --cluster)",
        ),
        &[Code::ClusterAuthorizationFailed],
    ),
    (
        halt(
            "transactional_id_forbidden",
            "kafka-acls.sh --add --operation Write --operation Describe --resource-pattern-type prefixed --transactional-id …, \
             for the account, with the beginning that delivery.transactional_id has",
        ),
        &[Code::TransactionalIdAuthorizationFailed],
    ),
    (
        halt(
            "transaction_timeout",
            "delivery.transaction_timeout is above the broker's transaction.max.timeout.ms: lower one or raise the other",
        ),
        &[Code::InvalidTransactionTimeout],
    ),
    (
        halt(
            "cluster_unfit",
            "the brokers do not know what is asked of them: use newer ones, or another compression.type",
        ),
        &[
            Code::UnsupportedFeature,
            Code::UnsupportedVersion,
            Code::UnsupportedCompressionType,
            Code::InvalidRequiredAcks,
        ],
    ),
    (
        halt(
            "record_format",
            "the topic's message format does not have headers: set message.format.version to 0.11 or later",
        ),
        &[Code::UnsupportedForMessageFormat],
    ),
    (
        park("record_too_large", "raise the topic's max.message.bytes and the property message.max.bytes"),
        &[Code::MessageSizeTooLarge, Code::MessageBatchTooLarge, Code::InvalidMessageSize],
    ),
    (park("partition_missing", "correct the partition column's value, or add partitions"), &[Code::UnknownPartition]),
    (park("topic_invalid", "correct the topic's name"), &[Code::InvalidTopic]),
    (park("record_invalid", "the topic refuses such records; see its configuration"), &[Code::InvalidRecord]),
    (park("policy_violation", "the broker's policy refuses the record"), &[Code::PolicyViolation]),
    (
        park(
            "timestamp_refused",
            "the record's timestamp is outside of the topic's message.timestamp.before.max.ms and after.max.ms",
        ),
        &[Code::InvalidTimestamp],
    ),
];

/// What a code means. One that is newer than the table is taken for what time cures, and its text is told.
pub(super) fn judge(code: Code) -> Verdict {
    TABLE.iter().find(|(_, codes)| codes.contains(&code)).map_or(Verdict::Retry, |(verdict, _)| *verdict)
}

/// What a code means for a record of this topic.
pub(super) fn classify(code: Code, topic: &str) -> DeliveryError {
    let topic = topic.to_owned();
    let refusal = |Cure { name, cure }| Rejection { name, topic: topic.clone(), reason: code.to_string(), cure };
    match judge(code) {
        Verdict::Retry => DeliveryError::Retriable { failing: Failing::Cluster, topic, reason: code.to_string() },
        Verdict::Fatal => DeliveryError::Retriable { failing: Failing::Client, topic, reason: code.to_string() },
        Verdict::Halt(cure) => DeliveryError::Definite(refusal(cure)),
        Verdict::Park(cure) => DeliveryError::Poison { refusal: refusal(cure), event: None },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::types::RDKafkaRespErr;

    use super::*;

    /// Every code that the library has, but for the marks where its ranges begin and end.
    fn all() -> Vec<Code> {
        let known = (-300..1000).filter_map(|number| RDKafkaRespErr::try_from(number).ok());
        let mark = |code: &Code| matches!(code, Code::Begin | Code::End | Code::EndAll);
        known.map(Code::from).filter(|code| !mark(code)).collect()
    }

    #[test]
    fn every_code_has_one_meaning() {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for code in TABLE.iter().flat_map(|(_, codes)| *codes) {
            *times.entry(format!("{code:?}")).or_default() += 1;
        }
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        let missing: Vec<_> = all().into_iter().filter(|code| !times.contains_key(&format!("{code:?}"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(times.len() > 150, "{}", times.len());
    }

    #[test]
    fn what_an_operator_must_cure_is_told_from_what_time_cures() {
        for (code, name) in
            [(Code::UnknownTopicOrPartition, "topic_missing"), (Code::ClusterAuthorizationFailed, "cluster_forbidden")]
        {
            assert!(matches!(classify(code, "t"), DeliveryError::Definite(refusal) if refusal.name == name), "{code}");
        }
        for (code, failing) in [
            (Code::NotEnoughReplicas, Failing::Cluster),
            (Code::BrokerTransportFailure, Failing::Cluster),
            (Code::PurgeQueue, Failing::Client),
            (Code::Fatal, Failing::Client),
        ] {
            let retriable = DeliveryError::Retriable { failing, topic: "t".to_owned(), reason: code.to_string() };
            assert_eq!(classify(code, "t"), retriable);
        }
        let poison = classify(Code::MessageSizeTooLarge, "t");
        assert!(matches!(poison, DeliveryError::Poison { refusal, .. } if refusal.name == "record_too_large"));
    }

    /// A line of the page: `| class | codes | ...`.
    #[test]
    fn the_page_has_the_same_table() {
        let page = include_str!("../../docs/errors.md");
        let (_, kafka) = page.split_once("\n## Kafka\n").unwrap();
        let kafka = kafka.split("\n## ").next().unwrap();
        let mut written: BTreeMap<String, String> = BTreeMap::new();
        for line in kafka.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| class")) {
            let cells: Vec<_> = line.trim_matches(['|', ' ']).split(" | ").collect();
            let codes = cells[1].split(", ").map(|code| code.trim_matches('`').to_owned());
            written.extend(codes.map(|code| (code, cells[0].to_owned())));
        }
        for (verdict, codes) in TABLE {
            let class = match verdict {
                Verdict::Retry => "retry".to_owned(),
                Verdict::Fatal => "fatal".to_owned(),
                Verdict::Halt(cure) => format!("halt: `{}`", cure.name),
                Verdict::Park(cure) => format!("park: `{}`", cure.name),
            };
            for code in *codes {
                assert_eq!(written.remove(&format!("{code:?}")), Some(class.clone()), "docs/errors.md: {code:?}");
            }
        }
        assert!(written.is_empty(), "docs/errors.md has codes that nobody knows: {written:?}");
    }
}
