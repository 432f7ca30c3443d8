//! Which items a round asks: the same for everyone who knows the seed and the packs.
//!
//! 1. The packs of a round are those sealed before its start block ([`packs_of_round`]).
//! 2. A conversation is *fresh* when it was made on or after the day that lies 48 hours before the
//!    start block's time, else *older*. In several packs, its earliest day counts.
//! 3. Each bucket is sorted by SHA-256(seed ‖ id), and its first are drawn. A bucket that is short
//!    is made up for by the other.
//!
//! So a smaller draw by the same seed is always part of a larger one: the items that models answer
//! are part of the round's published list.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::object::SignedManifest;
use super::{Day, ItemId};

/// Most packs that one round draws from; the newest count.
pub const ROUND_PACKS_MAX: usize = 512;
/// How far back *fresh* reaches.
const FRESH_MS: u64 = 48 * 3600 * 1000;

/// First day whose conversations are fresh for a round that starts at `start_ms`.
#[must_use]
pub fn fresh_from(start_ms: u64) -> Day {
    Day::from_unix_ms(start_ms.saturating_sub(FRESH_MS))
}

/// The packs that a round starting at `start_ms` draws from: sealed at or before that moment, of
/// them the newest [`ROUND_PACKS_MAX`] by last day, in the order of their digests. Before the
/// first seal there are none; then the pack sealed first stands in, so that a subnet can begin.
#[must_use]
pub fn packs_of_round(mut offered: Vec<SignedManifest>, start_ms: u64) -> Vec<SignedManifest> {
    offered.sort_by_key(|m| (m.sealed_ms, m.digest));
    offered.dedup_by_key(|m| m.digest);
    let before = offered.partition_point(|m| m.sealed_ms <= start_ms);
    offered.truncate(before.max(1));
    offered.sort_by_key(|m| std::cmp::Reverse((m.to, m.sealed_ms, m.digest)));
    offered.truncate(ROUND_PACKS_MAX);
    offered.sort_by_key(|m| m.digest);
    offered
}

/// How many items to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Of the last 48 hours.
    pub fresh: usize,
    /// Made before.
    pub older: usize,
}

/// A round's draw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drawn {
    /// Fresh items, in the order of their keys.
    pub fresh: Vec<ItemId>,
    /// Older items, in the order of their keys.
    pub older: Vec<ItemId>,
}

impl Drawn {
    /// All items in the order of their keys, fresh and older mixed, so that any beginning of the
    /// list is a fair sample of both.
    #[must_use]
    pub fn mixed(&self, seed: [u8; 32]) -> Vec<ItemId> {
        let mut ids = [&self.fresh[..], &self.older[..]].concat();
        ids.sort_by_cached_key(|id| key(seed, *id));
        ids
    }
}

fn key(seed: [u8; 32], id: ItemId) -> ([u8; 32], ItemId) {
    let hash = Sha256::new().chain_update(seed).chain_update(id.0);
    (hash.finalize().into(), id)
}

/// Draws from `candidates`, ids with their days, in any order and however often repeated.
#[must_use]
pub fn draw(
    seed: [u8; 32],
    fresh_from: Day,
    candidates: impl IntoIterator<Item = (ItemId, Day)>,
    wanted: Wanted,
) -> Drawn {
    let mut days: HashMap<ItemId, Day> = HashMap::new();
    for (id, day) in candidates {
        let earliest = days.entry(id).or_insert(day);
        *earliest = day.min(*earliest);
    }
    let (mut fresh, mut older) = (Vec::new(), Vec::new());
    for (id, day) in days {
        let bucket = if day >= fresh_from {
            &mut fresh
        } else {
            &mut older
        };
        bucket.push(key(seed, id));
    }
    let short = |wanted: usize, bucket: &Vec<_>| wanted.saturating_sub(bucket.len());
    let of_fresh = wanted.fresh + short(wanted.older, &older);
    let of_older = wanted.older + short(wanted.fresh, &fresh);
    Drawn {
        fresh: first(fresh, of_fresh),
        older: first(older, of_older),
    }
}

fn first(mut keyed: Vec<([u8; 32], ItemId)>, n: usize) -> Vec<ItemId> {
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

    fn day(n: u8) -> Day {
        format!("2026-11-{n:02}").parse().unwrap()
    }

    /// 20 older conversations of day 1 and 20 fresh ones of day 20.
    fn candidates() -> Vec<(ItemId, Day)> {
        let made = |i: u8| (ItemId([i; 32]), day(if i < 20 { 1 } else { 20 }));
        (0..40).map(made).collect()
    }

    fn drawn(seed: u8, fresh: usize, older: usize) -> Drawn {
        draw([seed; 32], day(10), candidates(), Wanted { fresh, older })
    }

    #[test]
    fn the_draw_is_the_published_rule() {
        let by_rule = |range: std::ops::Range<u8>, n: usize| {
            let mut ids: Vec<_> = range.map(|i| ItemId([i; 32])).collect();
            ids.sort_by_key(|id| -> [u8; 32] { Sha256::digest([[7; 32], id.0].concat()).into() });
            ids.truncate(n);
            ids
        };
        let found = drawn(7, 5, 3);
        assert_eq!(found.fresh, by_rule(20..40, 5));
        assert_eq!(found.older, by_rule(0..20, 3));
        assert_ne!(found, drawn(8, 5, 3));
        let mut both = [by_rule(20..40, 5), by_rule(0..20, 3)].concat();
        both.sort_by_key(|id| -> [u8; 32] { Sha256::digest([[7; 32], id.0].concat()).into() });
        assert_eq!(found.mixed([7; 32]), both);
    }

    #[test]
    fn a_short_bucket_is_made_up_for() {
        let found = drawn(1, 25, 5);
        assert_eq!((found.fresh.len(), found.older.len()), (20, 10));
        let found = drawn(1, 30, 30);
        assert_eq!((found.fresh.len(), found.older.len()), (20, 20));
    }

    #[test]
    fn a_conversation_seen_before_is_not_fresh() {
        let id = ItemId([9; 32]);
        let both = [(id, day(20)), (id, day(1))];
        let wanted = Wanted { fresh: 1, older: 0 };
        let found = draw([0; 32], day(10), both, wanted);
        assert_eq!((found.fresh.len(), found.older.len()), (0, 1));
    }

    #[test]
    fn fresh_reaches_back_48_hours() {
        // 2026-11-25T00:00:01Z and one second before.
        assert_eq!(fresh_from(1_795_564_801_000), day(23));
        assert_eq!(fresh_from(1_795_564_799_000), day(22));
    }

    proptest! {
        #[test]
        fn order_and_repeats_do_not_matter(seed: u8, fresh in 0usize..30, older in 0usize..30, mut list in Just(candidates()).prop_shuffle()) {
            let expected = drawn(seed, fresh, older);
            prop_assert_eq!(expected.fresh.len() + expected.older.len(), (fresh + older).min(40));
            list.extend_from_slice(&candidates()[..10]);
            prop_assert_eq!(draw([seed; 32], day(10), list, Wanted { fresh, older }), expected);
        }

        #[test]
        fn a_smaller_draw_is_part_of_a_larger(seed: u8, fresh in 0usize..50, older in 0usize..50, more in 0usize..50) {
            let small = drawn(seed, fresh, older);
            let large = drawn(seed, fresh + more, older + more);
            prop_assert!(large.fresh.starts_with(&small.fresh));
            prop_assert!(large.older.starts_with(&small.older));
        }
    }
}
