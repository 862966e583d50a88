//! An image in SVG, its colours, and text, for all charts.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(crate) const INK: RGBColor = RGBColor(32, 36, 42);
pub(crate) const QUIET: RGBColor = RGBColor(92, 98, 107);
pub(crate) const GRID: RGBColor = RGBColor(222, 225, 229);
pub(crate) const BLUE: RGBColor = RGBColor(46, 108, 223);
pub(crate) const ORANGE: RGBColor = RGBColor(222, 135, 30);
pub(crate) const GREY: RGBColor = RGBColor(150, 157, 167);

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
pub(crate) type Drawn = Result<(), Box<dyn Error>>;

/// Returns an SVG image of this size in pixels, in which `draw` draws.
pub(crate) fn image(width: i32, height: i32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    let size = (width.unsigned_abs(), height.unsigned_abs());
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    area.fill(&WHITE).unwrap();
    draw(&area).unwrap();
    area.present().unwrap();
    drop(area);
    svg
}

/// Draws `text`. `at` is its left end, middle or right end, as `anchor` says, at half its height.
pub(crate) fn text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    colour: RGBColor,
    anchor: HPos,
) -> Drawn {
    let style = ("sans-serif", size).into_font().color(&colour).pos(Pos::new(anchor, VPos::Center));
    area.draw(&Text::new(text, at, style))?;
    Ok(())
}

/// Returns the distance between ticks of a scale: 1, 2 or 5 times a power of ten. A scale from 0 to
/// `longest` then has at most `most` ticks after the 0.
pub(crate) fn step(longest: f64, most: f64) -> f64 {
    let power = 10_f64.powf((longest / most).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| longest / step <= most).unwrap_or(longest)
}
