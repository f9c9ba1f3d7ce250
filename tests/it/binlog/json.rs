//! JSON documents of every shape, as the server writes them into its log, compared with the text that it answers and with
//! what went in.

use fastrand::Rng;
use mysql_async::prelude::Queryable;
use serde_json::{Map, Value, json};

use super::shop::{MYSQL, Shop};
use crate::stage::seed;

/// Documents of one run.
const DOCUMENTS: usize = 400;

/// How many levels of objects and arrays the server allows.
const DEEPEST: usize = 100;

/// The server's text without the spaces that it puts behind commas and colons.
fn compact(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    text.chars()
        .filter(|&char| {
            let keep = quoted || char != ' ';
            quoted ^= char == '"' && !escaped;
            escaped = char == '\\' && !escaped;
            keep
        })
        .collect()
}

fn text(rng: &mut Rng) -> String {
    let length = match rng.u8(0..20) {
        0 => 0,
        1 => rng.usize(120..140),
        2 => rng.usize(16_000..17_000),
        _ => rng.usize(1..20),
    };
    let char = |rng: &mut Rng| match rng.u8(0..12) {
        0 => *rng.choice(&['"', '\\', '/', '\n', '\r', '\t', '\u{8}', '\u{c}', '\0', '\u{1f}', '\u{7f}']).unwrap(),
        1 => *rng.choice(&['é', 'ß', '한', '€', '😀', '\u{2028}', '\u{ffff}', '\u{10ffff}']).unwrap(),
        2 => rng.char(..),
        _ => rng.char(' '..='~'),
    };
    (0..length).map(|_| char(rng)).collect()
}

fn integer(rng: &mut Rng) -> Value {
    let edge = 1_i128 << *rng.choice(&[0, 7, 8, 15, 16, 31, 32, 63, 64]).unwrap();
    let number = match rng.u8(0..3) {
        0 => edge + i128::from(rng.i8(-2..=2)),
        1 => -edge + i128::from(rng.i8(-2..=2)),
        _ => rng.i64(..).into(),
    };
    let number = number.clamp(i64::MIN.into(), u64::MAX.into());
    u64::try_from(number).map_or_else(|_| json!(i64::try_from(number).unwrap()), |number| json!(number))
}

fn double(rng: &mut Rng) -> Value {
    json!(match rng.u8(0..5) {
        0 => f64::from(rng.i32(..)) / 1000.0,
        1 => f64::from(rng.i32(..)) * 10_f64.powi(rng.i32(-30..30)),
        2 => *rng.choice(&[0.0, -0.0, 0.1, 1e15, 1e14, 1e-15, 1e-14, 1e22, 5e-324, 2.5e-308, f64::MAX]).unwrap(),
        // Often between two texts that are as short and as near: a quarter, between two tenths and three.
        3 => f64::from(rng.i32(..)) * 1e6 + f64::from(rng.u8(0..8)) / 8.0,
        _ => Some(f64::from_bits(rng.u64(..))).filter(|number| number.is_finite()).unwrap_or(1.5),
    })
}

/// A document whose containers hold up to so many values in all, and go so deep.
fn document(rng: &mut Rng, values: &mut usize, depth: usize) -> Value {
    let kind = if depth == 0 || *values == 0 { rng.u8(0..7) } else { rng.u8(0..12) };
    let count = if rng.u8(0..12) == 0 { 0 } else { rng.usize(1..9).min(*values) };
    match kind {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 | 3 => integer(rng),
        4 => double(rng),
        5 | 6 => json!(text(rng)),
        7 | 8 => {
            *values -= count;
            (0..count).map(|_| document(rng, values, depth - 1)).collect()
        }
        _ => {
            *values -= count;
            Value::Object((0..count).map(|_| (text(rng), document(rng, values, depth - 1))).collect::<Map<_, _>>())
        }
    }
}

fn nested(rng: &mut Rng, levels: usize) -> Value {
    (1..levels).fold(json!([]), |inner, _| if rng.bool() { json!([inner, 1]) } else { json!({ "k": inner }) })
}

