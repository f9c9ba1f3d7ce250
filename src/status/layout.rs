//! The table, laid out for a width. Pure.

use comfy_table::{Cell, CellAlignment, Color, LineStyle, Table, TableStyle};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Line;
use crate::terminal::text;

/// A rule below the header, and nothing else.
pub const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Columns that a narrower position is not worth showing for.
const MIN_POSITION: usize = 14;

/// Columns that a narrower table name is not worth showing for.
const MIN_NAME: usize = 12;

/// How to lay out.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Columns there are; none for as many as it takes.
    pub width: Option<usize>,
    /// Whether states have colours.
    pub colour: bool,
    /// Now.
    pub now: Timestamp,
    /// Where the reader is.
    pub zone: TimeZone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Table,
    State,
    Events,
    Rate,
    Lag,
    Behind,
    InFlight,
    Position,
    Saved,
}

const COLUMNS: [Column; 9] = [
    Column::Table,
    Column::State,
    Column::Events,
    Column::Rate,
    Column::Lag,
    Column::Behind,
    Column::InFlight,
    Column::Position,
    Column::Saved,
];

/// What is left out where there is no room, in this order.
const DISPENSABLE: [Column; 7] =
    [Column::InFlight, Column::Saved, Column::Position, Column::Rate, Column::Lag, Column::Events, Column::Behind];

impl Column {
    const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::State => "state",
            Self::Events => "events",
            Self::Rate => "events/s",
            Self::Lag => "lag",
            Self::Behind => "behind",
            Self::InFlight => "in flight",
            Self::Position => "position",
            Self::Saved => "last save",
        }
    }

    const fn is_number(self) -> bool {
        matches!(self, Self::Events | Self::Rate | Self::Lag | Self::Behind | Self::InFlight)
    }

    /// What a line says here; none where it is unknown.
    fn of(self, line: &Line, layout: &Layout) -> Option<String> {
        match self {
            Self::Table => Some(text::harmless(&line.table.to_string()).into_owned()),
            Self::State => Some(line.state.clone()),
            Self::Events => line.events.map(text::count),
            Self::Rate => line.events_per_second.map(|rate| format!("{rate:.0}")),
            Self::Lag => line.lag_seconds.map(text::lag),
            Self::Behind => line.behind.map(text::count),
            Self::InFlight => line.in_flight.map(text::count),
            Self::Position => line.position.clone(),
            Self::Saved => line.saved.map(|time| text::when(time, layout.now, &layout.zone)),
        }
    }
}

/// How the two texts that can be shortened are shown.
#[derive(Debug, Clone, Copy)]
struct Room {
    bare_names: bool,
    name: usize,
    position: usize,
}

/// The table, and below it a sentence for each table that has something to say. No line is wider than the layout.
pub fn table(lines: &[Line], layout: &Layout) -> Vec<String> {
    let mut columns: Vec<_> = COLUMNS
        .into_iter()
        .filter(|column| lines.is_empty() || lines.iter().any(|line| column.of(line, layout).is_some()))
        .collect();
    let mut dispensable = DISPENSABLE.into_iter();
    let room = loop {
        if let Some(room) = room(&columns, lines, layout) {
            break room;
        }
        match dispensable.next() {
            Some(least) => columns.retain(|column| *column != least),
            None => break Room { bare_names: true, name: MIN_NAME, position: 0 },
        }
    };
    let mut drawn: Vec<String> =
        draw(&columns, room, lines, layout).lines().map(|line| line.trim_end().to_owned()).collect();
    for line in lines {
        if let Some(reason) = &line.reason {
            drawn.push(text::harmless(&format!(" {}: {reason}", line.table)).into_owned());
        }
    }
    match layout.width {
        Some(width) => drawn.iter().map(|line| text::clip(line, width)).collect(),
        None => drawn,
    }
}

/// The room for names and positions beside the other columns; none if it is too little.
fn room(columns: &[Column], lines: &[Line], layout: &Layout) -> Option<Room> {
    let widest = |column: Column, shown: &dyn Fn(&Line) -> String| {
        let contents = lines.iter().map(|line| text::columns(&shown(line)));
        contents.max().unwrap_or(0).max(column.name().len())
    };
    let natural = |column: Column| widest(column, &|line| column.of(line, layout).unwrap_or_default());
    let name = natural(Column::Table);
    let position = if columns.contains(&Column::Position) { natural(Column::Position) } else { 0 };
    let Some(width) = layout.width else { return Some(Room { bare_names: false, name, position }) };
    let others = columns.iter().filter(|column| !matches!(column, Column::Table | Column::Position));
    // Two blanks between two, and one at the beginning.
    let taken = others.map(|column| natural(*column)).sum::<usize>() + 2 * columns.len() - 1;
    let left = width.checked_sub(taken)?;
    let least = position.min(MIN_POSITION);
    if left >= name + least {
        return Some(Room { bare_names: false, name, position: left - name });
    }
    let one_schema = lines.windows(2).all(|pair| pair[0].table.schema() == pair[1].table.schema());
    let bare =
        if one_schema { widest(Column::Table, &|line| text::harmless(line.table.table()).into_owned()) } else { name };
    let cut = bare.min(left.checked_sub(least)?);
    (cut >= bare.min(MIN_NAME)).then_some(Room { bare_names: one_schema, name: cut, position: left - cut })
}

