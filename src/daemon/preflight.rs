//! Asks MySQL, the store of positions and Kafka whether they are set up as they must be: all three in one go, each also
//! when another does not answer.

use mysql_async::Error;
use tracing::{info, warn};

use super::{DaemonError, Table, select, servers, store};
use crate::config::Config;
use crate::kafka::preflight::{self as kafka, Creation, Largest};
use crate::mysql::cleanup::settings::By;
use crate::mysql::error::is_transient;
use crate::mysql::preflight::{self as mysql, Answers, Cleaned, ServerId, Store, Wanted, WantedColumn, tls};
use crate::mysql::servers::Servers;
use crate::mysql::settings::Keeper;
use crate::outbox::TopicTemplate;
use crate::preflight::{Check, Name, Report, Status, Unavailable};
use crate::relay::settings::{OnPurged, Start};

/// What a record takes besides the values of its row: names of headers, lengths, the batch around it.
const RECORD_OVERHEAD: u64 = 1024;

/// What was asked and found.
#[derive(Debug, Default)]
pub struct Survey {
    /// The tables that are selected; none when MySQL does not answer.
    pub tables: Vec<Table>,
    /// The answers.
    pub report: Report,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// The replica id that the daemon shows, or would show.
    pub server_id: u32,
    /// Whether it shows it already.
    pub relays: bool,
    /// Topics that are not there are created if the configuration says so; otherwise the cluster is only asked whether it
    /// would.
    pub creates: bool,
}

/// Asks every server once.
pub async fn survey(config: &Config, asker: Asker) -> Result<Survey, DaemonError> {
    let (log, positions) = servers(config)?;
    survey_of(config, &log, &positions, asker).await
}

/// The same, of servers that were asked before: what was made for connections to them need not be made again.
pub(super) async fn survey_of(
    config: &Config,
    log: &Servers,
    positions: &Servers,
    asker: Asker,
) -> Result<Survey, DaemonError> {
    let Asker { server_id: id, relays, creates } = asker;
    let server_id = ServerId { id, configured: config.mysql.server_id.is_some(), is_shown: relays };
    let mut survey = Survey::default();
    let mut widest = Vec::new();
    // Kafka connects while MySQL answers.
    let answers = ask_log(config, log, positions, server_id, &mut survey);
    let (answers, cluster) = tokio::join!(answers, kafka::open(&config.kafka));
    match answers? {
        Ok(answers) => {
            survey.report.checks.extend(answers.checks);
            widest = answers.widest;
        }
        Err(error) => match tls::refused(log.in_use(), &error).await {
            Some(check) => survey.report.checks.insert(0, check),
            None => survey.report.unavailable.insert(0, unavailable("mysql", log, &error)),
        },
    }
    let creation = match (config.kafka.create_topics, creates) {
        (false, _) => Creation::Leave,
        (true, false) => Creation::Rehearse,
        (true, true) => Creation::Create,
    };
    let mut wanted = Vec::new();
    for outbox in &config.outbox {
        let topic = outbox.topic().map_err(|error| DaemonError::Configuration(error.to_string()))?;
        let of_block = |table: &Table| table.mapping.topic().to_string() == outbox.topic;
        let names: Vec<_> = survey.tables.iter().filter(|table| of_block(table)).collect();
        let of_tables =
            widest.iter().filter(|widest| names.iter().any(|table| table.subscription.table == widest.table));
        let largest = of_tables.max_by_key(|widest| widest.bytes).map(|widest| Largest {
            bytes: widest.bytes.saturating_add(RECORD_OVERHEAD),
            because: format!("{} of {}", widest.column, widest.table),
        });
        for aside in names.iter().filter_map(|table| table.mapping.aside_topic()).take(1) {
            let topic = TopicTemplate::parse(&aside).map_err(|error| DaemonError::Configuration(error.to_string()))?;
            wanted.push(kafka::Wanted { topic, text: aside, largest: None });
        }
        wanted.push(kafka::Wanted { topic, text: outbox.topic.clone(), largest });
    }
    let topic = (config.keeper() == Keeper::Kafka).then_some(config.positions.topic.as_str());
    match kafka::check(cluster, &config.kafka, &wanted, topic, creation).await {
        Ok(checks) => survey.report.checks.extend(checks),
        Err(unavailable) => survey.report.unavailable.push(unavailable),
    }
    let is_shut_out = |check: &Check| matches!(check.name, Name::KafkaTls | Name::KafkaLogin);
    let shut_out = survey.report.with(Status::Failed).any(is_shut_out);
    if survey.report.unavailable.is_empty() && !survey.tables.is_empty() && !shut_out {
        match store::left_behind(config, positions, &survey.tables).await? {
            Ok(checks) => survey.report.checks.extend(checks),
            Err(unavailable) => survey.report.unavailable.push(unavailable),
        }
    }
    Ok(survey)
}

