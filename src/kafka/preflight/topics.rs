//! The topics: there, durable, and wide enough.

use super::facts::{Facts, Layout, OF_POSITIONS, Topic};
use super::{Creation, Largest, Wanted};
use crate::kafka::settings::KafkaSettings;
use crate::preflight::{Check, Name};

/// What librdkafka takes when nothing is set.
const DEFAULT_BYTES: u64 = 1_000_000;
/// The most that librdkafka takes for `message.max.bytes`.
const MOST_BYTES: u64 = 1_000_000_000;

pub(super) fn check(
    facts: &Facts,
    settings: &KafkaSettings,
    wanted: &[Wanted],
    positions: Option<&str>,
    creation: Creation,
) -> Vec<Check> {
    let mut checks = Vec::new();
    for topic in &facts.topics {
        if Some(topic.name.as_str()) == positions {
            checks.extend(of_positions(topic, settings, creation, facts.brokers.len()));
            continue;
        }
        let of = |wanted: &&Wanted| wanted.topic.fixed() == Some(topic.name.as_str());
        let largest = wanted.iter().filter(of).filter_map(|wanted| wanted.largest.as_ref()).max();
        let mut of_topic = vec![existence(topic, settings, creation, facts.brokers.len())];
        if let Some(layout) = topic.layout {
            of_topic.push(replication(topic, layout));
            match &topic.settings {
                Some(_) => {
                    of_topic.extend([min_insync(topic, layout), cleanup(topic), width(topic, settings, largest)]);
                }
                None => of_topic.push(untold(topic)),
            }
        }
        checks.extend(of_topic.into_iter().map(|check| check.of_topic(&topic.name)));
    }
    for wanted in wanted.iter().filter(|wanted| wanted.topic.fixed().is_none()) {
        let check = template(facts, wanted);
        if !checks.contains(&check) {
            checks.push(check);
        }
    }
    checks
}

fn existence(topic: &Topic, settings: &KafkaSettings, creation: Creation, brokers: usize) -> Check {
    let name = &topic.name;
    let KafkaSettings { partitions, replication_factor, .. } = settings;
    let check = |found: String| Check::passed(Name::Topic, format!("topic {name}"), "is there", found);
    let new = format!("{partitions} partitions, {replication_factor} replicas");
    match (&topic.layout, &topic.creation) {
        (Some(_), Some(Ok(()))) => check(format!("created just now: {new}")),
        (Some(layout), ..) => check(format!("{} partitions, {} replicas", layout.partitions, layout.replicas)),
        (None, Some(Ok(()))) if creation == Creation::Rehearse => {
            check(format!("not there; `outboxd run` will create it: {new}"))
        }
        (None, Some(Ok(()))) => check("there, but hidden from this account".to_owned()).failed(format!(
            "kafka-acls.sh --add --topic {name} --operation Describe --operation Write --allow-principal …"
        )),
        (None, Some(Err(reason))) => check(format!("not there, and the cluster refuses to create it: {reason}"))
            .failed(format!(
                "grant CREATE on it, or correct kafka.partitions ({partitions}) and kafka.replication_factor \
                 ({replication_factor}, of {brokers} brokers)"
            )),
        (None, None) => check("not there".to_owned()).failed(format!(
            "kafka-topics.sh --create --topic {name} --partitions {partitions} --replication-factor \
             {replication_factor}; or kafka.create_topics = true; or grant DESCRIBE if it is there"
        )),
    }
}

/// The topic of positions has one partition, whatever others have, and must keep every table's last record.
fn of_positions(topic: &Topic, settings: &KafkaSettings, creation: Creation, brokers: usize) -> Vec<Check> {
    let one = KafkaSettings { partitions: 1, ..settings.clone() };
    let configs: Vec<_> = OF_POSITIONS.iter().map(|(key, value)| format!("--config {key}={value}")).collect();
    let mut existence = Check { name: Name::PositionTopic, ..existence(topic, &one, creation, brokers) };
    let create = format!("--topic {}", topic.name);
    existence.cure = existence.cure.map(|cure| cure.replacen(&create, &format!("{create} {}", configs.join(" ")), 1));
    let mut checks = vec![existence];
    let Some(layout) = topic.layout else { return checks };
    checks.push(replication(topic, layout));
    if topic.settings.is_none() {
        checks.push(untold(topic));
        return checks;
    }
    checks.push(min_insync(topic, layout));
    let found = setting(topic, "cleanup.policy").unwrap_or("delete");
    let named = format!("cleanup.policy of topic {}", topic.name);
    let cure = alter(topic, "cleanup.policy", "compact");
    checks.push(Check::passed(Name::PositionTopic, named, "compact", found).or_failed(found == "compact", cure));
    checks
}

