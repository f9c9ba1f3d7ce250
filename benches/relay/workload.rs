//! The events: what rows hold, the same for everyone.

use fastrand::Rng;

/// What is written before anything is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) tables: usize,
    /// About how long a payload is, in bytes.
    pub(crate) bytes: usize,
    /// Rows of a transaction.
    pub(crate) rows: usize,
    /// Events of all tables together.
    pub(crate) events: u64,
}

impl Workload {
    /// Four tables, payloads of 450 bytes, transactions of 100 rows.
    pub(crate) fn of(events: u64) -> Self {
        Self { tables: 4, bytes: 450, rows: 100, events }
    }

    /// Events of each table.
    pub(crate) fn each(&self) -> u64 {
        self.events / self.tables as u64
    }
}

const TYPES: [&str; 6] = ["Created", "Assigned", "ReadyForPickup", "PickedUp", "Completed", "Cancelled"];

/// The table and the number of an event, by its id.
pub(crate) fn parse_id(id: &[u8]) -> Option<(usize, u64)> {
    let id = std::str::from_utf8(id).ok().filter(|id| id.len() == 36)?;
    Some((usize::from_str_radix(&id[..8], 16).ok()?, u64::from_str_radix(&id[24..], 16).ok()?))
}

/// Appends `('id', 'type of aggregate', 'aggregate', 'type', 'payload')`. No text in it needs an escape.
pub(crate) fn write_row(table: usize, number: u64, bytes: usize, out: &mut String) {
    use std::fmt::Write;
    let mut random = Rng::with_seed(number.wrapping_mul(0x9e37_79b9) ^ ((table as u64) << 48) ^ bytes as u64);
    let (aggregate, kind) = (random.u32(..5_000), TYPES[usize::try_from(number % 6).unwrap_or(0)]);
    let _ = write!(
        out,
        "('{table:08x}-0000-4000-8000-{number:012x}','delivery','delivery-{table}-{aggregate}','Delivery{kind}','"
    );
    payload(&mut random, bytes, out);
    out.push_str("')");
}

/// A nested document of about so many bytes.
fn payload(random: &mut Rng, bytes: usize, out: &mut String) {
    use std::fmt::Write;
    let begin = out.len();
    if bytes < 200 {
        let (order, courier) = (random.u32(..), random.u16(..));
        let _ = write!(out, "{{\"order\": {order}, \"courier\": \"c-{courier}\", \"at\": {{\"lat\": ");
        let _ = write!(out, "{:.6}, \"lon\": {:.6}}}}}", degrees(random, 52.0), degrees(random, 13.0));
        return;
    }
    let _ = write!(
        out,
        "{{\"order\": {}, \"courier\": {{\"id\": \"{:016x}\", \"rating\": {:.1}}}, \"from\": {{\"lat\": {:.6}, \"lon\": {:.6}}}, \
         \"to\": {{\"lat\": {:.6}, \"lon\": {:.6}}}, \"trace\": \"{:032x}\", \"paid\": {}, \"items\": [",
        random.u32(..),
        random.u64(..),
        3.0 + 2.0 * random.f64(),
        degrees(random, 52.0),
        degrees(random, 13.0),
        degrees(random, 52.0),
        degrees(random, 13.0),
        random.u128(..),
        random.bool(),
    );
    loop {
        let (article, count, cents) = (random.u32(..1_000_000), random.u8(1..9), random.u16(99..9999));
        let _ = write!(out, "{{\"sku\": \"a-{article:06}\", \"count\": {count}, \"cents\": {cents}}}");
        if out.len() - begin + 60 >= bytes {
            break;
        }
        out.push_str(", ");
    }
    let _ = write!(out, "], \"note\": \"ring twice, {}th floor\"}}", random.u8(1..30));
}

fn degrees(random: &mut Rng, around: f64) -> f64 {
    around + random.f64()
}
