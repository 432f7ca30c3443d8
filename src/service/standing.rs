//! The store's scores as the rules want them, and what the rules say: the one way to a ranking.

use crate::bittensor::{BlockNumber, Hotkey, Metagraph};
use crate::incentive::Era;
use crate::incentive::ranking::{Contender, Evidence, Ranking, rank, registered};
use crate::incentive::score::ItemScores;
use crate::store::{Reader, Shown, StoreError, SubmissionId};
use std::collections::HashMap;

/// Who stands where at a snapshot.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) ranking: Ranking,
    /// The submission behind each place.
    pub(super) submissions: HashMap<Hotkey, SubmissionId>,
}

impl Standing {
    /// The champion's submission.
    pub(super) fn champion(&self) -> Option<SubmissionId> {
        let champion = self.ranking.champion.as_ref();
        champion.and_then(|hotkey| self.submissions.get(hotkey).copied())
    }
}

/// Ranks an era's scores at a block: of each hotkey that is registered there since before its
/// commitment the latest scored one, so that the old model earns while a new one is scored.
pub(super) async fn read(
    reader: &Reader,
    era: &Era,
    metagraph: &Metagraph,
    at: BlockNumber,
) -> Result<Standing, StoreError> {
    let era_id = era.id().to_string();
    let shown = reader
        .shown(&era_id, era.incentive.evidence.live_rounds)
        .await?;
    let latest = latest_of_each(shown);
    let submissions = latest
        .iter()
        .map(|s| (s.submission.hotkey, s.submission.id))
        .collect();
    let contenders: Result<Vec<Contender>, StoreError> =
        latest.into_iter().map(contender).collect();
    let contenders = registered(contenders?, metagraph);
    Ok(Standing {
        ranking: rank(&contenders, era, at),
        submissions,
    })
}

fn contender(shown: Shown) -> Result<Contender, StoreError> {
    let evidence = |(round, items)| {
        let items = ItemScores::new(items).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        Ok(Evidence { round, items })
    };
    Ok(Contender {
        hotkey: shown.submission.hotkey,
        commit_block: shown.submission.commit_block,
        since: shown.since,
        evidence: shown
            .rounds
            .into_iter()
            .map(evidence)
            .collect::<Result<_, StoreError>>()?,
        near: shown.near,
        held: shown.held,
    })
}

fn latest_of_each(shown: Vec<Shown>) -> Vec<Shown> {
    let mut latest: HashMap<Hotkey, Shown> = HashMap::new();
    for entry in shown {
        let newer = latest
            .get(&entry.submission.hotkey)
            .is_none_or(|kept| kept.submission.commit_block < entry.submission.commit_block);
        if newer {
            latest.insert(entry.submission.hotkey, entry);
        }
    }
    latest.into_values().collect()
}
