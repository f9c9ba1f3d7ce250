//! What the cluster says about itself: only questions here, and the creation of topics where that is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::OAuthToken;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::time::{Instant, sleep};

use super::Creation;
use super::access::{advertised, is_about_login, reach};
use crate::kafka::producer::client;
use crate::kafka::security::{OAuth, hand_token};
use crate::kafka::settings::KafkaSettings;
use crate::preflight::{Check, Unavailable};

/// How long the cluster may take for one answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long the first try takes, before it is heard what the client library has to complain of.
const GLANCE: Duration = Duration::from_secs(1);

/// How long it takes to hear that.
const HEARING: Duration = Duration::from_millis(10);

/// What the topic of positions is created with: a position is written with every transaction and read as a whole at start,
/// so what is outdated has to go soon.
pub(super) const OF_POSITIONS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "16777216"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("delete.retention.ms", "60000"),
];

/// Keeps the last complaint, which says more than that a broker could not be reached; one about the login is kept.
#[derive(Clone)]
struct Complaints {
    last: Arc<Mutex<String>>,
    oauth: OAuth,
}

impl Complaints {
    fn last(&self) -> MutexGuard<'_, String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, complaint: &str) {
        let mut last = self.last();
        if !is_about_login(&last) {
            complaint.clone_into(&mut last);
        }
    }
}

impl ClientContext for Complaints {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.oauth.token()
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility != "FAIL" {
            return;
        }
        // `[thrd:…]: HOST:PORT/ID: what happened`
        let message = message.split_once("]: ").map_or(message, |(_, message)| message);
        self.note(message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::Authentication) {
            // `THREAD: what happened`, or what the broker's connection has logged already
            self.note(reason.split_once("]: ").map_or(reason, |(_, reason)| reason));
        }
    }
}

impl ConsumerContext for Complaints {}

/// One topic's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) partitions: usize,
    /// Of the partition that has the fewest.
    pub(super) replicas: usize,
}

/// A topic that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) layout: Option<Layout>,
    /// What came of creating it, if that was wanted and it was not there.
    pub(super) creation: Option<Result<(), String>>,
    /// Its settings; `None` where they are not told.
    pub(super) settings: Option<BTreeMap<String, String>>,
}

/// Everything that checks look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Where brokers say they are, `host:port`.
    pub(super) brokers: Vec<String>,
    /// Whether they can be reached there.
    pub(super) reach: Check,
    /// The names of all topics that may be seen, but for internal ones.
    pub(super) names: BTreeSet<String>,
    pub(super) topics: Vec<Topic>,
}

/// What is asked. It ends on a thread of its own: the admin client's own thread waits by the wall clock, so after a jump of
/// that by hours nobody else is to wait for it.
struct Clients {
    /// Asks for what there is. Nobody would hear the complaints of an admin client.
    reader: Arc<BaseConsumer<Complaints>>,
    admin: Arc<AdminClient<Complaints>>,
    complaints: Complaints,
    server: String,
}

impl Drop for Clients {
    fn drop(&mut self) {
        let (reader, admin) = (Arc::clone(&self.reader), Arc::clone(&self.admin));
        thread::spawn(move || {
            while Arc::strong_count(&reader) > 1 || Arc::strong_count(&admin) > 1 {
                thread::sleep(HEARING);
            }
        });
    }
}

/// Asks for what there is, hearing complaints meanwhile: one that stays as it is ends the waiting.
fn metadata(reader: &BaseConsumer<Complaints>, complaints: &Complaints) -> Result<Metadata, KafkaError> {
    let deadline = Instant::now() + DEADLINE;
    let mut patience = GLANCE;
    // A token is fetched while it is heard that there has to be one.
    let hearing = if complaints.oauth.is_used() { HEARING } else { Duration::ZERO };
    while reader.poll(hearing).is_some() {}
    loop {
        match reader.fetch_metadata(None, patience) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => {
                while reader.poll(HEARING).is_some() {}
                patience = deadline.saturating_duration_since(Instant::now());
                if is_about_login(&complaints.last()) || patience.is_zero() {
                    return Err(error);
                }
            }
        }
    }
}

/// A cluster that has said what there is.
pub(in crate::kafka) struct Opened {
    clients: Clients,
    brokers: Vec<String>,
    reach: Check,
    layouts: Layouts,
}

type Layouts = BTreeMap<String, Layout>;

impl Opened {
    /// Connects, and asks what there is.
    pub(super) async fn of(settings: &KafkaSettings) -> Result<Self, Unavailable> {
        let clients = Clients::new(settings)?;
        let (brokers, layouts) = match clients.layouts().await {
            Ok(answer) => answer,
            Err(unavailable) => {
                // The client library may have heard where a broker says it is, and asked it there.
                let heard: Vec<_> = advertised(&clients.complaints.last()).map(ToOwned::to_owned).into_iter().collect();
                reach(&heard, settings).await?;
                return Err(unavailable);
            }
        };
        // Further questions go to these addresses.
        let reach = reach(&brokers, settings).await?;
        Ok(Self { clients, brokers, reach, layouts })
    }

