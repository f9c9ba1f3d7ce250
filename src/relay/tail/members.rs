//! The tables that a reader of the log feeds, and how long it waits for one that is full.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::planted::{self, Bug};
use crate::position::Position;
use crate::relay::Item;
use crate::relay::queue::{Closed, Level, Refused, Sender};
use crate::source::Slot;

/// The longest wait for one table, whether or not another has something to do: a server cuts off a reader that does not
/// read for a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How often a wait is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// One table that is fed.
pub(super) struct Member {
    /// Its queue.
    queue: Sender,
    level: Level,
    /// Hears where the table stands when the reader lets go of it.
    left: oneshot::Sender<Position>,
    /// Where the table stands: the position of the last item that was put into the queue.
    fed: Position,
    /// How long others had nothing to do because of this one, since its queue was empty last.
    kept_waiting: Duration,
}

impl Member {
    pub(super) fn new(queue: Sender, left: oneshot::Sender<Position>, resume: Position) -> Self {
        Self { level: queue.level(), queue, left, fed: resume, kept_waiting: Duration::ZERO }
    }

    fn note(&mut self, position: Option<&Arc<Position>>) {
        if let Some(position) = position {
            self.fed.clone_from(position);
        }
    }
}

/// How a wait for room ended.
enum Waited {
    Sent,
    Closed,
    TooLong,
}

/// The tables, by slot.
pub(super) struct Members {
    slots: Vec<Option<Member>>,
    patience: Duration,
}

impl Members {
    pub(super) fn new(patience: Duration) -> Self {
        Self { slots: Vec::new(), patience }
    }

    /// Whether there is any.
    pub(super) fn any(&self) -> bool {
        self.slots.iter().any(Option::is_some)
    }

    /// Puts a table into its slot.
    pub(super) fn set(&mut self, slot: Slot, member: Member) {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(member);
    }

    /// Where the first table stands.
    pub(super) fn first_fed(&self) -> Option<&Position> {
        self.slots.iter().flatten().next().map(|member| &member.fed)
    }

    /// Drops tables whose relays have ended; gives their slots.
    pub(super) fn close_ended(&mut self) -> Vec<Slot> {
        let ended = |member: &mut Member| member.queue.is_closed();
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(slot, member)| member.take_if(ended).map(|_| slot)).collect()
    }

    /// Puts items into the queues, in order for each table: first where there is room, so that nobody waits for another's
    /// sake, then where there was none. Gives the slots of the tables that are no longer fed: their relays have ended, or
    /// their queues stayed full for too long.
    pub(super) async fn deliver(&mut self, items: Vec<(Slot, Item)>) -> Vec<Slot> {
        let mut gone = Vec::new();
        let mut late: Vec<(Slot, Item)> = Vec::new();
        for (slot, item) in items {
            let waits = late.iter().any(|(waiting, _)| *waiting == slot);
            let Some(member) = self.slots[slot].as_mut() else { continue };
            if waits {
                late.push((slot, item));
                continue;
            }
            if member.level.is_empty() {
                member.kept_waiting = Duration::ZERO;
            }
            let position = item.position().cloned();
            let last = item.is_last();
            match member.queue.try_send(item) {
                Ok(()) => member.note(position.as_ref()),
                Err(Refused::Full(item)) => {
                    late.push((slot, item));
                    continue;
                }
                Err(Refused::Closed(_)) => {}
            }
            if last || member.queue.is_closed() {
                self.slots[slot] = None;
                gone.push(slot);
            }
        }
        for (slot, item) in late {
            if self.slots[slot].is_some() && !self.wait_and_send(slot, item).await {
                gone.push(slot);
            }
        }
        gone
    }

    /// Waits for room and puts the item in; gives whether the table is still fed.
    async fn wait_and_send(&mut self, slot: Slot, item: Item) -> bool {
        let position = item.position().cloned();
        let last = item.is_last();
        let (waited, kept_waiting) = self.wait(slot, item).await;
        let Some(member) = self.slots[slot].as_mut() else { return false };
        member.kept_waiting = kept_waiting;
        match waited {
            Waited::Sent => member.note(position.as_ref()),
            Waited::Closed => {}
            Waited::TooLong => {
                if let Some(mut member) = self.slots[slot].take() {
                    member.note(position.as_ref().filter(|_| planted::is(Bug::DetachDropsBatch)));
                    let _ = member.left.send(member.fed);
                }
                return false;
            }
        }
        if last || matches!(waited, Waited::Closed) {
            self.slots[slot] = None;
            return false;
        }
        true
    }

    async fn wait(&self, slot: Slot, item: Item) -> (Waited, Duration) {
        let Some(member) = &self.slots[slot] else { return (Waited::Closed, Duration::ZERO) };
        let sending = member.queue.send(item);
        tokio::pin!(sending);
        let (mut waited, mut kept_waiting) = (Duration::ZERO, member.kept_waiting);
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => match sent {
                    Ok(()) => return (Waited::Sent, kept_waiting),
                    Err(Closed(_)) => return (Waited::Closed, kept_waiting),
                },
                () = sleep(LOOK) => {
                    waited += LOOK;
                    if self.others_have_nothing_to_do(slot) {
                        kept_waiting += LOOK;
                    }
                    if kept_waiting >= self.patience || waited >= LONGEST_WAIT {
                        return (Waited::TooLong, kept_waiting);
                    }
                }
            }
        }
    }

    fn others_have_nothing_to_do(&self, slot: Slot) -> bool {
        let others = self.slots.iter().enumerate().filter(|(other, _)| *other != slot);
        others.filter_map(|(_, member)| member.as_ref()).any(|other| other.level.is_empty() && !other.queue.is_closed())
    }
}
