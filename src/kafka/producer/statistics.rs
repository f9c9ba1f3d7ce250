//! What librdkafka's statistics say that matters here. Of their text, which has every partition, only this is kept.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;

use crate::outlet::Word;

#[derive(Deserialize)]
struct Statistics<'t> {
    msg_cnt: u64,
    msg_size: u64,
    #[serde(borrow)]
    brokers: HashMap<&'t str, Broker<'t>>,
}

#[derive(Deserialize)]
struct Broker<'t> {
    state: &'t str,
    /// Microseconds since it has come to that.
    stateage: u64,
    source: &'t str,
    txerrs: u64,
    rxerrs: u64,
    txretries: u64,
    req_timeouts: u64,
    disconnects: Option<u64>,
    rtt: Option<Window>,
}

/// Times in microseconds.
#[derive(Deserialize)]
struct Window {
    cnt: u64,
    sum: u64,
    p99: u64,
}

/// What a client is to the brokers of its cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Brokers {
    /// It is connected to one, or tries.
    #[default]
    Sought,
    /// It knows none, not even by its bootstrap address.
    Forgotten,
    /// It has been connected to none for long, and does not try.
    Neglected,
}

/// librdkafka looks each second whether it is connected to a broker, and connects to one that it knows if not
/// (`rd_kafka_1s_tmr_cb` in 2.12.1).
const REST: Duration = Duration::from_secs(3);

impl Brokers {
    fn of(brokers: &HashMap<&str, Broker<'_>>) -> Self {
        // Others are parts of the client itself.
        let known = || brokers.values().filter(|broker| matches!(broker.source, "learned" | "configured"));
        let rests = |broker: &Broker<'_>| broker.state == "INIT" && Duration::from_micros(broker.stateage) > REST;
        if known().next().is_none() {
            Self::Forgotten
        } else if known().all(rests) {
            Self::Neglected
        } else {
            Self::Sought
        }
    }
}

/// What these statistics say of their client.
pub(super) fn word(statistics: &[u8]) -> Result<(Word, Brokers), serde_json::Error> {
    let Statistics { msg_cnt, msg_size, brokers } = serde_json::from_slice(statistics)?;
    let mut word = Word { queued_records: msg_cnt, queued_bytes: msg_size, ..Word::default() };
    let known = Brokers::of(&brokers);
    // The bootstrap addresses are brokers too until the real ones are known.
    for Broker { state, txerrs, rxerrs, txretries, req_timeouts, disconnects, rtt, .. } in brokers.into_values() {
        word.connections += u64::from(state == "UP");
        word.errors += txerrs + rxerrs;
        word.retries += txretries;
        word.timeouts += req_timeouts;
        word.disconnects += disconnects.unwrap_or_default();
        if let Some(Window { cnt, sum, p99 }) = rtt {
            word.answers += cnt;
            word.answers_took += Duration::from_micros(sum);
            word.slow_answer = word.slow_answer.max(Duration::from_micros(p99));
        }
    }
    Ok((word, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_statistics_of_several_brokers_when_read_then_their_sums_are_told() {
        let broker = |state: &str, p99: u32| {
            format!(
                r#"{{"name":"b","state":"{state}","stateage":9000000,"source":"learned","txerrs":1,"rxerrs":2,"txretries":3,"req_timeouts":4,"disconnects":5,
                "rtt":{{"min":1,"max":9,"avg":4,"sum":40,"cnt":10,"p50":3,"p99":{p99}}},"toppars":{{"t":{{"topic":"t"}}}}}}"#
            )
        };
        let (first, second) = (broker("UP", 2_000), broker("TRY_CONNECT", 9_000));
        let text =
            format!(r#"{{"name":"c","msg_cnt":7,"msg_size":70,"brokers":{{"a":{first},"b":{second}}},"topics":{{}}}}"#);
        let expected = Word {
            connections: 1,
            queued_records: 7,
            queued_bytes: 70,
            retries: 6,
            errors: 6,
            timeouts: 8,
            disconnects: 10,
            answers: 20,
            answers_took: Duration::from_micros(80),
            slow_answer: Duration::from_millis(9),
        };
        assert_eq!(word(text.as_bytes()).unwrap(), (expected, Brokers::Sought));
        assert!(word(b"{}").is_err());
    }

    #[test]
    fn given_statistics_of_a_client_without_brokers_when_read_then_that_is_told() {
        for brokers in [String::new(), broker("INIT", 9_000_000, "internal")] {
            let expected = Word { queued_records: 1, queued_bytes: 9, ..Word::default() };
            assert_eq!(said(&brokers), (expected, Brokers::Forgotten));
        }
    }

    #[test]
    fn given_statistics_of_a_client_that_connects_to_no_broker_when_read_then_that_is_told() {
        let coordinator = broker("UP", 60_000_000, "logical");
        let of = |state, age, source| said(&format!("{coordinator},{}", broker(state, age, source))).1;
        assert_eq!(of("INIT", 44_000_000, "learned"), Brokers::Neglected);
        assert_eq!(of("INIT", 44_000_000, "configured"), Brokers::Neglected);
        assert_eq!(of("INIT", 900_000, "learned"), Brokers::Sought);
        assert_eq!(of("TRY_CONNECT", 44_000_000, "learned"), Brokers::Sought);
        assert_eq!(of("UP", 44_000_000, "learned"), Brokers::Sought);
        // Whoever leads nothing that the client writes to is at rest; one is connected.
        let others = [broker("INIT", 44_000_000, "learned"), broker("UP", 44_000_000, "learned")].join(",");
        assert_eq!(said(&others).1, Brokers::Sought);
    }

    fn broker(state: &str, age: u32, source: &str) -> String {
        format!(
            r#""{state}/{source}":{{"state":"{state}","stateage":{age},"source":"{source}","txerrs":0,"rxerrs":0,"txretries":0,"req_timeouts":0}}"#
        )
    }

    fn said(brokers: &str) -> (Word, Brokers) {
        word(format!(r#"{{"msg_cnt":1,"msg_size":9,"brokers":{{{brokers}}}}}"#).as_bytes()).unwrap()
    }
}
