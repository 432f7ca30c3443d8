//! Which items a round asks: the same for everyone who knows the seed.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::ItemId;

/// Draws `n` items: all distinct `ids` sorted by SHA-256(`seed` ‖ id), the first `n` of them. The
/// result does not depend on the order of `ids`; with fewer than `n` ids it holds them all.
#[must_use]
pub fn draw(seed: [u8; 32], ids: &[ItemId], n: usize) -> Vec<ItemId> {
    let distinct: BTreeSet<_> = ids.iter().copied().collect();
    let mut keyed: Vec<([u8; 32], ItemId)> = distinct
        .into_iter()
        .map(|id| {
            let hash = Sha256::new().chain_update(seed).chain_update(id.0);
            (hash.finalize().into(), id)
        })
        .collect();
    if n < keyed.len() {
        keyed.select_nth_unstable(n);
        keyed.truncate(n);
    }
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(n: u8) -> Vec<ItemId> {
        (0..n).map(|i| ItemId([i; 32])).collect()
    }

    #[test]
    fn the_draw_is_the_published_rule() {
        let mut expected = ids(20);
        expected.sort_by_key(|id| -> [u8; 32] { Sha256::digest([[7; 32], id.0].concat()).into() });
        expected.truncate(5);
        assert_eq!(draw([7; 32], &ids(20), 5), expected);
        assert_ne!(draw([8; 32], &ids(20), 5), expected);
    }

    proptest! {
        #[test]
        fn order_and_repeats_do_not_matter(seed: [u8; 32], n in 0usize..30, mut list in Just(ids(25)).prop_shuffle()) {
            let drawn = draw(seed, &list, n);
            prop_assert_eq!(drawn.len(), n.min(25));
            list.extend_from_slice(&ids(10));
            prop_assert_eq!(draw(seed, &list, n), drawn);
        }

        #[test]
        fn a_smaller_draw_is_the_beginning_of_a_larger(seed: [u8; 32], n in 0usize..25) {
            let all = draw(seed, &ids(25), 25);
            prop_assert_eq!(&draw(seed, &ids(25), n)[..], &all[..n]);
        }
    }
}
