//! `outboxd config`: every key in force, and where it comes from.

use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;

use super::{code, show};
use crate::config::Loaded;

pub(super) fn config(loaded: &Loaded) -> u8 {
    show(&table(loaded));
    code::CLEAN
}

/// Without secrets.
pub(super) fn table(loaded: &Loaded) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["key", "value", "source"]);
    for key in loaded.effective() {
        table.add_row([key.key, key.value, key.source.to_string()]);
    }
    table
}
