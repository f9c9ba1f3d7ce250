//! What a position store promises.

use futures::future::join_all;

use crate::position::{Aggregate, Parked, Parking, Partial, Pause, Position, PositionStore, StoreError};
use crate::table::TableName;
use crate::testing::log::{after, transaction};

/// An empty store, and what a check does to it.
pub trait Bench: Sync {
    /// One process's way to it.
    type Store: PositionStore;
    /// Whether a claim takes the table over from a live owner, instead of being refused.
    const TAKES_OVER: bool = false;
    /// A new process's session.
    fn session(&self) -> impl Future<Output = Self::Store>;
    /// The process is cut off: what the store keeps for its connection is given up, and the process does not know.
    fn sever(&self, session: &Self::Store) -> impl Future<Output = ()>;
    /// What is stored as the table's position is overwritten with what is none.
    fn garble(&self, table: &TableName) -> impl Future<Output = ()>;
}

/// Every check, each on tables of its own.
pub async fn keep<B: Bench>(bench: &B) {
    a_position_is_found_again(bench).await;
    a_table_that_was_left_can_come_back(bench).await;
    a_position_never_moves_backwards(bench).await;
    an_operator_sets_it_anywhere(bench).await;
    an_operator_has_it_forgotten(bench).await;
    a_pause_lasts_until_it_is_ended(bench).await;
    parked_aggregates_are_kept_with_the_position(bench).await;
    what_is_not_readable_concerns_its_table_alone(bench).await;
    an_operator_replaces_what_is_not_readable(bench).await;
    if B::TAKES_OVER {
        a_claim_takes_the_table_over(bench).await;
        of_many_at_once_one_can_save(bench).await;
    } else {
        a_table_has_one_owner(bench).await;
        of_many_at_once_one_gets_the_claim(bench).await;
    }
    a_later_claim_of_the_same_process_counts(bench).await;
    a_zombie_is_refused(bench).await;
    a_table_that_is_taken_over_does_not_stop_another(bench).await;
}

fn table(name: &str) -> TableName {
    TableName::new("contract", name)
}

async fn durable<S: PositionStore>(store: &S, table: &TableName) -> Option<Position> {
    store.list().await.unwrap().into_iter().find(|saved| saved.table == *table).unwrap().position.unwrap()
}

/// Given a claimed table, when a position is saved, then the next owner and the list find it.
pub async fn a_position_is_found_again(bench: &impl Bench) {
    let (first, table) = (bench.session().await, table("found-again"));
    let claimed = first.claim(&table).await.unwrap();
    assert_eq!((claimed.claim.epoch, &claimed.position), (1, &Ok(None)));
    assert_eq!(durable(&first, &table).await, None);
    let position = Position { partial: Some(Partial { txn: transaction(8), rows: 3 }), ..after(7) };
    first.save(&claimed.claim, &position).await.unwrap();
    assert_eq!(durable(&bench.session().await, &table).await.as_ref(), Some(&position));
    first.release(&claimed.claim).await.unwrap();
    let again = bench.session().await.claim(&table).await.unwrap();
    assert_eq!((again.claim.epoch, again.position), (2, Ok(Some(position))));
}

/// Given a table that was left, and that another process has had since, then it can be claimed as by a newcomer.
pub async fn a_table_that_was_left_can_come_back(bench: &impl Bench) {
    let (first, second, table) = (bench.session().await, bench.session().await, table("left"));
    let claim = first.claim(&table).await.unwrap().claim;
    first.save(&claim, &after(1)).await.unwrap();
    first.release(&claim).await.unwrap();
    first.leave(&table);
    let other = second.claim(&table).await.unwrap();
    second.save(&other.claim, &after(2)).await.unwrap();
    second.release(&other.claim).await.unwrap();
    let again = first.claim(&table).await.unwrap();
    assert_eq!((again.claim.epoch, again.position), (3, Ok(Some(after(2)))));
    first.save(&again.claim, &after(3)).await.unwrap();
}

/// R3: given a durable position, when an earlier one is saved, or one that does not compare, then it is refused.
pub async fn a_position_never_moves_backwards(bench: &impl Bench) {
    let (store, table) = (bench.session().await, table("monotone"));
    let claim = store.claim(&table).await.unwrap().claim;
    let partial = |rows| Position { partial: Some(Partial { txn: transaction(6), rows }), ..after(5) };
    let scan = |rows: u8| format!("{} scan {rows} after {rows},%00 until 9", after(5)).parse().unwrap();
    for position in [after(4), scan(1), scan(2), after(5), after(5), partial(2), partial(3)] {
        store.save(&claim, &position).await.unwrap();
    }
    for position in [after(4), scan(3), after(5), partial(2), "file=b.000001:4".parse().unwrap()] {
        let error = store.save(&claim, &position).await.unwrap_err();
        assert!(matches!(&error, StoreError::Backwards { table: of, .. } if *of == table), "{position}: {error}");
    }
    assert_eq!(durable(&store, &table).await, Some(partial(3)));
    store.save(&claim, &after(6)).await.unwrap();
}

