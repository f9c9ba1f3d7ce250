//! What a log source promises.

use std::sync::Arc;

use futures::FutureExt;

use crate::outbox::Columns;
use crate::position::Position;
use crate::source::{
    BatchBuilder, ForeignDml, LogEvent, LogSource, LogStream, RowSet, SourceError, Subscription, TableScan,
};
use crate::table::TableName;
use crate::testing::log::{Insert, Step};

/// A log, and what a check does to it.
pub trait Bench: Sync {
    /// A reader.
    type Source: LogSource;
    /// A new reader.
    fn source(&self) -> impl Future<Output = Self::Source>;
    /// Two outbox tables, of the default columns.
    fn tables(&self) -> [TableName; 2];
    /// A transaction of these steps, committed or rolled back.
    fn play(&self, steps: Vec<Step>, commit: bool) -> impl Future<Output = ()>;
    /// Breaks the connections of all readers.
    fn disconnect(&self) -> impl Future<Output = ()>;
}

/// Every check.
pub async fn keep(bench: &impl Bench) {
    transactions_come_whole_in_order_and_of_subscribed_tables_only(bench).await;
    every_commit_is_a_place_to_resume(bench).await;
    what_is_undone_does_not_come(bench).await;
    a_broken_connection_is_an_error_and_loses_nothing(bench).await;
    a_table_is_read_itself_and_the_log_brings_the_rest(bench).await;
}

fn subscriptions(tables: &[TableName]) -> Vec<Subscription> {
    let Columns { id, aggregatetype, aggregateid, event_type, payload, .. } = Columns::default();
    let columns: Arc<[String]> = [id, aggregatetype, aggregateid, event_type, payload].into();
    tables.iter().map(|table| Subscription { table: table.clone(), columns: Arc::clone(&columns) }).collect()
}

fn insert(table: &TableName, ids: &[&str]) -> Step {
    Step::Insert(table.clone(), ids.iter().map(|id| Insert::new(id, "key")).collect())
}

/// One committed transaction that has something for the tables: its rows as slot and id, and the position after it.
type Seen = (Vec<(usize, String)>, Position);

/// Reads until so many transactions with rows are committed. Every wait is given up once before it is kept.
async fn read<S: LogStream>(stream: &mut S, transactions: usize) -> Result<Vec<Seen>, SourceError> {
    let mut seen = Vec::new();
    let mut open: Option<Vec<(usize, String)>> = None;
    while seen.len() < transactions {
        let event = match stream.next().now_or_never() {
            Some(event) => event?,
            None => stream.next().await?,
        };
        match event {
            LogEvent::Begin { commit_micros, .. } => {
                assert!(open.is_none() && commit_micros > 0);
                open = Some(Vec::new());
            }
            LogEvent::Rows { slot, rows } => {
                let mut batch = BatchBuilder::new(5);
                rows.append_to(&mut batch).unwrap();
                let batch = batch.take(Arc::default());
                let ids = batch.rows().map(|row| (slot, String::from_utf8_lossy(row.get(0).unwrap()).into_owned()));
                open.as_mut().expect("rows are within a transaction").extend(ids);
            }
            LogEvent::Foreign { slot, kind } => {
                open.as_mut().expect("statements are within a transaction").push((slot, format!("{kind:?}")));
            }
            LogEvent::Commit => {
                let rows = open.take().expect("a commit ends a transaction");
                if !rows.is_empty() {
                    seen.push((rows, stream.position().clone()));
                }
            }
            LogEvent::Rollback => open = None,
            LogEvent::Savepoint { .. } | LogEvent::Progress => {}
            LogEvent::RollbackTo { .. } => open.as_mut().expect("a savepoint is within a transaction").clear(),
            LogEvent::Fault { fault, .. } => panic!("{fault}"),
            LogEvent::XaStart | LogEvent::Prepare { .. } | LogEvent::Settle { .. } => panic!("no step is an XA one"),
        }
    }
    Ok(seen)
}

