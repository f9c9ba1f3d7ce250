use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{DecodeError, MAX_JSON_DEPTH, write_json};
use super::json_encoder::{container, counted, encode};

fn text(data: &[u8]) -> Result<String, DecodeError> {
    let mut out = Vec::new();
    write_json(data, 5, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn opaque(field_type: u8, body: &[u8]) -> Result<String, DecodeError> {
    let mut data = vec![15, field_type];
    data.extend(counted(body));
    text(&data)
}

fn packed(whole: i64, micros: i64) -> [u8; 8] {
    ((whole << 24) + micros).to_le_bytes()
}

#[test]
fn scalars() {
    for (value, expected) in [
        (json!(null), "null"),
        (json!(true), "true"),
        (json!(-3), "-3"),
        (json!(40_000), "40000"),
        (json!(u64::MAX), "18446744073709551615"),
        (json!(2.0), "2.0"),
        (json!(1e300), "1e300"),
        (json!("a\"\\\n\t\r\u{8}\u{c}\u{1}\u{1f}é"), r#""a\"\\\n\t\r\b\f\u0001\u001fé""#),
    ] {
        assert_eq!(text(&encode(&value, false)).unwrap(), expected);
    }
    assert_eq!(text(&[]).unwrap(), "null");
    assert_eq!(text(&[6, 0xff, 0xff]).unwrap(), "65535");
    assert_eq!(text(&[8, 0xff, 0xff, 0xff, 0xff]).unwrap(), "4294967295");
}

#[test]
fn bytes_by_hand() {
    // {"a": 1, "bb": ["x", null]}
    let data = b"\0\x02\0\x23\0\x12\0\x01\0\x13\0\x02\0\x05\x01\0\x02\x15\0abb\
                 \x02\0\x0c\0\x0c\x0a\0\x04\0\0\x01x";
    // The size is that of the whole object.
    let mut data = data.to_vec();
    data[3] = u8::try_from(data.len() - 1).unwrap();
    assert_eq!(text(&data).unwrap(), r#"{"a":1,"bb":["x",null]}"#);
}

#[test]
fn keys_stay_in_the_order_of_the_server() {
    let value = json!({"bb": 1, "a": 2, "c": {}, "aaa": []});
    for large in [false, true] {
        assert_eq!(text(&encode(&value, large)).unwrap(), r#"{"a":2,"c":{},"bb":1,"aaa":[]}"#);
    }
}

#[test]
fn opaque_values() {
    assert_eq!(opaque(246, &[5, 2, 0x80, 7, 5]).unwrap(), "7.05");
    assert_eq!(opaque(253, b"text").unwrap(), r#""text""#);
    let date = (2020 * 13 + 1) << 5 | 1;
    assert_eq!(opaque(10, &packed(date << 17, 0)).unwrap(), r#""2020-01-01""#);
    let seconds = date << 17 | 10 << 12;
    assert_eq!(opaque(12, &packed(seconds, 0)).unwrap(), r#""2020-01-01 10:00:00.000000""#);
    assert_eq!(opaque(7, &packed(seconds, 12)).unwrap(), r#""2020-01-01 10:00:00.000012""#);
    let time = ((1_i64 << 12 | 2 << 6 | 3) << 24) + 500_000;
    assert_eq!(opaque(11, &time.to_le_bytes()).unwrap(), r#""01:02:03.500000""#);
    assert_eq!(opaque(11, &(-time).to_le_bytes()).unwrap(), r#""-01:02:03.500000""#);
    assert_eq!(opaque(15, b"\x01").unwrap(), r#""base64:type15:AQ==""#);
    assert_eq!(opaque(252, b"ab").unwrap(), r#""base64:type252:YWI=""#);
    // The server breaks lines after 76 characters.
    assert_eq!(opaque(252, &[0; 57]).unwrap(), format!(r#""base64:type252:{}""#, "A".repeat(76)));
    assert_eq!(opaque(252, &[0; 60]).unwrap(), format!(r#""base64:type252:{}\nAAAA""#, "A".repeat(76)));
    for (field_type, body) in [(246, &[5, 9, 0][..]), (10, &[1]), (12, &[0xff; 8]), (11, &[0, 0, 0, 0, 0, 0, 0, 0x80])]
    {
        assert!(matches!(opaque(field_type, body), Err(DecodeError::BadJson { column: 5, .. })), "{field_type}");
    }
}

#[test]
fn depth() {
    let nested = |levels| (1..levels).fold(json!([]), |inner, _| json!([inner]));
    assert_eq!(text(&encode(&nested(MAX_JSON_DEPTH), false)).unwrap().len(), 2 * MAX_JSON_DEPTH);
    let deep = text(&encode(&nested(MAX_JSON_DEPTH + 1), false));
    assert_eq!(deep, Err(DecodeError::JsonTooDeep { column: 5, limit: MAX_JSON_DEPTH }));
}

#[test]
fn shared_values_do_not_multiply() {
    // Every array names the next one twice, which would be 2^60 values.
    let mut inner = container(&[], &[], false);
    for _ in 0..60 {
        let mut outer = container(&[], &[(2, Vec::new()), (2, inner.clone())], false);
        let offset = [outer[8], outer[9]];
        outer[5..7].copy_from_slice(&offset);
        inner = outer;
    }
    inner.insert(0, 2);
    assert_eq!(text(&inner), Err(DecodeError::BadJson { column: 5, problem: "its values overlap" }));
    // Ten thousand times the same string.
    let long = counted(&[b'x'; 5000]);
    let mut values = vec![(12, Vec::new()); 9999];
    values.push((12, long));
    let mut data = container(&[], &values, false);
    data.insert(0, 2);
    assert!(text(&data).is_err());
}

#[test]
fn children_stay_inside_their_parents() {
    let mut data = encode(&json!([["abc"], "d"]), false);
    // The inner array's size, made one larger than what is left of the document.
    let inner = usize::from(data[6]) + 1;
    data[inner + 2] = 0xff;
    assert!(matches!(text(&data), Err(DecodeError::BadJson { .. })));
    // An array that is its own element.
    assert!(text(&[2, 1, 0, 7, 0, 2, 0, 0]).is_err());
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        any::<String>().prop_map(Value::from),
        "x{120,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn documents_come_back(value in documents(), large: bool) {
        let text = text(&encode(&value, large)).unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn damaged_documents_stay_json_or_fail(
        value in documents(),
        large: bool,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut data = encode(&value, large);
        for (at, byte) in damage {
            let at = at.index(data.len());
            data[at] = byte;
        }
        if let Ok(text) = text(&data) {
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{}", text);
            prop_assert!(text.len() <= 12 * data.len() + 64);
        }
    }
}
