//! What is kept of a model's weights to know them again.

use super::{Kinship, Likeness, Measure};
use crate::incentive::era::CopyRules;
use crate::incentive::statistics::{count, median};
use codec::{Decode, Encode};
use std::collections::BTreeMap;

/// A model's weights in brief: taken while they are verified, before a GPU is used.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
pub struct Sketch {
    /// Digest of every tensor's values rounded to bf16, names and shapes left out: the same after
    /// renaming, cutting into other files and storing in another precision. Sorted.
    pub values: Vec<[u8; 16]>,
    /// Values of each matrix at secret places, by the matrix' name. The same places for matrices of
    /// one name and size.
    pub samples: BTreeMap<String, Vec<f32>>,
}

/// Matrices that must say something about how close two models are.
const MATRICES_MIN: usize = 2;
/// A third model whose weights lie farther away than this share of their size is of another family.
const FAMILY: f64 = 0.5;

impl Sketch {
    /// What a comparison of the weights with those of `elder` means; `thirds` are other models, of
    /// which the nearest shows how far apart models of this kind are. `None` for nothing.
    ///
    /// Only equal values are the same model. Nearness is reported: two honest light fine-tunes of one
    /// base lie close together, too, when no one has committed the base.
    #[must_use]
    pub fn beside<'a>(
        &self,
        elder: &Self,
        thirds: impl IntoIterator<Item = &'a Self>,
        rules: &CopyRules,
    ) -> Option<Likeness> {
        let found = |measure, value, kinship| Likeness {
            measure,
            value,
            kinship,
        };
        if !self.values.is_empty() && self.values == elder.values {
            return Some(found(Measure::Values, 0.0, Kinship::Same));
        }
        let seen = thirds
            .into_iter()
            .filter_map(|third| self.nearness(elder, third));
        let Nearness { cosine, distance } =
            seen.max_by(|a, b| a.distance.total_cmp(&b.distance))?;
        (cosine > rules.derived_cosine).then(|| found(Measure::Weights, distance, Kinship::Derived))
    }

    /// How this and another model lie to each other, seen from a third one: the medians over all
    /// matrices that differ from it. `None` where too few do, or the third is of another family.
    #[must_use]
    pub fn nearness(&self, other: &Self, third: &Self) -> Option<Nearness> {
        let (mut cosines, mut distances, mut apart) = (Vec::new(), Vec::new(), Vec::new());
        for (name, own) in &self.samples {
            let both = other.samples.get(name).zip(third.samples.get(name));
            let Some((other, third)) = both else { continue };
            let Some(seen) = seen_from(own, other, third) else {
                continue;
            };
            cosines.push(seen.0.cosine);
            distances.push(seen.0.distance);
            apart.push(seen.1);
        }
        let told = distances.len() >= MATRICES_MIN && median(&apart) < FAMILY;
        told.then(|| Nearness {
            cosine: median(&cosines),
            distance: median(&distances),
        })
    }

    /// How many of the tensors' values, counted by digest, both have, as a share of this model's.
    #[must_use]
    pub fn shared(&self, other: &Self) -> f64 {
        let same = |digest: &&[u8; 16]| other.values.binary_search(digest).is_ok();
        count(self.values.iter().filter(same).count()) / count(self.values.len().max(1))
    }
}

/// Two models seen from a third.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearness {
    /// Cosine of their differences from it.
    pub cosine: f64,
    /// Their distance, as a share of the first one's distance from it.
    pub distance: f64,
}

/// The nearness in one matrix, and how far the third lies away as a share of the matrix' size.
fn seen_from(own: &[f32], other: &[f32], third: &[f32]) -> Option<(Nearness, f64)> {
    if own.len() != other.len() || own.len() != third.len() {
        return None;
    }
    let (mut aa, mut bb, mut ab, mut between, mut size) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for ((own, other), third) in own.iter().zip(other).zip(third) {
        let (a, b) = (f64::from(own - third), f64::from(other - third));
        aa += a * a;
        bb += b * b;
        ab += a * b;
        between += (a - b) * (a - b);
        size += f64::from(*own) * f64::from(*own);
    }
    // A matrix that one of them left as the third has it says nothing.
    let told = aa > 0.0 && bb > 0.0 && size > 0.0;
    told.then(|| {
        let nearness = Nearness {
            cosine: ab / (aa * bb).sqrt(),
            distance: (between / aa).sqrt(),
        };
        (nearness, (aa / size).sqrt())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MATRICES: u64 = 8;

    /// Deterministic values in −1 to 1 without a library.
    fn value(model: u64, matrix: u64, i: u64) -> f32 {
        // SplitMix64 over the three numbers.
        let mixed = [model, matrix, i].iter().fold(0u64, |state, word| {
            let z = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        f32::from(u16::try_from(mixed & 0xffff).unwrap()) / 32_768.0 - 1.0
    }

    /// The base, `step` times what makes `model` its own, and noise.
    fn sketch(model: u64, step: f32, noise: f32) -> Sketch {
        let matrix = |m: u64| {
            let at = |i| value(1, m, i) + step * value(model, m, i) + noise * value(99, m, i);
            (format!("m{m}"), (0..64).map(at).collect())
        };
        Sketch {
            samples: (0..MATRICES).map(matrix).collect(),
            ..Sketch::default()
        }
    }

    fn beside(a: &Sketch, b: &Sketch, thirds: &[Sketch]) -> Option<(Measure, Kinship)> {
        let likeness = a.beside(b, thirds, &CopyRules::default());
        likeness.map(|l| (l.measure, l.kinship))
    }

    #[test]
    fn noise_and_training_on_are_reported_siblings_and_other_families_are_not() {
        let base = [sketch(1, 0.0, 0.0)];
        let a = sketch(2, 0.1, 0.0);
        let derived = Some((Measure::Weights, Kinship::Derived));
        for noise in [0.003, 0.05] {
            assert_eq!(beside(&sketch(2, 0.1, noise), &a, &base), derived);
        }
        let sibling = sketch(3, 0.1, 0.0);
        assert_eq!(beside(&sibling, &a, &base), None);
        assert_eq!(beside(&sketch(2, 0.1, 0.003), &a, &[]), None);
        let stranger = [sketch(50, 30.0, 0.0)];
        assert_eq!(
            beside(&sibling, &a, &stranger),
            None,
            "a far third proves nothing"
        );
    }

    #[test]
    fn equal_values_are_the_same_model() {
        let of = |values: &[u8]| Sketch {
            values: values.iter().map(|v| [*v; 16]).collect(),
            ..Sketch::default()
        };
        let a = of(&[1, 2, 3]);
        let same = Some((Measure::Values, Kinship::Same));
        assert_eq!(beside(&a, &of(&[1, 2, 3]), &[]), same);
        assert_eq!(beside(&a, &of(&[1, 2, 4]), &[]), None);
        assert!((a.shared(&of(&[1, 2, 4])) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(
            beside(&of(&[]), &of(&[]), &[]),
            None,
            "nothing is not the same"
        );
    }

    proptest! {
        #[test]
        fn nearness_of_a_model_to_itself_is_full(step in 0.01f32..0.3) {
            let (a, third) = (sketch(2, step, 0.0), sketch(1, 0.0, 0.0));
            let near = a.nearness(&a, &third).unwrap();
            prop_assert!((near.cosine - 1.0).abs() < 1e-9 && near.distance.abs() < 1e-9);
        }
    }
}
