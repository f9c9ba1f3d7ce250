use proptest::prelude::*;

use super::super::number::{write_decimal, write_float};
use super::super::{Column, ColumnType, DecodeError, RawValue};
use super::column;

fn text(column: &Column, data: &[u8]) -> Result<String, DecodeError> {
    let mut out = b"before".to_vec();
    let written = RawValue::new(column, 3, data).write_text(&mut out);
    if written.is_err() {
        assert_eq!(out, b"before");
    }
    written.map(|()| String::from_utf8(out.split_off(6)).unwrap())
}

#[track_caller]
fn is(ty: ColumnType, meta: u16, data: &[u8], expected: &str) {
    assert_eq!(text(&column(ty, meta), data).as_deref(), Ok(expected));
}

#[test]
fn integers() {
    for (ty, data, signed, unsigned) in [
        (ColumnType::Tiny, &[0x80][..], "-128", "128"),
        (ColumnType::Short, &[0xff, 0xff], "-1", "65535"),
        (ColumnType::Int24, &[0, 0, 0x80], "-8388608", "8388608"),
        (ColumnType::Long, &[1, 0, 0, 0], "1", "1"),
        (ColumnType::LongLong, &[0, 0, 0, 0, 0, 0, 0, 0x80], "-9223372036854775808", "9223372036854775808"),
    ] {
        for (unsigned, expected) in [(false, signed), (true, unsigned)] {
            let column = Column { unsigned: Some(unsigned), ..column(ty, 0) };
            assert_eq!(text(&column, data).unwrap(), expected);
        }
        assert_eq!(text(&column(ty, 0), data), Err(DecodeError::UnknownSignedness { column: 3, ty }));
    }
}

#[test]
fn decimals() {
    // Examples of `decimal2bin`: 1234567890.1234 as DECIMAL(14,4).
    let digits = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
    is(ColumnType::NewDecimal, 0x0e04, &digits, "1234567890.1234");
    is(ColumnType::NewDecimal, 0x0e04, &digits.map(|byte| !byte), "-1234567890.1234");
    is(ColumnType::NewDecimal, 0x0502, &[0x80, 0, 0], "0.00");
    is(ColumnType::NewDecimal, 0x0502, &[0x7f, 0xff, 0xff], "0.00");
    is(ColumnType::NewDecimal, 0x0502, &[0x80, 7, 5], "7.05");
    is(ColumnType::NewDecimal, 0x0202, &[0x80 + 9], "0.09");
    is(ColumnType::NewDecimal, 0x0900, &[0x80, 0, 0, 42], "42");
    is(ColumnType::NewDecimal, 0x0a00, &[0x81, 0, 0, 0, 42], "1000000042");
    let bad = text(&column(ColumnType::NewDecimal, 0x0202), &[0x80 + 100]);
    assert_eq!(bad, Err(DecodeError::BadValue { column: 3, ty: ColumnType::NewDecimal }));
}

#[test]
fn floats() {
    for (value, expected) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (-12.5, "-12.5"),
        (1e14, "100000000000000"),
        (1e15, "1e15"),
        (1_200_000_000_000_000.0, "1.2e15"),
        // As near to .3: the even digit is the server's.
        (2_023_208_003_702_915.0 + 0.25, "2023208003702915.2"),
        (2_023_208_003_702_915.0 + 0.75, "2023208003702915.8"),
        (-2_023_208_003_702_914.5, "-2023208003702914.5"),
        (123_456_789_012_345_680.0, "1.2345678901234568e17"),
        (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"),
        (1.5e300, "1.5e300"),
        (5e-324, "5e-324"),
        (-9.007_199_254_740_993e-7, "-0.0000009007199254740993"),
        (f64::MAX, "1.7976931348623157e308"),
    ] {
        is(ColumnType::Double, 8, &f64::to_le_bytes(value), expected);
    }
    is(ColumnType::Float, 4, &0.1_f32.to_le_bytes(), "0.1");
    assert!(text(&column(ColumnType::Float, 4), &f32::NAN.to_le_bytes()).is_err());
}

