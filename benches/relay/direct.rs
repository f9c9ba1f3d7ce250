//! A bare loop: the binlog's stream straight into one producer, with `linger.ms` 0. It keeps no promise (no positions, no
//! acknowledgements, no limits), and is what latency is compared with.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use mysql_async::Opts;
use outboxd::mysql::MysqlSource;
use outboxd::mysql::connect::Endpoint;
use outboxd::mysql::tls::{TlsMode, TlsSettings};
use outboxd::outbox::{Columns, Mapping, Record, TopicTemplate};
use outboxd::position::{Point, Position};
use outboxd::source::{BatchBuilder, LogEvent, LogSource, LogStream, RowSet, Subscription};
use outboxd::table::TableName;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};

use crate::alone::properties;

/// A run of it; it ends with its parent.
#[derive(Debug, Clone, Args)]
pub(crate) struct Direct {
    #[arg(long)]
    pub(crate) kafka: String,
    /// The server's port.
    #[arg(long)]
    pub(crate) mysql: u16,
    /// The transactions before the first that is sent.
    #[arg(long)]
    pub(crate) gtids: String,
    #[arg(long)]
    pub(crate) topic: String,
    #[arg(long)]
    pub(crate) tables: usize,
}

impl Direct {
    pub(crate) fn arguments(&self) -> [String; 6] {
        [
            "direct".to_owned(),
            format!("--kafka={}", self.kafka),
            format!("--mysql={}", self.mysql),
            format!("--gtids={}", self.gtids),
            format!("--topic={}", self.topic),
            format!("--tables={}", self.tables),
        ]
    }
}

/// The part that runs in a process of its own.
pub(crate) async fn part(direct: &Direct) {
    let opts = Opts::from_url(&format!("mysql://admin:admin@127.0.0.1:{}", direct.mysql)).unwrap();
    let tls = TlsSettings { mode: TlsMode::Disabled, ..TlsSettings::default() };
    let endpoint = Endpoint::new(opts, Duration::from_secs(10)).with_tls(tls);
    let mut source = MysqlSource::new(endpoint, 9_000, Duration::from_secs(5), Duration::from_secs(15));
    let mapping = Mapping::new(Columns::default(), TopicTemplate::parse(&direct.topic).unwrap());
    let table = |number| TableName::new("delivery", &format!("delivery-outbox{number}"));
    let subscription = |number| Subscription { table: table(number), columns: Arc::clone(mapping.columns()) };
    let subscriptions: Vec<_> = (1..=direct.tables).map(subscription).collect();
    let from: Position = Point::Gtid(direct.gtids.parse().unwrap()).into();
    let mut stream = source.open(&from, &subscriptions).await.unwrap();
    let producer: ThreadedProducer<DefaultProducerContext> = properties(&direct.kafka, 0).create().unwrap();
    let mut batch = BatchBuilder::new(mapping.columns().len());
    let position = Arc::new(from);
    loop {
        match stream.next().await.unwrap() {
            LogEvent::Begin { commit_micros, .. } => batch.set_commit_micros(commit_micros),
            LogEvent::Rows { rows, .. } => {
                rows.append_to(&mut batch).unwrap();
                for row in batch.take(Arc::clone(&position)).rows() {
                    mapping.with_record(row, None, |record| send(&producer, record)).unwrap();
                }
            }
            _ => {}
        }
    }
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, record: &Record<'_>) {
    let headers = record.headers.iter().fold(OwnedHeaders::new_with_capacity(2), |all, header| {
        all.insert(Header { key: header.name, value: header.value })
    });
    let next = BaseRecord::to(record.topic)
        .key(record.key)
        .payload(record.value.unwrap_or_default())
        .timestamp(record.timestamp_millis)
        .headers(headers);
    producer.send(next).map_err(|(error, _)| error).unwrap();
}
