//! What a position is on the server that answers: after a failover it may cover transactions that the server has lost.
//!
//! Promise: everything that the server has committed and the table has not relayed is relayed. So what the server lost
//! leaves the position (its numbers may be given to other transactions), by name; what it has not got *yet* stays; and
//! what cannot be told apart is refused by the server itself, and halts. Decisions here, but for the questions at the end.
//!
//! `MySQL`: what the position has and `gtid_executed` has not is lost on a primary, unless its replication group has sent it
//! and it is yet to be applied. A server without some of its own transactions has lost them, for it gives their numbers again,
//! unless it is read-only and replicates: then they may come back, and are waited for, because it is not to be read from
//! meanwhile. `MariaDB`: a position is the last
//! transaction of each domain, and `gtid_binlog_state` the last one of each domain *and server*. Where the server lacks
//! `0-1-105`, the last transaction of server 1 that it has, `0-1-103`, is common to both histories: up to there server 1
//! had the same order; what the server has behind it, such as `0-2-104`, was committed after the failover.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};
use tokio::time::sleep;
use uuid::Uuid;

use super::connect::Flavor;
use super::owned::owned;
use super::servers::Identity;
use super::settings::{OnLost, OnNewServer};
use super::source::other;
use crate::position::{DomainGtid, DomainPoint, GtidSet, Partial, Point, Position, TxnId};
use crate::source::{Fault, Lost, Place};

/// A transaction is in the log a moment before the server counts it as executed: how often, and how long apart, it is asked.
const ASKS: u32 = 5;
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Where a member of a replication group tells what it has received. Reading it takes a grant.
pub(super) const RECEIVED: &str = "performance_schema.replication_connection_status";

/// Why there is nothing to do but wait: `MariaDB` looks for the position in its log.
const AHEAD: &str = "it sends nothing to whoever is ahead of it";

/// As above: a server of `MySQL` lacks transactions of its own.
const OWN: &str = "they are its own, and it sends nothing to whoever has more of them; if they do not come back by \
                   replication, `outboxd position set` to what it has";

/// What the configuration wants where the history does not decide.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) on_lost: OnLost,
    pub(super) on_new_server: OnNewServer,
}

/// What a server says of what it has.
#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) read_only: bool,
    /// Whether it replicates from another server; a replication group is none.
    pub(super) replicates: bool,
    /// What it has received from its replication group, applied or not.
    pub(super) received: GtidSet,
    pub(super) known: Known,
}

#[derive(Debug, Clone)]
pub(super) enum Known {
    /// `MySQL`: everything executed or being committed, and `server_uuid`.
    Gtids(GtidSet, Option<Uuid>),
    /// `MariaDB`: the last of each domain and server, and the last of each domain.
    Domains(Vec<DomainGtid>, DomainPoint),
}

/// What is to be done about a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    Placed(Place),
    /// The server has not got this yet. `wait`: nor can it be read from before, and why.
    Behind {
        missing: String,
        wait: Option<&'static str>,
    },
    Refused(Fault),
}

impl History {
    pub(super) fn judge(&self, position: &Position, policy: Policy) -> Judged {
        let judged = match (&self.known, &position.point) {
            (Known::Gtids(has, server), Point::Gtid(set)) => self.gtids(has, *server, set, position),
            (Known::Domains(state, ends), Point::Domains(point)) => self.domains(state, ends, point, position),
            (Known::Gtids(_, Some(server)), Point::File(point)) => match point.at.server {
                Some(before) if before != *server && policy.on_new_server == OnNewServer::Halt => {
                    let detail = format!(
                        "files and offsets are those of the server {before}, and {server} answers; `outboxd position set` \
                         to where the table stands in its log, or mysql.on_new_server = \"continue\" if it is a copy with \
                         the same log"
                    );
                    return Judged::Refused(Fault { name: "other_server", detail, at: position.to_string() });
                }
                Some(before) if before == *server => Judged::Placed(Place::Same),
                _ => {
                    let mut point = point.clone();
                    point.at.server = Some(*server);
                    let to = Position { point: Point::File(point), ..position.clone() };
                    Judged::Placed(Place::Moved { to, lost: None })
                }
            },
            // Of another kind: whoever reads says so.
            _ => Judged::Placed(Place::Same),
        };
        match judged {
            Judged::Placed(Place::Moved { lost: Some(lost), .. }) if policy.on_lost == OnLost::Halt => {
                let detail = format!(
                    "the server does not have {}, which the position covers; `outboxd position set` to a position \
                     without it, or mysql.on_lost_transactions = \"report\"",
                    lost.transactions
                );
                Judged::Refused(Fault { name: "transactions_lost", detail, at: position.to_string() })
            }
            judged => judged,
        }
    }

