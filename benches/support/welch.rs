//! Welch's t-test on the times of two classes, as in dudect.
//!
//! A few times that include an interrupt can hide a small difference between the classes. The test
//! is therefore applied to all times, and again for each of a hundred limits, without the times
//! that exceed the limit.

/// The class of a timed input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Fixed,
    Random,
}

/// The number of limits. The lowest limit keeps the seven per cent of the times that are nearest to
/// the median of their neighbours. The highest limit removes one time in a thousand.
const CROPS: i32 = 100;

/// A class with fewer times than this is not judged.
const FEWEST: f64 = 100.0;

/// The machine's pace at the moment of a measurement is the median of this number of neighbouring
/// measurements.
const NEIGHBOURS: usize = 31;

/// Times in the order in which they were taken.
#[derive(Default)]
pub(crate) struct Times(Vec<(Class, u64)>);

impl Times {
    pub(crate) fn push(&mut self, class: Class, time: u64) {
        self.0.push((class, time));
    }

    pub(crate) fn median(&self) -> u64 {
        median(&self.0)
    }

    /// The largest `|t|` over all limits.
    ///
    /// The limits are computed from the times of both classes together. If the classes do not
    /// differ, each limit therefore removes equal shares of both classes. As in dudect, limits are
    /// closer together at the lower end, where most times are. A limit bounds the absolute
    /// difference between a time and the median of its neighbours. Interrupts among the neighbours
    /// can raise that median, so that an ordinary time is far below it. Because the difference is
    /// absolute, the limits remove such times, too.
    pub(crate) fn largest_t(&self) -> f64 {
        let times = self.steadied();
        let mut sorted: Vec<_> = times.iter().map(|(_, time)| time.abs()).collect();
        sorted.sort_by(f64::total_cmp);
        let limit = |crop: i32| {
            let share = 1.0 - 0.5_f64.powf(f64::from(10 * crop) / f64::from(CROPS));
            sorted[(share * (sorted.len() - 1) as f64) as usize]
        };
        let limits = (1..=CROPS).map(limit).chain([f64::INFINITY]);
        limits.map(|limit| t_within(limit, &times)).fold(0.0, f64::max)
    }

    /// Returns each time minus the median of the neighbouring times of both classes. This removes
    /// the drift of the machine's pace. The drift is the same for both classes, but it is larger
    /// than the effect of a leak.
    fn steadied(&self) -> Vec<(Class, f64)> {
        let steady = |(place, (class, time)): (usize, &(Class, u64))| {
            let first = place.saturating_sub(NEIGHBOURS / 2);
            let around = &self.0[first..self.0.len().min(first + NEIGHBOURS)];
            (*class, *time as f64 - median(around) as f64)
        };
        self.0.iter().enumerate().map(steady).collect()
    }
}

fn median(times: &[(Class, u64)]) -> u64 {
    let mut sorted: Vec<_> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Returns `|t|` of the times whose absolute value is at most `limit`; 0 if a class has fewer than
/// [`FEWEST`] such times.
fn t_within(limit: f64, times: &[(Class, f64)]) -> f64 {
    let [fixed, random] = [Class::Fixed, Class::Random].map(|class| {
        let times = times.iter().filter(|(of, time)| *of == class && time.abs() <= limit);
        Moments::of(times.map(|(_, time)| *time))
    });
    if fixed.count < FEWEST || random.count < FEWEST {
        return 0.0;
    }
    let spread = (fixed.variance() / fixed.count + random.variance() / random.count).sqrt();
    // Within each class, all times are equal, so the division below would be by zero. `t` is 0 if
    // the times of both classes are equal, and infinite otherwise.
    if spread == 0.0 {
        return if fixed.mean == random.mean { 0.0 } else { f64::INFINITY };
    }
    (fixed.mean - random.mean).abs() / spread
}

/// Count, mean and sum of squared deviations, updated by one number at a time (Welford, "Note on a
/// method for calculating corrected sums of squares and products", Technometrics 4, 1962).
#[derive(Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of(numbers: impl Iterator<Item = f64>) -> Self {
        numbers.fold(Self::default(), |moments, number| {
            let count = moments.count + 1.0;
            let off = number - moments.mean;
            let mean = moments.mean + off / count;
            Self { count, mean, squares: moments.squares + off * (number - mean) }
        })
    }

    fn variance(&self) -> f64 {
        self.squares / (self.count - 1.0)
    }
}
