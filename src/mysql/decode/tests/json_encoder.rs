//! A writer of binary JSON, as in the server's `sql-common/json_binary.cc`.

use serde_json::Value;

/// A document; `large` chooses the large format for every container.
pub(super) fn encode(value: &Value, large: bool) -> Vec<u8> {
    let (ty, mut body) = parts(value, large);
    body.insert(0, ty);
    body
}

/// A string's length in groups of seven bits, and the string.
pub(super) fn counted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut length = text.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(text);
    out
}

fn parts(value: &Value, large: bool) -> (u8, Vec<u8>) {
    match value {
        Value::Null => (4, vec![0]),
        Value::Bool(true) => (4, vec![1]),
        Value::Bool(false) => (4, vec![2]),
        Value::Number(number) => {
            if let Some(n) = number.as_i64() {
                match (i16::try_from(n), i32::try_from(n)) {
                    (Ok(n), _) => (5, n.to_le_bytes().to_vec()),
                    (_, Ok(n)) => (7, n.to_le_bytes().to_vec()),
                    _ => (9, n.to_le_bytes().to_vec()),
                }
            } else if let Some(n) = number.as_u64() {
                (10, n.to_le_bytes().to_vec())
            } else {
                (11, number.as_f64().unwrap().to_le_bytes().to_vec())
            }
        }
        Value::String(text) => (12, counted(text.as_bytes())),
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(|value| parts(value, large)).collect();
            (if large { 3 } else { 2 }, container(&[], &values, large))
        }
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(key, _)| (key.len(), key.as_bytes().to_vec()));
            let keys: Vec<_> = members.iter().map(|(key, _)| key.as_bytes().to_vec()).collect();
            let values: Vec<_> = members.iter().map(|(_, value)| parts(value, large)).collect();
            (u8::from(large), container(&keys, &values, large))
        }
    }
}

/// An array out of the types and bodies of its values, an object if there are keys.
pub(super) fn container(keys: &[Vec<u8>], values: &[(u8, Vec<u8>)], large: bool) -> Vec<u8> {
    let width = if large { 4 } else { 2 };
    let number = |n: usize| u32::try_from(n).unwrap().to_le_bytes()[..width].to_vec();
    let mut table = Vec::new();
    let mut tail = Vec::new();
    let start = 2 * width + keys.len() * (width + 2) + values.len() * (width + 1);
    for key in keys {
        table.extend(number(start + tail.len()));
        table.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
        tail.extend_from_slice(key);
    }
    for (ty, body) in values {
        table.push(*ty);
        if matches!(ty, 4..=6) || large && matches!(ty, 7 | 8) {
            let mut inline = body.clone();
            inline.resize(width, 0);
            table.extend(inline);
        } else {
            table.extend(number(start + tail.len()));
            tail.extend_from_slice(body);
        }
    }
    let mut out = number(values.len());
    out.extend(number(start + tail.len()));
    out.extend(table);
    out.extend(tail);
    assert!(large || out.len() <= 0xffff, "too large for the small format");
    out
}
