//! The status page's news: one sampler for all who look.
//!
//! Promise: what the daemon pays does not grow with those who look: each table is read once a second, and put into words
//! only while somebody looks. There are only so many viewers, and one that does not keep up is dropped; nobody waits for one.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::{Semaphore, broadcast};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::history::History;
use super::overview::{Overview, Process, Tables, Tick, changed, tables};
use super::{Current, Failure};
use crate::relay::stats::now_micros;
use crate::telemetry::happenings::Happenings;

/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// How many may look at the same time.
const VIEWERS: usize = 32;

/// How many seconds a viewer may be behind.
const BEHIND: usize = 15;

/// What viewers have been told.
struct Told {
    tables: Tables,
    /// The latest change among the happenings.
    change: u64,
}

struct Sampled {
    history: History,
    at: Instant,
    /// While somebody looks.
    told: Option<Told>,
}

/// What viewers see.
pub(super) struct Live {
    current: Current,
    happenings: Happenings,
    changes: &'static str,
    sampled: Mutex<Sampled>,
    news: broadcast::Sender<Bytes>,
    viewers: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Live {
    /// `changes` says who may change something.
    pub(super) fn new(
        current: Current,
        happenings: Happenings,
        changes: &'static str,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let sampled = Sampled { history: History::default(), at: Instant::now(), told: None };
        Arc::new(Self {
            current,
            happenings,
            changes,
            sampled: Mutex::new(sampled),
            news: broadcast::Sender::new(BEHIND),
            viewers: Arc::new(Semaphore::new(VIEWERS)),
            stop,
        })
    }

    /// Looks at everything once a second, until stopped.
    pub(super) async fn sample(self: Arc<Self>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while self.stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.look();
        }
    }

