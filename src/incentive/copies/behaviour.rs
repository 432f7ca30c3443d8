//! How a model foresees texts: the fingerprint that survives whatever is done to its weights.

use super::Likeness;
use crate::incentive::era::CopyRules;
use crate::incentive::statistics::{count, median};
use codec::{Decode, Encode};
use std::collections::BTreeMap;

/// Log-probabilities of the tokens of a round's probes under one model, by item id. Compared only
/// with those of the same round, scorer and device: arithmetic of another kind moves them as much as
/// a little noise does.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
pub struct Behaviour(BTreeMap<String, Vec<f32>>);

impl Behaviour {
    /// Probes with their log-probabilities in nats, token by token; those without a token say
    /// nothing and are left out.
    pub fn new(probes: impl IntoIterator<Item = (String, Vec<f32>)>) -> Self {
        let probes = probes.into_iter().filter(|(_, nats)| !nats.is_empty());
        Self(probes.collect())
    }

    /// Item ids and log-probabilities, ordered by id.
    pub fn probes(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.0
            .iter()
            .map(|(id, nats)| (id.as_str(), nats.as_slice()))
    }

    /// Median over common probes of the mean absolute difference, in nats per token. Probes that the
    /// two tokenizers cut into different numbers of tokens are left out; `None` when fewer than
    /// `probes_min` are left, or values are no numbers.
    #[must_use]
    pub fn distance(&self, other: &Self, probes_min: u32) -> Option<f64> {
        let differences: Vec<f64> = self
            .0
            .iter()
            .filter_map(|(id, own)| mean_difference(own, other.0.get(id)?))
            .collect();
        let enough = count(differences.len()) >= f64::from(probes_min.max(1));
        let distance = median(&differences);
        (enough && distance.is_finite()).then_some(distance)
    }

    /// What the distance from another model means; `None` for nothing.
    #[must_use]
    pub fn beside(&self, other: &Self, rules: &CopyRules) -> Option<Likeness> {
        super::by_behaviour(self.distance(other, rules.probes_min)?, rules)
    }
}

fn mean_difference(a: &[f32], b: &[f32]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let sum: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs())
        .sum();
    Some(sum / count(a.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incentive::copies::Kinship;
    use proptest::prelude::*;

    fn behaviour(probes: usize, shift: f32) -> Behaviour {
        let probe = |i: usize| (format!("c_{i}"), vec![-1.0 + shift, -0.5 - shift, -2.0]);
        Behaviour::new((0..probes).map(probe))
    }

    #[test]
    fn the_distance_is_the_median_of_the_mean_differences() {
        let rules = CopyRules::default();
        let a = behaviour(64, 0.0);
        let b = behaviour(64, 0.015);
        assert!((a.distance(&b, 16).unwrap() - 0.01).abs() < 1e-6);
        assert_eq!(a.beside(&b, &rules).unwrap().kinship, Kinship::Same);
        assert_eq!(a.beside(&behaviour(64, 0.9), &rules), None);
        assert_eq!(a.distance(&behaviour(15, 0.0), 16), None);
        let other_tokens = Behaviour::new((0..64).map(|i| (format!("c_{i}"), vec![-1.0; 4])));
        assert_eq!(a.distance(&other_tokens, 16), None);
        let broken = Behaviour::new((0..64).map(|i| (format!("c_{i}"), vec![f32::NAN; 3])));
        assert_eq!(a.distance(&broken, 16), None);
    }

    proptest! {
        #[test]
        fn it_is_symmetric_and_nothing_is_nearer_than_the_model_itself(
            a in prop::collection::vec(-20.0..0.0f32, 40), b in prop::collection::vec(-20.0..0.0f32, 40),
        ) {
            let of = |v: &[f32]| Behaviour::new(v.chunks(2).enumerate().map(|(i, c)| (i.to_string(), c.to_vec())));
            let (a, b) = (of(&a), of(&b));
            prop_assert_eq!(a.distance(&b, 1), b.distance(&a, 1));
            prop_assert!(a.distance(&a, 1).unwrap().abs() < 1e-12);
        }
    }
}
