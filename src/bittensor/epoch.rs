//! When a subnet's epoch fires, and when to set weights before it.

use super::{BlockNumber, Netuid, Tempo};
use serde::Serialize;

/// Block at which the next epoch may fire: `LastEpochBlock + Tempo`, or `PendingEpochAt` when that
/// is set and earlier. `None` when the tempo is 0. The chain may defer it, never advance it.
#[must_use]
pub fn next_epoch(
    tempo: Tempo,
    last_epoch: BlockNumber,
    pending: Option<BlockNumber>,
) -> Option<BlockNumber> {
    if tempo.0 == 0 {
        return None;
    }
    let regular = last_epoch.plus(tempo.0.into());
    let pending = pending.filter(|block| block.0 > 0);
    Some(pending.map_or(regular, |block| block.min(regular)))
}

/// The same on runtimes without `LastEpochBlock`: the blocks left are `tempo − (block + netuid + 1)
/// mod (tempo + 1)`. An epoch that fires in `block` itself counts as the next one.
#[must_use]
pub fn next_epoch_by_modulo(
    netuid: Netuid,
    tempo: Tempo,
    block: BlockNumber,
) -> Option<BlockNumber> {
    if tempo.0 == 0 {
        return None;
    }
    let tempo = u64::from(tempo.0);
    let phase = block.0.checked_add(u64::from(netuid.0) + 1)? % (tempo + 1);
    Some(block.plus(tempo - phase))
}

/// Blocks in which weights for one epoch are set, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct WeightsWindow {
    /// First block of the window.
    pub opens: BlockNumber,
    /// Last block of the window.
    pub closes: BlockNumber,
    /// The epoch that it is for: the window's identity.
    pub epoch: BlockNumber,
}

impl WeightsWindow {
    /// Whether `block` lies in the window.
    #[must_use]
    pub fn contains(&self, block: BlockNumber) -> bool {
        self.opens <= block && block <= self.closes
    }
}

/// Blocks for which a signed call stays valid (its era). A power of two, as the chain wants it.
pub const CALL_LIFETIME_BLOCKS: u64 = 64;
/// Blocks before an epoch in which no weights call may reach the chain.
const LAST_BLOCKS: u64 = 10;
/// Blocks that may pass between the snapshot and the signature.
const SIGNING_BLOCKS: u64 = 4;
/// The chain's shortest tempo; only dev chains have shorter ones.
const SHORTEST_TEMPO: u64 = 360;

/// The window before `epoch`: from 40 % to at most 80 % of the tempo. Late enough that fresh scores
/// count, early enough for two more tries, and so early that even a call signed in its last block is
/// included before the epoch's last 10 blocks or never. Tempos below the chain's minimum of 360, of
/// dev chains, have no room for that and keep a fifth. `None` when the tempo is 0.
#[must_use]
pub fn weights_window(tempo: Tempo, epoch: BlockNumber) -> Option<WeightsWindow> {
    if tempo.0 == 0 {
        return None;
    }
    let tempo = u64::from(tempo.0);
    let before = |blocks: u64| BlockNumber(epoch.0.saturating_sub(blocks));
    let last = if tempo < SHORTEST_TEMPO {
        tempo.div_ceil(5)
    } else {
        let needed = LAST_BLOCKS + CALL_LIFETIME_BLOCKS + SIGNING_BLOCKS;
        tempo.div_ceil(5).max(needed)
    };
    Some(WeightsWindow {
        opens: before((tempo * 3 / 5).max(last)),
        closes: before(last),
        epoch,
    })
}

/// Blocks from `at` until the chain accepts the next weights call of a neuron; 0: now. A
/// `last_update` of 0 passes, as on chain.
#[must_use]
pub fn rate_limit_wait(last_update: BlockNumber, rate_limit: u64, at: BlockNumber) -> u64 {
    if last_update.0 == 0 {
        return 0;
    }
    rate_limit.saturating_sub(at.since(last_update))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_next_epoch_follows_the_last_or_a_pending_one() {
        let next = |pending: Option<u64>| {
            next_epoch(Tempo(360), BlockNumber(1000), pending.map(BlockNumber))
        };
        assert_eq!(next(None), Some(BlockNumber(1360)));
        assert_eq!(next(Some(0)), Some(BlockNumber(1360)));
        assert_eq!(next(Some(1200)), Some(BlockNumber(1200)));
        assert_eq!(next(Some(1400)), Some(BlockNumber(1360)));
        assert_eq!(next_epoch(Tempo(0), BlockNumber(1000), None), None);
    }

    #[test]
    fn the_older_formula_finds_the_next_firing_block() {
        for (netuid, tempo) in [(0u16, 1u16), (1, 20), (11, 99), (58, 360)] {
            let period = u64::from(tempo) + 1;
            let fires = |block: u64| (block + u64::from(netuid) + 2).is_multiple_of(period);
            for block in 0..1000 {
                let next = next_epoch_by_modulo(Netuid(netuid), Tempo(tempo), BlockNumber(block));
                let want = (block..).find(|b| fires(*b)).map(BlockNumber);
                assert_eq!(next, want, "netuid {netuid}, tempo {tempo}, block {block}");
            }
        }
    }

    #[test]
    fn the_window_of_a_real_tempo() {
        let window = weights_window(Tempo(360), BlockNumber(1360)).unwrap();
        assert_eq!(window.opens, BlockNumber(1144));
        assert_eq!(window.closes, BlockNumber(1282));
        assert!(window.contains(BlockNumber(1144)) && window.contains(BlockNumber(1282)));
        assert!(!window.contains(BlockNumber(1143)) && !window.contains(BlockNumber(1283)));
        for tempo in 1..60 {
            let window = weights_window(Tempo(tempo), BlockNumber(1000)).unwrap();
            assert!(window.opens <= window.closes && window.closes < window.epoch);
        }
    }

    #[test]
    fn the_rate_limit_counts_from_the_last_update() {
        let wait = |last, at| rate_limit_wait(BlockNumber(last), 100, BlockNumber(at));
        assert_eq!(wait(0, 5), 0);
        assert_eq!(wait(50, 149), 1);
        assert_eq!(wait(50, 150), 0);
        assert_eq!(wait(50, 40), 100);
    }

    proptest! {
        #[test]
        fn every_tempo_has_a_window_inside_it(tempo in 1..=u16::MAX, epoch in 70_000..1u64 << 40) {
            let window = weights_window(Tempo(tempo), BlockNumber(epoch)).unwrap();
            prop_assert!(window.opens <= window.closes && window.closes < window.epoch);
            prop_assert!(window.epoch.since(window.opens) <= u64::from(tempo));
            prop_assert!(tempo < 50 || window.epoch.since(window.closes) >= 10);
            // The last block that a call signed at the window's end can be included in.
            let latest = window.closes.plus(SIGNING_BLOCKS + CALL_LIFETIME_BLOCKS);
            prop_assert!(tempo < 360 || window.epoch.since(latest) >= LAST_BLOCKS);
            // Three calls, each waited for to the end of its life, fit before the epoch.
            let length = window.closes.since(window.opens);
            prop_assert!(tempo < 360 || length >= 2 * (CALL_LIFETIME_BLOCKS + SIGNING_BLOCKS));
        }
    }
}
