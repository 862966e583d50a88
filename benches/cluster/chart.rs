//! Both parts as one image: panels with time from left to right.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::common::draw::{Area, BLUE, Drawn, GREY, GRID, INK, ORANGE, QUIET, image, step, text};
use crate::faults::{Band, Faults};
use crate::seconds::{Second, sum};
use crate::uses::Uses;

const WIDTH: i32 = 960;
/// The x coordinate of the axis's left end.
const LEFT: i32 = 78;
/// The x coordinate of the axis's right end.
const RIGHT: i32 = 936;
/// The height of a panel's axis.
const TALL: i32 = 118;
/// The height above a panel's axis.
const HEADING: i32 = 40;
/// The height of the labels of the faults, above the panels.
const LABELS: i32 = 40;
/// The height of a heading above panels.
const TITLE: i32 = 52;
/// The height of the numbers of seconds, below the panels.
const TICKS: i32 = 34;

const RED: RGBColor = RGBColor(200, 40, 40);
const SHADE: RGBColor = RGBColor(250, 240, 225);

/// Values over time, all with the same unit.
struct Panel {
    heading: &'static str,
    is_logarithmic: bool,
    lines: Vec<Line>,
}

struct Line {
    name: String,
    colour: RGBColor,
    /// The time in seconds, and the value.
    points: Vec<(f64, f64)>,
}

/// The scale of a panel, from its bottom to its top.
struct Scale {
    low: f64,
    high: f64,
    is_logarithmic: bool,
    top: i32,
}

