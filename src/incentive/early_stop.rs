//! When to stop asking the judge about a challenger: it has lost or won already, by more than luck.

use super::era::EarlyStop;
use super::statistics::{count, mean_and_error, normal_quantile};

/// What the items judged so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing yet, or all planned items are judged: go on to the next look, or rank.
    GoOn,
    /// The challenger will not reach the champion: the rest of its items need no judge.
    Hopeless,
    /// The challenger leads by so much that the rest cannot matter.
    Clear,
}

/// How many of `planned` items are to be judged at the next look after `judged` of them: the looks
/// lie at equal parts (128, 256, 384, 512 of 512), the last one at the end.
#[must_use]
pub fn next_look(judged: usize, planned: usize, rule: &EarlyStop) -> usize {
    let looks = usize::from(rule.looks.max(1));
    let at = |look: usize| planned * look / looks;
    let next = (1..=looks).map(at).find(|at| *at > judged);
    next.unwrap_or(planned)
}

/// Looks at the differences challenger − champion of the first items, in the round's order, which
/// the seed drew. Sequential test: success when `(mean − margin) / SE > Φ⁻¹(1 − p) / √t` with `t` the
/// judged part of the items, so that all looks together add little to a false success; futility
/// when `mean + z · SE` stays below `futility_lead`. Both replies must be of the same items.
#[must_use]
pub fn look(differences: &[f64], planned: usize, margin: f64, rule: &EarlyStop) -> Look {
    if differences.len() >= planned {
        return Look::GoOn;
    }
    let (mean, error) = mean_and_error(differences);
    if !error.is_finite() {
        return Look::GoOn;
    }
    let part = count(differences.len()) / count(planned);
    let bound = normal_quantile(1.0 - rule.success_probability) / part.sqrt();
    if mean + rule.futility_z * error < rule.futility_lead {
        Look::Hopeless
    } else if mean - margin > bound * error {
        Look::Clear
    } else {
        Look::GoOn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steady(mean: f64, n: usize) -> Vec<f64> {
        (0..n)
            .map(|i| mean + if i % 2 == 0 { 0.4 } else { -0.4 })
            .collect()
    }

    #[test]
    fn looks_lie_at_quarters() {
        let rule = EarlyStop::default();
        let looks: Vec<_> = [0, 1, 127, 128, 300, 384, 511, 512]
            .map(|judged| next_look(judged, 512, &rule))
            .into();
        assert_eq!(looks, [128, 128, 128, 256, 384, 512, 512, 512]);
        // Fewer items than looks still end.
        assert_eq!(next_look(0, 3, &rule), 1);
        assert_eq!(next_look(3, 3, &rule), 3);
    }

    #[test]
    fn bad_models_end_early_good_ones_a_little_later_and_equals_go_on() {
        let rule = EarlyStop::default();
        let at = |mean, n| look(&steady(mean, n), 512, 0.01, &rule);
        assert_eq!(at(-0.12, 128), Look::Hopeless);
        assert_eq!(at(0.0, 128), Look::GoOn);
        assert_eq!(at(0.0, 384), Look::GoOn);
        assert_eq!(at(0.09, 128), Look::GoOn);
        assert_eq!(at(0.12, 384), Look::Clear);
        // At the end the ranking decides, whatever the numbers.
        assert_eq!(at(-0.12, 512), Look::GoOn);
        assert_eq!(look(&[1.0], 512, 0.0, &rule), Look::GoOn);
    }

    proptest! {
        #[test]
        fn the_next_look_moves_on_and_ends(judged in 0usize..600, planned in 1usize..600) {
            let next = next_look(judged, planned, &EarlyStop::default());
            prop_assert!(next <= planned && (next > judged || next == planned));
        }

        #[test]
        fn a_better_challenger_is_never_called_hopeless_sooner(
            values in prop::collection::vec(-1.0..=1.0f64, 2..100), lift in 0.0..0.5f64,
        ) {
            let rule = EarlyStop::default();
            let lifted: Vec<f64> = values.iter().map(|v| v + lift).collect();
            if look(&values, 512, 0.01, &rule) != Look::Hopeless {
                prop_assert_ne!(look(&lifted, 512, 0.01, &rule), Look::Hopeless);
            }
        }
    }
}
