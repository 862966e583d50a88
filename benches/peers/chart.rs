//! The results as a bar chart.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::contestants::Kind;
use crate::report::{Report, Row, conditions};
use crate::support::draw::{Area, BLUE, Drawn, GREY, GRID, INK, ORANGE, QUIET, image, step, text};

const WIDTH: i32 = 960;
/// The x coordinate of the axis's left end.
const LEFT: i32 = 310;
/// The x coordinate of the axis's right end.
const RIGHT: i32 = 750;
const ROW: i32 = 28;
/// The height above a panel's rows.
const HEADING: i32 = 46;
/// The height below a panel's rows.
const TICKS: i32 = 44;
/// The height above all panels.
const TITLE: i32 = 108;

/// Draws the ratio of each contestant's rate to the rate of ring alone. One panel shows the
/// contestants that sign each answer, and the other panel shows the contestants that do not. The
/// panels have different scales.
pub(crate) fn svg(report: &Report) -> String {
    let (signing, unsigned): (Vec<&Row>, Vec<&Row>) =
        report.rows.iter().partition(|row| row.contestant.signs);
    let panels = [
        ("A signature for each answer", signing),
        ("No signature made for the answer (another scale)", unsigned),
    ];
    let rows = i32::try_from(report.rows.len()).unwrap();
    let height = TITLE + 2 * (HEADING + TICKS) + rows * ROW;
    image(WIDTH, height, |area| draw(area, report.rounds, &panels))
}

fn draw(area: &Area<'_>, rounds: usize, panels: &[(&str, Vec<&Row>)]) -> Drawn {
    text(area, "Tokens and signatures a second on one core", (24, 30), 22, INK, HPos::Left)?;
    let unit = "1 = what ring signs alone on that core, just before and after. Whiskers: min–max.";
    text(area, unit, (24, 56), 14, INK, HPos::Left)?;
    text(area, &conditions(rounds), (24, 76), 12, QUIET, HPos::Left)?;
    let mut x = 24;
    for (kind, name) in
        [(Kind::Bare, "a library alone"), (Kind::Grantd, "grantd"), (Kind::Other, "other servers")]
    {
        area.draw(&Rectangle::new([(x, 92), (x + 12, 104)], colour(kind).filled()))?;
        text(area, name, (x + 18, 98), 13, INK, HPos::Left)?;
        x += 130;
    }

    let mut top = TITLE;
    for (heading, rows) in panels {
        text(area, heading, (24, top + 28), 15, INK, HPos::Left)?;
        top += HEADING;
        panel(area, top, rows)?;
        top += i32::try_from(rows.len())? * ROW + TICKS;
    }
    Ok(())
}

/// Draws one bar for each of `rows`, the first at `top`, and a scale below the last bar.
fn panel(area: &Area<'_>, top: i32, rows: &[&Row]) -> Drawn {
    let bottom = top + i32::try_from(rows.len())? * ROW;
    let longest = rows.iter().map(|row| row.to_ring().max).fold(1.0, f64::max);
    let step = step(longest, 10.0);
    let end = (longest / step).ceil() * step;
    #[expect(clippy::cast_possible_truncation, reason = "a pixel of the image")]
    let at = |value: f64| LEFT + (value / end * f64::from(RIGHT - LEFT)).round() as i32;

    let mut tick = 0.0;
    while tick <= end {
        let x = at(tick);
        area.draw(&PathElement::new([(x, top), (x, bottom)], GRID.stroke_width(1)))?;
        text(area, &tick.to_string(), (x, bottom + 14), 12, QUIET, HPos::Center)?;
        tick += step;
    }
    for (row, y) in rows.iter().zip((top..).step_by(ROW.unsigned_abs() as usize)) {
        let (middle, ratio) = (y + ROW / 2, row.to_ring());
        let bar = [(LEFT, y + 5), (at(ratio.median), y + ROW - 5)];
        area.draw(&Rectangle::new(bar, colour(row.contestant.kind).filled()))?;
        let (low, high) = (at(ratio.min), at(ratio.max));
        for whisker in [
            [(low, middle), (high, middle)],
            [(low, middle - 4), (low, middle + 4)],
            [(high, middle - 4), (high, middle + 4)],
        ] {
            area.draw(&PathElement::new(whisker, INK.stroke_width(1)))?;
        }
        text(area, &row.label(), (LEFT - 10, middle), 13, INK, HPos::Right)?;
        let figures = format!("{:.2} ({} a second)", ratio.median, grouped(row.rate().median));
        text(area, &figures, (RIGHT + 12, middle), 13, INK, HPos::Left)?;
    }
    // A vertical line marks the rate of ring alone.
    let one = [(at(1.0), top), (at(1.0), bottom)];
    area.draw(&PathElement::new(one, INK.stroke_width(1)))?;
    Ok(())
}

fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Bare => GREY,
        Kind::Grantd => BLUE,
        Kind::Other => ORANGE,
    }
}

/// Formats `number` without decimals and with a comma before each group of three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
