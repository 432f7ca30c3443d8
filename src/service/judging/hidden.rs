//! Questions that a batch asks besides its own: hidden controls, to see whether the judge can be
//! believed, and transplants, to see whether the replies work on the judge. Drawn by seed, so that a
//! restart asks the same ones.

use crate::scoring::judge::{JudgeItem, sanitise};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// A reference of fewer words stays whole when its words are shuffled.
const WORDS_MIN: usize = 6;
/// Texts that share more of their words say too much of the same.
const SHARED_MAX: f64 = 0.5;

/// What a batch's draws depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw<'a> {
    /// The round's seed.
    pub(super) seed: &'a [u8; 32],
    /// The batch: other models get other controls, so that no old verdict answers them.
    pub(super) batch: &'a str,
}

impl Draw<'_> {
    fn digest(&self, purpose: &str, id: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [purpose, self.batch, id] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.update(self.seed);
        hash.finalize().into()
    }

    /// `items` in an order of this purpose's own.
    pub(super) fn shuffled<'i>(
        &self,
        purpose: &str,
        items: impl IntoIterator<Item = &'i JudgeItem>,
    ) -> Vec<&'i JudgeItem> {
        let mut items: Vec<_> = items.into_iter().collect();
        items.sort_by_cached_key(|item| self.digest(purpose, &item.id));
        items
    }

    /// Up to `wanted` pairs of a reference (as the reply) and its damaged twin (as the reference):
    /// by turns its words shuffled, and another character's reply. Fewer, where the items have too
    /// few references that can be damaged.
    pub(super) fn controls(&self, items: &[JudgeItem], wanted: u32) -> Vec<JudgeItem> {
        let long = |item: &&JudgeItem| word_count(&item.reference) >= WORDS_MIN;
        let order = self.shuffled("control", items);
        let order: Vec<_> = order.into_iter().filter(long).collect();
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let pair = |at: usize| {
            let whole = order[at];
            let other = (at % 2 == 1).then(|| stranger(&order, at)).flatten();
            let damaged = match other {
                Some(other) => other.reference.clone(),
                None => self.shuffle_words(whole)?,
            };
            Some(JudgeItem {
                id: format!("control:{}:{}", self.batch, whole.id),
                context: whole.context.clone(),
                reply: whole.reference.clone(),
                reference: damaged,
            })
        };
        (0..order.len()).filter_map(pair).take(wanted).collect()
    }

    /// Up to `wanted` replies, each under a conversation that it was not given to.
    pub(super) fn transplants(&self, items: &[JudgeItem], wanted: u32) -> Vec<JudgeItem> {
        let order = self.shuffled("transplant", items);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let moved = |at: usize| {
            let to = stranger(&order, at)?;
            Some(JudgeItem {
                id: format!("transplant:{}:{}", order[at].id, to.id),
                context: to.context.clone(),
                reply: order[at].reply.clone(),
                reference: to.reference.clone(),
            })
        };
        (0..order.len()).filter_map(moved).take(wanted).collect()
    }

    fn shuffle_words(&self, item: &JudgeItem) -> Option<String> {
        let mut words: Vec<_> = item.reference.split_whitespace().collect();
        let whole = words.clone();
        let mut rng = ChaCha8Rng::from_seed(self.digest("words", &item.id));
        words.shuffle(&mut rng);
        if words == whole {
            words.reverse();
        }
        (words != whole).then(|| words.join(" "))
    }
}

/// The next item after `at`, round about, whose reference says something else.
fn stranger<'i>(order: &[&'i JudgeItem], at: usize) -> Option<&'i JudgeItem> {
    let own = words(&order[at].reference);
    let rest = (1..order.len()).map(|step| order[(at + step) % order.len()]);
    let mut rest = rest.filter(|other| shared(&own, &words(&other.reference)) < SHARED_MAX);
    rest.next()
}

fn word_count(text: &str) -> usize {
    text.split_whitespace().count()
}

fn words(text: &str) -> BTreeSet<String> {
    let text = sanitise(text, usize::MAX / 8).to_lowercase();
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// Part of all words that both have (Jaccard).
fn shared(a: &BTreeSet<String>, b: &BTreeSet<String>) -> f64 {
    let count = |n: usize| u32::try_from(n).map_or(f64::MAX, f64::from);
    count(a.intersection(b).count()) / count(a.union(b).count().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::judge::Turn;

    const SEED: [u8; 32] = [7; 32];

    fn items(n: usize) -> Vec<JudgeItem> {
        let names = [
            "lantern", "captain", "garden", "market", "violin", "harbour",
        ];
        let item = |i: usize| {
            let name = names[i % names.len()];
            JudgeItem {
                id: format!("c_{i}"),
                context: vec![Turn {
                    role: "user".to_owned(),
                    content: format!("Tell me about the {name} {i}"),
                }],
                reply: format!("reply {i}"),
                reference: format!("{name}s {name}less un{name} {name}ed {i} {name}ing out{name}"),
            }
        };
        (0..n).map(item).collect()
    }

    fn draw(batch: &str) -> Draw<'_> {
        Draw { seed: &SEED, batch }
    }

    #[test]
    fn controls_pair_a_reference_with_its_damaged_twin() {
        let items = items(40);
        let controls = draw("a").controls(&items, 16);
        assert_eq!(controls.len(), 16);
        let mut strangers = 0;
        for control in &controls {
            let source = items
                .iter()
                .find(|i| control.id.ends_with(&format!(":{}", i.id)));
            let source = source.unwrap();
            assert_eq!(
                (&control.reply, &control.context),
                (&source.reference, &source.context)
            );
            assert_ne!(control.reference, source.reference);
            let same = words(&control.reference) == words(&source.reference);
            strangers += usize::from(!same);
            assert!(same || items.iter().any(|i| i.reference == control.reference));
        }
        assert_eq!(strangers, 8);
        assert_eq!(
            draw("a").controls(&items, 16),
            controls,
            "a restart asks the same"
        );
        assert_ne!(
            draw("b").controls(&items, 16),
            controls,
            "another model is asked others"
        );
    }

    #[test]
    fn what_cannot_be_damaged_is_no_control() {
        let mut items = items(4);
        items[0].reference = "Yes.".to_owned();
        items[1].reference = "ha ha ha ha ha ha ha".to_owned();
        items.truncate(2);
        assert!(draw("a").controls(&items, 16).is_empty());
    }

    #[test]
    fn transplants_never_stay_at_home() {
        let items = items(40);
        let moved = draw("a").transplants(&items, 32);
        assert_eq!(moved.len(), 32);
        for item in moved {
            let home = items.iter().find(|i| i.reply == item.reply).unwrap();
            assert_ne!(home.context, item.context);
            assert!(
                items
                    .iter()
                    .any(|i| i.context == item.context && i.reference == item.reference)
            );
        }
    }
}