    /// Whether what it has not got may still come.
    fn follows(&self) -> bool {
        self.read_only || self.replicates
    }

    fn gtids(&self, has: &GtidSet, server: Option<Uuid>, set: &GtidSet, position: &Position) -> Judged {
        let partial = position.partial.as_ref();
        let mut covered = set.clone();
        if let Some(Partial { txn: TxnId::Gtid(gtid), .. }) = partial {
            covered.add(gtid);
        }
        let missing = covered.difference(has);
        if missing.is_empty() {
            return Judged::Placed(Place::Same);
        }
        let will_have = has.union(&self.received);
        let lost = missing.difference(&will_have);
        let own = missing.origins().any(|(origin, _)| Some(origin.server) == server);
        let is_late = if own { self.read_only && self.replicates } else { self.follows() };
        if is_late || lost.is_empty() {
            return Judged::Behind { missing: missing.to_string(), wait: own.then_some(OWN) };
        }
        let is_lost = |partial: &&Partial| matches!(&partial.txn, TxnId::Gtid(gtid) if lost.contains(gtid));
        let to = Position {
            point: Point::Gtid(set.intersection(&will_have)),
            partial: partial.filter(|partial| !is_lost(partial)).cloned(),
            // Rows that the log brings from there on are left out of it.
            scan: position.scan.clone(),
        };
        moved(to, lost.to_string(), lost.len())
    }

    fn domains(&self, state: &[DomainGtid], ends: &DomainPoint, point: &DomainPoint, position: &Position) -> Judged {
        let (mut to, mut lost, mut count) = (point.clone(), Vec::new(), 0);
        let (mut missing, mut kept) = (Vec::new(), position.partial.as_ref());
        for mine in point.domains() {
            let of = |gtid: &&DomainGtid| (gtid.domain, gtid.server) == (mine.domain, mine.server);
            // Nothing of that server: the history before it is not known, so the server itself has to say.
            let Some(common) = state.iter().find(of).filter(|last| last.sequence < mine.sequence) else { continue };
            let went_on_alone = ends.domain(mine.domain).is_some_and(|end| end != common);
            if self.follows() && !went_on_alone {
                missing.push(mine.to_string());
                continue;
            }
            to.set(*common);
            lost.push(format!("{}-{}-{}..{}", mine.domain, mine.server, common.sequence + 1, mine.sequence));
            count += mine.sequence - common.sequence;
            kept = kept.filter(|partial| !matches!(&partial.txn, TxnId::Domain(gtid) if gtid.domain == mine.domain));
        }
        if let Some(Partial { txn: TxnId::Domain(gtid), .. }) = kept {
            let of = |last: &&DomainGtid| (last.domain, last.server) == (gtid.domain, gtid.server);
            let has = state.iter().find(of).is_some_and(|last| last.sequence >= gtid.sequence);
            let end = ends.domain(gtid.domain);
            let went_on_alone = end.is_some_and(|end| point.domain(gtid.domain) != Some(end));
            if !has && (went_on_alone || !self.follows()) {
                lost.push(gtid.to_string());
                count += 1;
                kept = None;
            } else if !has {
                missing.push(gtid.to_string());
            }
        }
        match (lost.is_empty(), missing.is_empty()) {
            (false, _) => {
                let to = Position { point: Point::Domains(to), partial: kept.cloned(), scan: position.scan.clone() };
                moved(to, lost.join(","), count)
            }
            (true, false) => Judged::Behind { missing: missing.join(","), wait: Some(AHEAD) },
            (true, true) => Judged::Placed(Place::Same),
        }
    }
}

