//! Preflight of Kafka: whether every record can be delivered, and acknowledged records stay.
//!
//! Questions (`facts`, `probe`) and judgement (`topics`, `access`) are apart, so the judgement needs no cluster to be
//! tested.

mod access;
mod facts;
mod probe;
mod topics;

use std::collections::{BTreeMap, BTreeSet};

use self::facts::Opened;
use super::settings::KafkaSettings;
use crate::outbox::TopicTemplate;
use crate::preflight::{Check, Unavailable};

/// Topics that events go to.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// One topic, or a template.
    pub topic: TopicTemplate,
    /// The same as configured.
    pub text: String,
    /// The largest record that its tables may make, if they could be asked.
    pub largest: Option<Largest>,
}

/// How large a record may become.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Largest {
    /// Bytes of the record, headers included.
    pub bytes: u64,
    /// What makes it so large, for people.
    pub because: String,
}

/// What becomes of topics that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// Nothing: their absence is a failed check.
    Leave,
    /// The cluster is asked whether it would create them.
    Rehearse,
    /// They are created.
    Create,
}

/// A cluster that has been asked what there is; or why it does not answer.
pub struct Cluster(Result<Opened, Unavailable>);

/// Connects to the cluster.
pub async fn open(settings: &KafkaSettings) -> Cluster {
    Cluster(Opened::of(settings).await)
}

/// Checks the topics, and the one of positions if they are kept there, after creating those that are not there if that is
/// wanted.
pub async fn check(
    cluster: Cluster,
    settings: &KafkaSettings,
    wanted: &[Wanted],
    positions: Option<&str>,
    creation: Creation,
) -> Result<Vec<Check>, Unavailable> {
    let names: BTreeSet<&str> = wanted.iter().filter_map(|wanted| wanted.topic.fixed()).chain(positions).collect();
    let asked = async { cluster.0?.ask(settings, &names, positions, creation).await };
    let facts = match asked.await {
        Ok(facts) => facts,
        Err(unavailable) => {
            return match access::refused(settings, &unavailable.reason).await {
                Some(check) => Ok(vec![check]),
                None => Err(unavailable),
            };
        }
    };
    let mut checks = access::granted(settings).to_vec();
    checks.push(facts.reach.clone());
    checks.extend(topics::check(&facts, settings, wanted, positions, creation));
    Ok(checks)
}

/// A topic that is there.
pub(super) struct Described {
    pub(super) name: String,
    pub(super) partitions: usize,
    /// Its settings; `None` where they are not told.
    pub(super) settings: Option<BTreeMap<String, String>>,
}

/// The topics of these names and templates that are there.
pub(super) async fn describe(
    settings: &KafkaSettings,
    wanted: &[TopicTemplate],
) -> Result<Vec<Described>, Unavailable> {
    let cluster = Opened::of(settings).await?;
    let all = cluster.names();
    let names = all.iter().map(String::as_str).filter(|name| wanted.iter().any(|topic| topic.may_be(name))).collect();
    let topics = cluster.ask(settings, &names, None, Creation::Leave).await?.topics;
    let there = |topic: facts::Topic| {
        let partitions = topic.layout?.partitions;
        Some(Described { name: topic.name, partitions, settings: topic.settings })
    };
    Ok(topics.into_iter().filter_map(there).collect())
}