fn rows(seen: &[Seen]) -> Vec<Vec<(usize, &str)>> {
    seen.iter().map(|(rows, _)| rows.iter().map(|(slot, id)| (*slot, id.as_str())).collect()).collect()
}

/// Given transactions over several tables, when some of the tables are subscribed, then their rows come, numbered as the
/// subscriptions are, and nothing of before the position.
pub async fn transactions_come_whole_in_order_and_of_subscribed_tables_only(bench: &impl Bench) {
    let [a, b] = bench.tables();
    bench.play(vec![insert(&a, &["w-before"])], true).await;
    let mut source = bench.source().await;
    let start = source.newest().await.unwrap();
    assert!(source.oldest().await.unwrap() <= start);
    bench.play(vec![insert(&a, &["w1", "w2"]), insert(&b, &["w3"]), insert(&a, &["w4"])], true).await;
    bench.play(vec![insert(&b, &["w5"])], true).await;
    bench.play(vec![Step::Foreign(a.clone(), ForeignDml::Update), insert(&a, &["w6"])], true).await;
    let mut stream = source.open(&start, &subscriptions(&[b.clone(), a.clone()])).await.unwrap();
    let seen = read(&mut stream, 3).await.unwrap();
    let all = [vec![(1, "w1"), (1, "w2"), (0, "w3"), (1, "w4")], vec![(0, "w5")], vec![(1, "Update"), (1, "w6")]];
    assert_eq!(rows(&seen), all);
    let mut stream = source.open(&start, &subscriptions(&[b])).await.unwrap();
    assert_eq!(rows(&read(&mut stream, 2).await.unwrap()), [[(0, "w3")], [(0, "w5")]]);
}

/// Given the position after each transaction, when the log is opened there, then it goes on with the next one.
pub async fn every_commit_is_a_place_to_resume(bench: &impl Bench) {
    let [a, b] = bench.tables();
    let mut source = bench.source().await;
    let start = source.newest().await.unwrap();
    let ids = ["r1", "r2", "r3", "r4"];
    for id in ids {
        bench.play(vec![insert(&a, &[id])], true).await;
    }
    let subscriptions = subscriptions(&[a, b]);
    let mut stream = source.open(&start, &subscriptions).await.unwrap();
    let seen = read(&mut stream, ids.len()).await.unwrap();
    for (read_before, (_, position)) in seen.iter().enumerate() {
        let rest = &ids[read_before + 1..];
        let mut stream = source.open(&position.to_string().parse().unwrap(), &subscriptions).await.unwrap();
        let again = read(&mut stream, rest.len()).await.unwrap();
        assert_eq!(rows(&again).concat(), rest.iter().map(|id| (0, *id)).collect::<Vec<_>>());
    }
    assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1), "positions move forwards");
}

/// R7: given transactions and savepoints that are rolled back, then nothing of them is left at the commit.
pub async fn what_is_undone_does_not_come(bench: &impl Bench) {
    let [a, _] = bench.tables();
    let mut source = bench.source().await;
    let start = source.newest().await.unwrap();
    let (mark, back) = (Step::Savepoint("s".to_owned()), Step::RollbackTo("s".to_owned()));
    bench.play(vec![insert(&a, &["u1"])], false).await;
    bench.play(vec![mark, insert(&a, &["u2"]), back, insert(&a, &["u3"])], true).await;
    let mut stream = source.open(&start, &subscriptions(&[a])).await.unwrap();
    assert_eq!(rows(&read(&mut stream, 1).await.unwrap()), [[(0, "u3")]]);
}