fn replication(topic: &Topic, layout: Layout) -> Check {
    let setting = format!("replicas of topic {}", topic.name);
    Check::passed(Name::ReplicationFactor, setting, "3, or at least 2", layout.replicas.to_string()).or_warned(
        layout.replicas > 1,
        "kafka-reassign-partitions.sh to more brokers; until then acknowledged events are lost with the one that has them",
    )
}

fn setting<'a>(topic: &'a Topic, name: &str) -> Option<&'a str> {
    topic.settings.as_ref()?.get(name).map(String::as_str)
}

fn alter(topic: &Topic, setting: &str, value: impl std::fmt::Display) -> String {
    format!("kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config {setting}={value}", topic.name)
}

fn min_insync(topic: &Topic, layout: Layout) -> Check {
    let least = setting(topic, "min.insync.replicas").and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
    let expected =
        if layout.replicas > 1 { "at least 2, and not more than replicas" } else { "not more than replicas" };
    let found = format!("{least} of {} replicas", layout.replicas);
    let check =
        Check::passed(Name::MinInsyncReplicas, format!("min.insync.replicas of topic {}", topic.name), expected, found);
    if least > layout.replicas {
        // Brokers from 3.7 on take the number of replicas, if that is less (KAFKA-15583); they do not say which they are.
        let cure = format!(
            "more replicas, or {}; as it is, Kafka before 3.7 never acknowledges a record",
            alter(topic, "min.insync.replicas", layout.replicas)
        );
        return check.warned(cure);
    }
    let cure = format!(
        "{}; as it is, acks=all is the leader's word alone when the others lag",
        alter(topic, "min.insync.replicas", 2)
    );
    check.or_warned(least > 1 || layout.replicas == 1, cure)
}

/// Compaction keeps the last record of a key: of a delivery's life, only its end.
fn cleanup(topic: &Topic) -> Check {
    let found = setting(topic, "cleanup.policy").unwrap_or("delete");
    Check::passed(Name::CleanupPolicy, format!("cleanup.policy of topic {}", topic.name), "delete", found).or_warned(
        !found.contains("compact"),
        format!("{}; as it is, all events of an aggregate but the last go", alter(topic, "cleanup.policy", "delete")),
    )
}

fn width(topic: &Topic, settings: &KafkaSettings, largest: Option<&Largest>) -> Check {
    let property = |name: &str| settings.properties.get(name).and_then(|text| text.trim().parse().ok());
    let ours: u64 = property("message.max.bytes").unwrap_or(DEFAULT_BYTES);
    let batch = property("batch.size").unwrap_or(DEFAULT_BYTES).min(ours);
    let theirs = setting(topic, "max.message.bytes").and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    let named = format!("max.message.bytes of topic {}, message.max.bytes", topic.name);
    let found = format!("{theirs}, {ours}");
    if theirs < batch {
        let expected = format!("at least a batch of records, {batch} bytes");
        return Check::passed(Name::MaxMessageBytes, named, expected, found).failed(format!(
            "{}; or under [kafka.properties] \"batch.size\" = {theirs} and \"message.max.bytes\" = {theirs}",
            alter(topic, "max.message.bytes", batch)
        ));
    }
    let Some(Largest { bytes, because }) = largest else {
        return Check::passed(
            Name::MaxMessageBytes,
            named,
            format!("at least a batch of records, {batch} bytes"),
            found,
        );
    };
    let needed = (*bytes).min(MOST_BYTES);
    let mut cures = Vec::new();
    if theirs < needed {
        cures.push(alter(topic, "max.message.bytes", needed));
    }
    if ours < needed {
        cures.push(format!("under [kafka.properties] \"message.max.bytes\" = {needed}"));
    }
    let expected = format!("at least the largest record, {bytes} bytes ({because})");
    let cure = format!("{}; as it is, a larger one halts its table", cures.join("; and "));
    let check = Check::passed(Name::MaxMessageBytes, named, expected, found);
    if *bytes > MOST_BYTES {
        return check.warned("make the column narrower, or max_allowed_packet smaller: no record may be so large");
    }
    check.or_warned(cures.is_empty(), cure)
}

