//! Positions in the page's small drawings: numbers of a fixed format, never text from outside.

/// Width of a drawing in its own units.
pub(super) const WIDTH: f64 = 120.0;

/// A score with its 95 % interval, as x positions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) low: String,
    pub(super) width: String,
    pub(super) at: String,
}

/// The interval `value` ± 1.96 `standard_error`, cut to 0..=1.
pub(super) fn interval(value: f64, standard_error: f64) -> Interval {
    let spread = 1.96 * standard_error;
    let (low, high) = (place(value - spread), place(value + spread));
    Interval {
        low: format!("{low:.1}"),
        width: format!("{:.1}", high - low),
        at: format!("{:.1}", place(value)),
    }
}

/// A share as the width of a bar.
pub(super) fn bar(share: f64) -> String {
    format!("{:.1}", place(share))
}

fn place(value: f64) -> f64 {
    if value.is_nan() {
        return 0.0;
    }
    value.clamp(0.0, 1.0) * WIDTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_stay_in_the_drawing() {
        let middle = interval(0.5, 0.1);
        assert_eq!((&*middle.low, &*middle.at), ("36.5", "60.0"));
        let edge = interval(0.99, 0.1);
        assert_eq!((&*edge.low, &*edge.width), ("95.3", "24.7"));
        assert_eq!(bar(f64::NAN), "0.0");
        assert_eq!(bar(2.0), "120.0");
    }
}