    /// The names of all topics that may be seen, but for internal ones.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.layouts.keys().filter(|name| !name.starts_with("__")).cloned().collect()
    }

    /// Asks for the topics of these names, and creates those that are not there if `creation` says so; that of positions
    /// as such a one has to be.
    pub(super) async fn ask(
        mut self,
        settings: &KafkaSettings,
        names: &BTreeSet<&str>,
        positions: Option<&str>,
        creation: Creation,
    ) -> Result<Facts, Unavailable> {
        let Self { clients, layouts, .. } = &mut self;
        let mut described = clients.settings(names).await?;
        let missing: Vec<&str> = names.iter().copied().filter(|name| !layouts.contains_key(*name)).collect();
        let mut created = BTreeMap::new();
        if creation != Creation::Leave && !missing.is_empty() {
            created = clients.create(&missing, positions, settings, creation == Creation::Rehearse).await?;
            let deadline = Instant::now() + DEADLINE;
            let wait = |layouts: &Layouts| {
                creation == Creation::Create
                    && created.iter().any(|(name, outcome)| outcome.is_ok() && !layouts.contains_key(name))
            };
            while wait(layouts) && Instant::now() < deadline {
                sleep(Duration::from_millis(50)).await;
                *layouts = clients.layouts().await?.1;
            }
            if creation == Creation::Create {
                described = clients.settings(names).await?;
            }
        }
        let topic = |&name: &&str| Topic {
            name: name.to_owned(),
            layout: layouts.get(name).copied(),
            creation: created.remove(name),
            settings: described.remove(name),
        };
        let topics = names.iter().map(topic).collect();
        let names = self.names();
        Ok(Facts { brokers: self.brokers, reach: self.reach, names, topics })
    }
}

impl Clients {
    fn new(settings: &KafkaSettings) -> Result<Self, Unavailable> {
        let complaints = Complaints { last: Arc::default(), oauth: OAuth::of(settings) };
        let server = format!("kafka {}", settings.bootstrap_servers);
        let refused = |reason: String| Unavailable { server: server.clone(), reason, transient: false };
        let config = client(settings).map_err(|error| refused(error.to_string()))?;
        let reader = BaseConsumer::from_config_and_context(&config, complaints.clone());
        let reader = Arc::new(reader.map_err(|error| refused(error.to_string()))?);
        let admin = AdminClient::from_config_and_context(&config, complaints.clone());
        let admin = Arc::new(admin.map_err(|error| refused(error.to_string()))?);
        Ok(Self { reader, admin, complaints, server })
    }

    fn unavailable(&self, error: &KafkaError) -> Unavailable {
        let complaint = self.complaints.last();
        let reason = if complaint.is_empty() { error.to_string() } else { format!("{error}: {complaint}") };
        Unavailable { server: self.server.clone(), reason, transient: true }
    }

    /// How many brokers there are, and every topic that we may see. Asking for one topic by name might create it.
    async fn layouts(&self) -> Result<(Vec<String>, Layouts), Unavailable> {
        let (reader, admin, complaints) = (Arc::clone(&self.reader), Arc::clone(&self.admin), self.complaints.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = metadata(&reader, &complaints)?;
            if complaints.oauth.is_used() {
                let handed = complaints.oauth.token().map_err(|error| error.to_string());
                let handed = handed.and_then(|token| hand_token(admin.inner(), &token));
                handed.map_err(KafkaError::ClientCreation)?;
            }
            Ok(metadata)
        });
        let asked = asked.await;
        let metadata = match asked {
            Ok(metadata) => metadata.map_err(|error: KafkaError| self.unavailable(&error))?,
            Err(_) => return Err(self.unavailable(&KafkaError::Canceled)),
        };
        let layout = |topic: &rdkafka::metadata::MetadataTopic| {
            let partitions = topic.partitions();
            let replicas = partitions.iter().map(|partition| partition.replicas().len()).min()?;
            Some((topic.name().to_owned(), Layout { partitions: partitions.len(), replicas }))
        };
        let layouts = metadata.topics().iter().filter(|topic| topic.error().is_none()).filter_map(layout).collect();
        let brokers = metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port()));
        Ok((brokers.collect(), layouts))
    }

    /// The settings of those topics whose settings we may read.
    async fn settings(
        &self,
        names: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, Unavailable> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let asked: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(DEADLINE));
        let answers = self.admin.describe_configs(&asked, &options).await.map_err(|error| self.unavailable(&error))?;
        let settings = |answer: Result<ConfigResource, Code>| match answer {
            // The client library gives what is refused, or not there, as a topic without any setting.
            Ok(ConfigResource { specifier: OwnedResourceSpecifier::Topic(name), entries }) if !entries.is_empty() => {
                Some((name, entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()))
            }
            _ => None,
        };
        Ok(answers.into_iter().filter_map(settings).collect())
    }

    async fn create<'n>(
        &self,
        names: &[&'n str],
        positions: Option<&str>,
        settings: &KafkaSettings,
        rehearse: bool,
    ) -> Result<BTreeMap<String, Result<(), String>>, Unavailable> {
        let new = |&name: &&'n str| {
            let replicas = TopicReplication::Fixed(i32::from(settings.replication_factor));
            if Some(name) != positions {
                return NewTopic::new(name, settings.partitions, replicas);
            }
            OF_POSITIONS.iter().fold(NewTopic::new(name, 1, replicas), |topic, (key, value)| topic.set(key, value))
        };
        let topics: Vec<_> = names.iter().map(new).collect();
        let options = AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE));
        let outcomes = self.admin.create_topics(&topics, &options.validate_only(rehearse)).await;
        let outcome = |outcome| match outcome {
            // Another daemon was quicker.
            Ok(name) | Err((name, Code::TopicAlreadyExists)) => (name, Ok(())),
            Err((name, code)) => (name, Err(code.to_string())),
        };
        Ok(outcomes.map_err(|error| self.unavailable(&error))?.into_iter().map(outcome).collect())
    }
}
