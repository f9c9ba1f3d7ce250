//! What Kafka's errors mean for a relay: one table.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::outlet::DeliveryError;

/// Whether publishing again may succeed, or what an operator has to do.
pub(super) fn classify(code: Code, topic: &str) -> DeliveryError {
    let definite =
        |name, cure| DeliveryError::Definite { name, topic: topic.to_owned(), reason: code.to_string(), cure };
    match code {
        Code::MessageSizeTooLarge => {
            definite("record_too_large", "raise the topic's max.message.bytes and the property message.max.bytes")
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition => definite("topic_missing", "create the topic"),
        Code::UnknownPartition => {
            definite("partition_missing", "correct the partition column's value, or add partitions")
        }
        Code::TopicAuthorizationFailed => definite(
            "topic_forbidden",
            "kafka-acls.sh --add --operation Write --operation Describe --topic …, for the account",
        ),
        Code::ClusterAuthorizationFailed => definite(
            "cluster_forbidden",
            "kafka-acls.sh --add --operation Write --topic …, for the account: whoever may write to some topic may \
             write idempotently (brokers before 2.8: --operation IdempotentWrite --cluster)",
        ),
        Code::InvalidTopic => definite("topic_invalid", "correct the topic's name"),
        Code::InvalidRecord => definite("record_invalid", "the topic refuses such records; see its configuration"),
        Code::PolicyViolation => definite("policy_violation", "the broker's policy refuses the record"),
        Code::UnsupportedForMessageFormat | Code::InvalidTimestamp => {
            definite("record_format", "the topic's message format or timestamp rule refuses the record")
        }
        _ => DeliveryError::Retriable { topic: topic.to_owned(), reason: code.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_must_cure_is_told_from_what_time_cures() {
        assert!(matches!(
            classify(Code::MessageSizeTooLarge, "t"),
            DeliveryError::Definite { name: "record_too_large", .. }
        ));
        assert!(matches!(classify(Code::UnknownTopicOrPartition, "t"), DeliveryError::Definite { .. }));
        for code in [Code::PurgeQueue, Code::Fatal, Code::NotEnoughReplicas, Code::BrokerTransportFailure] {
            assert!(matches!(classify(code, "t"), DeliveryError::Retriable { .. }), "{code}");
        }
    }
}
