//! A new round over a real store.

use super::*;
use crate::bittensor::{
    BlockHash, BlockNumber, BlockRef, Coldkey, Hotkey, Metagraph, Netuid, Neuron, Uid,
};
use crate::incentive::era::tests::era;
use crate::service::judging::rival;
use crate::store::tests::queued;
use crate::store::{
    Admission, Advance, Ask, EraRecord, ModelFacts, NewScore, NewSubmission, Outcome, RetryPolicy,
    Round, ScoreInputs, Stage, WorkerId,
};
use std::time::Duration;

struct Fixture {
    store: Store,
    era: Era,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), RetryPolicy::default()).unwrap();
        let mut era = era(0, 100);
        era.incentive.evidence.rescored_runners_up = 1;
        let record = EraRecord {
            era_id: era.id().to_string(),
            from_block: era.from_block,
            canonical: era.canonical_json(),
        };
        store.assert_eras(vec![record]).await.unwrap();
        for number in 0..3 {
            let round = Round {
                era_id: era.id().to_string(),
                number: RoundNumber(number),
                start: BlockRef {
                    number: BlockNumber(100 * number),
                    hash: BlockHash([7; 32]),
                },
                seed: [9; 32],
                start_ms: 0,
                pack_digest: "pack".to_owned(),
                packs: vec!["pack".to_owned()],
                items_digest: "items".to_owned(),
                items: (0..32).map(|i| format!("i{i}")).collect(),
            };
            store.put_round(round, 1).await.unwrap();
        }
        Self {
            store,
            era,
            _dir: dir,
        }
    }

    async fn commit(&self, key: u8) {
        queued(&self.store, key).await;
    }

    /// The next submission in the queue, through all stages to its score.
    async fn score(&self, key: u8, round: u64, mean: f64) {
        let tensors = format!("tensors of {key}");
        let fetched = Advance {
            tensor_digest: Some(tensors.clone()),
            ..Advance::default()
        };
        self.finish(Stage::Fetch, Outcome::Advance(fetched)).await;
        self.finish(Stage::Score, Outcome::Advance(Advance::default()))
            .await;
        let value = |i: i32| mean + if i % 2 == 0 { 0.02 } else { -0.02 };
        let text = |t: &str| t.to_owned();
        let score = NewScore {
            era_id: self.era.id().to_string(),
            round: RoundNumber(round),
            value: mean,
            standard_error: 0.01,
            gates: json!({}),
            inputs: ScoreInputs {
                image_id: text("i"),
                runner: text("docker"),
                engine: text("e"),
                pack_digest: text("pack"),
                seed: "09".repeat(32),
                judge_id: text("j"),
                prompt_version: text("1"),
                tensor_digest: tensors,
                replies_digest: text("r"),
            },
            items: (0..32)
                .map(|i| (format!("i{i}"), value(i).into()))
                .collect(),
        };
        self.finish(Stage::Judge, Outcome::Scored(Box::new(score)))
            .await;
    }

    async fn finish(&self, stage: Stage, outcome: Outcome) {
        let ask = Ask {
            stage,
            worker: WorkerId("w".to_owned()),
            committed_before: None,
            model_bytes_max: None,
            now_ms: now_ms(),
            ttl: Duration::from_secs(60),
        };
        let lease = self.store.lease(ask).await.unwrap().expect("a job waits");
        self.store
            .finish_stage(&lease, outcome, now_ms())
            .await
            .unwrap();
    }

    async fn begin(&self, round: u64) {
        let standing = self.standing().await;
        let round = RoundNumber(round);
        begin(&self.store, &self.era, round, &standing)
            .await
            .unwrap();
    }

    async fn champion(&self) -> u8 {
        self.standing().await.ranking.champion.unwrap().0[0]
    }

    async fn standing(&self) -> Standing {
        let neuron = |uid: u8| Neuron {
            uid: Uid(uid.into()),
            hotkey: Hotkey([uid; 32]),
            coldkey: Coldkey([9; 32]),
            active: true,
            validator_permit: false,
            last_update: BlockNumber(0),
            registered_at: BlockNumber(0),
            total_stake: 0,
            incentive: 0,
            emission: 0,
        };
        let neurons = (0..8).map(neuron).collect();
        let metagraph = Metagraph::new(Netuid(11), neurons).unwrap();
        standing::read(self.store.reader(), &self.era, &metagraph, BlockNumber(100))
            .await
            .unwrap()
    }

    async fn waiting(&self) -> Vec<u64> {
        let page = self.store.reader().queue(0, 50).await.unwrap();
        page.iter().map(|entry| entry.commit_block.0).collect()
    }
}

