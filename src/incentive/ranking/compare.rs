//! The difference between two models, with its uncertainty.

use crate::incentive::score::{ItemScores, mean_and_error};

/// Mean difference of two models.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Difference {
    /// First minus second.
    pub(super) mean: f64,
    /// Its standard error; infinite when nothing can be concluded.
    pub(super) standard_error: f64,
    /// Whether it was taken item by item.
    pub(super) paired: bool,
}

/// Item by item over the common items when these are at least half of each model's: the items'
/// difficulty then cancels out. Else the means over all items are compared, and their errors add.
pub(super) fn compare(first: &ItemScores, second: &ItemScores) -> Difference {
    let (a, b) = (first.score(), second.score());
    let differences: Vec<f64> = first
        .iter()
        .filter_map(|(id, value)| second.get(id).map(|other| value - other))
        .collect();
    if differences.len() * 2 >= a.items.max(b.items) {
        let (mean, standard_error) = mean_and_error(&differences);
        return Difference {
            mean,
            standard_error,
            paired: true,
        };
    }
    Difference {
        mean: a.value - b.value,
        standard_error: a.standard_error.hypot(b.standard_error),
        paired: false,
    }
}

/// The x with `Φ(x) = p` for the standard normal distribution, within ±8; p within 0 to 1.
pub(super) fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0f64, 8.0f64);
    // Each step halves the interval: 60 of them exhaust the precision of f64.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if normal_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// `Φ(x) = ½ + φ(x) · (x + x³/3 + x⁵/(3·5) + …)`, which converges for every x.
fn normal_cdf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    let mut odd = 1.0;
    while term.abs() > 1e-18 * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    0.5 + density * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(values: &[(&str, f64)]) -> ItemScores {
        ItemScores::new(values.iter().map(|(id, v)| ((*id).to_owned(), *v))).unwrap()
    }

    #[test]
    fn quantiles_equal_the_tables() {
        let table = [
            (0.5, 0.0),
            (0.95, 1.644_853_626_951_5),
            (0.975, 1.959_963_984_540_1),
            (0.025, -1.959_963_984_540_1),
            (0.999, 3.090_232_306_167_8),
        ];
        for (p, x) in table {
            assert!((normal_quantile(p) - x).abs() < 1e-9, "{p}");
        }
    }

    #[test]
    fn the_same_items_are_compared_one_by_one() {
        // Items of very different difficulty: paired, the difference is exact.
        let a = items(&[("x", 0.2), ("y", 0.9), ("z", 0.5)]);
        let b = items(&[("x", 0.1), ("y", 0.8), ("z", 0.4)]);
        let paired = compare(&a, &b);
        assert!(paired.paired);
        assert!((paired.mean - 0.1).abs() < 1e-12 && paired.standard_error < 1e-9);
    }

    #[test]
    fn other_items_are_compared_by_their_means() {
        let a = items(&[("x", 0.2), ("y", 0.9), ("z", 0.5)]);
        let b = items(&[("x", 0.1), ("v", 0.8), ("w", 0.4)]);
        let unpaired = compare(&a, &b);
        assert!(!unpaired.paired);
        assert!((unpaired.mean - 0.1).abs() < 1e-12);
        let (sa, sb) = (a.score().standard_error, b.score().standard_error);
        assert!((unpaired.standard_error - (sa * sa + sb * sb).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn one_item_concludes_nothing() {
        let one = compare(&items(&[("x", 1.0)]), &items(&[("x", 0.0)]));
        assert!(one.standard_error.is_infinite());
    }
}
