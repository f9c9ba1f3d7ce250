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

/// What these statistics say of their client, and whether it knows a broker, be it by its bootstrap address.
pub(super) fn word(statistics: &[u8]) -> Result<(Word, bool), serde_json::Error> {
    let Statistics { msg_cnt, msg_size, brokers } = serde_json::from_slice(statistics)?;
    let mut word = Word { queued_records: msg_cnt, queued_bytes: msg_size, ..Word::default() };
    // Others are parts of the client itself.
    let knows_a_broker = brokers.values().any(|broker| matches!(broker.source, "learned" | "configured"));
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
    Ok((word, knows_a_broker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_statistics_of_several_brokers_when_read_then_their_sums_are_told() {
        let broker = |state: &str, p99: u32| {
            format!(
                r#"{{"name":"b","state":"{state}","source":"learned","txerrs":1,"rxerrs":2,"txretries":3,"req_timeouts":4,"disconnects":5,
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
        assert_eq!(word(text.as_bytes()).unwrap(), (expected, true));
        assert!(word(b"{}").is_err());
    }

    #[test]
    fn given_statistics_of_a_client_without_brokers_when_read_then_that_is_told() {
        let broker = r#"{"state":"INIT","source":"internal","txerrs":0,"rxerrs":0,"txretries":0,"req_timeouts":0}"#;
        for brokers in ["{}", &format!("{{\":0/internal\":{broker}}}")] {
            let text = format!(r#"{{"msg_cnt":1,"msg_size":9,"brokers":{brokers}}}"#);
            let expected = Word { queued_records: 1, queued_bytes: 9, ..Word::default() };
            assert_eq!(word(text.as_bytes()).unwrap(), (expected, false));
        }
    }
}
