//! Rounds: stretches of blocks within an era that share one item list.

use super::era::{Era, EraId};
use super::submission::Submission;
use crate::bittensor::{BlockHash, BlockNumber, Netuid, RoundNumber};
use sha2::{Digest, Sha256};

/// Separates this use of SHA-256 from every other.
const SEED_DOMAIN: &[u8] = b"assay-round/1";

/// The round of `era` that holds `block`, and the block it began with; `None` before the era.
/// The last round of an era ends early when the next era begins.
#[must_use]
pub fn round_at(era: &Era, block: BlockNumber) -> Option<(RoundNumber, BlockNumber)> {
    let elapsed = block.0.checked_sub(era.from_block.0)?;
    let number = elapsed.checked_div(era.scoring.round_blocks)?;
    let start = era.from_block.plus(number * era.scoring.round_blocks);
    Some((RoundNumber(number), start))
}

/// Seed of a round's item draw. The hash of the start block is unknown before that block, so nobody
/// can train on the items of a round to come.
#[must_use]
pub fn round_seed(netuid: Netuid, era: EraId, round: RoundNumber, start: BlockHash) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(SEED_DOMAIN);
    hash.update(netuid.0.to_le_bytes());
    hash.update(era.0);
    hash.update(round.0.to_le_bytes());
    hash.update(start.0);
    hash.finalize().into()
}

/// Whether the submission takes part in a round that began at `start`: only when it was committed
/// before, for a miner must not know the items.
#[must_use]
pub fn is_candidate(submission: &Submission, start: BlockNumber) -> bool {
    submission.block < start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incentive::era::tests::era;

    #[test]
    fn rounds_count_from_the_eras_first_block() {
        let era = era(100, 50);
        assert_eq!(round_at(&era, BlockNumber(99)), None);
        let at = |block| round_at(&era, BlockNumber(block)).unwrap();
        assert_eq!(at(100), (RoundNumber(0), BlockNumber(100)));
        assert_eq!(at(149), (RoundNumber(0), BlockNumber(100)));
        assert_eq!(at(150), (RoundNumber(1), BlockNumber(150)));
        assert_eq!(at(u64::MAX).1.0 % 50, 0);
    }

    #[test]
    fn only_what_was_committed_before_the_round_takes_part() {
        let submission = Submission {
            hotkey: crate::bittensor::Hotkey([1; 32]),
            block: BlockNumber(150),
            model: crate::incentive::ModelRef {
                repo: "a/b".parse().unwrap(),
                revision: None,
            },
            template: crate::incentive::Template::ChatMl,
            competition: "d1".parse().unwrap(),
        };
        assert!(is_candidate(&submission, BlockNumber(151)));
        assert!(!is_candidate(&submission, BlockNumber(150)));
    }

    #[test]
    fn every_input_moves_the_seed() {
        let seed = |netuid, era, round, hash| {
            round_seed(
                Netuid(netuid),
                EraId([era; 32]),
                RoundNumber(round),
                BlockHash([hash; 32]),
            )
        };
        let seeds = [
            seed(11, 1, 2, 3),
            seed(58, 1, 2, 3),
            seed(11, 9, 2, 3),
            seed(11, 1, 3, 3),
            seed(11, 1, 2, 4),
        ];
        let distinct: std::collections::HashSet<_> = seeds.iter().collect();
        assert_eq!(distinct.len(), seeds.len());
        // python3: hashlib.sha256(b"assay-round/1"+(11).to_bytes(2,"little")+b"\1"*32+(2).to_bytes(8,"little")+b"\3"*32)
        assert_eq!(
            hex::encode(seeds[0]),
            "99f8cb2749f50d6ddaa329cb0dd07db759409bdd7432e1c8fb91bae65cf16925"
        );
    }
}