/// Whether a document is the one that went in. The server does not read every double to its last bit.
fn same(there: &Value, went_in: &Value) -> bool {
    match (there, went_in) {
        (Value::Number(there), Value::Number(number)) if number.is_f64() => {
            let (there, number) = (there.as_f64().unwrap(), number.as_f64().unwrap());
            (there - number).abs() <= number.abs() * 1e-14 || number.abs() < 1e-300
        }
        (Value::Array(there), Value::Array(values)) => {
            there.len() == values.len() && there.iter().zip(values).all(|(there, value)| same(there, value))
        }
        (Value::Object(there), Value::Object(members)) => {
            there.len() == members.len()
                && members.iter().all(|(key, value)| there.get(key).is_some_and(|there| same(there, value)))
        }
        _ => there == went_in,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_generated_documents_when_read_then_they_are_the_text_of_the_server_and_what_went_in() {
    let mut rng = Rng::with_seed(seed());
    let mut documents: Vec<Value> = (1..=DEEPEST).step_by(33).map(|levels| nested(&mut rng, levels)).collect();
    // Beyond 64 KiB offsets take four bytes, and integers of 32 bits stand in the table of entries.
    documents.push((0..20_000).map(|number| json!(number * 7919)).collect());
    documents.push(Value::Object((0..3000).map(|number| (format!("key {number}"), double(&mut rng))).collect()));
    documents.extend((0..DOCUMENTS).map(|_| {
        let mut values = rng.usize(0..60);
        let depth = rng.usize(0..8);
        document(&mut rng, &mut values, depth)
    }));
    let mut shop = Shop::open(MYSQL, "documents", "id INT PRIMARY KEY, payload JSON", &["payload"]).await;
    shop.run(&["BEGIN"]).await;
    let rows = documents.iter().enumerate().map(|(id, document)| (id, document.to_string()));
    shop.conn.exec_batch("INSERT INTO `out-box` VALUES (?, ?)", rows).await.unwrap();
    shop.run(&["COMMIT"]).await;
    let heard = shop.hear().await;
    assert!(heard.is_clean(), "{:?} {:?}", heard.faults, heard.error);
    let answers: Vec<String> =
        shop.conn.query("SELECT CAST(payload AS CHAR) FROM `out-box` ORDER BY id").await.unwrap();
    let texts = heard.texts(0);
    assert_eq!((texts.len(), answers.len()), (documents.len(), documents.len()));
    for ((text, answer), document) in texts.iter().zip(&answers).zip(&documents) {
        let answer = compact(answer);
        assert!(*text == answer, "{:?}", apart(text, &answer));
        assert!(same(&serde_json::from_str(text).unwrap(), document), "{text:.2000} is not {document:.2000}");
    }
}

/// Two texts from a little before where they part.
fn apart(text: &str, other: &str) -> [String; 2] {
    let same = text.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    [text, other].map(|text| text.chars().skip(same.saturating_sub(40)).take(100).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn given_documents_that_sql_makes_when_read_then_they_are_the_text_of_the_server() {
    let mut shop = Shop::open(MYSQL, "made", "id INT PRIMARY KEY AUTO_INCREMENT, payload JSON", &["payload"]).await;
    let values = [
        "JSON_OBJECT('decimal', 12345678901234567890.123456789, 'negative', -0.5, 'whole', CAST(7 AS DECIMAL(5, 2)))",
        "JSON_ARRAY(DATE '2024-02-29', TIME '-838:59:58.000001', TIME '10:11:12', TIMESTAMP '2024-02-29 23:59:59.5')",
        "JSON_ARRAY(X'00ff', b'1010101', CAST(REPEAT('x', 100) AS BINARY), ST_AsWKB(POINT(1, 2)))",
        "JSON_ARRAY(18446744073709551615, -9223372036854775808, 9223372036854775808, 1e0, 1e300, -1.5e-10, 1e15)",
        "'{\"a\": 1, \"b\": 2, \"a\": {\"\": []}, \"\": \"\"}'",
        "CAST(CAST(1.5 AS DOUBLE) AS JSON)",
        "CAST(CAST('2024-02-29' AS DATE) AS JSON)",
        "JSON_OBJECT(REPEAT('k', 65535), REPEAT('v', 2100000))",
        "JSON_ARRAY(TRUE, FALSE, NULL, 'null')",
        "'\"\\\\u0000\\\\ud83d\\\\ude00\\\\u001f\"'",
    ];
    for value in values {
        shop.run(&[&format!("INSERT INTO `out-box` (payload) VALUES ({value})")]).await;
    }
    let heard = shop.hear().await;
    assert!(heard.is_clean(), "{:?} {:?}", heard.faults, heard.error);
    let answers: Vec<String> =
        shop.conn.query("SELECT CAST(payload AS CHAR) FROM `out-box` ORDER BY id").await.unwrap();
    assert_eq!(heard.rows.len(), values.len());
    for ((text, answer), value) in heard.texts(0).iter().zip(&answers).zip(values) {
        assert!(*text == compact(answer), "{value:.200}: {text:.2000} is not {answer:.2000}");
    }
}