#[tokio::test]
async fn a_new_round_scores_its_leaders_again_and_only_once() {
    let f = Fixture::new().await;
    for (key, mean) in [(1, 0.5), (2, 0.4), (3, 0.3), (4, 0.2), (5, 0.1)] {
        f.commit(key).await;
        f.score(key, 0, mean).await;
    }
    let standing = f.standing().await;
    assert_eq!(standing.ranking.champion, Some(Hotkey([1; 32])));
    // Within the round in which they were scored, nobody is scored again.
    rescore(&f.store, &f.era, RoundNumber(0), &standing)
        .await
        .unwrap();
    assert_eq!(f.waiting().await, [0u64; 0]);
    // The champion, the one that the era asks for beside it; the losers' result is plain.
    rescore(&f.store, &f.era, RoundNumber(1), &standing)
        .await
        .unwrap();
    assert_eq!(f.waiting().await, [1, 2]);
    f.score(1, 1, 0.5).await;
    // Asked again after a restart: the rest is on its way, the first is done.
    rescore(&f.store, &f.era, RoundNumber(1), &f.standing().await)
        .await
        .unwrap();
    assert_eq!(f.waiting().await, [2]);
    let standing = f.standing().await;
    assert_eq!(
        standing.ranking.places.len(),
        5,
        "old scores count on while new ones are made"
    );
    assert_eq!(standing.ranking.places[0].rounds, 2);
}

#[tokio::test]
async fn the_old_model_earns_until_the_new_one_has_a_score() {
    let f = Fixture::new().await;
    f.commit(1).await;
    f.score(1, 0, 0.5).await;
    let mut again = NewSubmission {
        hotkey: Hotkey([1; 32]),
        commit_block: BlockNumber(50),
        registered_at: Some(BlockNumber(0)),
        raw: vec![2],
        model: None,
        admission: Admission::Queued,
    };
    again.model = Some(ModelFacts {
        repo: "miner/new".to_owned(),
        revision: Some("b".repeat(40)),
        template: "chatml".to_owned(),
        competition: "d1".to_owned(),
        weights_key: None,
    });
    f.store.record(again, now_ms()).await.unwrap();
    let place = |s: &Standing| {
        (
            s.ranking.places[0].commit_block.0,
            s.ranking.places[0].share,
        )
    };
    assert_eq!(place(&f.standing().await), (1, 1.0));
    f.score(9, 0, 0.3).await;
    assert_eq!(place(&f.standing().await), (50, 1.0));
    let shown = view(&f.standing().await, &f.era.id().to_string());
    assert_eq!(shown["places"][0]["submission"], 2);
    assert_eq!(shown["places"][0]["group"], 1);
}

/// The younger one wins round 1; in round 2 it shows nothing, and the title goes back.
async fn three_rounds(restart: bool) -> Vec<SubmissionId> {
    let f = Fixture::new().await;
    f.commit(1).await;
    f.score(1, 0, 0.4).await;
    f.begin(1).await;
    f.commit(2).await;
    f.score(1, 1, 0.4).await;
    f.score(2, 1, 0.5).await;
    assert_eq!(f.champion().await, 2);
    f.begin(2).await;
    assert_eq!(f.waiting().await, [1, 2], "whom it was taken from, too");
    f.score(1, 2, 0.5).await;
    assert_eq!(f.champion().await, 2, "it has no score of the round yet");
    f.score(2, 2, 0.4).await;
    assert_eq!(f.champion().await, 1);
    if restart {
        // The round goes on; it began with whom it began with.
        f.begin(2).await;
        assert_eq!(f.champion().await, 1);
    }
    f.begin(3).await;
    let mut titles = Vec::new();
    for round in 1..=3 {
        let era = f.era.id().to_string();
        let title = f.store.reader().title(&era, RoundNumber(round)).await;
        titles.push(title.unwrap().unwrap());
    }
    titles
}

#[tokio::test]
async fn nodes_with_the_same_scores_have_the_same_champion_in_every_round_also_after_a_restart() {
    let titles = three_rounds(false).await;
    assert_eq!(titles, [1, 2, 1].map(SubmissionId));
    assert_eq!(three_rounds(true).await, titles);
}

#[tokio::test]
async fn a_model_is_given_up_beside_the_champion_that_its_round_began_with() {
    let f = Fixture::new().await;
    let era = f.era.id().to_string();
    let first_item = async |own: i64, round: u64| {
        let reader = f.store.reader();
        let own = reader.submission(SubmissionId(own)).await.unwrap();
        let found = rival(reader, &era, RoundNumber(round), &own).await.unwrap();
        found.map(|items| (items["i0"] * 100.0).round())
    };
    for (key, mean) in [(1, 0.5), (2, 0.4)] {
        f.commit(key).await;
        f.score(key, 0, mean).await;
    }
    f.commit(3).await;
    // No title was known in the first round: the best elder's items, in hundredths; the first is 2 above the mean.
    assert_eq!(first_item(3, 0).await, Some(52.0));
    assert_eq!(first_item(1, 0).await, None);
    f.score(3, 0, 0.3).await;
    f.begin(1).await;
    assert_eq!(first_item(3, 1).await, None, "its score is not there yet");
    f.score(1, 1, 0.4).await;
    f.score(2, 1, 0.6).await;
    assert_eq!(
        first_item(3, 1).await,
        Some(42.0),
        "the champion's, not the best"
    );
}
