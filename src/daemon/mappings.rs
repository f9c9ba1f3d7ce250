//! What becomes of the rows of each table that one `[[outbox]]` block selects.

use crate::config::OutboxSettings;
use crate::outbox::{Mapping, ShardRule};
use crate::table::TableName;

/// The mapping of each of these tables, in their order; or the key that is wrong, and why.
pub(super) fn of(outbox: &OutboxSettings, tables: &[TableName]) -> Result<Vec<Mapping>, (&'static str, String)> {
    let topic = outbox.topic().map_err(|error| ("topic", error.to_string()))?;
    let mapping = Mapping::new(outbox.columns.clone(), topic);
    let mut mapping = mapping.with_payload(outbox.payload_format, outbox.tombstone_on_empty);
    if let Some(cloud_events) = &outbox.cloudevents {
        mapping = mapping.with_cloud_events(cloud_events.clone());
    }
    let Some(rule) = &outbox.shard else { return Ok(vec![mapping; tables.len()]) };
    let rule = ShardRule::parse(rule).map_err(|error| ("shard", error.to_string()))?;
    let shards = shards(&rule, tables).map_err(|why| ("shard", why))?;
    Ok(shards.into_iter().map(|shard| mapping.clone().with_shard(rule.clone(), shard, &outbox.columns)).collect())
}

/// Which shard each table is, from 0: by the numbers that their names end in.
fn shards(rule: &ShardRule, tables: &[TableName]) -> Result<Vec<u32>, String> {
    let number = |table: &TableName| table.number().ok_or_else(|| format!("{table} does not end in a number"));
    let numbers: Vec<u32> = tables.iter().map(number).collect::<Result<_, _>>()?;
    let first = match (rule.first(), numbers.iter().min()) {
        (Some(first), _) => first,
        (None, Some(least)) if tables.len() == rule.shards() => *least,
        (None, _) => {
            return Err(format!(
                "`{rule}` is about {} tables, and {} are selected; where other daemons relay the rest, write which number \
                 the first shard has: `{rule} + 1`",
                rule.shards(),
                tables.len()
            ));
        }
    };
    let shard = |(number, table): (&u32, &TableName)| {
        let shard = number.checked_sub(first).filter(|shard| (*shard as usize) < rule.shards());
        shard.ok_or_else(|| format!("{table} is none of the {} shards of `{rule}`, from {first} on", rule.shards()))
    };
    numbers.iter().zip(tables).map(shard).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(rule: &str, tables: &[&str]) -> Result<Vec<u32>, String> {
        let tables: Vec<_> = tables.iter().map(|table| TableName::new("d", table)).collect();
        super::shards(&ShardRule::parse(rule).unwrap(), &tables)
    }

    #[test]
    fn tables_are_shards_by_the_numbers_at_the_ends_of_their_names() {
        assert_eq!(shards("crc32(a) % 3", &["o-1", "o-3", "o-2"]), Ok(vec![0, 2, 1]));
        assert_eq!(shards("crc32(a) % 2", &["o0", "o1"]), Ok(vec![0, 1]));
        assert_eq!(shards("crc32(a) % 64 + 1", &["o17", "o18"]), Ok(vec![16, 17]), "other daemons have the others");
    }

    #[test]
    fn tables_that_the_rule_does_not_fit_are_refused() {
        for (rule, tables, why) in [
            ("crc32(a) % 4", &["o1", "o2"][..], "is about 4 tables, and 2 are selected"),
            ("crc32(a) % 2", &["o1", "ox"], "d.ox does not end in a number"),
            ("crc32(a) % 2", &["o1", "o7"], "d.o7 is none of the 2 shards"),
            ("crc32(a) % 2 + 1", &["o0"], "d.o0 is none of the 2 shards"),
        ] {
            let refused = shards(rule, tables).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
