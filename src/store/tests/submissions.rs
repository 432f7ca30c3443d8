//! Submissions, claims and lists.

use super::*;

#[tokio::test]
async fn a_commitment_is_recorded_once() {
    let f = fixture();
    let id = recorded(&f.store, 1, 5).await;
    let rejection = Rejection::new(RejectionCode::Duplicate, "late second thought");
    let again = submission(1, 5, Admission::Rejected(rejection));
    assert_eq!(
        f.store.record(again, 99).await.unwrap(),
        Recorded::Known(id)
    );
    let history = f.store.reader().history(id).await.unwrap();
    assert_eq!(history.submission.status, Status::Queued);
    assert_eq!(history.submission.updated_ms, 10);
    let steps: Vec<_> = history.events.iter().map(|e| e.status).collect();
    assert_eq!(steps, [Status::Discovered, Status::Queued]);
    assert_eq!(history.job.unwrap().ahead, Some(0));
}

#[tokio::test]
async fn a_rejection_is_kept_with_its_reason_and_not_queued() {
    let f = fixture();
    let rejection = Rejection::new(RejectionCode::TooLarge, "80 GiB where 72 are allowed");
    let mut new = submission(1, 5, Admission::Rejected(rejection.clone()));
    new.raw = vec![0xff, b'a', 0];
    let Recorded::New(id) = f.store.record(new, 10).await.unwrap() else {
        panic!()
    };
    let found = f.store.reader().submission(id).await.unwrap();
    assert_eq!(found.rejection, Some(rejection));
    assert_eq!(found.raw, "\u{fffd}a\0");
    assert!(take(&f.store, Stage::Fetch, 20).await.is_none());
    let counts = f.store.reader().counts().await.unwrap();
    assert_eq!(counts.by_rejection[&RejectionCode::TooLarge], 1);
    assert_eq!(counts.by_status.len(), 1);
}

#[tokio::test]
async fn a_pending_submission_is_settled_once() {
    let f = fixture();
    let new = submission(1, 5, Admission::Pending);
    let facts = new.model.clone().map(|m| ModelFacts {
        revision: Some("b".repeat(40)),
        ..m
    });
    let Recorded::New(id) = f.store.record(new, 10).await.unwrap() else {
        panic!()
    };
    assert!(take(&f.store, Stage::Fetch, 20).await.is_none());
    assert!(
        f.store
            .settle(id, facts, Admission::Queued, 30)
            .await
            .unwrap()
    );
    assert!(
        !f.store
            .settle(id, None, Admission::Queued, 31)
            .await
            .unwrap()
    );
    let lease = take(&f.store, Stage::Fetch, 40).await.unwrap();
    assert_eq!(lease.submission.revision, Some("b".repeat(40)));
}

#[tokio::test]
async fn a_late_verdict_closes_the_run_and_its_lease() {
    let f = fixture();
    let id = recorded(&f.store, 1, 5).await;
    let lease = take(&f.store, Stage::Fetch, 20).await.unwrap();
    let rejection = Rejection::new(RejectionCode::Duplicate, "equals submission 7");
    f.store.reject(id, rejection, 30).await.unwrap();
    let late = f
        .store
        .finish_stage(&lease, Outcome::Advance(Advance::default()), 40)
        .await;
    assert!(matches!(late, Err(StoreError::LeaseLost(_))));
    assert_eq!(
        f.store.reader().submission(id).await.unwrap().status,
        Status::Rejected
    );
}

#[tokio::test]
async fn the_earliest_claim_wins_and_ties_go_by_hotkey() {
    let f = fixture();
    for (key, block) in [(9, 7), (3, 8), (5, 7)] {
        recorded(&f.store, key, block).await;
    }
    let wk = || Fingerprint::WeightsKey("wk".to_owned());
    let claims = f.store.reader().claims(wk(), 10).await.unwrap();
    let order: Vec<_> = claims.iter().map(|c| c.hotkey.0[0]).collect();
    assert_eq!(order, [5, 9, 3]);
    let first = f.store.reader().earliest_with(wk()).await.unwrap().unwrap();
    assert_eq!(first.hotkey, Hotkey([5; 32]));
    let none = f
        .store
        .reader()
        .earliest_with(Fingerprint::TensorDigest("x".to_owned()))
        .await;
    assert_eq!(none.unwrap(), None);
}