/// Given an open stream, when the connection breaks, then that is an error that time can cure, and the log opens again
/// where the stream stood.
pub async fn a_broken_connection_is_an_error_and_loses_nothing(bench: &impl Bench) {
    let tables = bench.tables();
    let mut source = bench.source().await;
    let start = source.newest().await.unwrap();
    bench.play(vec![insert(&tables[0], &["b1"])], true).await;
    let subscriptions = subscriptions(&tables);
    let mut stream = source.open(&start, &subscriptions).await.unwrap();
    assert_eq!(rows(&read(&mut stream, 1).await.unwrap()), [[(0, "b1")]]);
    bench.disconnect().await;
    let error = read(&mut stream, 1).await.unwrap_err();
    assert!(matches!(error, SourceError::Transient(_)), "{error}");
    bench.play(vec![insert(&tables[1], &["b2"])], true).await;
    let mut stream = source.open(stream.position(), &subscriptions).await.unwrap();
    assert_eq!(rows(&read(&mut stream, 1).await.unwrap()), [[(1, "b2")]]);
}

/// Given rows in a table, when it is read itself, broken off and read on while rows are deleted and inserted between, and
/// then the log is read, then every row comes once, those of the table in the order of their keys, and the position grows.
pub async fn a_table_is_read_itself_and_the_log_brings_the_rest(bench: &impl Bench) {
    let [a, _] = bench.tables();
    let subscription = &subscriptions(std::slice::from_ref(&a))[0];
    let mut source = bench.source().await;
    bench.play(vec![insert(&a, &["y2", "y1", "y3", "y4", "y6"])], true).await;
    for n in 0..4 {
        bench.play(vec![insert(&a, &[&format!("z{n}")])], true).await;
    }
    let start = source.snapshot(subscription).await.unwrap();
    assert!(start.scan.is_some(), "there are rows");
    bench.play(vec![insert(&a, &["y0", "y5"])], true).await;
    let (mut position, mut seen) = (start.clone(), Vec::new());
    while position.scan.is_some() && !seen.iter().any(|id| id == "y2") {
        let mut scan = source.scan(&position.to_string().parse().unwrap(), subscription, 1 << 20).await.unwrap();
        assert!(scan.total() > 0);
        // Of three steps of the scan the third is lost.
        for _ in 0..2 {
            seen.extend(step(&mut scan, &mut position).await);
        }
        step(&mut scan, &mut position.clone()).await;
    }
    bench.play(vec![Step::Delete(a.clone(), ["y1", "y3", "y0"].map(str::to_owned).to_vec())], true).await;
    bench.play(vec![insert(&a, &["y25"])], true).await;
    let mut scan = source.scan(&position, subscription, 1 << 20).await.unwrap();
    while position.scan.is_some() {
        seen.extend(step(&mut scan, &mut position).await);
    }
    assert_eq!(position, start.point.into());
    let mut stream = source.open(&position, std::slice::from_ref(subscription)).await.unwrap();
    while !seen.iter().any(|id| id == "y25") {
        let read = read(&mut stream, 1).await.unwrap();
        seen.extend(rows(&read).concat().into_iter().map(|(_, id)| id.to_owned()));
    }
    seen.retain(|id| id.starts_with(['y', 'z']));
    let mut sorted = seen.clone();
    sorted.sort();
    let all = ["y0", "y1", "y2", "y25", "y3", "y4", "y5", "y6", "z0", "z1", "z2", "z3"];
    assert_eq!(sorted, all, "in the order of {seen:?}");
}

/// The next row of a scan, if there is one, and where the position is then.
async fn step(scan: &mut impl TableScan, position: &mut Position) -> Vec<String> {
    let mut batch = BatchBuilder::new(5);
    let reached = scan.fill(&mut batch, 1).await.unwrap();
    let next = Position { scan: reached.map(Box::new), ..position.clone() };
    assert!(*position < next, "{position} is before {next}");
    *position = next;
    let batch = batch.take(Arc::default());
    assert!(position.scan.is_some() || batch.is_empty());
    batch.rows().map(|row| String::from_utf8_lossy(row.get(0).unwrap()).into_owned()).collect()
}
