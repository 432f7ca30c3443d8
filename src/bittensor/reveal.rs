//! Which beacon round a weights commit must be encrypted for.

use super::{BlockNumber, Netuid, Tempo};
use serde::Serialize;

/// A stalled subnet's epoch fires after this many blocks at the latest.
const MAX_BLOCKS_WITHOUT_STEP: u64 = 50_400;
/// Blocks after the first block of the reveal epoch at which the pulse may be stored late.
const SAFETY_BLOCKS: u64 = 3;
/// The search for the reveal block ends here: 100 epochs, the chain's longest period, of the
/// longest tempo.
const BLOCKS_MAX: u64 = 101 * 50_400;

/// What the chain's epoch counter is made of, read at one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EpochState {
    /// The block that this was read at.
    pub block: BlockNumber,
    /// `LastEpochBlock`.
    pub last_epoch: BlockNumber,
    /// `PendingEpochAt`; 0 when the owner asked for none.
    pub pending: BlockNumber,
    /// `SubnetEpochIndex`.
    pub index: u64,
    /// Blocks between epochs: `Tempo`; one more on runtimes that count by the block number.
    pub tempo: u32,
    /// `BlocksSinceLastStep`.
    pub since_step: u64,
}

impl EpochState {
    /// The same on runtimes without `SubnetEpochIndex`: epoch (block + netuid + 1) / (tempo + 1). Exact
    /// from a chain's first boundary on; the epoch before it began before block 0.
    #[must_use]
    pub fn by_block_number(netuid: Netuid, tempo: Tempo, block: BlockNumber) -> Self {
        let period = u64::from(tempo.0) + 1;
        let shifted = block.0 + u64::from(netuid.0) + 1;
        let into = shifted % period;
        Self {
            block,
            last_epoch: BlockNumber(block.0.saturating_sub(into)),
            // A young chain's first epoch is shorter, as if the last one had fired before block 0.
            pending: BlockNumber(if tempo.0 == 0 {
                0
            } else {
                block.0 + period - into
            }),
            index: shifted / period,
            tempo: if tempo.0 == 0 {
                0
            } else {
                u32::from(tempo.0) + 1
            },
            since_step: into,
        }
    }

    /// Whether `block` fires an epoch. The chain counts blocks since the last step by itself, so the
    /// count read at [`Self::block`] grows by the blocks since then.
    fn is_due(&self, block: u64) -> bool {
        let since = self.since_step + block.saturating_sub(self.block.0);
        self.tempo != 0
            && ((self.pending.0 > 0 && block >= self.pending.0)
                || since > MAX_BLOCKS_WITHOUT_STEP
                || block.saturating_sub(self.last_epoch.0) >= u64::from(self.tempo))
    }

    /// The epoch that a commit included in the next block belongs to: one further when that block
    /// fires an epoch, because reveals run before epochs.
    #[must_use]
    pub fn commit_epoch(&self) -> u64 {
        self.index + u64::from(self.is_due(self.block.0 + 1))
    }

    /// First block that reveals what the next block commits: it still has the epoch index before its
    /// own epoch, and looks ahead by that. `None` with tempo 0 or beyond any period that the chain
    /// allows.
    #[must_use]
    pub fn reveal_block(&self, period: u64) -> Option<BlockNumber> {
        if self.tempo == 0 {
            return None;
        }
        let wanted = self.commit_epoch() + period;
        let mut at = *self;
        while at.commit_epoch() < wanted {
            if at.block.0 - self.block.0 > BLOCKS_MAX {
                return None;
            }
            at = at.next_block();
        }
        Some(BlockNumber(at.block.0 + 1))
    }

    fn next_block(&self) -> Self {
        let block = BlockNumber(self.block.0 + 1);
        if !self.is_due(block.0) {
            let since_step = self.since_step + 1;
            return Self {
                block,
                since_step,
                ..*self
            };
        }
        Self {
            block,
            last_epoch: block,
            pending: BlockNumber(0),
            index: self.index + 1,
            since_step: 0,
            ..*self
        }
    }
}

/// A beacon that publishes a BLS signature for each round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// Compressed public key in G2.
    pub public_key: [u8; 96],
    /// Unix seconds at which round 1 is published.
    pub genesis_s: u64,
    /// Milliseconds between rounds, not 0.
    pub period_ms: u64,
}

/// Public key of drand's quicknet, the beacon of the real networks (chain hash `52db9ba7…e971`).
const QUICKNET: [u8; 96] = [
    0x83, 0xcf, 0x0f, 0x28, 0x96, 0xad, 0xee, 0x7e, 0xb8, 0xb5, 0xf0, 0x1f, 0xca, 0xd3, 0x91, 0x22,
    0x12, 0xc4, 0x37, 0xe0, 0x07, 0x3e, 0x91, 0x1f, 0xb9, 0x00, 0x22, 0xd3, 0xe7, 0x60, 0x18, 0x3c,
    0x8c, 0x4b, 0x45, 0x0b, 0x6a, 0x0a, 0x6c, 0x3a, 0xc6, 0xa5, 0x77, 0x6a, 0x2d, 0x10, 0x64, 0x51,
    0x0d, 0x1f, 0xec, 0x75, 0x8c, 0x92, 0x1c, 0xc2, 0x2b, 0x0e, 0x17, 0xe6, 0x3a, 0xaf, 0x4b, 0xcb,
    0x5e, 0xd6, 0x63, 0x04, 0xde, 0x9c, 0xf8, 0x09, 0xbd, 0x27, 0x4c, 0xa7, 0x3b, 0xab, 0x4a, 0xf5,
    0xa6, 0xe9, 0xc7, 0x6a, 0x4b, 0xc0, 0x9e, 0x76, 0xea, 0xe8, 0x99, 0x1e, 0xf5, 0xec, 0xe4, 0x5a,
];

