//! Keeps the ranking that is shown up to date. When a round begins, it keeps who held the title then,
//! and has the leaders scored again, so that they and the round's candidates answer the same items.

use super::rounds::Rounds;
use super::standing::{self, Standing};
use crate::bittensor::{RoundNumber, SubnetSnapshot};
use crate::clock::now_ms;
use crate::incentive::Era;
use crate::incentive::ranking::Place;
use crate::shutdown::Shutdown;
use crate::store::{self, ScoreId, Store, StoreError, SubmissionId};
use serde_json::{Value, json};
use std::sync::Arc;

/// Challengers whose bootstrap interval is computed to be shown; it is the dear part.
const INTERVALS: usize = 8;

/// The loop that keeps the ranking.
#[derive(Debug)]
pub struct Leaders {
    /// Scores in, the ranking and new runs out.
    pub store: Store,
    /// The present round.
    pub rounds: Arc<Rounds>,
}

/// What a ranking was made from; when it is the same, so is the ranking but for the margin's decay.
type Seen = (String, RoundNumber, Option<ScoreId>);

impl Leaders {
    /// Runs until shutdown, one step for each snapshot. A restart in the middle of a round only asks
    /// again: whoever has a score of the round, or a run on the way, is not queued twice.
    ///
    /// # Errors
    /// [`StoreError`]: without its store the node must end.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), StoreError> {
        let mut latest = self.rounds.latest.clone();
        let mut seen: Option<Seen> = None;
        loop {
            tokio::select! {
                () = shutdown.signalled() => return Ok(()),
                changed = latest.changed() => if changed.is_err() { return Ok(()) },
            }
            let snapshot = latest.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                self.step(&snapshot, &mut seen).await?;
            }
        }
    }

    async fn step(
        &self,
        snapshot: &SubnetSnapshot,
        seen: &mut Option<Seen>,
    ) -> Result<(), StoreError> {
        let Some((era, round, _)) = self.rounds.present() else {
            return Ok(());
        };
        let newest = self.store.reader().newest_score().await?;
        let now = (era.id().to_string(), round, newest);
        if newest.is_none() || seen.as_ref() == Some(&now) {
            return Ok(());
        }
        let standing = standing::read(
            self.store.reader(),
            era,
            &snapshot.metagraph,
            snapshot.at.number,
        )
        .await?;
        let began = seen.as_ref().is_none_or(|s| (&s.0, s.1) != (&now.0, now.1));
        if began {
            begin(&self.store, era, round, &standing).await?;
        }
        let shown = store::Standing {
            block: snapshot.at.number,
            ranking: view(&standing, &now.0),
        };
        self.store
            .put_standing(now.0.clone(), shown, now_ms())
            .await?;
        *seen = Some(now);
        Ok(())
    }
}

/// Keeps with whom `round` begins, and has its leaders scored again. Repeated after a restart in the
/// middle of the round, it changes nothing.
async fn begin(
    store: &Store,
    era: &Era,
    round: RoundNumber,
    standing: &Standing,
) -> Result<(), StoreError> {
    if let Some(champion) = standing.champion() {
        let era_id = era.id().to_string();
        store.put_title(era_id, round, champion).await?;
    }
    rescore(store, era, round, standing).await
}

/// Opens a run for each leader that has no score of `round` and no run on the way.
async fn rescore(
    store: &Store,
    era: &Era,
    round: RoundNumber,
    standing: &Standing,
) -> Result<(), StoreError> {
    let done = store
        .reader()
        .scored_in(&era.id().to_string(), round)
        .await?;
    let leaders = standing.ranking.to_rescore(&era.incentive.evidence);
    let ids: Vec<SubmissionId> = leaders
        .iter()
        .filter_map(|hotkey| standing.submissions.get(hotkey).copied())
        .filter(|id| !done.contains(id))
        .collect();
    let opened = store.rescore(ids, now_ms()).await?;
    if opened > 0 {
        tracing::info!(%round, leaders = opened, "leaders are scored again with the round's candidates");
    }
    Ok(())
}

/// The ranking as it is shown: with the submission behind each place and, for the first challengers,
/// the bootstrap interval of their lead.
fn view(standing: &Standing, era_id: &str) -> Value {
    let places = standing
        .ranking
        .places
        .iter()
        .enumerate()
        .map(|(i, place)| {
            let mut view = serde_json::to_value(place).unwrap_or_default();
            view["submission"] = json!(standing.submissions.get(&place.hotkey));
            if i < INTERVALS && view["challenge"].is_object() {
                view["challenge"]["interval_95"] = json!(interval(place, era_id));
            }
            view
        });
    json!({
        "champion": standing.ranking.champion,
        "places": places.collect::<Vec<_>>(),
    })
}

/// Drawn with the era and the place's own key: the same on every node with the same scores.
fn interval(place: &Place, era_id: &str) -> Option<(f64, f64)> {
    use sha2::{Digest, Sha256};
    let seed = Sha256::new()
        .chain_update("assay-bootstrap/1")
        .chain_update(era_id)
        .chain_update(place.hotkey.0);
    place
        .challenge
        .as_ref()?
        .interval_95(seed.finalize().into())
}

#[cfg(test)]
mod tests;