/// Given parked aggregates that were kept with a position, when it is saved, set, forgotten or paused, then they are what they
/// were; the next owner and the list find them; and a save that is refused does not change them.
pub async fn parked_aggregates_are_kept_with_the_position(bench: &impl Bench) {
    let (store, table) = (bench.session().await, table("parked"));
    let claimed = store.claim(&table).await.unwrap();
    assert_eq!(claimed.parked, Parked::default());
    let parking = Parking {
        run: "first".to_owned(),
        reason: "why 'not'".to_owned(),
        since: jiff::Timestamp::UNIX_EPOCH,
        position: after(1).to_string(),
        topics: ["outboxd.parked.t".to_owned()].into(),
        events: 7,
        released: 2,
        bytes: 100,
    };
    let mut parked = Parked::default();
    parked.put(Aggregate::new(b"\xff\"k"), parking);
    store.keep(&claimed.claim, &after(2), Some(&parked)).await.unwrap();
    store.save(&claimed.claim, &after(3)).await.unwrap();
    assert!(store.keep(&claimed.claim, &after(1), Some(&Parked::default())).await.is_err());
    store.set(&claimed.claim, &after(1)).await.unwrap();
    store.forget(&claimed.claim).await.unwrap();
    store.pause(&claimed.claim, None).await.unwrap();
    let listed = store.list().await.unwrap().into_iter().find(|saved| saved.table == table).unwrap();
    assert_eq!(listed.parked, parked);
    store.release(&claimed.claim).await.unwrap();
    let again = bench.session().await;
    let claimed = again.claim(&table).await.unwrap();
    assert_eq!(claimed.parked, parked);
    again.keep(&claimed.claim, &after(4), Some(&Parked::default())).await.unwrap();
    again.release(&claimed.claim).await.unwrap();
    assert_eq!(bench.session().await.claim(&table).await.unwrap().parked, Parked::default());
}

/// R3: given a durable position, when an operator sets another, then it holds wherever it lies, and saves go on from there.
/// A claim that does not count any more sets nothing.
pub async fn an_operator_sets_it_anywhere(bench: &impl Bench) {
    let (store, table) = (bench.session().await, table("set"));
    let old = store.claim(&table).await.unwrap().claim;
    let claim = store.claim(&table).await.unwrap().claim;
    store.set(&claim, &after(9)).await.unwrap();
    store.set(&claim, &after(3)).await.unwrap();
    let error = store.set(&old, &after(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { ours: 1, theirs: 2, .. }), "{error}");
    assert_eq!(durable(&store, &table).await, Some(after(3)));
    let error = store.save(&claim, &after(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Backwards { .. }), "{error}");
    store.save(&claim, &after(4)).await.unwrap();
}

/// Given a durable position, when an operator has it forgotten, then nobody finds it, and the table begins anew. A claim that
/// does not count any more forgets nothing.
pub async fn an_operator_has_it_forgotten(bench: &impl Bench) {
    let (store, table) = (bench.session().await, table("forgotten"));
    let old = store.claim(&table).await.unwrap().claim;
    let claim = store.claim(&table).await.unwrap().claim;
    store.save(&claim, &after(9)).await.unwrap();
    let error = store.forget(&old).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { ours: 1, theirs: 2, .. }), "{error}");
    assert_eq!(durable(&store, &table).await, Some(after(9)));
    store.forget(&claim).await.unwrap();
    assert_eq!(durable(&store, &table).await, None);
    store.save(&claim, &after(2)).await.unwrap();
    store.release(&claim).await.unwrap();
    assert_eq!(bench.session().await.claim(&table).await.unwrap().position, Ok(Some(after(2))));
}

fn is_unreadable<T>(result: &Result<T, StoreError>, table: &TableName) -> bool {
    matches!(result, Err(StoreError::Unreadable { table: of, .. }) if of == table)
}