impl Beacon {
    /// drand's quicknet: a round every 3 s since 1692803367.
    #[must_use]
    pub fn quicknet() -> Self {
        Self {
            public_key: QUICKNET,
            genesis_s: 1_692_803_367,
            period_ms: 3000,
        }
    }
}

/// The round to encrypt for: the one published when the third block after [`EpochState::reveal_block`]
/// is due, at least 1. Earlier rounds would let anybody read the weights before the reveal epoch,
/// later ones would miss it. `None` when there is no reveal block.
///
/// `now_ms` is the wall clock of [`EpochState::block`], `block_ms` the block time, both in
/// milliseconds.
#[must_use]
pub fn reveal_round(
    state: &EpochState,
    period: u64,
    (now_ms, block_ms): (u64, u64),
    beacon: &Beacon,
) -> Option<u64> {
    let target = state.reveal_block(period)?.0 + SAFETY_BLOCKS;
    let at_ms = now_ms + (target - state.block.0) * block_ms;
    let since_ms = at_ms.saturating_sub(beacon.genesis_s * 1000);
    Some((since_ms / beacon.period_ms.max(1)).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(block: u64, last: u64, pending: u64, tempo: u32) -> EpochState {
        EpochState {
            block: BlockNumber(block),
            last_epoch: BlockNumber(last),
            pending: BlockNumber(pending),
            index: 7,
            tempo,
            since_step: block - last,
        }
    }

    #[test]
    fn the_documented_example_is_263_blocks_ahead() {
        let at = state(1100, 1000, 0, 360);
        assert_eq!(at.reveal_block(1), Some(BlockNumber(1360)));
        let beacon = Beacon {
            genesis_s: 1000,
            ..Beacon::quicknet()
        };
        // 263 blocks of 12 s after second 3000 of the beacon, in rounds of 3 s.
        let round = reveal_round(&at, 1, (4_000_000, 12_000), &beacon);
        assert_eq!(round, Some((3000 + 263 * 12) / 3));
    }

    #[test]
    fn a_pending_epoch_and_a_due_one_move_the_reveal() {
        assert_eq!(
            state(1100, 1000, 1200, 360).reveal_block(1).unwrap().0,
            1200
        );
        // The next block fires an epoch: the commit belongs to the one after it.
        let due = state(1359, 1000, 0, 360);
        assert_eq!(due.commit_epoch(), 8);
        assert_eq!(due.reveal_block(1).unwrap().0, 1720);
        assert_eq!(state(1100, 1000, 0, 0).reveal_block(1), None);
    }

    /// Recorded from bittensor-drand by `tests/it/python/reveal_rounds.py`.
    #[test]
    fn fifty_rounds_are_those_of_the_fields_package() {
        let text = include_str!("../../tests/it/data/reveal_rounds.json");
        let recorded: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases = recorded["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 50);
        for case in cases {
            let n = |key: &str| case[key].as_u64().unwrap();
            let state = EpochState {
                block: BlockNumber(n("block")),
                last_epoch: BlockNumber(n("last_epoch")),
                pending: BlockNumber(n("pending")),
                index: n("index"),
                tempo: u32::try_from(n("tempo")).unwrap(),
                since_step: n("since_step"),
            };
            let beacon = Beacon::quicknet();
            let at =
                |now| reveal_round(&state, n("period"), (now, n("block_ms")), &beacon).unwrap();
            // The package read the clock within the slack.
            let (first, last) = (at(n("now_ms")), at(n("now_ms") + n("slack_ms")));
            assert!(
                (first..=last).contains(&n("round")),
                "{case}: {first}..={last}"
            );
        }
    }

    #[test]
    fn runtimes_that_count_by_the_block_number_reveal_at_their_boundaries() {
        for block in 100..300 {
            let at = EpochState::by_block_number(Netuid(11), Tempo(20), BlockNumber(block));
            let epoch = |block: u64| (block + 12) / 21;
            assert_eq!(at.commit_epoch(), epoch(block + 1));
            let reveal = at.reveal_block(1).unwrap().0;
            assert_eq!(epoch(reveal), epoch(block + 1) + 1);
            assert_eq!(epoch(reveal - 1), epoch(block + 1));
        }
    }

    proptest! {
        #[test]
        fn a_longer_period_never_reveals_earlier(
            tempo in 1u32..2000, into in 0u64..3000, period in 1u64..5,
        ) {
            let at = state(10_000 + into.min(u64::from(tempo)), 10_000, 0, tempo);
            let (one, more) = (at.reveal_block(period).unwrap(), at.reveal_block(period + 1).unwrap());
            prop_assert!(one < more && more.0 - one.0 == u64::from(tempo));
        }
    }
}
