use super::super::{ColumnType, DecodeError, Dialect, TableMap, peek_name};
use super::table_map;

/// BIGINT, VARCHAR(300), YEAR, CHAR(255 * 4), ENUM, SET, DECIMAL(10,2), BIT(10), GEOMETRY, JSON, INT, DATETIME(3), TEXT
const TYPES: [u8; 13] = [8, 15, 13, 254, 254, 254, 246, 16, 255, 245, 3, 18, 252];
const METADATA: [u8; 19] = [0x2c, 1, 0xce, 0xfc, 247, 2, 248, 8, 10, 2, 2, 1, 4, 4, 3, 2, 0, 0, 0];

fn full() -> Vec<u8> {
    let mut optional = vec![1, 1, 0b1101_0000];
    optional.extend([2, 6, 45, 1, 63, 2, 252, 255]);
    // The last pair's collation takes three bytes: 255 as 252 255 0.
    optional.splice(4.., [7, 45, 1, 63, 2, 252, 255, 0]);
    optional.extend([4, 26]);
    for name in b'a'..b'n' {
        optional.extend([1, name]);
    }
    optional.extend([12, 2, 0, 0]);
    optional.extend([200, 1, 9]);
    table_map(&TYPES, &METADATA[..16], &[0b0000_0010, 0b0001_0000], &optional)
}

#[test]
fn full_metadata() {
    let body = full();
    let map = TableMap::parse(&body).unwrap();
    assert_eq!((map.table_id, map.schema.as_str(), map.table.as_str()), (7, "outbox", "events"));
    let got: Vec<_> = map.columns.iter().map(|c| (c.ty, c.meta, c.unsigned, c.collation)).collect();
    let expected = [
        (ColumnType::LongLong, 0, Some(true), None),
        (ColumnType::VarChar, 300, None, Some(45)),
        (ColumnType::Year, 0, Some(true), None),
        (ColumnType::String, 1020, None, Some(63)),
        (ColumnType::Enum, 2, None, None),
        (ColumnType::Set, 8, None, None),
        (ColumnType::NewDecimal, 0x0a02, Some(false), None),
        (ColumnType::Bit, 0x0102, None, None),
        (ColumnType::Geometry, 4, None, None),
        (ColumnType::Json, 4, None, None),
        (ColumnType::Long, 0, Some(true), None),
        (ColumnType::DateTime2, 3, None, None),
        (ColumnType::Blob, 2, None, Some(255)),
    ];
    assert_eq!(got, expected);
    let names: String = map.columns.iter().filter_map(|c| c.name.clone()).collect();
    assert_eq!(names, "abcdefghijklm");
    let nullable: Vec<_> = map.columns.iter().enumerate().filter(|(_, c)| c.nullable).map(|(i, _)| i).collect();
    assert_eq!(nullable, [1, 12]);
    let name = peek_name(&body).unwrap();
    assert_eq!((name.table_id, name.schema, name.table), (7, "outbox", "events"));
}

#[test]
fn mariadb_counts_geometry_as_text() {
    let body = table_map(&[255, 252], &[4, 2], &[0], &[3, 2, 63, 45]);
    let map = TableMap::parse_as(&body, Dialect::MariaDb).unwrap();
    assert_eq!(map.columns[1].collation, Some(45));
    assert!(matches!(
        TableMap::parse(&body),
        Err(DecodeError::BadOptionalMetadata { field: "COLUMN_CHARSET", columns: 2 })
    ));
}

#[test]
fn every_truncation_is_an_error_or_leaves_out_whole_fields() {
    let body = full();
    for end in 0..body.len() {
        if let Ok(map) = TableMap::parse(&body[..end]) {
            assert_eq!(map.columns.len(), TYPES.len());
        }
    }
    assert!(TableMap::parse(&body[..40]).is_err());
}

#[test]
fn errors_name_the_column() {
    let unknown = TableMap::parse(&table_map(&[3, 99], &[], &[0], &[]));
    assert_eq!(unknown, Err(DecodeError::UnknownType { column: 1, code: 99 }));
    let fraction = TableMap::parse(&table_map(&[18], &[7], &[0], &[]));
    assert_eq!(fraction, Err(DecodeError::BadMetadata { column: 0, ty: ColumnType::DateTime2, meta: 7 }));
    let string = TableMap::parse(&table_map(&[254], &[0, 9], &[0], &[]));
    assert_eq!(string, Err(DecodeError::BadMetadata { column: 0, ty: ColumnType::String, meta: 9 }));
    let charset = TableMap::parse(&table_map(&[15], &[9, 0], &[0], &[2, 3, 45, 1, 33]));
    assert_eq!(charset, Err(DecodeError::BadOptionalMetadata { field: "DEFAULT_CHARSET", columns: 1 }));
    let signedness = TableMap::parse(&table_map(&[3], &[], &[0], &[1, 0]));
    assert_eq!(signedness, Err(DecodeError::BadOptionalMetadata { field: "SIGNEDNESS", columns: 1 }));
    let lenenc = TableMap::parse(&table_map(&[3], &[], &[0], &[1, 255]));
    assert!(matches!(lenenc, Err(DecodeError::BadLength { byte: 255, .. })));
}