    fn look(&self) {
        let view = Arc::clone(&self.current.borrow());
        let now_micros = now_micros();
        let mut sampled = self.lock();
        let millis = u64::try_from(sampled.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        sampled.at = Instant::now();
        sampled.history.take(view.metrics.tables().iter().map(AsRef::as_ref), now_micros, millis);
        if self.news.receiver_count() == 0 {
            sampled.told = None;
            return;
        }
        let now = tables(&view);
        let before = sampled.told.take().unwrap_or_else(|| Told { tables: Tables::new(), change: 0 });
        let (happenings, change) = self.happenings.after(before.change);
        let (tables, gone) = changed(&before.tables, &now);
        let points = sampled.history.latest();
        let process = Process::of(&view, self.changes);
        sampled.told = Some(Told { tables: now, change });
        let tick = Tick { now_micros, process, tables, gone, points, happenings };
        // Those who have gone meanwhile miss nothing.
        let _ = self.news.send(event("tick", &tick));
    }

    /// Everything as of the latest second that viewers have been told of; what they are told next follows it.
    fn overview(&self, sampled: &mut Sampled) -> Overview {
        let view = Arc::clone(&self.current.borrow());
        let (happenings, change) = self.happenings.after(0);
        let told = sampled.told.get_or_insert_with(|| Told { tables: tables(&view), change });
        Overview {
            now_micros: now_micros(),
            process: Process::of(&view, self.changes),
            tables: told.tables.values().cloned().collect(),
            history: sampled.history.all(),
            happenings,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sampled> {
        self.sampled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As an event of a stream.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}

pub(super) async fn overview(Shared(live): Shared<Arc<Live>>) -> Json<Overview> {
    Json(live.overview(&mut live.lock()))
}

pub(super) async fn stream(Shared(live): Shared<Arc<Live>>) -> Result<Response, Failure> {
    let many = |_| Failure::new(503, "too_many_viewers", format!("{VIEWERS} look already; close another page"));
    let place = Arc::clone(&live.viewers).try_acquire_owned().map_err(many)?;
    let (first, news) = {
        let mut sampled = live.lock();
        (event("overview", &live.overview(&mut sampled)), live.news.subscribe())
    };
    // One that is too far behind is at its end: the browser comes again, and begins with an overview.
    let news = stream::unfold((news, place), async |(mut news, place)| {
        let next = news.recv().await.ok()?;
        Some((next, (news, place)))
    });
    let events = stream::iter([first]).chain(news).take_until(live.stop.clone().cancelled_owned());
    let kind = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((kind, Body::from_stream(events.map(Ok::<_, Infallible>))).into_response())
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::admin::View;
    use crate::admin::reload::Reloads;
    use crate::outlet::Reach;
    use crate::relay::control::Control;
    use crate::relay::stats::{State, TableStats, TailStats};
    use crate::table::TableName;
    use crate::telemetry::logging::Levels;
    use crate::telemetry::metrics::Metrics;

    fn view(tables: Vec<Arc<TableStats>>) -> Arc<View> {
        let metrics = Metrics::new(tables, Arc::new(TailStats::default()), Arc::new(Reach::default()));
        let (reloads, levels) = (Reloads::channel().0, Levels::of("info", |_| true));
        Arc::new(View { metrics, control: Control::default(), reloads, levels })
    }

    fn table(name: &str) -> Arc<TableStats> {
        Arc::new(TableStats::new(TableName::new("d", name)))
    }

    fn live(current: Current) -> Arc<Live> {
        Live::new(current, Happenings::default(), "open", CancellationToken::new())
    }

    /// Opens a stream, and gives what comes by it.
    async fn watch(live: &Arc<Live>) -> impl futures::Stream<Item = (String, serde_json::Value)> + Unpin {
        let answer = stream(Shared(Arc::clone(live))).await.unwrap();
        answer.into_body().into_data_stream().map(|event| {
            let event = String::from_utf8(event.unwrap().to_vec()).unwrap();
            let (name, data) = event.trim_end().split_once('\n').unwrap();
            let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            (name.strip_prefix("event: ").unwrap().to_owned(), data)
        })
    }

    #[tokio::test]
    async fn a_viewer_sees_everything_at_once_and_then_what_changes() {
        let (one, other) = (table("one"), table("other"));
        let (change, current) = watch::channel(view(vec![Arc::clone(&one), other]));
        let live = live(current);
        (0..3).for_each(|_| live.look());
        let mut seen = watch(&live).await;
        let (name, first) = seen.next().await.unwrap();
        assert_eq!((name.as_str(), first["tables"].as_array().unwrap().len()), ("overview", 2));
        assert_eq!(first["history"]["d.one"].as_array().unwrap().len(), 3, "there is a line at once");
        one.set_state(State::Halted, Some("fenced: twice".to_owned()));
        live.look();
        let (name, tick) = seen.next().await.unwrap();
        assert_eq!((name.as_str(), tick["tables"].as_array().unwrap().len()), ("tick", 1));
        assert_eq!(tick["tables"][0]["state"], "halted");
        assert_eq!(tick["points"].as_object().unwrap().len(), 2);
        change.send_replace(view(vec![Arc::clone(&one), table("new")]));
        live.look();
        let (_, tick) = seen.next().await.unwrap();
        assert_eq!((&tick["tables"][0]["table"], &tick["gone"][0]), (&"d.new".into(), &"d.other".into()));
        live.stop.cancel();
        assert!(seen.next().await.is_none(), "a stop does not wait for those who look");
    }

    #[tokio::test]
    async fn a_viewer_who_does_not_keep_up_is_dropped_and_the_others_are_not() {
        let (_keep, current) = watch::channel(view(vec![table("t")]));
        let live = live(current);
        let (mut quick, mut slow) = (watch(&live).await, watch(&live).await);
        let _firsts = (quick.next().await.unwrap(), slow.next().await.unwrap());
        for _ in 0..=2 * BEHIND {
            live.look();
            quick.next().await.unwrap();
        }
        assert!(slow.next().await.is_none());
        assert_eq!(live.news.receiver_count(), 1);
        drop((quick, slow));
        live.look();
        assert!(live.lock().told.is_none(), "nothing is put into words for nobody");
    }

    #[tokio::test]
    async fn there_are_only_so_many_viewers() {
        let (_keep, current) = watch::channel(view(vec![]));
        let live = live(current);
        let mut all = Vec::new();
        for _ in 0..VIEWERS {
            all.push(stream(Shared(Arc::clone(&live))).await.unwrap());
        }
        let refused = stream(Shared(Arc::clone(&live))).await.unwrap_err();
        assert_eq!(refused.error, "too_many_viewers");
        assert_eq!(refused.into_response().status().as_u16(), 503);
        all.pop();
        assert!(stream(Shared(live)).await.is_ok());
    }
}