#[tokio::test]
async fn pages_are_bounded_filtered_and_continue() {
    let f = fixture();
    for block in 1..=5 {
        recorded(&f.store, u8::try_from(block % 2).unwrap(), block).await;
    }
    let reader = f.store.reader();
    let page = reader
        .submissions(SubmissionFilter::default(), 2)
        .await
        .unwrap();
    let before = Some(page[1].id);
    let next = reader
        .submissions(
            SubmissionFilter {
                before,
                ..Default::default()
            },
            9,
        )
        .await
        .unwrap();
    let blocks = |page: &[Submission]| page.iter().map(|s| s.commit_block.0).collect::<Vec<_>>();
    assert_eq!((blocks(&page), blocks(&next)), (vec![5, 4], vec![3, 2, 1]));
    let filter = SubmissionFilter {
        hotkey: Some(Hotkey([0; 32])),
        status: Some(Status::Queued),
        before: None,
    };
    assert_eq!(
        blocks(&reader.submissions(filter, 9).await.unwrap()),
        [4, 2]
    );
    let rejected = SubmissionFilter {
        status: Some(Status::Rejected),
        ..Default::default()
    };
    assert!(reader.submissions(rejected, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_queue_shows_work_then_places() {
    let f = fixture();
    for (key, block) in [(1, 30), (2, 10), (3, 20), (4, 20)] {
        recorded(&f.store, key, block).await;
    }
    take(&f.store, Stage::Fetch, 20).await.unwrap();
    let lines = f.store.reader().queue(0, 10).await.unwrap();
    let seen: Vec<_> = lines.iter().map(|l| (l.hotkey.0[0], l.position)).collect();
    assert_eq!(seen, [(2, None), (3, Some(1)), (4, Some(2)), (1, Some(3))]);
    assert_eq!(lines[0].state, QueueState::Working);
    assert_eq!(f.store.reader().queue(3, 10).await.unwrap().len(), 1);
    let history = f.store.reader().history(lines[3].submission).await.unwrap();
    assert_eq!(history.job.unwrap().ahead, Some(2));
}

#[tokio::test]
async fn nobody_is_asked_to_work_on_no_model() {
    let f = fixture();
    let mut new = submission(1, 5, Admission::Queued);
    new.model = None;
    let queued = f.store.record(new.clone(), 10).await;
    assert!(matches!(queued, Err(StoreError::Invalid(_))));
    let rejection = Rejection::new(RejectionCode::CommitmentMalformed, "one field");
    new.admission = Admission::Rejected(rejection);
    let Recorded::New(id) = f.store.record(new, 11).await.unwrap() else {
        panic!("the refused one left nothing behind")
    };
    assert!(f.store.requeue(id, Resume::FromStart, 12).await.is_err());
    let Recorded::New(pending) = f
        .store
        .record(submission(2, 5, Admission::Pending), 13)
        .await
        .unwrap()
    else {
        panic!()
    };
    assert!(
        !f.store
            .requeue(pending, Resume::FromStart, 14)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn an_operator_may_take_a_verdict_back() {
    let f = fixture();
    let rejection = Rejection::new(RejectionCode::RepoUnavailable, "404");
    let new = submission(1, 5, Admission::Rejected(rejection));
    let Recorded::New(id) = f.store.record(new, 10).await.unwrap() else {
        panic!()
    };
    assert!(f.store.requeue(id, Resume::FromStart, 20).await.unwrap());
    let found = f.store.reader().submission(id).await.unwrap();
    assert_eq!((found.status, found.rejection), (Status::Queued, None));
    assert_eq!(
        take(&f.store, Stage::Fetch, 30)
            .await
            .unwrap()
            .submission
            .id,
        id
    );
    let notes = f.store.reader().history(id).await.unwrap().events;
    assert!(
        notes.iter().any(|e| e.note.starts_with("REPO_UNAVAILABLE")),
        "history keeps it"
    );
}
