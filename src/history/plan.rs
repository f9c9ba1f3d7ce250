//! Seeded life cycles of deliveries, cut into transactions. Pure: the same seed and the same outcomes give the same plans.

use std::collections::HashMap;
use std::sync::Arc;

use fastrand::Rng;
use serde_json::json;

use super::fingerprint::{Fingerprint, shard_of};
use super::journal::{Event, Outcome, Transaction};
use crate::table::TableName;

/// How many deliveries a planner has under way.
const UNDER_WAY: usize = 24;

/// How often a planner that writes in bulk changes every delivery that it has under way in one transaction: one in so many.
const BULK: u8 = 100;

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Handed over by an order service.
    Created,
    /// Taken by a delivery service.
    Assigned,
    /// Ready to be picked up.
    PickupRequested,
    /// Picked up.
    PickedUp,
    /// Delivered.
    Completed,
    /// Called off.
    Cancelled,
}

impl Stage {
    /// The name, which is also the event's type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Assigned => "Assigned",
            Self::PickupRequested => "PickupRequested",
            Self::PickedUp => "PickedUp",
            Self::Completed => "Completed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// The stage after this one; none at the end.
    fn next(stage: Option<Self>, rng: &mut Rng) -> Option<Self> {
        let may_cancel = matches!(stage, Some(Self::Created | Self::Assigned | Self::PickupRequested));
        if may_cancel && rng.u8(..100) < 6 {
            return Some(Self::Cancelled);
        }
        match stage {
            None => Some(Self::Created),
            Some(Self::Created) => Some(Self::Assigned),
            Some(Self::Assigned) => Some(Self::PickupRequested),
            Some(Self::PickupRequested) => Some(Self::PickedUp),
            Some(Self::PickedUp) => Some(Self::Completed),
            Some(Self::Completed | Self::Cancelled) => None,
        }
    }
}

/// One change of a delivery, and its event.
#[derive(Clone)]
pub struct Change {
    /// The stage reached.
    pub stage: Stage,
    /// The event's identity.
    pub event: Event,
    /// The event's payload.
    pub payload: String,
}

/// A part of a transaction. One that is not kept lies behind a savepoint that is rolled back.
#[derive(Clone)]
pub struct Part {
    /// Whether it stays.
    pub kept: bool,
    /// The changes in order.
    pub changes: Vec<Change>,
}

/// A transaction to be played.
#[derive(Clone)]
pub struct Plan {
    /// Its number, unique per planner and, given different owners, among planners.
    pub id: u64,
    /// Its parts in order.
    pub parts: Vec<Part>,
    /// Whether to commit it or to roll it back.
    pub commit: bool,
}

impl Plan {
    /// What the journal keeps of it.
    pub fn transaction(&self, outcome: Outcome) -> Transaction {
        let events = self.parts.iter().flat_map(|part| &part.changes).map(|change| change.event.clone()).collect();
        Transaction { id: self.id, events, outcome, unanswered: outcome == Outcome::Unknown }
    }
}

type Stages = HashMap<Arc<str>, Option<Stage>>;

#[derive(Clone)]
struct Delivery {
    id: Arc<str>,
    stage: Option<Stage>,
    sequence: u64,
}

/// Plans the transactions of one owner of deliveries.
pub struct Planner {
    rng: Rng,
    owner: u16,
    tables: Arc<[TableName]>,
    under_way: Vec<Delivery>,
    plans: u64,
    bulk: bool,
}

