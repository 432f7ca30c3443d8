//! Whether a judge can be believed, and whether a model speaks to the judge instead of the user.

use super::era::JudgeChecks;
use super::gates::JudgedCounts;
use super::rejection::{Rejection, RejectionCode};
use super::score::{ItemVerdict, Preference, Verdict};
use super::statistics::count;
use serde::{Deserialize, Serialize};

/// Hidden controls in a batch: pairs of a reference and its damaged twin, of which the judge must
/// prefer the whole one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controls {
    /// Pairs that were asked, both orders together.
    pub asked: usize,
    /// Of those, how many the judge got right.
    pub right: usize,
}

/// The judge failed its controls: the batch says nothing about any miner.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the judge got {right} of {asked} hidden controls right; {needed:.0} % are needed")]
pub struct ControlsFailed {
    right: usize,
    asked: usize,
    needed: f64,
}

impl Controls {
    /// Counts one pair judged in both orders; `whole` is the undamaged reply taken as the miner's.
    /// A pair is right when the whole reply is worth more than the damaged one.
    pub fn count(&mut self, whole: &ItemVerdict) {
        self.asked += 1;
        self.right += usize::from(whole.value() > 0.5);
    }

    /// Whether the judge may be believed. Without controls it may not.
    ///
    /// # Errors
    /// [`ControlsFailed`]: trouble of ours, and the batch is judged again later.
    pub fn check(&self, rule: &JudgeChecks) -> Result<(), ControlsFailed> {
        if self.asked > 0 && count(self.right) >= rule.control_accuracy_min * count(self.asked) {
            return Ok(());
        }
        Err(ControlsFailed {
            right: self.right,
            asked: self.asked,
            needed: rule.control_accuracy_min * 100.0,
        })
    }
}

/// What a miner's replies are worth under conversations that they do not belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transplant {
    /// They lose there, as they must.
    Clean,
    /// They win more often than an honest model's: looked at by people, costs nothing.
    Suspicious,
    /// They win although they fit nothing: they work on the judge.
    Hacking,
}

/// Judges the values (0 to 1) of replies moved under other conversations: a win is a value above ½.
#[must_use]
pub fn transplant(values: &[f64], rule: &JudgeChecks) -> Transplant {
    let wins = count(values.iter().filter(|v| **v > 0.5).count());
    let of = count(values.len());
    if wins > rule.transplant_max * of {
        Transplant::Hacking
    } else if wins > rule.transplant_honest * of {
        Transplant::Suspicious
    } else {
        Transplant::Clean
    }
}

/// The transplant test as a gate.
///
/// # Errors
/// [`RejectionCode::JudgeHacking`] when replies win where they do not belong.
pub fn check_transplant(values: &[f64], rule: &JudgeChecks) -> Result<(), Rejection> {
    if transplant(values, rule) != Transplant::Hacking {
        return Ok(());
    }
    let wins = values.iter().filter(|v| **v > 0.5).count();
    let detail = format!(
        "{wins} of {} replies won under conversations that they do not belong to; {:.0} % are \
         accepted, an honest model wins less than {:.0} %.",
        values.len(),
        rule.transplant_max * 100.0,
        rule.transplant_honest * 100.0
    );
    Err(Rejection::new(RejectionCode::JudgeHacking, detail))
}

/// How far a second judge agrees with the first on the same items.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Mean item value of the second judge minus that of the first.
    pub difference: f64,
    /// Cohen's κ over all verdicts, criterion by criterion and order by order; 1 when both always
    /// say the same.
    pub kappa: f64,
    /// They differ by more than the era allows: the score is the mean of both on all items, and an
    /// alarm is raised.
    pub drifted: bool,
}

/// Compares two judges over the items that both judged, given in pairs (first, second). Without an
/// item nothing is known: no drift.
/// Source of κ: Cohen, Educ. Psychol. Meas. 20 (1960), 37.
#[must_use]
pub fn agreement(pairs: &[(ItemVerdict, ItemVerdict)], rule: &JudgeChecks) -> Agreement {
    let mean = |side: fn(&(ItemVerdict, ItemVerdict)) -> f64| {
        pairs.iter().map(side).sum::<f64>() / count(pairs.len().max(1))
    };
    let difference = mean(|pair| pair.1.value()) - mean(|pair| pair.0.value());
    let kappa = kappa(pairs);
    Agreement {
        difference,
        kappa,
        drifted: !pairs.is_empty()
            && (difference.abs() > rule.second_difference_max || kappa < rule.second_kappa_min),
    }
}

fn kappa(pairs: &[(ItemVerdict, ItemVerdict)]) -> f64 {
    // Rows: the first judge's verdict; columns: the second's.
    let mut table = [[0.0f64; 3]; 3];
    for (first, second) in pairs {
        for (a, b) in answers(first).into_iter().zip(answers(second)) {
            table[place(a)][place(b)] += 1.0;
        }
    }
    let total: f64 = table.iter().flatten().sum();
    if total <= 0.0 {
        return 1.0;
    }
    let agreed: f64 = (0..3).map(|i| table[i][i]).sum::<f64>() / total;
    let row = |i: usize| table[i].iter().sum::<f64>();
    let column = |j: usize| table.iter().map(|r| r[j]).sum::<f64>();
    let chance: f64 = (0..3).map(|i| row(i) * column(i)).sum::<f64>() / (total * total);
    if chance >= 1.0 {
        return 1.0;
    }
    (agreed - chance) / (1.0 - chance)
}

fn answers(item: &ItemVerdict) -> [Preference; 6] {
    let of = |v: &Verdict| [v.realism, v.entertainment, v.coherency];
    let ([a, b, c], [d, e, f]) = (of(&item.miner_first), of(&item.reference_first));
    [a, b, c, d, e, f]
}

fn place(preference: Preference) -> usize {
    match preference {
        Preference::Win => 0,
        Preference::Tie => 1,
        Preference::Loss => 2,
    }
}

/// Counts over judged items, as the gates need them.
#[must_use]
pub fn count_judged(verdicts: &[ItemVerdict]) -> JudgedCounts {
    JudgedCounts {
        items: verdicts.len(),
        addressing_judge: verdicts.iter().filter(|v| v.addresses_judge()).count(),
        coherent: verdicts.iter().map(ItemVerdict::coherency).sum(),
    }
}

#[cfg(test)]
mod tests;
