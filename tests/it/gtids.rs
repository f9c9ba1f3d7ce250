//! The algebra of GTID sets, against the server's own.

use fastrand::Rng;
use mysql_async::prelude::Queryable;
use outboxd::position::{GtidSet, Interval, Origin};
use uuid::Uuid;

use crate::stage::{Stage, seed};

/// A set in which numbers touch, overlap, leave gaps and lie at the ends; three servers, some with tags.
fn some(rng: &mut Rng) -> GtidSet {
    let mut set = GtidSet::default();
    for _ in 0..rng.u32(0..12) {
        let tag = ["", "", "a", "b_2"][rng.usize(0..4)];
        let server = Uuid::from_u128(u128::from(rng.u8(1..4)) << 64);
        let start = if rng.u8(0..20) == 0 { i64::MAX as u64 - 40 } else { 1 } + rng.u64(0..30);
        let tag = Some(tag).filter(|tag| !tag.is_empty()).map(Into::into);
        set.add_interval(Origin { server, tag }, Interval { start, end: start + rng.u64(1..8) });
    }
    set
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_of_gtids_are_those_of_the_server() {
    let stage = Stage::of().servers().await;
    let mut rng = Rng::with_seed(seed());
    let mut conn = stage.connect().await;
    for round in 0..500 {
        let (a, b) = (some(&mut rng), some(&mut rng));
        let (left, right) = (a.to_string(), b.to_string());
        let answers: Option<(bool, bool, String, String, String)> = conn
            .exec_first(
                "SELECT GTID_SUBSET(?, ?), GTID_SUBSET(?, ?), GTID_SUBTRACT(?, ?), GTID_SUBTRACT(?, GTID_SUBTRACT(?, ?)), \
                 GTID_SUBTRACT(CONCAT(?, ',', ?), '')",
                [&left, &right, &right, &left, &left, &right, &left, &left, &right, &left, &right].map(String::as_str).to_vec(),
            )
            .await
            .unwrap();
        let (subset, superset, difference, intersection, union) = answers.unwrap();
        let read = |text: &str| text.parse::<GtidSet>().unwrap();
        let told = format!("round {round}: {left} | {right}");
        assert_eq!((a.is_subset(&b), b.is_subset(&a)), (subset, superset), "{told}");
        assert_eq!(a.difference(&b), read(&difference), "{told}");
        assert_eq!(a.intersection(&b), read(&intersection), "{told}");
        assert_eq!(a.union(&b), read(&union), "{told}");
        // And the server reads what we write as what we mean.
        let same: Option<bool> =
            conn.exec_first("SELECT GTID_SUBSET(?, ?)", (a.union(&b).to_string(), union)).await.unwrap();
        assert_eq!(same, Some(true), "{told}");
    }
}
