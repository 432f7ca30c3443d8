//! When to stop asking the judge about a model: it has lost against the champion already, by more than
//! luck. One that leads is judged to the end: its title is to rest on all items.

use super::era::EarlyStop;
use super::statistics::mean_and_error;

/// How many of `planned` items are to be judged at the next look after `judged` of them: the looks
/// lie at equal parts (128, 256, 384, 512 of 512), the last one at the end.
#[must_use]
pub fn next_look(judged: usize, planned: usize, rule: &EarlyStop) -> usize {
    let looks = usize::from(rule.looks.max(1));
    let at = |look: usize| planned * look / looks;
    let next = (1..=looks).map(at).find(|at| *at > judged);
    next.unwrap_or(planned)
}

/// Looks at the differences model − champion of the first items, in the round's order, which the seed
/// drew; both replies must be of the same items. Hopeless when `mean + z · SE` stays below the lead
/// that the rule names. Never after the last of the `planned` items: then the ranking decides.
#[must_use]
pub fn hopeless(differences: &[f64], planned: usize, rule: &EarlyStop) -> bool {
    let (mean, error) = mean_and_error(differences);
    differences.len() < planned
        && error.is_finite()
        && mean + rule.futility_z * error < rule.futility_lead
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
    fn bad_models_end_early_equal_and_better_ones_go_on() {
        let rule = EarlyStop::default();
        let at = |mean, n| hopeless(&steady(mean, n), 512, &rule);
        assert!(at(-0.12, 128) && at(-0.12, 384));
        assert!(!at(0.0, 128) && !at(0.0, 384) && !at(0.12, 384));
        // At the end the ranking decides, whatever the numbers.
        assert!(!at(-0.12, 512));
        assert!(!hopeless(&[-1.0], 512, &rule));
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
            if !hopeless(&values, 512, &rule) {
                prop_assert!(!hopeless(&lifted, 512, &rule));
            }
        }
    }
}