fn draw(columns: &[Column], room: Room, lines: &[Line], layout: &Layout) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(columns.iter().map(|column| Cell::new(column.name())));
    if layout.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    for line in lines {
        table.add_row(columns.iter().map(|column| {
            let content = match column {
                Column::Table if room.bare_names => text::end(&text::harmless(line.table.table()), room.name),
                Column::Position => text::position(line.position.as_deref().unwrap_or("-"), room.position),
                _ => column.of(line, layout).unwrap_or_else(|| "-".to_owned()),
            };
            let cell = Cell::new(if *column == Column::Table { text::end(&content, room.name) } else { content });
            if *column == Column::State { cell.fg(colour(&line.state)) } else { cell }
        }));
    }
    for (drawn, column) in table.column_iter_mut().zip(columns) {
        // With the blank in the place of a line between two columns, these are two.
        drawn.set_padding((1, 0));
        if column.is_number() {
            drawn.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn colour(state: &str) -> Color {
    match state {
        "running" => Color::Green,
        "starting" | "draining" => Color::Yellow,
        "halted" | "killed" => Color::Red,
        _ => Color::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableName;

    fn lines() -> Vec<Line> {
        let line = |shard: u64| Line {
            table: TableName::new("delivery", &format!("delivery-outbox{shard}")),
            state: "running".to_owned(),
            reason: None,
            events: Some(1234 * shard),
            events_per_second: Some(98.7),
            lag_seconds: Some(0.012),
            behind: None,
            in_flight: Some(3),
            position: Some("gtid=3e11fa47-71ca-11e1-9e33-c80aa9429562:1-2345".to_owned()),
            saved: Some(Timestamp::UNIX_EPOCH),
        };
        (1..=4).map(line).collect()
    }

    fn layout(width: Option<usize>) -> Layout {
        let now = Timestamp::from_second(1).unwrap();
        Layout { width, colour: false, now, zone: TimeZone::UTC }
    }

    #[test]
    fn everything_is_shown_where_there_is_room() {
        let drawn = table(&lines(), &layout(None));
        assert_eq!(
            drawn[..3].join("\n"),
            " table                      state    events  events/s    lag  in flight  position                                          last save
────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 delivery.delivery-outbox1  running   1,234        99  12 ms          3  gtid=3e11fa47-71ca-11e1-9e33-c80aa9429562:1-2345  1 s ago"
        );
    }

    #[test]
    fn narrow_terminals_get_what_fits() {
        for (width, first) in [
            (
                120,
                " delivery.delivery-outbox1  running   1,234        99  12 ms          3  gtid=3e11fa47…:1-2345  1 s ago",
            ),
            (80, " delivery-outbox1  running   1,234        99  12 ms  3e11fa47…:1-2345  1 s ago"),
            (60, " delivery.delivery-outbox1  running   1,234        99  12 ms"),
            (52, " delivery-outbox1  running   1,234        99  12 ms"),
            (20, " …ery-outbox1  runni"),
        ] {
            let drawn = table(&lines(), &layout(Some(width)));
            assert!(drawn.iter().all(|line| text::columns(line) <= width), "{drawn:#?}");
            assert_eq!(drawn[2], first);
        }
    }

    #[test]
    fn reasons_stand_below_and_colours_take_no_room() {
        let mut lines = lines();
        lines[2].state = "halted".to_owned();
        lines[2].reason = Some("column_missing: payload".to_owned());
        let plain = table(&lines, &layout(Some(80)));
        assert_eq!(plain.last().unwrap(), " delivery.delivery-outbox3: column_missing: payload");
        let coloured = table(&lines, &Layout { colour: true, ..layout(Some(80)) });
        assert!(coloured[4].contains("\u{1b}["), "{coloured:?}");
        let columns = |lines: &[String]| lines.iter().map(|line| text::columns(line.trim_end())).collect::<Vec<_>>();
        assert_eq!(columns(&coloured), columns(&plain));
    }

    #[test]
    fn what_is_unknown_of_all_takes_no_column() {
        let mut lines = lines();
        for line in &mut lines {
            (line.events, line.events_per_second, line.lag_seconds, line.in_flight) = (None, None, None, None);
            line.state = "unknown".to_owned();
        }
        lines[0].position = None;
        lines[0].saved = None;
        let drawn = table(&lines, &layout(Some(120)));
        assert!(drawn[0].split_whitespace().eq(["table", "state", "position", "last", "save"]), "{drawn:#?}");
        assert!(drawn[2].split_whitespace().eq(["delivery.delivery-outbox1", "unknown", "-", "-"]), "{drawn:#?}");
    }
}