impl Scale {
    /// Returns the scale of `panel`, whose axis begins at `top`.
    fn of(panel: &Panel, top: i32) -> Self {
        let values = panel.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let highest = values.clone().fold(0.01, f64::max);
        let is_logarithmic = panel.is_logarithmic;
        if is_logarithmic {
            let lowest = values.filter(|value| *value > 0.0).fold(highest, f64::min);
            let [low, high] = [lowest.log10().floor(), highest.log10().ceil()];
            Self { low: 10_f64.powf(low), high: 10_f64.powf(high), is_logarithmic, top }
        } else {
            let step = step(highest, 4.0);
            Self { low: 0.0, high: (highest / step).ceil() * step, is_logarithmic, top }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a pixel of the image")]
    fn y(&self, value: f64) -> i32 {
        let share = if self.is_logarithmic {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            value / self.high
        };
        self.top + TALL - (share * f64::from(TALL)).round() as i32
    }

    fn ticks(&self) -> Vec<f64> {
        let next = |last: &f64| {
            let next = if self.is_logarithmic { last * 10.0 } else { last + step(self.high, 4.0) };
            (next <= self.high * 1.001).then_some(next)
        };
        std::iter::successors(Some(self.low), next).collect()
    }
}

/// Draws what was measured.
pub(crate) fn svg(faults: &Faults, uses: &Uses) -> String {
    let through = through_faults(faults);
    let under = under_load(uses);
    let height_of = |panels: &[Panel]| TITLE + rows(panels) * (HEADING + TALL) + TICKS;
    let middle = height_of(&through) + LABELS;
    image(WIDTH, middle + height_of(&under), |area| {
        let title =
            "Three servers behind nginx, with clients, keys and used assertions in PostgreSQL";
        text(area, title, (24, 28), 20, INK, HPos::Left)?;
        let seconds = faults.grants.len().max(faults.assertions.len()) as f64;
        draw(area, TITLE + LABELS, &through, seconds, &faults.bands)?;
        let title = format!("{:.0} assertions a second, each used once", uses.rate);
        text(area, &title, (24, middle + 28), 20, INK, HPos::Left)?;
        draw(area, middle + TITLE, &under, uses.assertions.len() as f64, &[])
    })
}

fn through_faults(faults: &Faults) -> Vec<Panel> {
    let lost = |it: &Second| it.away + it.refused + it.failed;
    let count = |name, colour, seconds: &[Second], of: &dyn Fn(&Second) -> usize| {
        let name = format!("{name}: {}", sum(seconds, of));
        let points = seconds.iter().enumerate();
        let points = points.map(|(second, it)| (second as f64 + 0.5, of(it) as f64)).collect();
        Line { name, colour, points }
    };
    let (grants, uses) = (&faults.grants, &faults.assertions);
    vec![
        Panel {
            heading: "Secret grants a second",
            is_logarithmic: false,
            lines: vec![
                count("granted", BLUE, grants, &|it| it.granted),
                count("failed", RED, grants, &lost),
            ],
        },
        times("Time of a secret grant, ms", grants),
        Panel {
            heading: "Assertions a second",
            is_logarithmic: false,
            lines: vec![
                count("accepted", BLUE, uses, &|it| it.granted),
                count("answered 503", ORANGE, uses, &|it| it.away),
                count("refused", GREY, uses, &|it| it.refused),
                count("unanswered", RED, uses, &|it| it.failed),
                count("accepted twice", INK, uses, &|it| it.granted_again),
            ],
        },
    ]
}

fn under_load(uses: &Uses) -> Vec<Panel> {
    let rows = uses.samples.iter().map(|sample| (sample.at, sample.rows)).collect();
    let size = uses.samples.iter().map(|sample| (sample.at, sample.bytes / 1e6)).collect();
    vec![
        times("Time of a token for an assertion, ms", &uses.assertions),
        Panel {
            heading: "Rows of the table of uses",
            is_logarithmic: false,
            lines: vec![Line { name: "rows".to_owned(), colour: BLUE, points: rows }],
        },
        Panel {
            heading: "Its size, MB",
            is_logarithmic: false,
            lines: vec![Line { name: "with indexes".to_owned(), colour: BLUE, points: size }],
        },
    ]
}

/// A panel with the median and the slowest hundredth.
fn times(heading: &'static str, seconds: &[Second]) -> Panel {
    let line = |name: &str, colour, share| {
        let points = seconds.iter().enumerate();
        let point = |(second, it): (usize, &Second)| Some((second as f64 + 0.5, it.time(share)?));
        Line { name: name.to_owned(), colour, points: points.filter_map(point).collect() }
    };
    let lines = vec![line("median", BLUE, 0.5), line("99 of 100", ORANGE, 0.99)];
    Panel { heading, is_logarithmic: true, lines }
}

fn rows(panels: &[Panel]) -> i32 {
    i32::try_from(panels.len()).unwrap()
}

/// Draws the panels, one below the other, from `top` on.
fn draw(area: &Area<'_>, top: i32, panels: &[Panel], seconds: f64, bands: &[Band]) -> Drawn {
    #[expect(clippy::cast_possible_truncation, reason = "a pixel of the image")]
    let x = |second: f64| LEFT + (second / seconds * f64::from(RIGHT - LEFT)).round() as i32;
    let bottom = top + rows(panels) * (HEADING + TALL);
    for (place, band) in bands.iter().enumerate() {
        // A fault of a moment is seen, too.
        let (from, to) = (x(band.from), x(band.to).max(x(band.from) + 2));
        area.draw(&Rectangle::new([(from, top), (to, bottom)], SHADE.filled()))?;
        let y = top - LABELS + 12 + i32::try_from(place % 2)? * 16;
        text(area, band.label, (i32::midpoint(from, to), y), 13, INK, HPos::Center)?;
    }
    for (panel, top) in panels.iter().zip((top..).step_by((HEADING + TALL) as usize)) {
        draw_panel(area, top + HEADING, panel, &x)?;
    }
    let step = step(seconds, 10.0);
    let ticks = std::iter::successors(Some(0.0), |last| Some(last + step));
    for second in ticks.take_while(|second| *second <= seconds) {
        text(area, &format!("{second} s"), (x(second), bottom + 14), 12, QUIET, HPos::Center)?;
    }
    Ok(())
}

/// Draws a panel whose axis begins at `top`.
fn draw_panel(area: &Area<'_>, top: i32, panel: &Panel, x: &impl Fn(f64) -> i32) -> Drawn {
    text(area, panel.heading, (LEFT, top - 16), 14, INK, HPos::Left)?;
    let scale = Scale::of(panel, top);
    for tick in scale.ticks() {
        let y = scale.y(tick);
        area.draw(&PathElement::new([(LEFT, y), (RIGHT, y)], GRID.stroke_width(1)))?;
        let tick = (tick * 1000.0).round() / 1000.0;
        text(area, &tick.to_string(), (LEFT - 8, y), 12, QUIET, HPos::Right)?;
    }
    let mut right = RIGHT;
    for line in panel.lines.iter().rev() {
        // A line at zero would hide the axis; its name says that it is there.
        if line.points.iter().any(|(_, value)| *value > 0.0) {
            let points: Vec<_> =
                line.points.iter().map(|(second, value)| (x(*second), scale.y(*value))).collect();
            area.draw(&PathElement::new(points, line.colour.stroke_width(2)))?;
        }
        // An estimate: the font is the viewer's.
        right -= i32::try_from(line.name.len())? * 6;
        text(area, &line.name, (right, top - 16), 12, INK, HPos::Left)?;
        let key = [(right - 16, top - 21), (right - 6, top - 11)];
        area.draw(&Rectangle::new(key, line.colour.filled()))?;
        right -= 30;
    }
    Ok(())
}