/// R8: given a stored position that is not readable, then the list says so of that table and has the others; whoever claims
/// it hears it, and cannot save; and a process that has it and another one, and loses its connection, goes on with the other.
pub async fn what_is_not_readable_concerns_its_table_alone(bench: &impl Bench) {
    let (store, bad, good) = (bench.session().await, table("garbled"), table("not-garbled"));
    let (bad_claim, good_claim) = (store.claim(&bad).await.unwrap().claim, store.claim(&good).await.unwrap().claim);
    store.save(&bad_claim, &after(1)).await.unwrap();
    store.save(&good_claim, &after(1)).await.unwrap();
    bench.garble(&bad).await;
    bench.sever(&store).await;
    settled(async || store.save(&good_claim, &after(2)).await).await.unwrap();
    let all = store.list().await.unwrap();
    let listed = |table: &TableName| &all.iter().find(|saved| saved.table == *table).unwrap().position;
    assert!(is_unreadable(listed(&bad), &bad), "{all:?}");
    assert_eq!(listed(&good), &Ok(Some(after(2))));
    store.release(&bad_claim).await.unwrap();
    let other = bench.session().await;
    let claimed = other.claim(&bad).await.unwrap();
    assert!(is_unreadable(&claimed.position, &bad), "{claimed:?}");
    let saved = other.save(&claimed.claim, &after(9)).await;
    assert!(is_unreadable(&saved, &bad), "{saved:?}");
    other.release(&claimed.claim).await.unwrap();
    let again = bench.session().await.claim(&bad).await.unwrap();
    assert!(is_unreadable(&again.position, &bad), "a claim changes nothing: {again:?}");
}

/// Given a stored position that is not readable, when an operator sets another or has it forgotten, then that is cured.
pub async fn an_operator_replaces_what_is_not_readable(bench: &impl Bench) {
    for (name, to) in [("garbled-and-set", Some(after(3))), ("garbled-and-forgotten", None)] {
        let (store, table) = (bench.session().await, table(name));
        let claim = store.claim(&table).await.unwrap().claim;
        store.save(&claim, &after(9)).await.unwrap();
        store.release(&claim).await.unwrap();
        bench.garble(&table).await;
        let claim = store.claim(&table).await.unwrap().claim;
        match &to {
            Some(to) => store.set(&claim, to).await.unwrap(),
            None => store.forget(&claim).await.unwrap(),
        }
        assert_eq!(durable(&store, &table).await, to);
        store.save(&claim, &after(4)).await.unwrap();
        store.release(&claim).await.unwrap();
        assert_eq!(bench.session().await.claim(&table).await.unwrap().position, Ok(Some(after(4))));
    }
}

/// Given a table that was paused, then the next owner and the list find that, whatever is saved, until it is ended.
pub async fn a_pause_lasts_until_it_is_ended(bench: &impl Bench) {
    let (store, table) = (bench.session().await, table("paused"));
    let first = store.claim(&table).await.unwrap();
    assert_eq!(first.pause, None);
    let at = "2026-11-21T10:30:00Z".parse().unwrap();
    let pause = Pause { by: "zoë@desk".to_owned(), at, reason: Some("a \"topic\" moves".to_owned()) };
    store.pause(&first.claim, Some(&pause)).await.unwrap();
    store.save(&first.claim, &after(2)).await.unwrap();
    store.release(&first.claim).await.unwrap();
    let other = bench.session().await;
    let again = other.claim(&table).await.unwrap();
    assert_eq!((again.pause.as_ref(), again.position), (Some(&pause), Ok(Some(after(2)))));
    other.set(&again.claim, &after(1)).await.unwrap();
    let listed = other.list().await.unwrap().into_iter().find(|saved| saved.table == table).unwrap();
    assert_eq!(listed.pause, Some(pause));
    other.pause(&again.claim, None).await.unwrap();
    other.release(&again.claim).await.unwrap();
    assert_eq!(bench.session().await.claim(&table).await.unwrap().pause, None);
}

/// Given an owner, when another process claims, then it is refused until the owner gives the claim back.
pub async fn a_table_has_one_owner(bench: &impl Bench) {
    let (first, second, table) = (bench.session().await, bench.session().await, table("owned"));
    let claim = first.claim(&table).await.unwrap().claim;
    let error = second.claim(&table).await.unwrap_err();
    assert!(matches!(error, StoreError::Owned { .. }), "{error}");
    first.save(&claim, &after(1)).await.unwrap();
    first.release(&claim).await.unwrap();
    assert_eq!(second.claim(&table).await.unwrap().position, Ok(Some(after(1))));
}

/// Given many processes that claim at once, then one gets it.
pub async fn of_many_at_once_one_gets_the_claim(bench: &impl Bench) {
    let table = table("contended");
    let sessions = join_all((0..4).map(|_| bench.session())).await;
    let claims = join_all(sessions.iter().map(|session| session.claim(&table))).await;
    let got: Vec<_> = claims.iter().filter_map(|claim| claim.as_ref().ok()).collect();
    assert_eq!(got.len(), 1, "{claims:?}");
    assert!(
        claims.iter().filter_map(|claim| claim.as_ref().err()).all(|error| matches!(error, StoreError::Owned { .. }))
    );
}

