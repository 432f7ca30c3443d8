//! From verdicts to a score with its uncertainty.

use super::statistics::{Z_95, mean_and_error, wilson_95};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub mod contamination;
pub mod length;

pub use length::Lengths;

/// One criterion of one comparison, seen from the miner's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// The miner's reply is preferred to the reference: 1.
    Win,
    /// Neither is: ½.
    Tie,
    /// The reference is preferred: 0.
    Loss,
}

impl Preference {
    /// 1, ½ or 0.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::Win => 1.0,
            Self::Tie => 0.5,
            Self::Loss => 0.0,
        }
    }
}

/// The judge's answer to one comparison, in one order of the two replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Which reply is more like a person's.
    pub realism: Preference,
    /// Which reply is more engaging.
    pub entertainment: Preference,
    /// Which reply fits the conversation better.
    pub coherency: Preference,
    /// The judge reports that the miner's reply speaks to it.
    pub addresses_judge: bool,
}

/// Both verdicts on one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemVerdict {
    /// The miner's reply was shown first.
    pub miner_first: Verdict,
    /// The reference was shown first.
    pub reference_first: Verdict,
}

impl ItemVerdict {
    /// Mean over both orders and the three criteria, 0 to 1; ½ is as good as the reference. A reply
    /// that speaks to the judge is worth 0.
    #[must_use]
    pub fn value(&self) -> f64 {
        let orders = [&self.miner_first, &self.reference_first];
        if self.addresses_judge() {
            return 0.0;
        }
        let criteria = |v: &Verdict| [v.realism, v.entertainment, v.coherency];
        let sum: f64 = orders
            .iter()
            .flat_map(|v| criteria(v))
            .map(Preference::value)
            .sum();
        sum / 6.0
    }

    /// Mean of the coherency criterion over both orders: 0, ¼, ½, ¾ or 1.
    #[must_use]
    pub fn coherency(&self) -> f64 {
        let (first, second) = (&self.miner_first, &self.reference_first);
        f64::midpoint(first.coherency.value(), second.coherency.value())
    }

    /// The judge reports in either order that the miner's reply speaks to it.
    #[must_use]
    pub fn addresses_judge(&self) -> bool {
        self.miner_first.addresses_judge || self.reference_first.addresses_judge
    }
}

/// What one item is worth, with what the rules need to know about it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ItemScore {
    /// 0 to 1; ½ is as good as the reference.
    pub value: f64,
    /// Lengths of the two replies, where they are known.
    pub lengths: Option<Lengths>,
    /// Where the conversation comes from.
    pub bucket: Bucket,
}

/// Where an item's conversation comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bucket {
    /// Younger than the models could have seen.
    #[default]
    Fresh,
    /// Older: a model may have been trained on it.
    Anchor,
}

impl From<f64> for ItemScore {
    /// A fresh item without lengths.
    fn from(value: f64) -> Self {
        Self {
            value,
            lengths: None,
            bucket: Bucket::Fresh,
        }
    }
}

/// Values of a model's items by item id, each within 0 to 1; never empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ItemScores(BTreeMap<String, ItemScore>);

/// Values that make no score.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemScoresError {
    /// No item at all.
    #[error("a score needs at least one judged item")]
    Empty,
    /// Not a number within 0 to 1.
    #[error("item {0:?} has a value outside 0 to 1")]
    OutOfRange(String),
    /// An id occurs twice.
    #[error("item {0:?} occurs twice")]
    Twice(String),
}

impl ItemScores {
    /// Checks and orders the values.
    ///
    /// # Errors
    /// [`ItemScoresError`] names the first violation.
    pub fn new<T: Into<ItemScore>>(
        items: impl IntoIterator<Item = (String, T)>,
    ) -> Result<Self, ItemScoresError> {
        let mut map = BTreeMap::new();
        for (id, item) in items {
            let item: ItemScore = item.into();
            if !(0.0..=1.0).contains(&item.value) {
                return Err(ItemScoresError::OutOfRange(id));
            }
            if map.contains_key(&id) {
                return Err(ItemScoresError::Twice(id));
            }
            map.insert(id, item);
        }
        if map.is_empty() {
            return Err(ItemScoresError::Empty);
        }
        Ok(Self(map))
    }