#[test]
fn dates_and_times() {
    is(ColumnType::Year, 0, &[0], "0000");
    is(ColumnType::Year, 0, &[255], "2155");
    is(ColumnType::Date, 0, &[0x7f, 0xc8, 0x0f], "2020-03-31");
    is(ColumnType::Date, 0, &[0, 0, 0], "0000-00-00");
    is(ColumnType::Time2, 0, &[0x80, 0x10, 0x83], "01:02:03");
    is(ColumnType::Time2, 0, &[0x7f, 0xff, 0xff], "-00:00:01");
    // The table at `my_time_packed_to_binary`.
    is(ColumnType::Time2, 2, &[0x7f, 0xff, 0xff, 0xff], "-00:00:00.01");
    is(ColumnType::Time2, 2, &[0x7f, 0xff, 0xff, 0x9d], "-00:00:00.99");
    is(ColumnType::Time2, 2, &[0x7f, 0xff, 0xff, 0x00], "-00:00:01.00");
    is(ColumnType::Time2, 2, &[0x7f, 0xff, 0xfe, 0xff], "-00:00:01.01");
    is(ColumnType::Time2, 6, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff], "-00:00:00.000001");
    is(ColumnType::Time2, 0, &[0xb4, 0x6e, 0xfb], "838:59:59");
    // ymd = (2020 * 13 + 1) << 5 | 2, hms = 3 << 12 | 4 << 6 | 5
    let packed = (((2020_u64 * 13 + 1) << 5 | 2) << 17 | 3 << 12 | 4 << 6 | 5) + (1 << 39);
    let mut data = packed.to_be_bytes()[3..].to_vec();
    is(ColumnType::DateTime2, 0, &data, "2020-01-02 03:04:05");
    data.push(90);
    is(ColumnType::DateTime2, 1, &data, "2020-01-02 03:04:05.9");
    *data.last_mut().unwrap() = 100;
    assert!(text(&column(ColumnType::DateTime2, 2), &data).is_err());
    data.splice(5.., [1, 0x86]);
    is(ColumnType::DateTime2, 3, &data, "2020-01-02 03:04:05.039");
    is(ColumnType::DateTime2, 0, &[0x80, 0, 0, 0, 0], "0000-00-00 00:00:00");
    is(ColumnType::Timestamp2, 0, &[0, 0, 0, 1], "1970-01-01 00:00:01");
    is(ColumnType::Timestamp2, 0, &1_709_164_800_u32.to_be_bytes(), "2024-02-29 00:00:00");
    is(ColumnType::Timestamp2, 0, &u32::MAX.to_be_bytes(), "2106-02-07 06:28:15");
    is(ColumnType::Timestamp2, 6, &[0x7f, 0xff, 0xff, 0xff, 0x0f, 0x42, 0x3f], "2038-01-19 03:14:07.999999");
    is(ColumnType::Timestamp2, 3, &[0; 6], "0000-00-00 00:00:00.000");
    is(ColumnType::Timestamp, 0, &[0xff, 0xff, 0xff, 0x7f], "2038-01-19 03:14:07");
    is(ColumnType::DateTime, 0, &20_200_102_030_405_u64.to_le_bytes(), "2020-01-02 03:04:05");
    is(ColumnType::Time, 0, &[0x2b, 0xaa, 0xfd], "-15:30:45");
}

#[test]
fn strings() {
    let with =
        |ty, meta, collation, data: &[u8]| text(&Column { collation: Some(collation), ..column(ty, meta) }, data);
    assert_eq!(with(ColumnType::VarChar, 20, 255, "žluť".as_bytes()).unwrap(), "žluť");
    assert_eq!(with(ColumnType::VarChar, 20, 2304, b"a").unwrap(), "a");
    assert_eq!(with(ColumnType::Blob, 2, 8, b"a\x80\xe9\x81b").unwrap(), "a€é\u{81}b");
    assert_eq!(with(ColumnType::String, 4, 63, b"ab").unwrap(), "ab\0\0");
    assert_eq!(with(ColumnType::VarChar, 4, 63, b"ab").unwrap(), "ab");
    let ty = ColumnType::VarChar;
    assert_eq!(with(ty, 20, 28, b"\xc4\xe3").unwrap(), "你");
    assert_eq!(with(ty, 20, 28, b"\xc4"), Err(DecodeError::BadValue { column: 3, ty }));
    assert_eq!(with(ty, 20, 1, b"a"), Err(DecodeError::UnsupportedCollation { column: 3, ty, collation: 1 }));
    assert_eq!(text(&column(ty, 20), b"a"), Err(DecodeError::UnknownCollation { column: 3, ty }));
    is(ColumnType::Bit, 0x0102, &[1, 2], "\u{1}\u{2}");
    is(ColumnType::Enum, 2, &[1, 1], "257");
    is(ColumnType::Set, 8, &[0, 0, 0, 0, 0, 0, 0, 0x80], "9223372036854775808");
}