/// Given a live owner, when another process claims, then the first is fenced, also when it claims again.
pub async fn a_claim_takes_the_table_over(bench: &impl Bench) {
    let (first, second, table) = (bench.session().await, bench.session().await, table("taken"));
    let old = first.claim(&table).await.unwrap().claim;
    first.save(&old, &after(1)).await.unwrap();
    let new = second.claim(&table).await.unwrap();
    assert_eq!((new.claim.epoch, new.position), (2, Ok(Some(after(1)))));
    let error = first.save(&old, &after(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { ours: 1, theirs: 2, .. }), "{error}");
    let error = first.claim(&table).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    second.save(&new.claim, &after(3)).await.unwrap();
}

/// Given many processes that claim at once, and again while there is no answer, then one of them can save.
pub async fn of_many_at_once_one_can_save(bench: &impl Bench) {
    let table = table("contended");
    let sessions = join_all((0..4).map(|_| bench.session())).await;
    let mut claims = join_all(sessions.iter().map(|session| session.claim(&table))).await;
    // One after the other, where callers wait for longer and longer: at once they could hinder each other without end.
    for (session, claim) in sessions.iter().zip(&mut claims) {
        if matches!(claim, Err(StoreError::Unavailable(_))) {
            *claim = settled(async || session.claim(&table).await).await;
        }
    }
    let attempts = sessions.iter().zip(&claims).map(async |(session, claimed)| match claimed {
        Ok(claimed) => session.save(&claimed.claim, &after(claimed.claim.epoch)).await.is_ok(),
        Err(_) => false,
    });
    let saved = join_all(attempts).await;
    assert_eq!(saved.iter().filter(|saved| **saved).count(), 1, "{claims:?}");
}

/// Given a process that claims twice, then the later claim counts, and giving it back once is enough.
pub async fn a_later_claim_of_the_same_process_counts(bench: &impl Bench) {
    let (store, table) = (bench.session().await, table("claimed-twice"));
    let earlier = store.claim(&table).await.unwrap().claim;
    let later = store.claim(&table).await.unwrap().claim;
    assert!(later.epoch > earlier.epoch);
    let error = store.save(&earlier, &after(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { ours: 1, theirs: 2, .. }), "{error}");
    store.save(&later, &after(2)).await.unwrap();
    store.release(&later).await.unwrap();
    bench.session().await.claim(&table).await.unwrap();
}

/// Given an owner that is paused while another takes over, when it wakes up and saves, then it is refused, while the new
/// owner works and after it has left.
pub async fn a_zombie_is_refused(bench: &impl Bench) {
    let (zombie, owner, table) = (bench.session().await, bench.session().await, table("zombie"));
    let old = zombie.claim(&table).await.unwrap().claim;
    zombie.save(&old, &after(1)).await.unwrap();
    bench.sever(&zombie).await;
    let new = owner.claim(&table).await.unwrap().claim;
    let refused = async || {
        let error = settled(async || zombie.save(&old, &after(9)).await).await.unwrap_err();
        assert!(matches!(error, StoreError::Fenced { .. } | StoreError::Owned { .. }), "{error}");
    };
    refused().await;
    owner.save(&new, &after(3)).await.unwrap();
    refused().await;
    owner.release(&new).await.unwrap();
    refused().await;
    assert_eq!(durable(&owner, &table).await, Some(after(3)));
}

/// R8: given a process with two tables, when one is taken over by another process, then the other goes on.
pub async fn a_table_that_is_taken_over_does_not_stop_another(bench: &impl Bench) {
    let (first, second) = (bench.session().await, bench.session().await);
    let (lost, kept) = (table("taken-over"), table("kept"));
    let (lost_claim, kept_claim) = (first.claim(&lost).await.unwrap().claim, first.claim(&kept).await.unwrap().claim);
    bench.sever(&first).await;
    second.claim(&lost).await.unwrap();
    settled(async || first.save(&kept_claim, &after(1)).await).await.unwrap();
    let error = first.save(&lost_claim, &after(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. } | StoreError::Owned { .. }), "{error}");
    first.save(&kept_claim, &after(2)).await.unwrap();
}

/// The answer once there is one: to ask again is the caller's part.
async fn settled<T>(request: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 0..10 {
        match request().await {
            Err(StoreError::Unavailable(_)) => {}
            other => return other,
        }
    }
    request().await
}