    /// Item ids and values, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(id, item)| (id.as_str(), item.value))
    }

    /// Item ids with all that is known of each, ordered by id.
    pub fn details(&self) -> impl Iterator<Item = (&str, &ItemScore)> {
        self.0.iter().map(|(id, item)| (id.as_str(), item))
    }

    /// One item.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&ItemScore> {
        self.0.get(id)
    }

    /// Mean and standard error over all items.
    #[must_use]
    pub fn score(&self) -> Score {
        let values: Vec<f64> = self.0.values().map(|item| item.value).collect();
        Score::of(&values)
    }
}

/// A model's score in one round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Mean over items, 0 to 1; ½ is as good as the reference.
    pub value: f64,
    /// Standard error of the mean; infinite (JSON null) for a single item.
    pub standard_error: f64,
    /// Number of items.
    pub items: usize,
}

impl Score {
    /// Mean and standard error of `values`; without values the mean is 0 and its error infinite.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let (value, standard_error) = mean_and_error(values);
        Self {
            value,
            standard_error,
            items: values.len(),
        }
    }

    /// Wilson's 95 % interval, the value read as a win rate over the items.
    #[must_use]
    pub fn wilson_95(&self) -> (f64, f64) {
        wilson_95(
            self.value * super::statistics::count(self.items),
            self.items,
        )
    }

    /// 95 % interval of the value, cut to 0 to 1.
    #[must_use]
    pub fn interval_95(&self) -> (f64, f64) {
        let half = Z_95 * self.standard_error;
        ((self.value - half).max(0.0), (self.value + half).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::Preference::{Loss, Tie, Win};
    use super::*;
    use proptest::prelude::*;

    fn verdict(realism: Preference, entertainment: Preference, coherency: Preference) -> Verdict {
        Verdict {
            realism,
            entertainment,
            coherency,
            addresses_judge: false,
        }
    }

    #[test]
    fn both_orders_and_all_criteria_count_alike() {
        let item = ItemVerdict {
            miner_first: verdict(Win, Tie, Loss),
            reference_first: verdict(Win, Win, Tie),
        };
        assert!((item.value() - 4.0 / 6.0).abs() < 1e-12);
        // A judge that prefers whatever comes first says nothing about quality.
        let biased = ItemVerdict {
            miner_first: verdict(Win, Win, Win),
            reference_first: verdict(Loss, Loss, Loss),
        };
        assert!((biased.value() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn speaking_to_the_judge_is_worth_nothing() {
        let mut item = ItemVerdict {
            miner_first: verdict(Win, Win, Win),
            reference_first: verdict(Win, Win, Win),
        };
        assert!((item.value() - 1.0).abs() < 1e-12);
        item.reference_first.addresses_judge = true;
        assert!(item.value().abs() < 1e-12);
    }

    fn scores(values: &[f64]) -> ItemScores {
        let named = values.iter().enumerate();
        ItemScores::new(named.map(|(i, v)| (format!("c_{i:04}"), *v))).unwrap()
    }

    #[test]
    fn standard_error_and_interval_are_the_textbooks() {
        // Sample variance of 0, ½, ½, 1 is 1/6; divided by 4 items: 1/24.
        let score = scores(&[0.0, 0.5, 0.5, 1.0]).score();
        assert!((score.value - 0.5).abs() < 1e-12);
        assert!((score.standard_error - (1.0f64 / 24.0).sqrt()).abs() < 1e-12);
        let (low, high) = score.interval_95();
        assert!((low - 0.09991).abs() < 1e-4 && (high - 0.90009).abs() < 1e-4);
        let one = scores(&[1.0]).score();
        assert_eq!(one.interval_95(), (0.0, 1.0));
        assert!(one.standard_error.is_infinite());
    }

    #[test]
    fn bad_values_make_no_score() {
        let one = |id: &str, v| (id.to_owned(), v);
        assert_eq!(ItemScores::new::<f64>([]), Err(ItemScoresError::Empty));
        for bad in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
            let error = ItemScores::new([one("a", bad)]).unwrap_err();
            assert_eq!(error, ItemScoresError::OutOfRange("a".into()));
        }
        let twice = ItemScores::new([one("a", 0.1), one("a", 0.2)]);
        assert_eq!(twice, Err(ItemScoresError::Twice("a".into())));
    }

    proptest! {
        #[test]
        fn the_score_lies_within_its_interval(
            values in prop::collection::vec(0.0..=1.0f64, 1..200),
        ) {
            let score = scores(&values).score();
            let (low, high) = score.interval_95();
            prop_assert!((0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
            prop_assert!(low <= score.value + 1e-12 && score.value <= high + 1e-12);
        }
    }
}
