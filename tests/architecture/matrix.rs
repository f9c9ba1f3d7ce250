//! The drawing of the rooms in docs/architecture.md: a matrix in which whoever uses somebody stands above him, so that one glance
//! shows that there is no circle.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::ALLOWED;

const CELL: usize = 22;
const LEFT: usize = 104;
const TOP: usize = 100;

/// Rooms in an order in which each stands before those that it may use.
fn ordered() -> Vec<&'static str> {
    let mut left: Vec<&str> = ALLOWED.iter().map(|(room, _)| *room).collect();
    let mut ordered = Vec::new();
    while !left.is_empty() {
        let is_used = |room: &str| ALLOWED.iter().any(|(from, used)| left.contains(from) && used.contains(&room));
        let index = left.iter().position(|room| !is_used(room)).expect("another test says that there is no circle");
        ordered.push(left.remove(index));
    }
    ordered
}

fn drawing() -> String {
    let rooms = ordered();
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let (width, height) = (LEFT + rooms.len() * CELL + 76, TOP + rooms.len() * CELL + 16);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\" \
         aria-label=\"Which room may use which\">\n<style>\n\
         .card{{fill:#fff}} .line{{fill:#f3f6fa}} .self{{fill:#d5dde7}} .use{{fill:#2563b0}} text{{font:13px system-ui,sans-serif;fill:#1d2733}}\n\
         @media (prefers-color-scheme:dark){{.card{{fill:#161b22}} .line{{fill:#1d242e}} .self{{fill:#39444f}} .use{{fill:#6fb1f5}} text{{fill:#dbe4ee}}}}\n\
         </style>\n<rect class=\"card\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n"
    );
    for (row, room) in rooms.iter().enumerate() {
        let (across, down) = (LEFT + row * CELL, TOP + row * CELL);
        if row % 2 == 0 {
            let _ = writeln!(
                svg,
                "<rect class=\"line\" x=\"8\" y=\"{down}\" width=\"{}\" height=\"{CELL}\"/>",
                across + CELL - 8
            );
        }
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{room}</text>", LEFT - 8, down + 16);
        let (x, y) = (across + 15, TOP - 8);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" transform=\"rotate(-60 {x} {y})\">{room}</text>");
    }
    for (row, room) in rooms.iter().enumerate() {
        let down = TOP + row * CELL;
        let _ = writeln!(
            svg,
            "<rect class=\"self\" x=\"{}\" y=\"{down}\" width=\"{CELL}\" height=\"{CELL}\"/>",
            LEFT + row * CELL
        );
        for used in allowed[room] {
            let column = rooms.iter().position(|room| room == used).expect("only rooms are used");
            let (x, y) = (LEFT + column * CELL + CELL / 2, down + CELL / 2);
            let _ = writeln!(
                svg,
                "<circle class=\"use\" cx=\"{x}\" cy=\"{y}\" r=\"5\"><title>{room} uses {used}</title></circle>"
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images/rooms.svg")
}

#[test]
fn the_drawing_of_the_rooms_is_theirs() {
    let found = fs::read_to_string(path()).unwrap_or_default();
    assert!(found == drawing(), "stale: make reference");
}

/// What stands in the page's table of rooms is each of them.
#[test]
fn every_room_is_explained_to_contributors() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).unwrap();
    let missing: Vec<_> =
        ALLOWED.iter().map(|(room, _)| *room).filter(|room| !page.contains(&format!("`{room}`"))).collect();
    assert!(missing.is_empty(), "docs/architecture.md says nothing of {missing:?}");
}

#[test]
#[ignore = "writes docs/images/rooms.svg anew"]
fn drawing_is_written() {
    fs::write(path(), drawing()).unwrap();
}
