//! Events that cannot be delivered: set aside, and put back.
//!
//! Promise: the aggregate of a parked event stays in order. From that event on all of its events are parked, in order, and
//! which aggregates are is durable with the position that covers them. A release puts all of them back, in order, before
//! any newer one: meanwhile the worker takes nothing new.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{End, Halt, Worker};
use crate::outbox::OnPoison;
use crate::outbox::aside::{self, Label, Parcel, Place, Unpacked};
use crate::outlet::{Chunk, DeliveryError, Event, Failing, Outlet, PublishError, Rejection, Wanted};
use crate::planted::{self, Bug};
use crate::position::{Aggregate, Parked, Parking, Position};
use crate::relay::stats::now_micros;
use crate::source::{Batch, Row};

/// Why an event cannot be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Poison {
    pub(super) name: &'static str,
    pub(super) detail: String,
}

impl From<&Rejection> for Poison {
    fn from(rejection: &Rejection) -> Self {
        Self {
            name: rejection.name,
            detail: format!("topic {}: {}; {}", rejection.topic, rejection.reason, rejection.cure),
        }
    }
}

/// Events that Kafka has refused after they were handed to it: set aside when they come again. Outlives the worker, for the
/// next one begins before them. Once it is durable that they are set aside they are forgotten: what is inserted anew is
/// tried.
#[derive(Debug, Clone, Default)]
pub struct Condemned(Arc<Mutex<HashMap<Event, Poison>>>);

