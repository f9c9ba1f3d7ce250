//! Offsets by connector, as Connect's offset topic and the file of its standalone mode have them.
//!
//! Keys are JSON, `["connector",{"server":"prefix"}]`; values too: `file` and `pos`, `gtids` where the server has them,
//! `snapshot` and `snapshot_completed` around the initial snapshot (`BinlogOffsetContext` in `debezium-connector-binlog`).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::position::{DomainPoint, FilePoint, GtidSet, Point, Position};

/// One record of the topic, or entry of the file: a key and its newest value; `None` where it was deleted.
pub type Entry = (Vec<u8>, Option<Vec<u8>>);

/// Why there is no position to start from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OffsetError {
    /// No connector has an offset with a place in a binlog.
    #[error("no connector has left a place in a binlog there")]
    None,
    /// Not the one that was asked for.
    #[error("connector `{wanted}` has left no place in a binlog there; others have: {}", .others.join(", "))]
    Unknown {
        /// The connector's name.
        wanted: String,
        /// The names of those that are there.
        others: Vec<String>,
    },
    /// More than one, and none was asked for.
    #[error("several connectors have left their places there; name one of them: {}", .0.join(", "))]
    Several(Vec<String>),
    /// Its snapshot was cut short.
    #[error(
        "connector `{0}` has not finished its snapshot, and its offset does not say how far it was; let it finish, or start \
         the tables by `start`"
    )]
    Snapshot(String),
    /// What it says is no place.
    #[error("connector `{connector}`: {reason}")]
    Unreadable {
        /// The connector's name.
        connector: String,
        /// Why.
        reason: String,
    },
}

/// Places in a binlog by connector.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Offsets(BTreeMap<String, Value>);

impl Offsets {
    /// The newest offsets; what no connector to a binlog wrote is passed over.
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut offsets = BTreeMap::new();
        for (key, value) in entries {
            let Ok(Value::Array(key)) = serde_json::from_slice(&key) else { continue };
            let Some(Value::String(connector)) = key.into_iter().next() else { continue };
            let value = value.and_then(|value| serde_json::from_slice::<Value>(&value).ok());
            match value.filter(|value| value["file"].is_string() || value["gtids"].is_string()) {
                Some(value) => offsets.insert(connector, value),
                None => offsets.remove(&connector),
            };
        }
        Self(offsets)
    }

    /// The names of the connectors.
    pub fn connectors(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Where the connector of this name would go on; or the only one there is.
    pub fn position(&self, connector: Option<&str>) -> Result<(String, Position), OffsetError> {
        let (name, offset) = match (connector, self.0.iter().next()) {
            (_, None) => return Err(OffsetError::None),
            (Some(wanted), _) => {
                let unknown = || OffsetError::Unknown { wanted: wanted.to_owned(), others: self.connectors() };
                self.0.get_key_value(wanted).ok_or_else(unknown)?
            }
            (None, Some(only)) if self.0.len() == 1 => only,
            (None, _) => return Err(OffsetError::Several(self.connectors())),
        };
        let in_snapshot = !matches!(offset["snapshot"], Value::Null | Value::Bool(false));
        if in_snapshot && offset["snapshot_completed"] != Value::Bool(true) {
            return Err(OffsetError::Snapshot(name.clone()));
        }
        let point = point(offset).map_err(|reason| OffsetError::Unreadable { connector: name.clone(), reason })?;
        Ok((name.clone(), point.into()))
    }
}

fn point(offset: &Value) -> Result<Point, String> {
    if let Some(gtids) = offset["gtids"].as_str().filter(|gtids| !gtids.is_empty()) {
        // MySQL's have a colon behind the server; MariaDB's do not.
        return if gtids.contains(':') {
            gtids.parse::<GtidSet>().map(Point::Gtid).map_err(|error| error.to_string())
        } else {
            gtids.parse::<DomainPoint>().map(Point::Domains).map_err(|error| error.to_string())
        };
    }
    let (file, offset) = (offset["file"].as_str(), offset["pos"].as_u64());
    let (Some(file), Some(offset)) = (file, offset) else { return Err("neither gtids nor file and pos".to_owned()) };
    Ok(Point::File(FilePoint { file: file.to_owned(), offset, server: None }.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(entries: &[(&str, &str)]) -> Offsets {
        let entry = |(key, value): &(&str, &str)| {
            (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()).filter(|value| !value.is_empty()))
        };
        Offsets::of(entries.iter().map(entry))
    }

    const KEY: &str = r#"["delivery",{"server":"delivery"}]"#;

    fn position(value: &str) -> Result<String, OffsetError> {
        offsets(&[(KEY, value)]).position(None).map(|(_, position)| position.to_string())
    }

    #[test]
    fn gtids_go_before_file_and_place() {
        let gtids = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5";
        let mysql = format!(r#"{{"file":"b.000003","pos":1234,"gtids":"{gtids}","row":1,"event":2}}"#);
        assert_eq!(position(&mysql), Ok(format!("gtid={gtids}")));
        assert_eq!(position(r#"{"file":"b.000003","pos":4,"gtids":"0-1-100"}"#), Ok("domains=0-1-100".to_owned()));
        assert_eq!(position(r#"{"file":"b.000003","pos":1234}"#), Ok("file=b.000003:1234".to_owned()));
    }

    #[test]
    fn a_snapshot_that_was_cut_short_is_no_place() {
        let of = |more: &str| position(&format!(r#"{{"file":"b.000003","pos":4,{more}}}"#));
        assert_eq!(
            of(r#""snapshot":"INITIAL","snapshot_completed":false"#),
            Err(OffsetError::Snapshot("delivery".into()))
        );
        assert_eq!(of(r#""snapshot":true"#), Err(OffsetError::Snapshot("delivery".into())));
        assert!(of(r#""snapshot":"INITIAL","snapshot_completed":true"#).is_ok() && of(r#""snapshot":false"#).is_ok());
    }

    #[test]
    fn the_newest_offset_of_the_connector_that_is_asked_for_counts() {
        let other = r#"["orders",{"server":"orders"}]"#;
        let place = |pos: u32| format!(r#"{{"file":"b.000001","pos":{pos}}}"#);
        let (first, second, third) = (place(4), place(99), place(7));
        let both = offsets(&[
            (KEY, &first),
            (other, &third),
            (KEY, &second),
            (r#"["file",{"name":"x"}]"#, r#"{"position":1}"#),
        ]);
        let (name, at) = both.position(Some("delivery")).unwrap();
        assert_eq!((name.as_str(), at.to_string().as_str()), ("delivery", "file=b.000001:99"));
        assert_eq!(both.position(None), Err(OffsetError::Several(vec!["delivery".into(), "orders".into()])));
        let others = vec!["delivery".into(), "orders".into()];
        assert_eq!(both.position(Some("x")), Err(OffsetError::Unknown { wanted: "x".into(), others }));
        assert_eq!(offsets(&[(KEY, &first), (KEY, "")]).position(None), Err(OffsetError::None), "it was deleted");
        assert!(matches!(position(r#"{"gtids":"x:y"}"#), Err(OffsetError::Unreadable { .. })));
    }
}
