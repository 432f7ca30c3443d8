//! Eras, rounds and scores.

use super::*;
use crate::bittensor::RoundNumber;
use crate::incentive::score::{Bucket, Lengths};

fn era(from_block: u64, canonical: &str) -> EraRecord {
    EraRecord {
        era_id: format!("era-{canonical}"),
        from_block: BlockNumber(from_block),
        canonical: canonical.to_owned(),
    }
}

fn round(era: &EraRecord, number: u64) -> Round {
    Round {
        era_id: era.era_id.clone(),
        number: RoundNumber(number),
        start: BlockRef {
            number: BlockNumber(100),
            hash: BlockHash([7; 32]),
        },
        seed: [9; 32],
        pack_digest: "pack".to_owned(),
        packs: vec!["pack".to_owned()],
        start_ms: 0,
        items_digest: "items".to_owned(),
        items: ["i1", "i2", "i3"].map(str::to_owned).to_vec(),
    }
}

fn score(era: &EraRecord, round: u64, items: &[(&str, f64)]) -> NewScore {
    let total: f64 = items.iter().map(|(_, v)| v).sum();
    let text = |t: &str| t.to_owned();
    NewScore {
        era_id: era.era_id.clone(),
        round: RoundNumber(round),
        value: total / f64::from(u32::try_from(items.len().max(1)).unwrap()),
        standard_error: 0.01,
        gates: json!({"empty": 0}),
        inputs: ScoreInputs {
            image_id: text("sha256:i"),
            runner: text("docker"),
            engine: text("e"),
            pack_digest: text("pack"),
            seed: "09".repeat(32),
            judge_id: text("j"),
            prompt_version: text("1"),
            tensor_digest: text("td"),
            replies_digest: text("rd"),
        },
        items: items.iter().map(|(i, v)| (text(i), (*v).into())).collect(),
    }
}

/// Walks the next queued submission through all stages to its score.
async fn run_through(store: &Store, now_ms: u64, new: NewScore) -> ScoreId {
    let facts = Advance {
        revision: Some("a".repeat(40)),
        tensor_digest: Some("td".to_owned()),
        payload: json!({"bytes": 5}),
        ..Advance::default()
    };
    let lease = take(store, Stage::Fetch, now_ms).await.unwrap();
    store
        .finish_stage(&lease, Outcome::Advance(facts), now_ms)
        .await
        .unwrap();
    let lease = take(store, Stage::Score, now_ms).await.unwrap();
    assert_eq!(lease.payload, json!({"bytes": 5}));
    assert_eq!(
        lease.submission.revision.as_deref(),
        Some("a".repeat(40).as_str())
    );
    let next = Outcome::Advance(Advance::default());
    store.finish_stage(&lease, next, now_ms).await.unwrap();
    let lease = take(store, Stage::Judge, now_ms).await.unwrap();
    let finished = store
        .finish_stage(&lease, Outcome::Scored(Box::new(new)), now_ms)
        .await
        .unwrap();
    finished.score.unwrap()
}

async fn with_rounds(store: &Store) -> EraRecord {
    let era = era(1, "one");
    store.assert_eras(vec![era.clone()]).await.unwrap();
    store.put_round(round(&era, 0), 5).await.unwrap();
    store.put_round(round(&era, 1), 6).await.unwrap();
    era
}

