//! Signs that a model has seen the items before.

use crate::incentive::statistics::{median, median_deviation};
use std::collections::HashSet;

/// A model lies out when its gap exceeds the field's median by this many median deviations.
const DEVIATIONS: f64 = 3.0;
/// Fewest models that make a field; among fewer a median says nothing.
const FIELD_MIN: usize = 5;
/// Characters of a run that a reply may not share with its reference.
const SHARED_CHARS: usize = 60;

/// Which of the field's gaps lie out: more than 3 median absolute deviations above the median. A
/// gap is how much better a model does on old items than on fresh ones: anchor minus fresh score,
/// or fresh minus anchor bits per byte. `None` (too little known) never lies out.
#[must_use]
pub fn outliers(gaps: &[Option<f64>]) -> Vec<bool> {
    let known: Vec<f64> = gaps.iter().copied().flatten().collect();
    if known.len() < FIELD_MIN {
        return vec![false; gaps.len()];
    }
    let limit = median(&known) + DEVIATIONS * median_deviation(&known);
    // Rounding alone must not make an outlier of a field of equals.
    gaps.iter()
        .map(|gap| gap.is_some_and(|gap| gap > limit + 1e-9))
        .collect()
}

/// Whether the reply shares a run of 60 characters with the reference: it was learnt by heart. Such
/// an item is left out of the model's items, and a model with too many of them is flagged.
#[must_use]
pub fn recites(reply: &str, reference: &str) -> bool {
    let known: HashSet<&str> = runs(reference).collect();
    !known.is_empty() && runs(reply).any(|run| known.contains(run))
}

/// All runs of [`SHARED_CHARS`] characters.
fn runs(text: &str) -> impl Iterator<Item = &str> {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let starts = text.char_indices().map(|(at, _)| at);
    starts
        .zip(ends.skip(SHARED_CHARS - 1))
        .map(|(start, end)| &text[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_that_knows_the_old_items_stands_out() {
        let field = [0.01, -0.02, 0.0, 0.02, -0.01, 0.2];
        let gaps: Vec<_> = field.iter().map(|g| Some(*g)).collect();
        assert_eq!(outliers(&gaps), [false, false, false, false, false, true]);
        // To be worse on old items is no sign of anything.
        let gaps: Vec<_> = field.iter().map(|g| Some(-*g)).collect();
        assert_eq!(outliers(&gaps), [false; 6]);
        assert_eq!(outliers(&gaps[..4]), [false; 4]);
        assert_eq!(outliers(&[Some(0.1); 9]), [false; 9]);
        assert_eq!(outliers(&[None; 9]), [false; 9]);
    }

    #[test]
    fn sixty_characters_in_a_row_are_no_accident() {
        let reference =
            "Ä".repeat(10) + "the lantern swings in the wind and the old captain hums a tune";
        let inside: String = reference.chars().skip(7).take(60).collect();
        assert!(recites(&format!("Well, {inside}!"), &reference));
        let short: String = reference.chars().skip(7).take(59).collect();
        assert!(!recites(&format!("Well, {short}"), &reference));
        assert!(!recites("anything", "short"));
        assert!(!recites("", ""));
    }

    proptest! {
        #[test]
        fn any_text_recites_itself_when_long_enough(text in "\\PC{0,90}") {
            prop_assert_eq!(recites(&text, &text), text.chars().count() >= 60);
        }
    }
}