fn moved(to: Position, transactions: String, count: u64) -> Judged {
    Judged::Placed(Place::Moved { to, lost: Some(Lost { transactions, count }) })
}

/// Asks the server; again for a while, as long as it seems to lack something.
pub(super) async fn judge(
    conn: &mut Conn,
    identity: &Identity,
    position: &Position,
    policy: Policy,
) -> Result<Judged, Error> {
    let mut asks = 1;
    loop {
        let judged = ask(conn, identity).await?.judge(position, policy);
        let settled = matches!(judged, Judged::Placed(Place::Same | Place::Moved { lost: None, .. }));
        if settled || asks == ASKS || matches!(&judged, Judged::Refused(fault) if fault.name == "other_server") {
            return Ok(judged);
        }
        asks += 1;
        sleep(ASK_EVERY).await;
    }
}

async fn ask(conn: &mut Conn, identity: &Identity) -> Result<History, Error> {
    let flavor = Flavor::of(conn).await?;
    let text = async |conn: &mut Conn, name: &str| -> Result<String, Error> {
        let value: Option<Option<String>> = conn.query_first(format!("SELECT @@GLOBAL.{name}")).await?;
        Ok(value.flatten().unwrap_or_default())
    };
    let known = if flavor.mariadb {
        let state = text(conn, "gtid_binlog_state").await?;
        let state = state.split(',').filter(|gtid| !gtid.trim().is_empty()).map(str::parse).collect::<Result<_, _>>();
        let ends = text(conn, "gtid_binlog_pos").await?.parse().map_err(|error| other(&error))?;
        Known::Domains(state.map_err(|error: crate::position::DomainError| other(&error))?, ends)
    } else {
        let executed: GtidSet = text(conn, "gtid_executed").await?.parse().map_err(|error| other(&error))?;
        let committing = owned(&text(conn, "gtid_owned").await?);
        let committing = committing.map_err(|error| other(&format!("gtid_owned: {error}")))?;
        Known::Gtids(executed.union(&committing), Uuid::parse_str(&identity.name).ok())
    };
    let channels: Vec<Row> = match conn.query(flavor.replica_status()).await {
        // Of `MariaDB` that takes a privilege that nothing else here needs; `read_only` alone has to tell then.
        Err(Error::Server(_)) => Vec::new(),
        answer => answer?,
    };
    let received = if flavor.mariadb { GtidSet::default() } else { received(conn).await? };
    Ok(History { read_only: identity.read_only, replicates: channels.iter().any(is_running), received, known })
}

/// What a member of a replication group has received: it may become the primary before it has applied all of that, and the
/// group's channels are not among those that replicate. One that has left its group gets round to nothing.
async fn received(conn: &mut Conn) -> Result<GtidSet, Error> {
    let sql = format!(
        "SELECT RECEIVED_TRANSACTION_SET FROM {RECEIVED} WHERE CHANNEL_NAME = 'group_replication_applier' AND \
         SERVICE_STATE = 'ON'"
    );
    let set: Option<Option<String>> = match conn.query_first(sql).await {
        // It may not be asked: the grant is wanted of members of a group only.
        Err(Error::Server(_)) => None,
        answer => answer?,
    };
    set.flatten().unwrap_or_default().parse::<GtidSet>().map_err(|error| other(&error))
}

