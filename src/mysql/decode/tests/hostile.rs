use proptest::prelude::*;

use super::super::{Column, ColumnType, Cursor, DecodeError, RawValue, RowsEvent, TableMap, peek_name, write_json};
use super::table_map;

/// Reads all rows as text, for the sake of not panicking.
fn drain(table: &TableMap, type_code: u8, body: &[u8]) {
    let Ok(mut rows) = RowsEvent::parse(type_code, body) else { return };
    let wanted: Vec<_> = (0..table.columns.len()).map(Some).collect();
    let mut text = Vec::new();
    let mut read = |_, value: super::super::ColumnValue<'_>| {
        text.clear();
        let _ = value.write_text(&mut text);
        Ok::<_, DecodeError>(())
    };
    while rows.next_row(table, &wanted, &mut read) == Ok(true) {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = peek_name(&data);
        let _ = TableMap::parse(&data);
        let _ = write_json(&data, 0, &mut Vec::new());
        let mut cursor = Cursor::new(&data, "random bytes");
        while cursor.lenenc_bytes().is_ok() && !cursor.is_empty() {}
        for type_code in [23, 30] {
            let _ = RowsEvent::parse(type_code, &data);
        }
    }

    #[test]
    fn random_table_maps_and_rows(
        types in prop::collection::vec(prop_oneof![1_u8..20, 140_u8..142, 242_u8..], 1..40),
        metadata in prop::collection::vec(prop_oneof![0_u8..5, any::<u8>()], 0..80),
        optional in prop::collection::vec(prop_oneof![0_u8..14, any::<u8>()], 0..40),
        rows in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let body = table_map(&types, &metadata, &vec![0xff; types.len().div_ceil(8)], &optional);
        if let Ok(table) = TableMap::parse(&body) {
            let mut body = vec![7, 0, 0, 0, 0, 0, 0, 0, u8::try_from(types.len()).unwrap()];
            body.extend(vec![0xff; types.len().div_ceil(8)]);
            body.extend(rows);
            drain(&table, 23, &body);
        }
    }

    #[test]
    fn random_values(
        code: u8, meta: u16, unsigned: Option<bool>, collation in prop::option::of(prop_oneof![Just(63), Just(8), any::<u16>()]),
        data in prop::collection::vec(prop_oneof![Just(0), Just(0x80), any::<u8>()], 0..40),
    ) {
        if let Some(ty) = ColumnType::from_code(code) {
            prop_assert_eq!(ty.code(), code);
            let column = Column { ty, meta, nullable: false, unsigned, collation, name: None };
            if let Ok((value, rest)) = column.split(0, &data) {
                prop_assert!(value.len() + rest.len() <= data.len());
            }
            let mut out = b"x".to_vec();
            if RawValue::new(&column, 0, &data).write_text(&mut out).is_err() {
                prop_assert_eq!(out, b"x");
            }
        }
    }
}