impl Planner {
    /// A planner for one owner. `tables` are the shards in order, at least one; [`shard_of`] selects among them.
    pub fn new(seed: u64, owner: u16, tables: Arc<[TableName]>) -> Self {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(owner) << 48 | u64::from(owner));
        Self { rng: Rng::with_seed(mixed), owner, tables, under_way: Vec::new(), plans: 0, bulk: false }
    }

    /// Now and then a transaction changes everything that is under way, as a nightly job does: tens of rows for each table.
    #[must_use]
    pub fn in_bulk(mut self, bulk: bool) -> Self {
        self.bulk = bulk;
        self
    }

    /// The next transaction. Give its outcome to [`Planner::settle`] before asking for another.
    pub fn plan(&mut self) -> Plan {
        while self.under_way.len() < UNDER_WAY {
            let id = format!("dlv-{:x}-{:012x}", self.owner, self.rng.u64(..1 << 48));
            self.under_way.push(Delivery { id: id.into(), stage: None, sequence: 0 });
        }
        let mut stages = Stages::new();
        let mut parts = vec![self.part(true, &mut stages)];
        if self.bulk && self.rng.u8(..BULK) == 0 {
            parts.push(Part { kept: true, changes: self.everything(&mut stages) });
        }
        if self.rng.u8(..100) < 15 {
            let before = stages.clone();
            parts.push(self.part(false, &mut stages));
            stages = before;
            if self.rng.bool() {
                parts.push(self.part(true, &mut stages));
            }
        }
        parts.retain(|part| !part.changes.is_empty());
        let id = (u64::from(self.owner) << 48) | self.plans;
        self.plans += 1;
        Plan { id, parts, commit: self.rng.u8(..100) >= 10 }
    }

    /// Takes note of a plan's outcome. An outcome that stays unknown counts as not committed.
    pub fn settle(&mut self, plan: &Plan, outcome: Outcome) {
        if outcome != Outcome::Committed {
            return;
        }
        for change in plan.parts.iter().filter(|part| part.kept).flat_map(|part| &part.changes) {
            if let Some(delivery) = self.under_way.iter_mut().find(|delivery| delivery.id == change.event.aggregate) {
                delivery.stage = Some(change.stage);
            }
        }
        let ended = |stage| matches!(stage, Some(Stage::Completed | Stage::Cancelled));
        self.under_way.retain(|delivery| !ended(delivery.stage));
    }

    /// Changes of one or several deliveries, one or several each.
    fn part(&mut self, kept: bool, stages: &mut Stages) -> Part {
        let deliveries = if self.rng.u8(..100) < 70 { 1 } else { self.rng.usize(2..=5) };
        let mut changes = Vec::new();
        for _ in 0..deliveries {
            let index = self.rng.usize(..self.under_way.len());
            let steps = if self.rng.u8(..100) < 80 { 1 } else { self.rng.usize(2..=3) };
            self.advance(index, steps, kept, stages, &mut changes);
        }
        Part { kept, changes }
    }

    /// All deliveries go on for as long as they can.
    fn everything(&mut self, stages: &mut Stages) -> Vec<Change> {
        let mut changes = Vec::new();
        for index in 0..self.under_way.len() {
            self.advance(index, usize::MAX, true, stages, &mut changes);
        }
        changes
    }

    /// Up to so many further stages of one delivery.
    fn advance(&mut self, index: usize, steps: usize, kept: bool, stages: &mut Stages, changes: &mut Vec<Change>) {
        for _ in 0..steps {
            let delivery = &mut self.under_way[index];
            let stage = stages.get(&delivery.id).copied().unwrap_or(delivery.stage);
            let Some(next) = Stage::next(stage, &mut self.rng) else { break };
            delivery.sequence += 1;
            stages.insert(Arc::clone(&delivery.id), Some(next));
            let delivery = delivery.clone();
            changes.push(self.change(&delivery, next, kept));
        }
    }

    fn change(&mut self, delivery: &Delivery, stage: Stage, kept: bool) -> Change {
        let mut bytes = [0; 16];
        self.rng.fill(&mut bytes);
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid().hyphenated().to_string();
        let payload = payload(delivery, stage, &mut self.rng);
        let event = Event {
            id: id.into(),
            table: self.tables[shard_of(&delivery.id, self.tables.len())].clone(),
            aggregate: Arc::clone(&delivery.id),
            sequence: delivery.sequence,
            event_type: stage.name().into(),
            payload: Fingerprint::of_json(&payload),
            kept,
        };
        Change { stage, event, payload: payload.to_string() }
    }
}

