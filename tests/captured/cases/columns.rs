//! Columns of every type, text in every character set, JSON of every form.

use std::fmt::Write;

use super::{ALL, Case, MYSQL, Step};

/// Character sets that are converted.
const SETS: &[&str] = &[
    "utf8mb4", "utf8mb3", "latin1", "ascii", "ucs2", "utf16", "utf16le", "utf32", "gbk", "gb2312", "euckr", "sjis",
    "cp932", "latin2", "latin7", "greek", "hebrew", "cp1250", "cp1251", "cp1256", "cp1257", "koi8r", "koi8u", "cp866",
    "macroman",
];

/// What can be written in a set.
fn text(set: &str) -> &'static str {
    match set {
        "utf8mb4" | "utf16" | "utf16le" | "utf32" => "né € 🚀 „你好“",
        "utf8mb3" | "ucs2" => "né € „你好“",
        "ascii" => "plain ~",
        "gbk" | "gb2312" => "你好, 世界",
        "euckr" => "안녕하세요",
        "sjis" | "cp932" => "こんにちは ｱ",
        "greek" => "Καλημέρα",
        "hebrew" => "שלום",
        "cp1251" | "koi8r" | "cp866" => "Привет",
        "koi8u" => "Привіт ґ",
        "cp1256" => "سلام",
        "latin7" | "cp1257" => "Šiaulių ąžuolas",
        "latin2" | "cp1250" => "příliš žluťoučký",
        _ => "né ünï",
    }
}

pub(super) fn columns() -> Vec<Case> {
    let (mut names, mut values) = (String::new(), String::new());
    for set in SETS {
        let _ = write!(names, ", of_{set} VARCHAR(40) CHARACTER SET {set}, long_{set} TEXT CHARACTER SET {set}");
        let _ = write!(values, ", '{0}', '{0}'", text(set));
    }
    let character_sets = Case::new("character_sets", ALL)
        .run(&[&format!("CREATE TABLE `delivery-outbox1` (id INT PRIMARY KEY{names})")])
        .rows(&[&format!("INSERT INTO `delivery-outbox1` VALUES (1{values})")]);
    let types = "CREATE TABLE `delivery-outbox1` (id BIGINT UNSIGNED PRIMARY KEY, tiny TINYINT, tinyu TINYINT UNSIGNED, small \
        SMALLINT, smallu SMALLINT UNSIGNED, medium MEDIUMINT, mediumu MEDIUMINT UNSIGNED, plain INT, plainu INT UNSIGNED, big \
        BIGINT, amount DECIMAL(20,4), whole DECIMAL(9,0), wide DECIMAL(65,30), ratio DOUBLE, part FLOAT, bits BIT(13), day \
        DATE, era YEAR, clock TIME, clock3 TIME(3), at DATETIME, at6 DATETIME(6), stamped TIMESTAMP NULL, stamped2 \
        TIMESTAMP(2) NULL, state ENUM('new','done'), flags SET('a','b','c'), short CHAR(36) CHARACTER SET ascii, uuid \
        BINARY(16), raw VARBINARY(300), tinytext_ TINYTEXT, text_ TEXT, mediumtext_ MEDIUMTEXT, longtext_ LONGTEXT, tinyblob_ \
        TINYBLOB, blob_ BLOB, mediumblob_ MEDIUMBLOB, longblob_ LONGBLOB, made INT GENERATED ALWAYS AS (plain + 1) STORED, \
        hidden INT INVISIBLE DEFAULT 42, place POINT)";
    let into = "INSERT INTO `delivery-outbox1` (id, tiny, tinyu, small, smallu, medium, mediumu, plain, plainu, big, amount, whole, \
        wide, ratio, part, bits, day, era, clock, clock3, at, at6, stamped, stamped2, state, flags, short, uuid, raw, \
        tinytext_, text_, mediumtext_, longtext_, tinyblob_, blob_, mediumblob_, longblob_, place) VALUES ";
    let largest = "(18446744073709551615, 127, 255, 32767, 65535, 8388607, 16777215, 2147483646, 4294967295, \
        9223372036854775807, 9999999999999999.9999, 999999999, 12345678901234567890123456789012345.123456789012345678901234567891, \
        1.7976931348623157e308, 1.5, b'1111111111111', '9999-12-31', 2155, '838:59:59', '838:59:58.999', '9999-12-31 23:59:59', \
        '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07', '2038-01-19 03:14:06.99', 'done', 'a,b,c', \
        '0f0e0d0c-0b0a-0908-0706-050403020100', x'00112233445566778899aabbccddeeff', REPEAT('r', 300), 'tiny', 'text \"q\" \\\\ \\n', \
        REPEAT('m', 300), '🚀', x'ff', x'00ff', x'ff00', x'fffe', POINT(1, 2))";
    let smallest = "(0, -128, 0, -32768, 0, -8388608, 0, -2147483648, 0, -9223372036854775808, -9999999999999999.9999, -1, \
        -0.000000000000000000000000000001, -0.1, -0.25, b'0', '1000-01-01', 1901, '-838:59:59', '-00:00:00.001', \
        '1000-01-01 00:00:00', '1000-01-01 00:00:00.000001', '1970-01-01 00:00:01', '1970-01-01 00:00:01.01', 'new', '', '', \
        x'00000000000000000000000000000000', '', '', '', '', '', '', '', '', '', NULL)";
    let types_case = Case::new("types", ALL)
        .run(&[types])
        .rows(&[&format!("{into}{smallest}")])
        .rows(&["INSERT INTO `delivery-outbox1` (id) VALUES (1)", &format!("{into}{largest}")]);
    vec![character_sets, types_case, json()]
}

fn json() -> Case {
    let deep = format!("'{}1{}'", "[".repeat(100), "]".repeat(100));
    let values = [
        "'null'",
        "'true'",
        "'false'",
        "'\"\"'",
        "'{}'",
        "'[]'",
        "'{\"\": {\"\": []}}'",
        deep.as_str(),
        "'[0, -1, 32767, -32768, 32768, 2147483647, -2147483648, 9223372036854775807, -9223372036854775808, 18446744073709551615]'",
        "'[0.1, -0.0, 1e300, 5e-324, 1.7976931348623157e308, 0.30000000000000004]'",
        r#"'{"esc": "\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\\u00e9\\ud83d\\ude80", "é": "ключ"}'"#,
        "'{\"a\": 1, \"a\": 2}'",
        "JSON_OBJECT('decimal', CAST('-1234567890.123456789' AS DECIMAL(30,9)), 'whole', CAST(7 AS DECIMAL(5,0)))",
        "JSON_ARRAY(CAST('2024-02-29' AS DATE), CAST('-12:34:56.789' AS TIME(3)), CAST('2024-02-29 12:34:56.000001' AS DATETIME(6)))",
        "JSON_ARRAY(x'00ff', b'1010', CAST('blob' AS BINARY))",
        // Beyond 64 KiB offsets are wider.
        "JSON_OBJECT('large', REPEAT('x', 70000), 'more', JSON_ARRAY(1, JSON_OBJECT('k', REPEAT('y', 300))))",
    ];
    let mut case = Case::new("json", &[MYSQL])
        .run(&["CREATE TABLE `delivery-outbox1` (id INT PRIMARY KEY, payload JSON)"])
        .run(&["SET SESSION binlog_transaction_compression = ON"]);
    for (id, value) in values.iter().enumerate() {
        case = case.run(&[&format!("INSERT INTO `delivery-outbox1` VALUES ({id}, {value})")]);
    }
    case.step(Step::Keep).run(&["SET SESSION binlog_transaction_compression = OFF"])
}
