//! `gtid_owned`: the transactions that a server is committing.
//!
//! Promise: every one of them is read, or the text is an error. Whoever took it for an empty set would miss what is in the
//! log already and not yet in `gtid_executed`.

use std::sync::LazyLock;

use regex::Regex;

use crate::position::{GtidError, GtidSet};

/// Reads `uuid:5#12:6#13`, with tags too: each number is followed by `#` and the thread that owns it, and nothing stands
/// between two origins.
pub(super) fn owned(text: &str) -> Result<GtidSet, GtidError> {
    static SERVER: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").ok());
    static OWNER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"#[0-9]*").ok());
    let (Some(server), Some(owner)) = (&*SERVER, &*OWNER) else { return text.parse() };
    let apart = server.replace_all(text, ",$0");
    owner.replace_all(&apart, "").replace(['\n', ' '], "").replace(",,", ",").trim_matches(',').parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn read(text: &str) -> String {
        owned(text).unwrap().to_string()
    }

    #[test]
    fn owned_transactions_are_read_without_their_owners() {
        assert_eq!(read(""), "");
        assert_eq!(read(&format!("{A}:23#7")), format!("{A}:23"));
        assert_eq!(read(&format!("{A}:5#12:6#13")), format!("{A}:5-6"));
        assert_eq!(read(&format!("{A}:23#7:25#1234")), format!("{A}:23:25"));
    }

    #[test]
    fn given_two_origins_with_nothing_between_them_when_read_then_none_loses_its_first_digits_to_an_owner() {
        for between in ["", ",", ",\n"] {
            assert_eq!(read(&format!("{A}:5#12{between}{B}:1#9")), format!("{A}:5,{B}:1"), "{between:?}");
            let tagged = format!("{A}:5#12{between}{A}:tag_1:7#3:9#44{between}{B}:beef:1#9");
            assert_eq!(read(&tagged), format!("{A}:5,{A}:tag_1:7:9,{B}:beef:1"), "{between:?}");
        }
    }

    #[test]
    fn given_what_is_not_understood_when_read_then_it_is_an_error_and_not_nothing() {
        for text in ["what is this", "ANONYMOUS#12", A, &format!("{A}:x-5#12")] {
            assert!(owned(text).is_err(), "{text}");
        }
    }
}
