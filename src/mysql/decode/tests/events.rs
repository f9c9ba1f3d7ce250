use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;

use super::super::{
    Checksum, DecodeError, Event, GtidEvent, Header, MariaDbGtid, QueryEvent, event_size, kind, uncompress_rows,
};

/// A whole event with a checksum.
fn event(code: u8, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(Header::LEN + body.len() + 4).unwrap();
    let mut bytes = vec![1, 0, 0, 0, code, 7, 0, 0, 0];
    bytes.extend(size.to_le_bytes());
    bytes.extend([0x10, 0x20, 0, 0, 0x20, 0]);
    bytes.extend_from_slice(body);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// As `MariaDB` compresses, with the size in `width` bytes.
fn compressed(text: &[u8], width: u8) -> Vec<u8> {
    let size = u64::try_from(text.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x80 | width];
    bytes.extend_from_slice(&size[8 - usize::from(width)..]);
    let mut encoder = ZlibEncoder::new(bytes, Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn query(text: &[u8]) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 2, 0, 9, 9];
    body.extend_from_slice(b"abc\0");
    body.extend_from_slice(text);
    body
}

#[test]
fn given_an_event_when_taken_apart_then_header_and_body_are_there_and_the_checksum_is_not() {
    let bytes = event(kind::QUERY, b"body");
    let event = Event::parse(&bytes, Checksum::Crc32).unwrap();
    assert_eq!((event.header.kind, event.header.server_id, event.header.log_pos), (kind::QUERY, 7, 0x2010));
    assert!(event.header.is_artificial());
    assert_eq!(event.body, b"body");
    assert_eq!(event_size(&bytes), Ok(27));
}

#[test]
fn given_an_event_with_any_byte_changed_when_taken_apart_then_it_is_an_error() {
    let bytes = event(kind::QUERY, b"body");
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            // A format description brings its own word on checksums.
            if damaged[4] != kind::FORMAT_DESCRIPTION {
                assert!(Event::parse(&damaged, Checksum::Crc32).is_err(), "{at}");
            }
        }
    }
    for end in 0..bytes.len() {
        assert!(Event::parse(&bytes[..end], Checksum::Crc32).is_err(), "{end}");
    }
}

#[test]
fn given_a_format_description_when_asked_then_it_says_how_events_are_guarded() {
    let description = |algorithm| event(kind::FORMAT_DESCRIPTION, &[0, 0, algorithm]);
    assert_eq!(Checksum::announced_by(&description(0)), Ok(Checksum::None));
    assert_eq!(Checksum::announced_by(&description(1)), Ok(Checksum::Crc32));
    assert_eq!(Checksum::announced_by(&description(2)), Err(DecodeError::UnknownChecksum { code: 2 }));
    assert!(Event::parse(&description(1), Checksum::None).is_ok());
}

#[test]
fn given_statements_when_read_then_text_and_schema_are_there_compressed_or_not() {
    let plain = query("SAVEPOINT `é`".as_bytes());
    let packed = query(&compressed("SAVEPOINT `é`".as_bytes(), 1));
    let mut load = plain.clone();
    load.splice(13..13, [0; 13]);
    for (code, body) in
        [(kind::QUERY, plain), (kind::MARIADB_QUERY_COMPRESSED, packed), (kind::EXECUTE_LOAD_QUERY, load)]
    {
        let query = QueryEvent::parse(code, &body).unwrap();
        assert_eq!((query.seconds, &*query.schema, &*query.text), (5, "abc", "SAVEPOINT `é`"), "{code}");
        for end in 0..18 {
            assert!(QueryEvent::parse(code, &body[..end]).is_err(), "{code} {end}");
        }
    }
}

#[test]
fn given_compressed_rows_when_expanded_then_they_are_those_of_a_plain_event() {
    let head = [7, 0, 0, 0, 0, 0, 1, 0, 3, 7];
    for width in 1..=4 {
        let mut body = head.to_vec();
        body.extend(compressed(&[5; 200], width));
        let mut plain = Vec::new();
        assert_eq!(uncompress_rows(166, &body, &mut plain), Ok(23));
        assert_eq!(plain, [&head[..], &[5; 200]].concat());
        for end in head.len()..body.len() {
            assert!(uncompress_rows(166, &body[..end], &mut Vec::new()).is_err(), "{end}");
        }
    }
    let mut v2 = head.to_vec();
    v2.splice(8..8, [2, 0]);
    v2.extend(compressed(b"x", 1));
    assert_eq!(uncompress_rows(169, &v2, &mut Vec::new()), Ok(30));
    assert!(uncompress_rows(167, &v2, &mut Vec::new()).is_err());
}

