//! Parameters of the search for changed copies.

use serde::{Deserialize, Serialize};

/// From where on two models are one. Calibrated by `demo::copy_table`, a test whose table stands in
/// `docs/incentive.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CopyRules {
    /// Items of each round whose reference every model is asked the probability of; 0 compares no
    /// behaviour.
    pub probes: u32,
    /// Behaviour is compared only over as many common probes.
    pub probes_min: u32,
    /// Median difference of log-probabilities, in nats per token, below which two models are the same.
    pub same_behaviour: f64,
    /// The same, below which they are near: the younger needs more than the margin.
    pub near_behaviour: f64,
    /// What the margin is multiplied by for a challenger that is near the champion.
    pub near_margin: f64,
    /// Cosine of two models' differences from a third one above which the younger was made from the
    /// elder: reported, and allowed.
    pub derived_cosine: f64,
}

impl Default for CopyRules {
    fn default() -> Self {
        Self {
            probes: 64,
            probes_min: 16,
            same_behaviour: 0.035,
            near_behaviour: 0.07,
            near_margin: 2.0,
            derived_cosine: 0.6,
        }
    }
}