/// Whether a channel receives or applies.
fn is_running(channel: &Row) -> bool {
    channel.columns_ref().iter().any(|column| {
        let name = column.name_str();
        let of_thread =
            matches!(&*name, "Replica_IO_Running" | "Replica_SQL_Running" | "Slave_IO_Running" | "Slave_SQL_Running");
        of_thread && channel.get::<Option<String>, _>(&*name).flatten().is_some_and(|running| running != "No")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";
    const REPORT: Policy = Policy { on_lost: OnLost::Report, on_new_server: OnNewServer::Halt };

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    fn history(follows: bool, known: Known) -> History {
        History { read_only: follows, replicates: follows, received: GtidSet::default(), known }
    }

    /// Of the server `B`.
    fn mysql(has: &str, follows: bool) -> History {
        history(follows, Known::Gtids(has.parse().unwrap(), Some(Uuid::parse_str(B).unwrap())))
    }

    fn mariadb(state: &str, ends: &str, follows: bool) -> History {
        let state = state.split(',').map(|gtid| gtid.parse().unwrap()).collect();
        history(follows, Known::Domains(state, ends.parse().unwrap()))
    }

    fn lost(to: &str, transactions: &str, count: u64) -> Judged {
        let lost = Some(Lost { transactions: transactions.to_owned(), count });
        Judged::Placed(Place::Moved { to: position(to), lost })
    }

    #[test]
    fn given_a_new_primary_with_everything_when_judged_then_the_position_stays() {
        let same = Judged::Placed(Place::Same);
        let saved = position(&format!("gtid={A}:1-5"));
        assert_eq!(mysql(&format!("{A}:1-5,{B}:1-9"), false).judge(&saved, REPORT), same);
        let saved = position("domains=0-1-105,3-1-7");
        assert_eq!(mariadb("0-1-105,0-2-107,3-1-9", "0-2-107,3-1-9", false).judge(&saved, REPORT), same);
    }

    #[test]
    fn given_a_primary_without_some_when_judged_then_they_leave_the_position_by_name() {
        let saved = position(&format!("gtid={A}:1-5:8 +2 of {A}:9"));
        let has = mysql(&format!("{A}:1-4,{B}:1-9"), false);
        assert_eq!(has.judge(&saved, REPORT), lost(&format!("gtid={A}:1-4"), &format!("{A}:5:8-9"), 3));
        let saved = position(&format!("gtid={A}:1-5 +2 of {A}:7"));
        let has = mysql(&format!("{A}:1-4:7"), false);
        assert_eq!(has.judge(&saved, REPORT), lost(&format!("gtid={A}:1-4 +2 of {A}:7"), &format!("{A}:5"), 1));
        let halt = Policy { on_lost: OnLost::Halt, ..REPORT };
        assert!(matches!(has.judge(&saved, halt), Judged::Refused(Fault { name: "transactions_lost", .. })));
    }

    #[test]
    fn given_a_replica_without_some_when_judged_then_it_is_behind() {
        let saved = position(&format!("gtid={A}:1-5"));
        let behind = Judged::Behind { missing: format!("{A}:5"), wait: None };
        assert_eq!(mysql(&format!("{A}:1-4"), true).judge(&saved, REPORT), behind);
        let behind = Judged::Behind { missing: "0-1-105".to_owned(), wait: Some(AHEAD) };
        assert_eq!(mariadb("0-1-103", "0-1-103", true).judge(&position("domains=0-1-105"), REPORT), behind);
    }

    #[test]
    fn given_a_member_with_transactions_to_apply_when_judged_then_only_what_it_has_not_received_is_lost() {
        let saved = position(&format!("gtid={A}:1-5 +2 of {A}:6"));
        let halt = Policy { on_lost: OnLost::Halt, ..REPORT };
        let judge = |received: &str, policy| {
            let received = format!("{A}:{received}").parse().unwrap();
            History { received, ..mysql(&format!("{A}:1-3,{B}:1-9"), false) }.judge(&saved, policy)
        };
        let behind = Judged::Behind { missing: format!("{A}:4-6"), wait: None };
        for policy in [REPORT, halt] {
            assert_eq!(judge("1-8", policy), behind);
        }
        assert_eq!(judge("2-4", REPORT), lost(&format!("gtid={A}:1-4"), &format!("{A}:5-6"), 2));
        let moved = lost(&format!("gtid={A}:1-4 +2 of {A}:6"), &format!("{A}:5"), 1);
        assert_eq!(judge("4:6", REPORT), moved);
        assert!(matches!(judge("4:6", halt), Judged::Refused(Fault { name: "transactions_lost", .. })));
    }

    #[test]
    fn given_a_server_without_some_of_its_own_when_judged_then_they_are_lost_unless_another_may_bring_them_back() {
        let crashed =
            |read_only, replicates| History { read_only, replicates, ..mysql(&format!("{A}:1-9,{B}:1-4"), false) };
        let behind = |why| Judged::Behind { missing: format!("{B}:5"), wait: Some(why) };
        let whole = position(&format!("gtid={A}:1-9,{B}:1-5"));
        // Its number will be given again, to a transaction whose first rows would be passed over.
        let in_part = position(&format!("gtid={A}:1-9,{B}:1-4 +2 of {B}:5"));
        for saved in [whole, in_part] {
            assert_eq!(crashed(true, true).judge(&saved, REPORT), behind(OWN));
            let to = format!("gtid={A}:1-9,{B}:1-4");
            for (read_only, replicates) in [(false, false), (false, true), (true, false)] {
                assert_eq!(crashed(read_only, replicates).judge(&saved, REPORT), lost(&to, &format!("{B}:5"), 1));
            }
        }
    }

    #[test]
    fn given_a_domain_that_went_on_alone_when_judged_then_the_last_common_transaction_is_found() {
        let saved = position("domains=0-1-105,3-1-7");
        let went_on = lost("domains=0-1-103,3-1-7", "0-1-104..105", 2);
        // The other server has used the lost numbers for transactions of its own.
        for follows in [false, true] {
            assert_eq!(mariadb("0-1-103,0-2-106,3-1-7", "0-2-106,3-1-7", follows).judge(&saved, REPORT), went_on);
        }
        assert_eq!(mariadb("0-1-103,3-1-7", "0-1-103,3-1-7", false).judge(&saved, REPORT), went_on);
        let in_part = position("domains=0-1-103 +4 of 0-1-104");
        assert_eq!(
            mariadb("0-1-103,0-2-104", "0-2-104", false).judge(&in_part, REPORT),
            lost("domains=0-1-103", "0-1-104", 1)
        );
    }

    #[test]
    fn given_a_domain_of_a_server_that_is_unknown_when_judged_then_the_server_has_to_say() {
        let judged = mariadb("0-2-106", "0-2-106", false).judge(&position("domains=0-1-105"), REPORT);
        assert_eq!(judged, Judged::Placed(Place::Same));
    }

    #[test]
    fn given_a_file_of_another_server_when_judged_then_it_is_refused_unless_told_otherwise() {
        let has = mysql("", false);
        let old = position(&format!("file=b.000002:500@{A} +1 of b.000002:500"));
        assert!(matches!(has.judge(&old, REPORT), Judged::Refused(Fault { name: "other_server", .. })));
        let to = position(&format!("file=b.000002:500@{B} +1 of b.000002:500"));
        let moved = Judged::Placed(Place::Moved { to, lost: None });
        let told = Policy { on_new_server: OnNewServer::Continue, ..REPORT };
        assert_eq!(has.judge(&old, told), moved);
        // One that was saved before servers were noted.
        assert_eq!(has.judge(&position("file=b.000002:500 +1 of b.000002:500"), REPORT), moved);
    }
}