fn unavailable(what: &str, servers: &Servers, error: &Error) -> Unavailable {
    let (server, reason) = (format!("{what} {servers}"), error.to_string());
    Unavailable { server, reason, transient: is_transient(error) }
}

/// Asks the log's server, and before it the store, whose answers some checks of the log need.
async fn ask_log(
    config: &Config,
    log: &Servers,
    positions: &Servers,
    server_id: ServerId,
    survey: &mut Survey,
) -> Result<Result<Answers, Error>, DaemonError> {
    let mut conn = log.connect().await;
    if let Ok(conn) = &mut conn {
        match tls::check(conn, log.in_use()).await {
            Ok(check) => survey.report.checks.push(check),
            Err(error) => return Ok(Err(error)),
        }
        match mysql::tables(conn).await {
            Ok(existing) => survey.tables = select(config, &existing)?,
            Err(error) => return Ok(Err(error)),
        }
    }
    let by = config.cleanup.keep.map(|_| config.cleanup.by);
    let wanted: Vec<_> = survey.tables.iter().map(|table| wanted(table, by)).collect();
    let store = match config.keeper() {
        Keeper::Kafka => None,
        Keeper::Mysql => match ask_store(config, positions, &wanted).await {
            Ok(store) => Some(store),
            Err(error) => {
                match tls::refused(positions.in_use(), &error).await {
                    // The log's server tells the same.
                    Some(_) if conn.is_err() && config.positions.url.is_none() => {}
                    Some(check) => survey.report.checks.push(check),
                    None => survey.report.unavailable.push(unavailable("positions", positions, &error)),
                }
                None
            }
        },
    };
    Ok(match conn {
        Ok(mut conn) => mysql::check(&mut conn, &wanted, server_id, store.as_ref()).await,
        Err(error) => {
            survey.report.checks.extend(store.as_ref().map(Store::check));
            Err(error)
        }
    })
}

async fn ask_store(config: &Config, positions: &Servers, wanted: &[Wanted]) -> Result<Store, Error> {
    let mut conn = positions.connect().await?;
    Store::ask(&mut conn, &config.positions.schema, &config.positions.table, wanted).await
}

fn wanted(table: &Table, by: Option<By>) -> Wanted {
    let column =
        |(place, name): (usize, &String)| WantedColumn { name: name.clone(), required: table.mapping.requires(place) };
    Wanted {
        table: table.subscription.table.clone(),
        columns: table.subscription.columns.iter().enumerate().map(column).collect(),
        reads_table: table.start == Start::Snapshot,
        recovers: table.on_purged == OnPurged::RecoverFromTable,
        cleaned: by.zip(table.mapping.timestamp()).map(|(by, column)| Cleaned { column: column.to_owned(), by }),
    }
}

/// The tables after a survey.
#[derive(Debug)]
pub(super) struct Looked {
    /// Those that can be relayed.
    pub(super) fit: Vec<Table>,
    /// Those that cannot, and why.
    pub(super) unfit: Vec<(Table, String)>,
}

impl Looked {
    /// Divides the tables by what failed for each.
    pub(super) fn at(tables: Vec<Table>, report: &Report) -> Self {
        let (mut fit, mut unfit) = (Vec::new(), Vec::new());
        for table in tables {
            let name = &table.subscription.table;
            let mut failed = report.failed_for(name, &table.mapping.topic().to_string());
            for check in table.mapping.aside_topic().map(|topic| report.failed_for(name, &topic)).unwrap_or_default() {
                if !failed.contains(&check) {
                    failed.push(check);
                }
            }
            if failed.is_empty() {
                fit.push(table);
            } else {
                let why: Vec<_> = failed.into_iter().map(ToString::to_string).collect();
                unfit.push((table, why.join("; ")));
            }
        }
        Self { fit, unfit }
    }
}

/// Tells the log what a start may go on with.
pub(super) fn log(report: &Report) {
    for check in report.with(Status::Warned) {
        let cure = check.cure.as_deref().unwrap_or_default();
        let Check { name, setting, expected, found, .. } = check;
        warn!(check = %name, %setting, %expected, %found, %cure, "preflight_warning");
    }
    for check in report.with(Status::Passed).filter(|check| check.name == Name::Topic) {
        info!(topic = %check.setting, found = %check.found, "topic_found");
    }
}
