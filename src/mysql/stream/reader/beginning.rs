//! How a transaction begins, and which ones are passed over.
//!
//! Promise: none is taken for relayed that is not. What the position covers is read again only where a transaction was prepared
//! before it; one whose number cannot be told from those of relayed ones is a fault.

use std::sync::Arc;

use smallvec::SmallVec;
use uuid::Uuid;

use super::{Open, Reader, file_point};
use crate::mysql::decode::{Event, GtidEvent, MariaDbGtid, kind};
use crate::mysql::tables::At;
use crate::position::{DomainGtid, FilePoint, Gtid, Origin, Point, Position, TxnId};
use crate::source::{Fault, LogEvent};

impl Reader {
    pub(super) fn begin_mysql(&mut self, event: &Event<'_>) -> Result<(), Fault> {
        let header = event.header;
        let gtid = GtidEvent::parse(header.kind, event.body).map_err(|error| self.damaged(&error))?;
        let txn = match &self.position.point {
            Point::File(_) => TxnId::File(self.start_of(header.size)),
            _ if header.kind == kind::ANONYMOUS_GTID && self.archived => TxnId::File(self.start_of(header.size)),
            _ if header.kind == kind::ANONYMOUS_GTID => {
                let detail = "a transaction without GTID, after a position that is a GTID set; set gtid_mode=ON";
                let fault = self.fault("anonymous_transaction", detail);
                self.pending.push_back(LogEvent::Fault { slot: None, fault });
                return Ok(());
            }
            _ => TxnId::Gtid(Gtid {
                origin: Origin { server: Uuid::from_bytes(gtid.server), tag: gtid.tag.map(Into::into) },
                number: gtid.number,
            }),
        };
        if self.passes(&txn) {
            return Ok(());
        }
        let micros = gtid.commit_micros.filter(|micros| *micros > 0);
        self.begin(txn, micros.unwrap_or(u64::from(header.timestamp) * 1_000_000), false);
        Ok(())
    }

    pub(super) fn begin_mariadb(&mut self, event: &Event<'_>) -> Result<(), Fault> {
        let header = event.header;
        let gtid = MariaDbGtid::parse(event.body).map_err(|error| self.damaged(&error))?;
        let txn = match &self.position.point {
            Point::File(_) => TxnId::File(self.start_of(header.size)),
            _ => TxnId::Domain(DomainGtid { domain: gtid.domain, server: header.server_id, sequence: gtid.sequence }),
        };
        if let Some(fault) = self.out_of_order(&txn) {
            (self.open, self.passing) = (None, false);
            self.pending.push_back(LogEvent::Fault { slot: None, fault });
            return Ok(());
        }
        if self.passes(&txn) {
            return Ok(());
        }
        // There is no BEGIN in the log: the flag says it.
        self.begin(txn, u64::from(header.timestamp) * 1_000_000, !gtid.standalone);
        if gtid.xa {
            self.pending.push_back(LogEvent::XaStart);
        }
        Ok(())
    }

    /// A transaction behind one of its domain whose number is not below its own, as `gtid_strict_mode=OFF` lets it be
    /// written: a position that covers the one would say that the other is relayed.
    fn out_of_order(&self, txn: &TxnId) -> Option<Fault> {
        let (TxnId::Domain(gtid), Point::Domains(point)) = (txn, &self.position.point) else { return None };
        // What is read again up to the position's last transaction stands before that one.
        let is_behind = |last: &&DomainGtid| gtid.sequence <= last.sequence && !self.again.contains_key(&gtid.domain);
        let last = point.domain(gtid.domain).filter(is_behind)?;
        let mut behind = point.clone();
        behind.set(*gtid);
        let cure = if point.read_again().contains_key(&gtid.domain) {
            "XA transactions are prepared, so no position goes on from here: publish what follows yourself, and set the \
             position of each table to newest"
                .to_owned()
        } else {
            format!(
                "publish its rows yourself, and set the position of each table that stands at domains={point} to \
                 domains={behind}; retry one that stands before it, and it comes here by itself"
            )
        };
        let detail = format!(
            "it stands behind {last} in the log, so no position can tell whether it is relayed; set \
             gtid_strict_mode=ON, {cure}"
        );
        let at = At { txn: Some(txn.clone()), file: Arc::clone(&self.file), offset: self.offset }.to_string();
        Some(Fault { name: "gtid_out_of_order", detail, at })
    }

    /// Whether the transaction that begins is read only because it stands behind one that was prepared, and is covered.
    /// Within a domain, that is known up to the last one that the position covers: numbers behind it may be lower.
    fn passes(&mut self, txn: &TxnId) -> bool {
        let covered = |position: &Position| position.point.covers(txn) == Some(true);
        self.passing = match txn {
            TxnId::Gtid(_) => false,
            TxnId::File(_) => covered(&self.position),
            TxnId::Domain(gtid) => match self.again.get(&gtid.domain) {
                Some(last) if gtid.sequence < last.sequence => covered(&self.position),
                Some(_) => {
                    self.again.remove(&gtid.domain);
                    covered(&self.position)
                }
                None => false,
            },
        };
        if self.passing {
            self.open = None;
        }
        self.passing
    }

    /// Where the event of this size begins that ends here.
    fn start_of(&self, size: u32) -> FilePoint {
        file_point(&self.file, self.offset.saturating_sub(size.into()))
    }

    pub(super) fn begin(&mut self, txn: TxnId, commit_micros: u64, begun: bool) {
        let open = Open { txn: txn.clone(), commit_micros, defined: 0, begun, touched: SmallVec::new(), settles: None };
        self.open = Some(open);
        self.pending.push_back(LogEvent::Begin { txn, commit_micros });
    }
}
