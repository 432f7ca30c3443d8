//! Exact copies: the same weights belong to whoever committed them first.

use super::eligibility::ModelFiles;
use super::rejection::{Rejection, RejectionCode};
use crate::bittensor::{BlockNumber, Hotkey};
use sha2::{Digest, Sha256};

/// A commitment to particular weights. Ordered by seniority: earlier block first, ties by the
/// hotkey's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Block of the commitment.
    pub block: BlockNumber,
    /// Who committed.
    pub hotkey: Hotkey,
}

/// Identity of a model's weight files before download: `sha256:` + hex SHA-256 over the sorted
/// (size as u64 little-endian, SHA-256) of each. `None` when the hub publishes no digest for one of
/// them; the tensor digest then finds the copy after the download.
#[must_use]
pub fn weights_key(files: &ModelFiles) -> Option<String> {
    let mut parts = Vec::with_capacity(files.weights.len());
    for file in &files.weights {
        let mut digest = [0; 32];
        hex::decode_to_slice(file.sha256.as_ref()?, &mut digest).ok()?;
        parts.push((file.size, digest));
    }
    parts.sort_unstable();
    let mut hash = Sha256::new();
    for (size, digest) in parts {
        hash.update(size.to_le_bytes());
        hash.update(digest);
    }
    Some(format!("sha256:{}", hex::encode(hash.finalize())))
}

/// Refuses `claim` when another hotkey holds an earlier claim to the same weights. `others` are the
/// claims with the same `weights_key` or the same `tensor_digest`, in any order, `claim` itself
/// allowed among them; claims that were rejected for other reasons are left out by the caller. A
/// hotkey may commit its own weights again.
///
/// # Errors
/// [`RejectionCode::Duplicate`], naming the owner's claim.
pub fn check(claim: &Claim, others: &[Claim]) -> Result<(), Rejection> {
    match others.iter().min() {
        Some(owner) if owner < claim && owner.hotkey != claim.hotkey => {
            let detail = format!(
                "{} committed the same weights at block {}, this commitment is of block {}.",
                owner.hotkey, owner.block, claim.block
            );
            Err(Rejection::new(RejectionCode::Duplicate, detail))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incentive::eligibility::RepoFile;
    use proptest::prelude::*;

    fn claim(block: u64, key: u8) -> Claim {
        Claim {
            block: BlockNumber(block),
            hotkey: Hotkey([key; 32]),
        }
    }

    fn files(weights: &[(&str, u64, Option<u8>)]) -> ModelFiles {
        let file = |&(path, size, fill): &(&str, u64, Option<u8>)| RepoFile {
            path: path.to_owned(),
            size,
            sha256: fill.map(|f| hex::encode([f; 32])),
        };
        ModelFiles {
            config: file(&("config.json", 1, None)),
            tokenizer: file(&("tokenizer.json", 1, None)),
            generation_config: None,
            index: None,
            weights: weights.iter().map(file).collect(),
        }
    }

    #[test]
    fn the_key_ignores_names_and_order_and_sees_content() {
        let key = |w: &[_]| weights_key(&files(w)).unwrap();
        let base = key(&[("a", 5, Some(1)), ("b", 6, Some(2))]);
        assert_eq!(base, key(&[("x", 6, Some(2)), ("y", 5, Some(1))]));
        assert_ne!(base, key(&[("a", 6, Some(1)), ("b", 5, Some(2))]));
        assert_ne!(base, key(&[("a", 5, Some(1))]));
        assert_ne!(
            base,
            key(&[("a", 5, Some(1)), ("b", 6, Some(2)), ("c", 6, Some(2))])
        );
        assert_eq!(weights_key(&files(&[("a", 5, None)])), None);
    }

    #[test]
    fn the_earliest_wins_and_ties_go_by_hotkey_bytes() {
        assert_eq!(check(&claim(10, 5), &[]), Ok(()));
        assert_eq!(check(&claim(10, 5), &[claim(11, 1)]), Ok(()));
        let copy = check(&claim(12, 5), &[claim(13, 2), claim(11, 9)]).unwrap_err();
        assert_eq!(copy.code, RejectionCode::Duplicate);
        assert!(copy.detail.contains("block 11"), "{}", copy.detail);
        assert!(check(&claim(10, 5), &[claim(10, 4)]).is_err());
        assert_eq!(check(&claim(10, 5), &[claim(10, 6)]), Ok(()));
    }

    #[test]
    fn the_owner_may_commit_again_although_copies_lie_between() {
        let all = [claim(100, 1), claim(200, 2), claim(300, 1)];
        assert_eq!(check(&all[2], &all), Ok(()));
        assert!(check(&all[1], &all).is_err());
    }

    proptest! {
        #[test]
        fn of_equal_claims_one_hotkey_survives_whatever_the_order(
            raw in prop::collection::vec((0..5u64, 0..4u8), 1..12), seed in any::<u64>(),
        ) {
            let mut claims: Vec<_> = raw.iter().map(|&(b, k)| claim(b, k)).collect();
            let turn = usize::try_from(seed % 12).unwrap() % claims.len();
            claims.rotate_left(turn);
            let kept: std::collections::HashSet<_> = claims
                .iter()
                .filter(|c| check(c, &claims).is_ok())
                .map(|c| c.hotkey)
                .collect();
            let owner = claims.iter().min().unwrap().hotkey;
            prop_assert_eq!(kept, [owner].into());
        }
    }
}
