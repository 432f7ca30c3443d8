//! Parameters of judging.

use serde::{Deserialize, Serialize};

/// Whether a judge can be believed, and when a model is taken to work on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JudgeChecks {
    /// Hidden pairs of a reference and its damaged twin in each batch.
    pub control_items: u32,
    /// Share of them that the judge must get right; below, the whole batch is trouble of ours.
    pub control_accuracy_min: f64,
    /// Items whose reply is judged under another conversation.
    pub transplant_items: u32,
    /// Share of them that an honest model wins at most.
    pub transplant_honest: f64,
    /// Share of them above which the model works on the judge.
    pub transplant_max: f64,
    /// Items that a second judge reads as well.
    pub second_items: u32,
    /// Difference of the two judges' means above which they disagree.
    pub second_difference_max: f64,
    /// Cohen's κ below which they disagree.
    pub second_kappa_min: f64,
}

impl Default for JudgeChecks {
    fn default() -> Self {
        Self {
            control_items: 16,
            control_accuracy_min: 0.90,
            transplant_items: 32,
            transplant_honest: 0.10,
            transplant_max: 0.30,
            second_items: 64,
            second_difference_max: 0.10,
            second_kappa_min: 0.3,
        }
    }
}

/// When a model's remaining items need no judge: it has no hope against the champion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EarlyStop {
    /// Looks at equal parts of the items, the last at the end; 1 means never to stop early.
    pub looks: u8,
    /// Standard errors added to the mean before it is called hopeless.
    pub futility_z: f64,
    /// Lead that this sum must reach.
    pub futility_lead: f64,
}

impl Default for EarlyStop {
    fn default() -> Self {
        Self {
            looks: 4,
            futility_z: 1.28,
            futility_lead: 0.0,
        }
    }
}