/// Some 450 bytes of nested JSON, with characters of two, three and four bytes.
fn payload(delivery: &Delivery, stage: Stage, rng: &mut Rng) -> serde_json::Value {
    const STREETS: [&str; 4] = ["Straße des 17. Juni", "성남시 분당구 판교역로", "Ångströmvägen", "Calle de Alcalá"];
    const DISHES: [&str; 4] = ["김치찌개 🍲", "Käsespätzle", "crème brûlée", "ramen 🍜 \"spicy\""];
    let degrees = |rng: &mut Rng, low: i32, high: i32| f64::from(rng.i32(low..high)) / 10_000.0;
    json!({
        "deliveryId": &*delivery.id,
        "sequence": delivery.sequence,
        "status": stage.name(),
        "previous": delivery.stage.map(Stage::name),
        "orderService": format!("order-service-{}", rng.u8(1..5)),
        "fee": { "amount": f64::from(rng.u32(2_000..9_000)) / 100.0, "currency": "EUR", "prepaid": rng.bool() },
        "pickup": { "street": rng.choice(STREETS), "number": rng.u16(1..300),
            "at": [degrees(rng, 370_000, 380_000), degrees(rng, 1_260_000, 1_280_000)] },
        "items": [
            { "name": rng.choice(DISHES), "quantity": rng.u8(1..9), "note": null },
            { "name": rng.choice(DISHES), "quantity": 1, "note": "ohne Zwiebeln, bitte" },
        ],
        "rider": { "id": rng.u32(1..100_000), "vehicle": "bicycle" },
        "requestedAt": 1_700_000_000_000_u64 + rng.u64(..100_000_000_000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_varied_and_repeatable() {
        let tables: Arc<[TableName]> = (1..=4).map(|n| TableName::new("d", &format!("outbox-{n}"))).collect();
        let play = || {
            let mut planner = Planner::new(7, 2, Arc::clone(&tables));
            (0..500)
                .map(|_| {
                    let plan = planner.plan();
                    planner.settle(&plan, if plan.commit { Outcome::Committed } else { Outcome::RolledBack });
                    plan
                })
                .collect::<Vec<_>>()
        };
        let plans = play();
        let transactions =
            |plans: &[Plan]| plans.iter().map(|plan| plan.transaction(Outcome::Unknown)).collect::<Vec<_>>();
        assert_eq!(transactions(&plans), transactions(&play()));
        assert!(plans.iter().any(|plan| !plan.commit));
        assert!(plans.iter().any(|plan| plan.parts.iter().any(|part| !part.kept)));
        let changes: Vec<_> = plans.iter().flat_map(|plan| &plan.parts).flat_map(|part| &part.changes).collect();
        assert!(changes.iter().any(|change| change.stage == Stage::Cancelled));
        assert!(changes.iter().any(|change| change.stage == Stage::Completed));
        let bytes = changes.iter().map(|change| change.payload.len()).sum::<usize>() / changes.len();
        assert!((400..520).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_transaction_in_bulk_has_tens_of_rows_for_each_table() {
        let tables: Arc<[TableName]> = (1..=4).map(|n| TableName::new("d", &format!("outbox-{n}"))).collect();
        let mut planner = Planner::new(7, 2, Arc::clone(&tables)).in_bulk(true);
        let plans: Vec<_> = (0..500).map(|_| planner.plan()).collect();
        let bulk = |plan: &&Plan| plan.parts.iter().any(|part| part.changes.len() > UNDER_WAY);
        let found: Vec<_> = plans.iter().filter(bulk).collect();
        assert!((1..20).contains(&found.len()), "{}", found.len());
        let rows = |table: &TableName| {
            let changes = found[0].parts.iter().flat_map(|part| &part.changes);
            changes.filter(|change| change.event.table == *table).count()
        };
        assert!(tables.iter().all(|table| rows(table) >= 10), "{:?}", tables.iter().map(rows).collect::<Vec<_>>());
    }
}
