//! Pictures, as SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::figures::{Kind, Plot};

type Failure = Box<dyn std::error::Error>;

const SIZE: (u32, u32) = (860, 420);

const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 98, 155),
    RGBColor(214, 96, 28),
    RGBColor(94, 140, 49),
    RGBColor(140, 70, 140),
    RGBColor(110, 110, 110),
];

/// Draws it into the folder.
pub(crate) fn draw(plot: &Plot, folder: &Path) -> Result<(), Failure> {
    let path = folder.join(format!("{}.svg", plot.name));
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    match plot.kind {
        Kind::Curves => curves(plot, &area),
        Kind::Logarithmic => logarithmic(plot, &area),
        Kind::Stacked => stacked(plot, &area),
    }?;
    area.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The least and the most x, and the most y.
fn range(plot: &Plot) -> (f64, f64, f64) {
    let points = || plot.series.iter().flat_map(|series| &series.points);
    let x = || points().map(|point| point.0);
    (
        x().fold(f64::INFINITY, f64::min),
        x().fold(0.0, f64::max),
        points().map(|point| point.1).fold(0.0, f64::max) * 1.08,
    )
}

fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

/// What both kinds of curves have in common, which differ in the type of their axes.
macro_rules! draw_curves {
    ($plot:expr, $area:expr, $x:expr, $y:expr) => {{
        let mut chart = ChartBuilder::on($area)
            .caption(&$plot.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d($x, $y)?;
        let label = |value: &f64| text(*value);
        chart
            .configure_mesh()
            .x_desc(&$plot.x)
            .y_desc(&$plot.y)
            .x_label_formatter(&label)
            .y_label_formatter(&label)
            .light_line_style(WHITE)
            .draw()?;
        for (place, series) in $plot.series.iter().enumerate() {
            let style = colour(place).stroke_width(2);
            chart
                .draw_series(LineSeries::new(series.points.iter().copied(), style))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }};
}

fn curves(plot: &Plot, area: &Area<'_>) -> Result<(), Failure> {
    let (_, right, top) = range(plot);
    draw_curves!(plot, area, 0.0..right, 0.0..top)
}

fn logarithmic(plot: &Plot, area: &Area<'_>) -> Result<(), Failure> {
    let (left, right, _) = range(plot);
    draw_curves!(plot, area, (left.max(0.01)..right).log_scale(), 0.0..100.0)
}

fn stacked(plot: &Plot, area: &Area<'_>) -> Result<(), Failure> {
    let labels = plot.series.first().map(|series| series.labels.clone()).unwrap_or_default();
    let height =
        |bar: usize| plot.series.iter().filter_map(|series| series.points.get(bar)).map(|point| point.1).sum::<f64>();
    let top = (0..labels.len()).map(height).fold(0.0, f64::max) * 1.15;
    let bars = f64::from(u32::try_from(labels.len())?);
    let mut chart = ChartBuilder::on(area)
        .caption(&plot.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(-0.5..bars - 0.5, 0.0..top)?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number of a bar, as whole as it was"
    )]
    let name = |x: &f64| {
        let bar = labels.get(x.round().max(0.0) as usize).filter(|_| (x - x.round()).abs() < 0.01);
        bar.cloned().unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .y_desc(&plot.y)
        .x_labels(labels.len() * 4)
        .x_label_formatter(&name)
        .light_line_style(WHITE)
        .draw()?;
    let mut below = vec![0.0; labels.len()];
    for (place, series) in plot.series.iter().enumerate() {
        let style = colour(place).filled();
        let rectangles = series.points.iter().zip(&mut below).map(|((x, value), below)| {
            let bottom = *below;
            *below += value;
            Rectangle::new([(x - 0.3, bottom), (x + 0.3, bottom + value)], style)
        });
        let rectangles: Vec<_> = rectangles.collect();
        chart
            .draw_series(rectangles)?
            .label(&series.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], style));
    }
    let total = |(bar, total): (usize, &f64)| {
        Some(Text::new(
            text(*total),
            (f64::from(u32::try_from(bar).ok()?) - 0.05, *total + top * 0.04),
            ("sans-serif", 14),
        ))
    };
    chart.draw_series(below.iter().enumerate().filter_map(total))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// A number beside an axis.
fn text(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.0} k", value / 1e3),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