fn untold(topic: &Topic) -> Check {
    let name = &topic.name;
    let cure = format!("kafka-acls.sh --add --topic {name} --operation DescribeConfigs --allow-principal …");
    let setting = format!("settings of topic {name}");
    Check::passed(Name::TopicSettings, setting, "can be read", "not told to this account").warned(cure)
}

/// Which topics a template makes is known with the events only.
fn template(facts: &Facts, wanted: &Wanted) -> Check {
    let there: Vec<_> =
        facts.names.iter().filter(|name| wanted.topic.may_be(name)).take(4).map(String::as_str).collect();
    let found = match there.len() {
        0 => "none yet".to_owned(),
        4 => format!("{}, …", there[..3].join(", ")),
        _ => there.join(", "),
    };
    Check::passed(Name::Topic, format!("topics {}", wanted.text), "one for each aggregate type", found).or_warned(
        !there.is_empty(),
        "create them before their first event: one for a topic that is not there halts its table (topic_missing)",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::outbox::TopicTemplate;
    use crate::preflight::Status;

    fn topic(replicas: usize, settings: &[(&str, &str)]) -> Topic {
        let mut all = BTreeMap::from([("min.insync.replicas", "2"), ("cleanup.policy", "delete")]);
        all.insert("max.message.bytes", "1048588");
        all.extend(settings.iter().copied());
        let settings = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let layout = Some(Layout { partitions: 3, replicas });
        Topic { name: "t".to_owned(), layout, creation: None, settings: Some(settings) }
    }

    fn reach() -> Check {
        Check::passed(Name::Brokers, "", "", "")
    }

    fn wanted(text: &str, bytes: u64) -> Wanted {
        let largest = Some(Largest { bytes, because: "payload text of d.o".to_owned() });
        Wanted { topic: TopicTemplate::parse(text).unwrap(), text: text.to_owned(), largest }
    }

    fn found(
        topic: Topic,
        wanted: Wanted,
        settings: &KafkaSettings,
        creation: Creation,
    ) -> Vec<(Name, Status, String)> {
        let facts = Facts {
            brokers: vec![String::new(); 3],
            reach: reach(),
            names: BTreeSet::from(["t".to_owned()]),
            topics: vec![topic],
        };
        let checks = check(&facts, settings, &[wanted], None, creation);
        let not_passed = checks.into_iter().filter(|check| check.status != Status::Passed);
        not_passed.map(|check| (check.name, check.status, check.cure.unwrap())).collect()
    }

    #[track_caller]
    fn gives(topic: Topic, bytes: u64, name: Name, status: Status, cure: &str) {
        let found = found(topic, wanted("t", bytes), &KafkaSettings::default(), Creation::Leave);
        assert!(matches!(&found[..], [one] if one.0 == name && one.1 == status && one.2.contains(cure)), "{found:?}");
    }

    #[test]
    fn given_a_topic_as_it_should_be_when_checked_then_everything_passes() {
        let found = found(topic(3, &[]), wanted("t", 70_000), &KafkaSettings::default(), Creation::Leave);
        assert_eq!(found, []);
    }

    #[test]
    fn given_one_weak_setting_when_checked_then_it_alone_is_found_with_its_cure() {
        gives(topic(3, &[("min.insync.replicas", "1")]), 1, Name::MinInsyncReplicas, Status::Warned, "replicas=2");
        gives(topic(3, &[("min.insync.replicas", "4")]), 1, Name::MinInsyncReplicas, Status::Warned, "before 3.7");
        gives(topic(1, &[("min.insync.replicas", "1")]), 1, Name::ReplicationFactor, Status::Warned, "more brokers");
        gives(
            topic(3, &[("cleanup.policy", "compact,delete")]),
            1,
            Name::CleanupPolicy,
            Status::Warned,
            "policy=delete",
        );
        let denied = Topic { settings: None, ..topic(3, &[]) };
        gives(denied, 1, Name::TopicSettings, Status::Warned, "DescribeConfigs");
    }

    #[test]
    fn given_rows_wider_than_records_may_be_when_checked_then_the_numbers_to_set_are_told() {
        let narrow = || topic(3, &[("max.message.bytes", "500000")]);
        gives(narrow(), 1, Name::MaxMessageBytes, Status::Failed, "\"batch.size\" = 500000");
        gives(topic(3, &[]), 2_000_000, Name::MaxMessageBytes, Status::Warned, "max.message.bytes=2000000; and under");
        gives(topic(3, &[]), 1_020_000, Name::MaxMessageBytes, Status::Warned, "\"message.max.bytes\" = 1020000");
        gives(topic(3, &[]), 4_000_000_000, Name::MaxMessageBytes, Status::Warned, "narrower");
        let properties = [("message.max.bytes".to_owned(), "500000".to_owned())].into_iter().collect();
        let settings = KafkaSettings { properties, ..KafkaSettings::default() };
        assert_eq!(found(narrow(), wanted("t", 400_000), &settings, Creation::Leave), []);
    }

    #[test]
    fn given_a_topic_that_is_not_there_when_checked_then_it_depends_on_whether_it_may_be_created() {
        let absent = |creation| Topic { layout: None, creation, settings: None, ..topic(1, &[]) };
        gives(absent(None), 1, Name::Topic, Status::Failed, "kafka-topics.sh --create --topic t --partitions 1");
        let refused = Some(Err("InvalidReplicationFactor".to_owned()));
        gives(absent(refused), 1, Name::Topic, Status::Failed, "kafka.replication_factor (1, of 3 brokers)");
        let settings = KafkaSettings { create_topics: true, ..KafkaSettings::default() };
        assert_eq!(found(absent(Some(Ok(()))), wanted("t", 1), &settings, Creation::Rehearse), []);
        let hidden = found(absent(Some(Ok(()))), wanted("t", 1), &settings, Creation::Create);
        assert!(matches!(&hidden[..], [(Name::Topic, Status::Failed, cure)] if cure.contains("kafka-acls.sh")));
    }

    #[test]
    fn given_a_topic_of_positions_when_checked_then_it_has_to_be_compacted() {
        let found = |topic, creation| {
            let facts =
                Facts { brokers: vec![String::new(); 3], reach: reach(), names: BTreeSet::new(), topics: vec![topic] };
            let checks = check(&facts, &KafkaSettings::default(), &[], Some("t"), creation);
            let not_passed = checks.into_iter().filter(|check| check.status != Status::Passed);
            not_passed.map(|check| (check.name, check.status, check.cure.unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(found(topic(3, &[("cleanup.policy", "compact")]), Creation::Leave), []);
        for policy in ["delete", "compact,delete"] {
            let found = found(topic(3, &[("cleanup.policy", policy)]), Creation::Leave);
            assert!(
                matches!(&found[..], [(Name::PositionTopic, Status::Failed, cure)] if cure.contains("cleanup.policy=compact")),
                "{found:?}"
            );
        }
        let absent = Topic { layout: None, creation: None, settings: None, ..topic(1, &[]) };
        let found = found(absent, Creation::Leave);
        let cure = "kafka-topics.sh --create --topic t --config cleanup.policy=compact";
        assert!(
            matches!(&found[..], [(Name::PositionTopic, Status::Failed, text)] if text.contains(cure) && text.contains("--partitions 1 ")),
            "{found:?}"
        );
    }

    #[test]
    fn given_a_template_when_no_topic_fits_it_then_it_is_warned_of() {
        let with = |text| found(topic(3, &[]), wanted(text, 1), &KafkaSettings::default(), Creation::Leave);
        assert!(with("{aggregatetype}").is_empty());
        assert!(matches!(&with("x.{aggregatetype}")[..], [(Name::Topic, Status::Warned, _)]));
    }
}