#[test]
fn given_a_compressed_part_that_lies_about_its_size_when_expanded_then_it_is_an_error_and_no_memory_is_taken() {
    for claimed in [199_u32, 201, u32::MAX, 1 << 30] {
        let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 3, 7];
        let mut packed = compressed(&[5; 200], 4);
        packed[1..5].copy_from_slice(&claimed.to_be_bytes());
        body.extend(packed);
        let mut out = Vec::new();
        assert!(uncompress_rows(166, &body, &mut out).is_err(), "{claimed}");
        assert!(out.capacity() < 1 << 16);
    }
}

/// `libs/mysql/serialization`: as many trailing ones as bytes follow.
fn varint(value: u64) -> Vec<u8> {
    let bits = 64 - value.leading_zeros() as usize;
    let bytes = bits.div_ceil(7).clamp(1, 9);
    if bytes == 9 {
        return [&[0xff], &value.to_le_bytes()[..]].concat();
    }
    let wide = (value << bytes) | ((1 << (bytes - 1)) - 1);
    wide.to_le_bytes()[..bytes].to_vec()
}

fn tagged(number: u64, tag: &str, micros: u64) -> Vec<u8> {
    let mut fields = [varint(0), varint(1), varint(1)].concat();
    for byte in 1..=16 {
        fields.extend(varint(byte * 15));
    }
    fields.extend([varint(2), varint(number << 1), varint(3), varint(tag.len() as u64)].concat());
    fields.extend_from_slice(tag.as_bytes());
    fields.extend(
        [varint(4), varint(8), varint(5), varint(10), varint(6), varint(micros), varint(8), varint(5)].concat(),
    );
    [varint(1), varint(fields.len() as u64 + 2), varint(8), fields].concat()
}

#[test]
fn given_gtids_when_read_then_server_number_tag_and_time_are_there() {
    let server: [u8; 16] = std::array::from_fn(|at| u8::try_from((at + 1) * 15).unwrap());
    let micros = 1_732_200_000_123_456;
    let body = tagged((1 << 40) + 5, "a_tag", micros);
    let expected = GtidEvent { server, tag: Some("a_tag"), number: (1 << 40) + 5, commit_micros: Some(micros) };
    assert_eq!(GtidEvent::parse(kind::GTID_TAGGED, &body), Ok(expected));
    let mut body = vec![0];
    body.extend(server);
    body.extend(9_u64.to_le_bytes());
    let old = GtidEvent { server, tag: None, number: 9, commit_micros: None };
    assert_eq!(GtidEvent::parse(kind::GTID, &body), Ok(old.clone()));
    body.push(2);
    body.extend([0; 16]);
    assert_eq!(GtidEvent::parse(kind::GTID, &body), Ok(old.clone()));
    body.extend(&(micros | 1 << 55).to_le_bytes()[..7]);
    assert_eq!(GtidEvent::parse(kind::GTID, &body), Ok(GtidEvent { commit_micros: Some(micros), ..old }));
    let body = [5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 65];
    let expected = MariaDbGtid { domain: 3, sequence: 5, standalone: true, xa: true };
    assert_eq!(MariaDbGtid::parse(&body), Ok(expected));
    assert!(MariaDbGtid::parse(&body[..12]).is_err());
}

proptest! {
    #[test]
    fn given_any_bytes_when_read_as_any_event_then_nothing_panics(
        data in prop::collection::vec(any::<u8>(), 0..120), code: u8, at: usize, with: u8,
    ) {
        let _ = Event::parse(&data, Checksum::Crc32);
        let _ = Event::parse(&data, Checksum::None);
        let _ = event_size(&data);
        let _ = QueryEvent::parse(code, &data);
        let _ = GtidEvent::parse(code, &data);
        let _ = GtidEvent::parse(kind::GTID_TAGGED, &data);
        let _ = MariaDbGtid::parse(&data);
        let _ = uncompress_rows(166, &data, &mut Vec::new());
        let mut near = tagged(5, "tag", 1 << 50);
        let place = at % near.len();
        near[place] = with;
        let _ = GtidEvent::parse(kind::GTID_TAGGED, &near);
        let mut near = query(&compressed(&data, 2));
        let place = at % near.len();
        near[place] = with;
        let _ = QueryEvent::parse(kind::MARIADB_QUERY_COMPRESSED, &near);
    }

    #[test]
    fn given_tagged_gtids_when_written_and_read_then_they_are_the_same(number in 1..1_u64 << 62, micros in 0..1_u64 << 55) {
        let body = tagged(number, "t", micros);
        let event = GtidEvent::parse(kind::GTID_TAGGED, &body).unwrap();
        prop_assert_eq!((event.number, event.commit_micros), (number, Some(micros)));
    }
}