#[test]
fn uuids() {
    // Versions 1 to 5 with variant 1 have their parts turned around; zeros at the end are cut off.
    let swapped = [0xc8, 0x0a, 0xa9, 0x42, 0x95, 0x62, 0x9e, 0x33, 0x11, 0xe1, 0x71, 0xca, 0x3e, 0x11, 0xfa, 0x47];
    is(ColumnType::Uuid, 16, &swapped, "3e11fa47-71ca-11e1-9e33-c80aa9429562");
    let plain = [0x01, 0x89, 0x0a, 0x5d, 0xac, 0x96, 0x77, 0x4b, 0xbc, 0xce, 0xb3, 0x02];
    is(ColumnType::Uuid, 16, &plain, "01890a5d-ac96-774b-bcce-b30200000000");
    is(ColumnType::Uuid, 16, &[], "00000000-0000-0000-0000-000000000000");
    is(ColumnType::Uuid, 16, &[0xff; 16], "ffffffff-ffff-ffff-ffff-ffffffffffff");
    assert!(text(&column(ColumnType::Uuid, 16), &[1; 17]).is_err());
}

#[test]
fn extents() {
    for (ty, meta, prefix, len) in [
        (ColumnType::VarChar, 255, 1, 5),
        (ColumnType::VarChar, 256, 2, 5),
        (ColumnType::String, 1020, 2, 5),
        (ColumnType::Json, 4, 4, 5),
        (ColumnType::MediumBlob, 3, 3, 5),
        (ColumnType::NewDecimal, 0x0e04, 0, 7),
        (ColumnType::Bit, 0x0102, 0, 2),
        (ColumnType::DateTime2, 5, 0, 8),
        (ColumnType::Null, 0, 0, 0),
    ] {
        let extent = column(ty, meta).extent(0, &[5, 0, 0, 0]).unwrap();
        assert_eq!((extent.prefix, extent.len), (prefix, len), "{ty}");
    }
}

/// Doubles of every form, and those that people write.
fn doubles() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (any::<i32>(), 0..9).prop_map(|(number, places)| f64::from(number) / 10_f64.powi(places)),
        (any::<i32>(), -20..24).prop_map(|(number, places)| f64::from(number) * 10_f64.powi(places)),
        prop::sample::select(vec![0.0, -0.0, 1e15, 1e-5, 9e14, 999_999_999_999_999.9, 1e-15, 1e21, f64::MIN_POSITIVE]),
    ]
}

fn singles() -> impl Strategy<Value = f32> {
    prop_oneof![any::<u32>().prop_map(f32::from_bits), any::<i16>().prop_map(|number| f32::from(number) / 100.0)]
}

/// The digits of a number without zeros at either end.
fn digits(text: &str) -> String {
    let mantissa = text.split('e').next().unwrap_or_default();
    mantissa.chars().filter(char::is_ascii_digit).collect::<String>().trim_matches('0').to_owned()
}

proptest! {
    #[test]
    fn doubles_are_the_shortest_text_that_reads_back(value in doubles()) {
        let mut out = Vec::new();
        prop_assert_eq!(write_float(&mut out, value, ""), value.is_finite());
        if value.is_finite() {
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
            // Two may be as short and as near.
            prop_assert_eq!(digits(&text).len(), digits(&format!("{value:e}")).len());
            // Without exponent from 1e-15 on, and below 1e15 or where a fraction follows.
            let size = value.abs();
            let plain = (1e-15..1e15).contains(&size) || size == 0.0 || value.fract() != 0.0 && size > 1.0;
            prop_assert_eq!(!text.contains('e'), plain, "{}", text);
        }
    }

    #[test]
    fn floats_are_the_shortest_text_that_reads_back(value in singles()) {
        let mut out = Vec::new();
        if write_float(&mut out, value, "") {
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), value.to_bits());
            // Two may be as short and as near.
            prop_assert_eq!(digits(&text).len(), digits(&format!("{value:e}")).len());
        }
    }

    #[test]
    fn decimals_of_eighteen_digits(value in -999_999_999_999_999_999_i64..=999_999_999_999_999_999) {
        // DECIMAL(18,9): two groups of nine digits.
        let [whole, part] = [value.unsigned_abs() / 1_000_000_000, value.unsigned_abs() % 1_000_000_000];
        let mut data: Vec<u8> = [whole, part].iter().flat_map(|group| group.to_be_bytes()[4..].to_vec()).collect();
        if value < 0 {
            for byte in &mut data {
                *byte = !*byte;
            }
        }
        data[0] ^= 0x80;
        let mut out = Vec::new();
        prop_assert!(write_decimal(&mut out, &data, 18, 9));
        let sign = if value < 0 { "-" } else { "" };
        prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{sign}{whole}.{part:09}"));
    }

    #[test]
    fn timestamps_are_utc(seconds in 1_u32..) {
        let expected = jiff::Timestamp::from_second(seconds.into()).unwrap();
        let expected = expected.strftime("%Y-%m-%d %H:%M:%S").to_string();
        prop_assert_eq!(text(&column(ColumnType::Timestamp2, 0), &seconds.to_be_bytes()).unwrap(), expected);
    }
}