#[tokio::test]
async fn the_latest_score_counts_and_items_pair_up() {
    let f = fixture();
    let era = with_rounds(&f.store).await;
    let id = recorded(&f.store, 1, 5).await;
    let first = run_through(&f.store, 20, score(&era, 0, &[("i1", 0.5), ("i2", 1.0)])).await;
    assert_eq!(f.store.rescore(vec![id], 30).await.unwrap(), 1);
    assert_eq!(
        f.store.rescore(vec![id], 31).await.unwrap(),
        0,
        "one open run"
    );
    assert_eq!(
        f.store.reader().scored(&era.era_id).await.unwrap()[0]
            .score
            .id,
        first
    );
    let second = run_through(&f.store, 40, score(&era, 1, &[("i2", 0.0), ("i3", 1.0)])).await;
    let scored = f.store.reader().scored(&era.era_id).await.unwrap();
    assert_eq!(scored.len(), 1);
    assert_eq!((scored[0].score.id, scored[0].score.n), (second, 2));
    let pairs = f.store.reader().paired_items(first, second).await.unwrap();
    assert_eq!(
        pairs,
        [PairedItem {
            item: "i2".to_owned(),
            first: 1.0,
            second: 0.0
        }]
    );
    assert_eq!(f.store.reader().item_scores(first).await.unwrap().len(), 2);
    let rejection = Rejection::new(RejectionCode::Duplicate, "found later");
    f.store.reject(id, rejection, 60).await.unwrap();
    assert!(
        f.store
            .reader()
            .scored(&era.era_id)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_score_of_other_tensors_or_impossible_values_is_refused_whole() {
    let f = fixture();
    let era = with_rounds(&f.store).await;
    recorded(&f.store, 1, 5).await;
    let lease = take(&f.store, Stage::Fetch, 20).await.unwrap();
    let early = Outcome::Scored(Box::new(score(&era, 0, &[("i1", 0.5)])));
    let early = f.store.finish_stage(&lease, early, 21).await;
    assert!(
        matches!(early, Err(StoreError::Invalid(_))),
        "nothing is scored unfetched"
    );
    let facts = Advance {
        tensor_digest: Some("td".to_owned()),
        ..Advance::default()
    };
    f.store
        .finish_stage(&lease, Outcome::Advance(facts), 21)
        .await
        .unwrap();
    let lease = take(&f.store, Stage::Score, 22).await.unwrap();

    let good = score(&era, 0, &[("i1", 0.5)]);
    let mut other = good.clone();
    other.inputs.tensor_digest = "swapped".to_owned();
    let with = |change: fn(&mut NewScore)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    let bad = [
        other,
        with(|s| s.value = f64::NAN),
        with(|s| s.value = 1.01),
        with(|s| s.standard_error = f64::INFINITY),
        with(|s| s.items.clear()),
        with(|s| s.items.push(s.items[0].clone())),
        with(|s| s.round = RoundNumber(77)),
        with(|s| s.inputs.seed = "08".repeat(32)),
        with(|s| s.inputs.pack_digest = "other".to_owned()),
        with(|s| s.items.push(("not drawn".to_owned(), 0.5.into()))),
        with(|s| s.era_id = "unknown".to_owned()),
    ];
    for bad in bad {
        let outcome = Outcome::Scored(Box::new(bad.clone()));
        assert!(
            f.store.finish_stage(&lease, outcome, 30).await.is_err(),
            "{bad:?}"
        );
    }
    let history = f.store.reader().history(lease.submission.id).await.unwrap();
    assert!(history.scores.is_empty());
    assert_eq!(
        history.submission.status,
        Status::Scoring,
        "the lease stays"
    );
    f.store
        .finish_stage(&lease, Outcome::Scored(Box::new(good)), 31)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_era_with_scores_is_fixed_and_one_without_is_not() {
    let f = fixture();
    let one = with_rounds(&f.store).await;
    let two = era(50, "two");
    f.store.assert_eras(vec![one.clone(), two]).await.unwrap();
    let two = era(50, "two, edited");
    f.store
        .assert_eras(vec![one.clone(), two.clone()])
        .await
        .unwrap();
    recorded(&f.store, 1, 5).await;
    run_through(&f.store, 40, score(&one, 0, &[("i1", 0.5)])).await;

    let edited = f
        .store
        .assert_eras(vec![era(1, "one, edited"), two.clone()])
        .await;
    let error = edited.unwrap_err();
    assert!(
        matches!(
            &error,
            StoreError::EraEdited {
                from_block: BlockNumber(1),
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("append a new [[era]]"));
    assert!(
        f.store.assert_eras(vec![two.clone()]).await.is_err(),
        "removed"
    );
    let moved = EraRecord {
        from_block: BlockNumber(2),
        ..one.clone()
    };
    assert!(
        f.store.assert_eras(vec![moved, two.clone()]).await.is_err(),
        "moved"
    );
    assert_eq!(f.store.reader().eras().await.unwrap(), [one, two]);
}

#[tokio::test]
async fn a_round_is_drawn_once() {
    let f = fixture();
    let era = with_rounds(&f.store).await;
    let mut other = round(&era, 0);
    other.items = vec!["another draw".to_owned()];
    let kept = f.store.put_round(other, 50).await.unwrap();
    assert_eq!(kept, round(&era, 0));
    let reader = Reader::open(&f.path).unwrap();
    assert_eq!(
        reader.round(&era.era_id, RoundNumber(0)).await.unwrap(),
        Some(kept)
    );
    assert_eq!(
        reader.round(&era.era_id, RoundNumber(5)).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn rounds_lengths_and_first_commitments_come_back_for_the_ranking() {
    let f = fixture();
    let era = with_rounds(&f.store).await;
    let id = recorded(&f.store, 1, 5).await;
    let mut first = score(&era, 0, &[("i1", 0.5), ("i2", 1.0)]);
    first.items[0].1.lengths = Some(Lengths {
        reply: 120,
        reference: 80,
    });
    first.items[1].1.bucket = Bucket::Anchor;
    run_through(&f.store, 20, first.clone()).await;
    f.store.rescore(vec![id], 30).await.unwrap();
    run_through(&f.store, 40, score(&era, 1, &[("i3", 0.25)])).await;
    // The same hotkey commits the same tensors again.
    let again = recorded(&f.store, 1, 900).await;
    run_through(&f.store, 60, score(&era, 1, &[("i3", 0.75)])).await;

    let reader = f.store.reader();
    let shown = reader.shown(&era.era_id, 2).await.unwrap();
    assert_eq!(shown.len(), 2);
    assert_eq!(
        (shown[0].submission.id, shown[1].submission.id),
        (id, again)
    );
    assert_eq!(
        shown[0].rounds,
        [
            (RoundNumber(0), first.items),
            (RoundNumber(1), vec![("i3".to_owned(), 0.25.into())]),
        ]
    );
    assert_eq!(
        (shown[0].since, shown[1].since),
        (BlockNumber(5), BlockNumber(5))
    );
    assert_eq!(shown[1].submission.commit_block, BlockNumber(900));
    let newest = reader.shown(&era.era_id, 1).await.unwrap();
    assert!(
        newest
            .iter()
            .all(|s| s.rounds.len() == 1 && s.rounds[0].0 == RoundNumber(1))
    );
    assert_eq!(
        reader.scored_in(&era.era_id, RoundNumber(0)).await.unwrap(),
        [id]
    );
    assert!(reader.newest_score().await.unwrap().is_some());

    // A round's title is kept once, and is the model's, whichever commitment it was scored under.
    let (eras, round) = (era.era_id.clone(), RoundNumber(1));
    assert_eq!(reader.title(&eras, round).await.unwrap(), None);
    for of in [id, again] {
        f.store.put_title(eras.clone(), round, of).await.unwrap();
        assert_eq!(reader.title(&eras, round).await.unwrap(), Some(id));
    }
    let shown = reader.shown(&eras, 2).await.unwrap();
    assert!(shown.iter().all(|s| s.held == Some(round)));
    let unknown = f.store.put_title(eras, RoundNumber(2), SubmissionId(99));
    assert!(matches!(unknown.await, Err(StoreError::Invalid(_))));

    assert_eq!(reader.standing(&era.era_id).await.unwrap(), None);
    for block in [7, 8] {
        let standing = Standing {
            block: BlockNumber(block),
            ranking: json!({"places": []}),
        };
        f.store
            .put_standing(era.era_id.clone(), standing.clone(), 70)
            .await
            .unwrap();
        assert_eq!(reader.standing(&era.era_id).await.unwrap(), Some(standing));
    }
}
