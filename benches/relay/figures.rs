//! Figures with their bars.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

/// What a figure has to be.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
        }
    }
}

/// What was measured, once for each run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    /// What stands behind the number.
    pub(crate) unit: String,
    pub(crate) values: Vec<f64>,
    pub(crate) bar: Option<Bar>,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: &str, values: Vec<f64>) -> Self {
        Self { name: name.into(), unit: unit.to_owned(), values, bar: None }
    }

    pub(crate) fn at_least(self, bar: f64) -> Self {
        Self { bar: Some(Bar::AtLeast(bar)), ..self }
    }

    pub(crate) fn at_most(self, bar: f64) -> Self {
        Self { bar: Some(Bar::AtMost(bar)), ..self }
    }

    /// Each run's value by the same run's of another.
    pub(crate) fn ratio(name: impl Into<String>, values: &[f64], to: &[f64]) -> Self {
        Self::new(name, "×", values.iter().zip(to).map(|(value, to)| value / to).collect())
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    pub(crate) fn median(&self) -> f64 {
        let values = self.sorted();
        let middle = values.len() / 2;
        if values.is_empty() {
            f64::NAN
        } else if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        }
    }

    /// Whether the bar is reached; `None` without one.
    pub(crate) fn verdict(&self) -> Option<bool> {
        self.bar.map(|bar| bar.holds(self.median()))
    }

    /// Name, bar, median, the least and the most, verdict.
    pub(crate) fn cells(&self) -> [String; 5] {
        let Self { unit, .. } = self;
        let bar = match self.bar {
            None => String::new(),
            Some(Bar::AtLeast(bar)) => format!("≥ {} {unit}", number(bar)),
            Some(Bar::AtMost(bar)) => format!("≤ {} {unit}", number(bar)),
        };
        let values = self.sorted();
        let spread = match &values[..] {
            [least, .., most] => format!("{} – {}", number(*least), number(*most)),
            _ => String::new(),
        };
        let verdict = self.verdict().map_or("", |reached| if reached { "reached" } else { "missed" });
        [self.name.clone(), bar, format!("{} {unit}", number(self.median())), spread, verdict.to_owned()]
    }
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let whole = text.split('.').next().unwrap_or_default().len();
    let mut grouped = String::new();
    for (place, c) in text.char_indices() {
        if place > 0 && place < whole && (whole - place).is_multiple_of(3) && c != '-' {
            grouped.push(',');
        }
        grouped.push(c);
    }
    grouped
}

pub(crate) const HEAD: [&str; 5] = ["what", "bar", "median", "least – most", "verdict"];

/// The figures as a table for a terminal.
pub(crate) fn table<'a>(figures: impl Iterator<Item = &'a Figure>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(HEAD);
    for figure in figures {
        let mut cells: Vec<_> = figure.cells().into_iter().map(Cell::new).collect();
        if let (Some(reached), Some(cell)) = (figure.verdict(), cells.pop()) {
            cells.push(cell.fg(if reached { Color::Green } else { Color::Red }));
        }
        table.add_row(cells);
    }
    table
}

/// Curves or bars of one picture.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plot {
    /// The file's name without `.svg`.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) kind: Kind,
    pub(crate) series: Vec<Series>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Curves,
    /// The same, with the x axis by powers of ten.
    Logarithmic,
    /// Bars, one for each of the points of a series; series stand on each other. A point's x is the bar's number.
    Stacked,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Names of the bars, in the first series.
    pub(crate) labels: Vec<String>,
}

impl Series {
    pub(crate) fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, labels: Vec::new() }
    }
}