impl Condemned {
    /// The relay goes on from elsewhere: whatever comes is tried.
    pub(in crate::relay) fn forget(&self) {
        self.with(HashMap::clear);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.with(|condemned| condemned.is_empty())
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<Event, Poison>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a worker knows of one of them.
struct Known {
    poison: Poison,
    /// It is set aside: its last record was number so many.
    until: Option<u64>,
}

/// Asks for an aggregate's events to be put back.
#[derive(Debug)]
pub struct Release {
    /// Whose.
    pub aggregate: Aggregate,
    /// How many were, once that is durable; or why not all of them.
    pub answer: oneshot::Sender<Result<u64, String>>,
}

type Reading = Pin<Box<dyn Future<Output = Result<Vec<Unpacked>, String>> + Send>>;

/// How far a release is.
enum Step {
    /// Everything published is to be durable first.
    Settling,
    /// The parked events are read.
    Reading(Reading),
    /// They are published, as record number so many was, and are to be durable.
    Saving(u64, Result<u64, String>),
}

/// What is next for a release.
pub(super) enum Turn {
    /// It is asked for.
    Asked(Release),
    /// Its events were read.
    Read(Result<Vec<Unpacked>, String>),
}

struct Releasing {
    release: Release,
    step: Step,
}

/// What a worker knows of events that are set aside.
pub(super) struct Aside {
    /// As of what is published.
    parked: Arc<Parked>,
    /// Whether that has changed since the window was told.
    changed: bool,
    /// As of what is saved.
    pub(super) saved: Arc<Parked>,
    condemned: Condemned,
    /// Those of them that were known when the worker began; it ends with a new one.
    known: HashMap<Event, Known>,
    pub(super) releases: mpsc::Receiver<Release>,
    releasing: Option<Releasing>,
    /// The key whose events are put back, until that is durable.
    putting_back: Option<Vec<u8>>,
    /// Why they are not, if nothing says more.
    fallback: Option<String>,
}

impl Default for Aside {
    fn default() -> Self {
        Self::new(Parked::default(), Condemned::default())
    }
}

impl Aside {
    pub(super) fn new(parked: Parked, condemned: Condemned) -> Self {
        let parked = Arc::new(parked);
        let known = |(event, poison): (&Event, &Poison)| (event.clone(), Known { poison: poison.clone(), until: None });
        let known = condemned.with(|condemned| condemned.iter().map(known).collect());
        let (saved, releases) = (Arc::clone(&parked), mpsc::channel(1).1);
        Self {
            parked,
            changed: false,
            saved,
            condemned,
            known,
            releases,
            releasing: None,
            putting_back: None,
            fallback: None,
        }
    }

    /// So many records are durable: what was set aside with them comes again only if somebody inserts it anew.
    pub(super) fn forget(&mut self, saved: u64) {
        if self.known.is_empty() {
            return;
        }
        let known = &mut self.known;
        self.condemned.with(|condemned| {
            known.retain(|event, Known { until, .. }| {
                let is_durable = until.is_some_and(|until| until <= saved);
                if is_durable {
                    condemned.remove(event);
                }
                !is_durable
            });
        });
    }

    pub(super) fn is_releasing(&self) -> bool {
        self.releasing.is_some()
    }

    /// Whether nothing new may be published.
    pub(super) fn rests(&self) -> bool {
        self.releasing.as_ref().is_some_and(|releasing| !matches!(releasing.step, Step::Saving(..)))
    }

    /// What is next for a release, if anything. Cancel-safe.
    pub(super) async fn next(&mut self) -> Turn {
        let asked = match &mut self.releasing {
            Some(Releasing { step: Step::Reading(reading), .. }) => return Turn::Read(reading.as_mut().await),
            Some(_) => None,
            None => self.releases.recv().await,
        };
        match asked {
            Some(release) => Turn::Asked(release),
            None => std::future::pending().await,
        }
    }

    /// Takes up a release.
    pub(super) fn begin(&mut self, release: Release) {
        self.releasing = Some(Releasing { release, step: Step::Settling });
    }

    fn answer(&mut self, answer: Result<u64, String>) {
        if let Some(Releasing { release, .. }) = self.releasing.take() {
            // Whoever asked may have gone.
            let _ = release.answer.send(answer);
        }
    }
}

impl<O: Outlet> Worker<O> {
    /// Why an event is set aside before it is tried: its aggregate is parked, or it was refused before.
    pub(super) fn foregone(&self, row: Row<'_>) -> Option<(Poison, bool)> {
        if self.aside.parked.is_empty() && self.aside.known.is_empty() {
            return None;
        }
        let key = self.mapping.key(row).unwrap_or_default();
        if let Some(parking) = self.aside.parked.get(key).filter(|_| !planted::is(Bug::ParkedOvertaken)) {
            return Some((Poison { name: "parked", detail: format!("behind event {}", parking.run) }, true));
        }
        self.aside.known.get(&self.event(row)).map(|known| (known.poison.clone(), false))
    }

    fn event(&self, row: Row<'_>) -> Event {
        let bytes = |column: Option<&[u8]>| column.unwrap_or_default().to_vec();
        Event { key: bytes(self.mapping.key(row)), id: bytes(self.mapping.id(row)) }
    }

    /// Whether an aggregate's events are parked.
    pub(super) fn is_parked(&self, row: Row<'_>) -> bool {
        self.aside.parked.get(self.mapping.key(row).unwrap_or_default()).is_some()
    }

    /// Does with an event what is to be done, and gives its size in bytes.
    pub(super) async fn set_aside(
        &mut self,
        row: Row<'_>,
        (poison, follows): (Poison, bool),
        position: &Position,
        (chunk, stop, patience): (Chunk, &CancellationToken, &mut Option<Instant>),
    ) -> Result<u64, End> {
        let Poison { name, detail } = poison;
        let policy = if follows { OnPoison::Park } else { self.mapping.aside().on_poison };
        if policy == OnPoison::Halt {
            return Err(End::Halt(Halt { name, detail: format!("after {position}: {detail}") }));
        }
        let (key, id) = (self.mapping.key(row).unwrap_or_default(), self.mapping.id(row));
        let (table, at, reason) = (self.stats.table.clone(), position.to_string(), format!("{name}: {detail}"));
        let label = Label { table: &table, position: &at, reason: &reason, place: None };
        let event = String::from_utf8_lossy(id.unwrap_or_default()).escape_debug().to_string();
        if policy == OnPoison::DeadLetter {
            let parcel = Parcel::new(&self.mapping, row, &label);
            self.send(&parcel, chunk, stop, patience).await?;
            self.note_aside(row);
            self.stats.dead_letters.fetch_add(1, Relaxed);
            warn!(%table, %event, position = %at, topic = parcel.topic(), %reason, "dead_letter_leaves_hole_in_order");
            return Ok(parcel.bytes());
        }
        let known = self.aside.parked.get(key);
        let run = known.map_or_else(
            || id.map_or_else(|| at.clone(), |id| Aggregate::new(id).to_string()),
            |parking| parking.run.clone(),
        );
        let (number, is_new) = (known.map_or(0, |parking| parking.events), known.is_none());
        let place = Some(Place { run: &run, number });
        let parcel = Parcel::new(&self.mapping, row, &Label { place, ..label });
        self.within_limits(is_new, parcel.bytes(), &reason)?;
        self.send(&parcel, chunk, stop, patience).await?;
        let parked = Arc::make_mut(&mut self.aside.parked);
        if is_new {
            let micros = i64::try_from(row.commit_micros()).unwrap_or(i64::MAX);
            let parking = Parking {
                run: run.clone(),
                reason: reason.clone(),
                since: Timestamp::from_microsecond(micros).unwrap_or_default(),
                position: at.clone(),
                topics: [].into(),
                events: 0,
                released: 0,
                bytes: 0,
            };
            parked.put(Aggregate::new(key), parking);
            warn!(%table, %event, position = %at, topic = parcel.topic(), %reason, "aggregate_parked");
        }
        if let Some(parking) = parked.get_mut(key) {
            parking.events += 1;
            parking.bytes += parcel.bytes();
            if !parking.topics.contains(parcel.topic()) {
                parking.topics.insert(parcel.topic().to_owned());
            }
        }
        self.aside.changed = true;
        self.note_aside(row);
        self.stats.parked_total.fetch_add(1, Relaxed);
        Ok(parcel.bytes())
    }

    /// An event is set aside, with the latest record.
    fn note_aside(&mut self, row: Row<'_>) {
        if self.aside.known.is_empty() {
            return;
        }
        let (event, published) = (self.event(row), self.window.published_records());
        if let Some(known) = self.aside.known.get_mut(&event) {
            known.until = Some(published);
        }
    }

    /// Whether one more event may be parked.
    fn within_limits(&self, is_new: bool, bytes: u64, reason: &str) -> Result<(), End> {
        let (limits, parked) = (self.mapping.aside(), &self.aside.parked);
        let over = |what: &str, limit: u64| {
            let detail = format!(
                "delivery.{what} is {limit}, and the next event cannot be delivered either: {reason}; cure and release \
                 aggregates (outboxd parked list, outboxd parked release), or raise it"
            );
            Err(End::Halt(Halt { name: "parked_limit", detail }))
        };
        if is_new && parked.len() as u64 >= limits.aggregates {
            return over("parked_aggregates", limits.aggregates);
        }
        if parked.events() >= limits.events {
            return over("parked_events", limits.events);
        }
        if parked.bytes() + bytes > limits.bytes {
            return over("parked_bytes", limits.bytes);
        }
        Ok(())
    }

    /// Publishes an event's records.
    async fn send(
        &mut self,
        parcel: &Parcel<'_>,
        chunk: Chunk,
        stop: &CancellationToken,
        patience: &mut Option<Instant>,
    ) -> Result<(), End> {
        for part in 0..parcel.parts() {
            loop {
                let outlet = &mut self.outlet;
                match parcel.with_part(part, |record| outlet.publish(record, chunk)) {
                    Ok(()) => break self.window.publish(),
                    Err(PublishError::Full) => self.wait_for_room(stop, patience).await?,
                    Err(PublishError::Refused(error)) => return Err(self.undelivered(&error)),
                }
            }
        }
        Ok(())
    }

    /// A batch is published: what it changed is durable with it.
    pub(super) fn note_parked(&mut self) {
        if std::mem::take(&mut self.aside.changed) {
            self.window.park(Arc::clone(&self.aside.parked));
        }
    }

    /// What an error of delivery leads to.
    pub(super) fn undelivered(&mut self, error: &DeliveryError) -> End {
        if self.aside.putting_back.is_some() {
            let reason = format!("it stays parked: {error}");
            match error {
                // What it ended for may be told later.
                DeliveryError::Retriable { failing: Failing::Client, .. } => self.aside.fallback = Some(reason),
                _ => self.aside.answer(Err(reason)),
            }
        }
        match error {
            DeliveryError::Retriable { failing, .. } => self.again_for(failing.name(), error.to_string()),
            DeliveryError::Poison { event: Some(event), .. } if self.may_pass(event) => {
                self.again_for("event", error.to_string())
            }
            DeliveryError::Poison { refusal, event: Some(event) }
                // Otherwise it was set aside, and is refused there too.
                if self.mapping.aside().on_poison != OnPoison::Halt && !self.aside.known.contains_key(&**event) =>
            {
                self.aside.condemned.with(|all| all.insert((**event).clone(), refusal.into()));
                self.again_for("event", error.to_string())
            }
            DeliveryError::Definite(refusal) | DeliveryError::Poison { refusal, .. } => {
                End::Halt(Halt { name: refusal.name, detail: error.to_string() })
            }
        }
    }

    /// Whether an event that is refused was to be put back: then it is parked, as it was.
    fn may_pass(&self, event: &Event) -> bool {
        self.aside.putting_back.as_ref() == Some(&event.key)
    }

    /// The worker has ended: what it was asked for and has not done is refused.
    pub(super) fn end_release(&mut self) {
        self.pursue_release();
        if let Some(reason) = self.aside.fallback.take() {
            self.aside.answer(Err(reason));
        }
    }

    /// Goes on with a release as far as that is possible now.
    pub(super) fn pursue_release(&mut self) {
        let idle = self.window.unsaved() == 0 && self.saving.is_none();
        let Some(releasing) = &mut self.aside.releasing else { return };
        match &mut releasing.step {
            Step::Settling if idle => {
                let key = releasing.release.aggregate.key();
                let Some(parking) = self.aside.parked.get(key) else {
                    return self.aside.answer(Err("it is not parked".to_owned()));
                };
                let wanted = Wanted {
                    topics: parking.topics.iter().cloned().collect(),
                    key: key.to_vec(),
                    headers: vec![(aside::TABLE, self.stats.table.to_string()), (aside::RUN, parking.run.clone())],
                };
                releasing.step = Step::Reading(Box::pin(self.outlet.read(wanted)));
            }
            Step::Saving(until, result) if self.saved_records >= *until => {
                let result = result.clone();
                self.aside.putting_back = None;
                self.aside.answer(result);
            }
            _ => {}
        }
    }

    /// The parked events, from where the last release of them ended.
    fn parked_events(&self, key: &[u8], read: Result<Vec<Unpacked>, String>) -> Result<Option<Batch>, String> {
        let parking = self.aside.parked.get(key).ok_or("it is not parked")?;
        let batch = aside::unpack(&self.mapping, read?, parking.released..parking.events)?;
        for (number, row) in (parking.released..).zip(batch.iter().flat_map(Batch::rows)) {
            let still =
                |error| format!("event {number} is still none that can be delivered: unmappable_event: {error}");
            self.mapping.with_record(row, None, |_| ()).map_err(still)?;
        }
        Ok(batch)
    }

    /// Publishes what was read of a parked aggregate, and ends its parking; or says why it goes on.
    pub(super) async fn put_back(
        &mut self,
        read: Result<Vec<Unpacked>, String>,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let Some(releasing) = &self.aside.releasing else { return Ok(()) };
        let key = releasing.release.aggregate.key().to_vec();
        let batch = match self.parked_events(&key, read) {
            Ok(batch) => batch,
            Err(reason) => {
                self.aside.answer(Err(reason));
                return Ok(());
            }
        };
        let Some(chunk) = self.window.open_again(now_micros()) else {
            self.aside.answer(Err("the table has no position yet; try again later".to_owned()));
            return Ok(());
        };
        self.aside.putting_back = Some(key.clone());
        let (mut patience, mut done, mut bytes, mut refused) = (None, 0, 0, None);
        for row in batch.iter().flat_map(Batch::rows) {
            match self.row(row, None, chunk, stop, &mut patience).await? {
                Ok(size) => bytes += size,
                Err(poison) => {
                    refused = Some(poison);
                    break;
                }
            }
            done += 1;
        }
        let parked = Arc::make_mut(&mut self.aside.parked);
        let result = match refused {
            None => {
                parked.remove(&key);
                // Should they come again, they are tried again.
                self.aside.known.retain(|event, _| event.key != key);
                self.aside.condemned.with(|all| all.retain(|event, _| event.key != key));
                info!(table = %self.stats.table, events = done, "aggregate_released");
                Ok(done)
            }
            Some(Poison { name, detail }) => {
                if let Some(parking) = parked.get_mut(&key) {
                    parking.released += done;
                    parking.bytes = parking.bytes.saturating_sub(bytes);
                }
                Err(format!("{done} events are put back, and the next one stays parked: {name}: {detail}"))
            }
        };
        self.aside.changed = true;
        self.note_parked();
        self.window.close();
        self.stats.bytes.fetch_add(bytes, Relaxed);
        if let Some(releasing) = &mut self.aside.releasing {
            releasing.step = Step::Saving(self.window.published_records(), result);
        }
        Ok(())
    }
}
