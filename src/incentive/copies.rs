//! Changed copies: one model behind other bytes. Equal bytes are [`super::duplicates`]' matter.
//!
//! What behaves alike is the same model whatever was done to its weights, and so is what holds the
//! same values under other names or in another precision. Weights that are merely near are reported
//! and decide nothing.

use super::duplicates::Claim;
use super::era::CopyRules;
use super::rejection::{Rejection, RejectionCode};
use serde::{Deserialize, Serialize};
use std::fmt;

pub mod behaviour;
pub mod sketch;

pub use behaviour::Behaviour;
pub use sketch::Sketch;

/// What two models were compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The values of all tensors, rounded to bf16, as a set.
    Values,
    /// Distance of the weights, as a share of the distance from a third model; median of matrices.
    Weights,
    /// Difference of the log-probabilities of the same texts, in nats per token; median of texts.
    Behaviour,
}

/// How close two models are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kinship {
    /// The younger was made from the elder: merged, or trained on. Allowed, and has to win.
    Derived,
    /// Too close for luck to be told from merit: needs more than the margin.
    Near,
    /// The same model.
    Same,
}

impl Measure {
    /// Every measure with the name under which it is kept and shown.
    pub const NAMES: [(Self, &'static str); 3] = [
        (Self::Values, "values"),
        (Self::Weights, "weights"),
        (Self::Behaviour, "behaviour"),
    ];
}

impl Kinship {
    /// Every kinship with the name under which it is kept and shown.
    pub const NAMES: [(Self, &'static str); 3] = [
        (Self::Derived, "derived"),
        (Self::Near, "near"),
        (Self::Same, "same"),
    ];
}

/// A finding about two models.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Likeness {
    /// By what.
    pub measure: Measure,
    /// Its value; the smaller, the closer.
    pub value: f64,
    /// What it means.
    pub kinship: Kinship,
}

impl fmt::Display for Likeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        match self.measure {
            Measure::Values => write!(f, "all of its tensors hold the same values"),
            Measure::Weights => write!(
                f,
                "its weights lie at {value:.4} of a third model's distance"
            ),
            Measure::Behaviour => write!(
                f,
                "its probabilities of secret texts differ by {value:.4} nats per token"
            ),
        }
    }
}

/// Refuses `claim` when the same model was committed earlier, and first by another hotkey. `others`:
/// what was found beside other models, in any order, the claimant's own earlier ones among them.
///
/// # Errors
/// [`RejectionCode::Duplicate`], naming the earliest such claim and the measure.
pub fn check(claim: &Claim, others: &[(Claim, Likeness)]) -> Result<(), Rejection> {
    let same = others
        .iter()
        .filter(|(other, likeness)| likeness.kinship == Kinship::Same && other < claim);
    let Some((owner, likeness)) = same.min_by_key(|(other, _)| *other) else {
        return Ok(());
    };
    if owner.hotkey == claim.hotkey {
        return Ok(());
    }
    let detail = format!(
        "It equals the model that {} committed at block {}, this commitment is of block {}: {likeness}.",
        owner.hotkey, owner.block, claim.block
    );
    Err(Rejection::new(RejectionCode::Duplicate, detail))
}

/// What behaviour at a distance means.
#[must_use]
pub fn by_behaviour(distance: f64, rules: &CopyRules) -> Option<Likeness> {
    let kinship = if distance < rules.same_behaviour {
        Kinship::Same
    } else if distance < rules.near_behaviour {
        Kinship::Near
    } else {
        return None;
    };
    Some(Likeness {
        measure: Measure::Behaviour,
        value: distance,
        kinship,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bittensor::{BlockNumber, Hotkey};
    use proptest::prelude::*;

    fn claim(block: u64, key: u8) -> Claim {
        Claim {
            block: BlockNumber(block),
            hotkey: Hotkey([key; 32]),
        }
    }

    #[test]
    fn the_elder_keeps_its_model_and_the_younger_is_told_by_what() {
        let rules = CopyRules::default();
        let same = by_behaviour(0.004, &rules).unwrap();
        let near = by_behaviour(0.05, &rules).unwrap();
        assert_eq!((same.kinship, near.kinship), (Kinship::Same, Kinship::Near));
        assert_eq!(by_behaviour(0.1, &rules), None);
        let (elder, younger) = (claim(10, 2), claim(11, 1));
        assert_eq!(check(&elder, &[(younger, same)]), Ok(()));
        assert_eq!(check(&younger, &[(elder, near)]), Ok(()));
        assert_eq!(check(&claim(12, 2), &[(elder, same)]), Ok(()), "its own");
        let refused = check(&younger, &[(claim(10, 3), same), (elder, same)]).unwrap_err();
        assert_eq!(refused.code, RejectionCode::Duplicate);
        for part in [
            elder.hotkey.to_string(),
            "block 10".into(),
            "0.0040 nats".into(),
        ] {
            assert!(refused.detail.contains(&part), "{}", refused.detail);
        }
    }

    proptest! {
        #[test]
        fn of_models_that_are_all_the_same_the_eldest_survives(
            raw in prop::collection::vec((0..5u64, 0..6u8), 1..10),
        ) {
            let claims: Vec<Claim> = raw.iter().map(|&(b, k)| claim(b, k)).collect();
            let same = by_behaviour(0.0, &CopyRules::default()).unwrap();
            let all: Vec<_> = claims.iter().map(|c| (*c, same)).collect();
            let eldest = claims.iter().min().unwrap();
            for claim in &claims {
                prop_assert_eq!(check(claim, &all).is_ok(), claim.hotkey == eldest.hotkey);
            }
        }
    }
}
