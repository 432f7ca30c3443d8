//! Changed copies over a real store.

use super::*;
use crate::bittensor::{BlockHash, BlockNumber, BlockRef, RoundNumber};
use crate::incentive::copies::{Measure, Sketch};
use crate::incentive::era::tests::era;
use crate::store::tests::queued;
use crate::store::{EraRecord, RetryPolicy, Round, SubmissionId};

struct Fixture {
    store: Store,
    seen: Seen,
    rules: CopyRules,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), RetryPolicy::default()).unwrap();
        let era = era(0, 100);
        let era_id = era.id().to_string();
        let record = EraRecord {
            era_id: era_id.clone(),
            from_block: era.from_block,
            canonical: era.canonical_json(),
        };
        store.assert_eras(vec![record]).await.unwrap();
        let round = Round {
            era_id: era_id.clone(),
            number: RoundNumber(0),
            start: BlockRef {
                number: BlockNumber(100),
                hash: BlockHash([7; 32]),
            },
            seed: [9; 32],
            start_ms: 0,
            pack_digest: "pack".to_owned(),
            packs: vec!["pack".to_owned()],
            items_digest: "items".to_owned(),
            items: vec!["i0".to_owned()],
        };
        store.put_round(round, 1).await.unwrap();
        let seen = Seen {
            era_id,
            round: RoundNumber(0),
            scorer: "image engine device".to_owned(),
        };
        Self {
            store,
            seen,
            rules: CopyRules::default(),
            _dir: dir,
        }
    }

    /// A queued submission of hotkey `key` in block `key`.
    async fn commit(&self, key: u8) -> Submission {
        self.submission(queued(&self.store, key).await).await
    }

    async fn submission(&self, id: SubmissionId) -> Submission {
        self.store.reader().submission(id).await.unwrap()
    }

    async fn behaves(&self, of: &Submission, shift: f32) -> Result<(), Rejection> {
        let probe = |i: usize| (format!("i{i}"), vec![-1.0 - shift; 4]);
        let behaviour = Behaviour::new((0..64).map(probe));
        settle_behaviour(&self.store, of, self.seen.clone(), &behaviour, &self.rules)
            .await
            .unwrap()
    }

    async fn weighs(&self, of: &Submission, values: &[u8]) -> Result<(), Rejection> {
        let sketch = Sketch {
            values: values.iter().map(|v| [*v; 16]).collect(),
            ..Sketch::default()
        };
        let shape = "shape".to_owned();
        self.store.put_sketch(of.id, shape, &sketch).await.unwrap();
        settle_weights(&self.store, of, &self.rules).await.unwrap()
    }
}

#[tokio::test]
async fn what_behaves_alike_belongs_to_the_elder_whoever_was_scored_first() {
    let fixture = Fixture::new().await;
    let (elder, younger) = (fixture.commit(1).await, fixture.commit(2).await);
    let (near, own) = (fixture.commit(3).await, fixture.commit(4).await);
    assert_eq!(fixture.behaves(&younger, 0.004).await, Ok(()));
    assert_eq!(fixture.behaves(&elder, 0.0).await, Ok(()));
    let copy = fixture.submission(younger.id).await.rejection.unwrap();
    assert_eq!(copy.code, RejectionCode::Duplicate);
    assert!(
        copy.detail.contains(&elder.hotkey.to_string()),
        "{}",
        copy.detail
    );
    assert_eq!(fixture.behaves(&near, 0.05).await, Ok(()));
    assert_eq!(fixture.behaves(&own, 0.5).await, Ok(()));
    let reader = fixture.store.reader();
    let alike = reader.likenesses(near.id).await.unwrap();
    let kin: Vec<_> = alike
        .iter()
        .map(|a| (a.elder, a.likeness.kinship))
        .collect();
    assert_eq!(
        kin,
        [(younger.id, Kinship::Near), (elder.id, Kinship::Near)]
    );
    assert!(reader.likenesses(own.id).await.unwrap().is_empty());
    // A copy of a copy is one, too.
    let late = fixture.commit(5).await;
    let refused = fixture.behaves(&late, 0.02).await.unwrap_err();
    assert_eq!(refused.code, RejectionCode::Duplicate);
    // Seen by another scorer, nothing is known.
    let elsewhere = Fixture {
        seen: Seen {
            scorer: "another device".to_owned(),
            ..fixture.seen.clone()
        },
        ..fixture
    };
    let stranger = elsewhere.commit(6).await;
    assert_eq!(elsewhere.behaves(&stranger, 0.0).await, Ok(()));
}

#[tokio::test]
async fn equal_values_in_another_form_are_refused_before_a_scorer_runs() {
    let fixture = Fixture::new().await;
    let (elder, younger) = (fixture.commit(1).await, fixture.commit(2).await);
    assert_eq!(fixture.weighs(&elder, &[1, 2, 3]).await, Ok(()));
    let refused = fixture.weighs(&younger, &[1, 2, 3]).await.unwrap_err();
    assert_eq!(refused.code, RejectionCode::Duplicate);
    let other = fixture.commit(3).await;
    assert_eq!(fixture.weighs(&other, &[1, 2, 4]).await, Ok(()));
    let kept = fixture.store.reader().likenesses(younger.id).await.unwrap();
    assert_eq!(kept[0].likeness.measure, Measure::Values);
    // The secret places of a sketch are drawn once.
    let seed = fixture.store.sketch_seed().await.unwrap();
    assert_eq!(fixture.store.sketch_seed().await.unwrap(), seed);
}
