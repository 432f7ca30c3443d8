//! The few statistics that the rules stand on. All are deterministic; what draws takes its seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Half-width of a 95 % interval in standard errors.
pub const Z_95: f64 = 1.96;
/// Resamples of a bootstrap.
const RESAMPLES: usize = 2_000;

/// A count as a number to divide by; counts here stay far below 2³².
pub(super) fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Mean and its standard error from the sample variance. Without two values the error is infinite:
/// nothing can be concluded. An empty slice has mean 0.
#[must_use]
pub fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = count(values.len());
    if values.is_empty() {
        return (0.0, f64::INFINITY);
    }
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, f64::INFINITY);
    }
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0) / n).sqrt())
}

/// Wilson's 95 % interval of a rate: `successes` (ties may count ½) of `trials`. Without a trial
/// nothing is known: 0 to 1.
/// Source: Wilson, J. Am. Stat. Assoc. 22 (1927), 209.
#[must_use]
pub fn wilson_95(successes: f64, trials: usize) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (n, z2) = (count(trials), Z_95 * Z_95);
    let p = (successes / n).clamp(0.0, 1.0);
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// The 2.5 % and 97.5 % points of the mean over 2,000 resamples of `values`, drawn with `seed`: the
/// same for everyone who knows the round. Empty values give an interval without bounds.
/// Source: Efron, Ann. Stat. 7 (1979), 1; percentile interval.
#[must_use]
pub fn bootstrap_95(values: &[f64], seed: [u8; 32]) -> (f64, f64) {
    if values.is_empty() {
        return (f64::NEG_INFINITY, f64::INFINITY);
    }
    let mut random = ChaCha8Rng::from_seed(seed);
    let n = values.len();
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..n).map(|_| values[below(&mut random, n)]).sum::<f64>() / count(n))
        .collect();
    means.sort_by(f64::total_cmp);
    (means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40])
}

/// A number below `n` from one draw of the stream; written out here because libraries change how
/// they turn a stream into ranges, and two versions of this program must agree.
fn below(random: &mut ChaCha8Rng, n: usize) -> usize {
    let wide = u128::from(random.next_u64()) * n as u128;
    usize::try_from(wide >> 64).unwrap_or(0)
}

/// The middle value; of an even number the mean of the two in the middle. 0 for none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Median absolute deviation from the median, unscaled.
#[must_use]
pub fn median_deviation(values: &[f64]) -> f64 {
    let middle = median(values);
    let distances: Vec<f64> = values.iter().map(|v| (v - middle).abs()).collect();
    median(&distances)
}

/// `1 / (1 + e⁻ˣ)`.
pub(super) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Inverse of [`logistic`]; p strictly within 0 to 1.
pub(super) fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

/// The x with `Φ(x) = p` for the standard normal distribution, within ±8; p within 0 to 1.
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
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
    use proptest::prelude::*;

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
    fn wilson_is_the_textbooks() {
        // 512 items at 0.55: the interval that the rules' text names.
        let (low, high) = wilson_95(0.55 * 512.0, 512);
        assert!(
            (low - 0.507).abs() < 5e-4 && (high - 0.593).abs() < 5e-4,
            "{low} {high}"
        );
        assert_eq!(wilson_95(0.0, 0), (0.0, 1.0));
        let (low, high) = wilson_95(0.0, 10);
        assert!(low.abs() < 1e-12 && (high - 0.2775).abs() < 1e-3, "{high}");
    }

    #[test]
    fn the_bootstrap_agrees_with_the_standard_error_and_with_itself() {
        let values: Vec<f64> = (0..512).map(|i| f64::from(i % 7) / 7.0).collect();
        let (mean, error) = mean_and_error(&values);
        let (low, high) = bootstrap_95(&values, [3; 32]);
        assert!((mean - 1.96 * error - low).abs() < 0.003, "{low}");
        assert!((mean + 1.96 * error - high).abs() < 0.003, "{high}");
        assert_eq!(bootstrap_95(&values, [3; 32]), (low, high));
        assert_ne!(bootstrap_95(&values, [4; 32]), (low, high));
        assert!(bootstrap_95(&[], [0; 32]).1.is_infinite());
    }

    #[test]
    fn medians() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
        assert!((median_deviation(&[1.0, 2.0, 3.0, 4.0, 100.0]) - 1.0).abs() < 1e-12);
        assert!(median(&[]).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn wilson_holds_the_rate(trials in 1usize..2000, share in 0.0..=1.0f64) {
            let rate = (share * count(trials)).round() / count(trials);
            let (low, high) = wilson_95(rate * count(trials), trials);
            prop_assert!(0.0 <= low && low <= rate + 1e-12);
            prop_assert!(rate - 1e-12 <= high && high <= 1.0);
        }
    }
}
