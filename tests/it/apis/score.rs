//! The score API over a store that the node's own calls filled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use assay::bittensor::{
    BlockHash, BlockNumber, BlockRef, Hotkey, MechanismId, Netuid, RoundNumber, Uid,
};
use assay::fault::{Fault, Party};
use assay::incentive::{Rejection, RejectionCode};
use assay::score_api;
use assay::store::{
    Admission, Advance, Ask, EraRecord, Lease, ModelFacts, NewIntent, NewScore, NewSubmission,
    Opened, Outcome, RetryPolicy, Round, ScoreInputs, SignedState, Stage, Standing, Store,
    WeightState, WorkerId,
};
use serde_json::{Value, json};

use super::Served;

/// 2026-11-22 06:00 UTC.
const NOW: u64 = 1_795_327_200_000;
const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{202e}gpj.exe";

struct Seeded {
    path: PathBuf,
    store: Store,
    _folder: tempfile::TempDir,
}

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

fn at(number: u64) -> BlockRef {
    BlockRef {
        number: BlockNumber(number),
        hash: BlockHash([0xb1; 32]),
    }
}

fn submission(key: u8, repo: &str, admission: Admission) -> NewSubmission {
    let revision = hex(key)[..40].to_owned();
    NewSubmission {
        hotkey: Hotkey([key; 32]),
        commit_block: BlockNumber(1000 + u64::from(key)),
        registered_at: Some(BlockNumber(900)),
        raw: format!("2:{repo}:{revision}:chatml:d1").into_bytes(),
        model: Some(ModelFacts {
            repo: repo.to_owned(),
            revision: Some(revision),
            template: "chatml".into(),
            competition: "d1".into(),
            weights_key: Some(hex(key)),
        }),
        admission,
    }
}

fn score(value: f64) -> NewScore {
    let items = (0..64)
        .map(|i| (format!("{i:064x}"), value.into()))
        .collect();
    NewScore {
        era_id: hex(0xe1),
        round: RoundNumber(3),
        value,
        standard_error: 0.02,
        gates: json!({ "empty": 0.0, "cut": 0.01 }),
        inputs: ScoreInputs {
            image_id: format!("sha256:{}", hex(0x1a)),
            runner: "docker".into(),
            engine: "candle 0.10".into(),
            pack_digest: format!("sha256:{}", hex(0xda)),
            seed: hex(0x5e),
            judge_id: "assay-dev-judge".into(),
            prompt_version: "1".into(),
            tensor_digest: format!("sha256:{}", hex(0x7d)),
            replies_digest: hex(0x2e),
        },
        items,
    }
}

impl Seeded {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.db");
        let store = Store::open(&path, RetryPolicy::default()).unwrap();
        let seeded = Self {
            path,
            store,
            _folder: folder,
        };
        seeded.rules().await;
        seeded
    }

    async fn rules(&self) {
        let era = EraRecord {
            era_id: hex(0xe1),
            from_block: BlockNumber(0),
            canonical: "{}".into(),
        };
        self.store.assert_eras(vec![era]).await.unwrap();
        let round = Round {
            start_ms: 0,
            packs: vec![format!("sha256:{}", hex(0xda))],
            era_id: hex(0xe1),
            number: RoundNumber(3),
            start: at(990),
            seed: [0x5e; 32],
            pack_digest: format!("sha256:{}", hex(0xda)),
            items_digest: hex(0x17),
            items: (0..64).map(|i| format!("{i:064x}")).collect(),
        };
        self.store.put_round(round, NOW).await.unwrap();
    }

    async fn record(&self, key: u8, repo: &str, admission: Admission) {
        let new = submission(key, repo, admission);
        self.store.record(new, NOW + u64::from(key)).await.unwrap();
    }

    async fn lease(&self, stage: Stage) -> Lease {
        let ask = Ask {
            stage,
            worker: WorkerId("gpu0".into()),
            committed_before: None,
            model_bytes_max: None,
            now_ms: NOW + 2000,
            ttl: Duration::from_secs(60),
        };
        self.store.lease(ask).await.unwrap().expect("a job waits")
    }

    async fn finish(&self, stage: Stage, outcome: Outcome) {
        let lease = self.lease(stage).await;
        let done = self.store.finish_stage(&lease, outcome, NOW + 2000).await;
        done.unwrap();
    }

    async fn scored(&self, key: u8, repo: &str, value: f64) {
        self.record(key, repo, Admission::Queued).await;
        let fetched = Advance {
            tensor_digest: Some(format!("sha256:{}", hex(0x7d))),
            ..Advance::default()
        };
        self.finish(Stage::Fetch, Outcome::Advance(fetched)).await;
        let replied = Outcome::Advance(Advance::default());
        self.finish(Stage::Score, replied).await;
        let judged = Outcome::Scored(Box::new(score(value)));
        self.finish(Stage::Judge, judged).await;
    }

    async fn weights(&self) {
        let intent = NewIntent {
            window: "epoch 41".into(),
            netuid: Netuid(11),
            mechanism: MechanismId(0),
            block: BlockNumber(1200),
            scored_block: Some(BlockNumber(1200)),
            weights: vec![(Uid(0), 6554), (Uid(3), 65535), (Uid(5), 21845)],
            reason: "champion north/lantern-8b leads by 0.11, needs 0.02".into(),
        };
        let opened = self.store.open_intent(intent, NOW + 3000).await.unwrap();
        let (Opened::New(entry) | Opened::Known(entry)) = opened;
        let signed = WeightState::Signed(SignedState {
            extrinsic: hex(0xee),
            nonce: 4,
            born: BlockNumber(1199),
            dies: BlockNumber(1263),
            bytes: String::new(),
            reveal: None,
        });
        let states = [
            signed,
            WeightState::Pooled,
            WeightState::InBlock {
                block: at(1201),
                failed: None,
            },
            WeightState::Finalised { block: at(1201) },
            WeightState::ReadBack { block: at(1203) },
        ];
        for (state, late) in states.into_iter().zip(4..) {
            let time = NOW + late * 1000;
            self.store
                .advance_weights(entry.id, state, time)
                .await
                .unwrap();
        }
    }

    /// Three scored models, two in the queue of which one met a fault, two rejected, one confirmed
    /// weights decision.
    async fn full() -> Self {
        let seeded = Self::new().await;
        seeded.scored(1, "harbor/gull-7b-chat", 0.512).await;
        seeded.scored(2, "north/lantern-8b", 0.731).await;
        seeded
            .scored(3, "mira-labs/echo-3b-roleplay-v2", 0.624)
            .await;
        let copy = Rejection::new(
            RejectionCode::Duplicate,
            "the same weights as submission 2, committed at block 1002",
        );
        seeded
            .record(4, "fast/copycat-8b", Admission::Rejected(copy))
            .await;
        let hostile = Rejection::new(RejectionCode::FileName, format!("file {HOSTILE}"));
        seeded
            .record(5, HOSTILE, Admission::Rejected(hostile))
            .await;
        seeded
            .record(6, "deep/current-13b", Admission::Queued)
            .await;
        let fault = Fault::retryable(Party::Hub, "HUB_STALLED", "no byte for 60 s; tried again");
        seeded.finish(Stage::Fetch, Outcome::Failed(fault)).await;
        seeded.record(7, "tide/ebb-8b", Admission::Queued).await;
        seeded.weights().await;
        seeded
    }

    async fn serve(&self) -> Served {
        Served::start(score_api::router(self.path.clone())).await
    }
}

async fn body(server: &Served, path: &str) -> Value {
    let answer = server.get(path, &[]).await;
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.unwrap()
}

#[tokio::test]
async fn the_answers_keep_their_shape() {
    let seeded = Seeded::full().await;
    let server = seeded.serve().await;
    for (name, path) in [
        ("status", "v1/status"),
        ("submissions", "v1/submissions?limit=2"),
        ("submission_scored", "v1/submissions/2"),
        ("submission_rejected", "v1/submissions/4"),
        ("submission_waiting", "v1/submissions/6"),
        ("leaderboard", "v1/leaderboard"),
        ("queue", "v1/queue"),
        ("weights", "v1/weights"),
    ] {
        insta::assert_json_snapshot!(name, body(&server, path).await);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_ranking_is_shown_with_its_ties() {
    let seeded = Seeded::full().await;
    let place = |submission: i64, value: f64, group: u32, challenge: Value| {
        json!({
            "submission": submission,
            "controlled": {"value": value, "standard_error": 0.01, "items": 128},
            "rounds": 2, "group": group, "fresh_only": submission == 1,
            "win_rate": null, "challenge": challenge,
        })
    };
    let challenge = json!({"lead": -0.01, "needed": 0.04, "open": true});
    let standing = Standing {
        block: BlockNumber(1300),
        ranking: json!({"places": [
            place(3, 0.70, 1, Value::Null),
            place(2, 0.69, 1, challenge),
            place(1, 0.50, 2, json!({"lead": -0.2, "needed": 0.04, "open": false})),
        ]}),
    };
    seeded
        .store
        .put_standing(hex(0xe1), standing, NOW)
        .await
        .unwrap();
    let server = seeded.serve().await;
    let board = body(&server, "v1/leaderboard").await;
    assert_eq!(board["ranked_at_block"], 1300);
    let order: Vec<_> = board["leaderboard"].as_array().unwrap().iter().collect();
    let ids: Vec<_> = order
        .iter()
        .map(|l| l["submission"]["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids, [3, 2, 1], "by the ranking, not by the last score");
    assert_eq!(order[1]["standing"]["group"], 1);

    let html = server.get("", &[]).await.text().await.unwrap();
    for text in [
        "champion",
        "0.690 ± 0.020",
        "over 2 rounds",
        "lead -0.010, needs +0.040 for the title",
        "open: scored again next round",
        "knows old items: only fresh ones count",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert_eq!(html.matches("statistically tied, group 1 of 2").count(), 2);
    server.stop().await;
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let seeded = Seeded::full().await;
    let server = seeded.serve().await;
    let mut seen = Vec::new();
    let mut path = "v1/submissions?limit=3".to_owned();
    loop {
        let page = body(&server, &path).await;
        let ids = page["submissions"].as_array().unwrap().iter();
        seen.extend(ids.map(|s| s["id"].as_i64().unwrap()));
        let Some(next) = page["next"].as_i64() else {
            break;
        };
        path = format!("v1/submissions?limit=3&before={next}");
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);

    let rejected = body(&server, "v1/submissions?status=rejected").await;
    assert_eq!(rejected["submissions"].as_array().unwrap().len(), 2);
    let mine = format!("v1/submissions?hotkey={}", Hotkey([2; 32]));
    let mine = body(&server, &mine).await;
    assert_eq!(mine["submissions"][0]["repo"], "north/lantern-8b");
    let unknown = body(&server, &format!("v1/leaderboard?era={}", hex(0))).await;
    assert_eq!(unknown["leaderboard"], json!([]));

    for (path, code) in [
        ("v1/submissions?limit=0", "LIMIT"),
        ("v1/submissions?limit=100000", "LIMIT"),
        ("v1/submissions?limit=x", "QUERY"),
        ("v1/submissions?statsu=scored", "QUERY"),
        ("v1/submissions?status=done", "STATUS"),
        ("v1/submissions?hotkey=' OR 1=1", "HOTKEY"),
        ("v1/submissions/1 OR 1=1", "SUBMISSION_ID"),
        ("v1/leaderboard?era=../x", "ERA"),
        ("v1/queue?offset=99999999999", "OFFSET"),
        ("v1/weights?limit=501", "LIMIT"),
    ] {
        let refused = server.get(path, &[]).await;
        assert_eq!(refused.status(), 400, "{path}");
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["code"], code, "{path}");
    }
    let missing = server.get("v1/submissions/99", &[]).await;
    assert_eq!(missing.status(), 404);
    server.stop().await;
}

#[tokio::test]
async fn hostile_text_is_harmless_in_page_and_json() {
    let seeded = Seeded::full().await;
    let server = seeded.serve().await;
    let answer = server.get("", &[]).await;
    let policy = answer.headers()["content-security-policy"]
        .to_str()
        .unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let html = answer.text().await.unwrap();
    assert!(!html.contains("<script"), "a script got in");
    assert!(
        html.contains("script&#62;alert(1)"),
        "the repo's name is not shown escaped"
    );
    for outside in ["http:", "src=", "@import", "url(", "style=", "\u{202e}"] {
        assert!(!html.contains(outside), "the page holds {outside:?}");
    }
    assert!(html.contains("DUPLICATE"), "reasons are shown");
    assert!(html.find("lantern-8b").unwrap() < html.find("gull-7b").unwrap());
    // Kept for looking at: the page needs nothing beside itself.
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("score-page.html");
    std::fs::write(copy, &html).unwrap();

    let answer = server.get("v1/submissions/5", &[]).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    let text = answer.text().await.unwrap();
    assert!(!text.contains('\u{202e}'));
    let parsed: Value = serde_json::from_str(&text).unwrap();
    let expected = HOSTILE.replace('\u{202e}', "\u{fffd}");
    assert_eq!(parsed["submission"]["repo"], expected);
    server.stop().await;
}

#[tokio::test]
async fn an_unchanged_answer_is_not_sent_again_and_a_changed_one_is() {
    let seeded = Seeded::full().await;
    let server = seeded.serve().await;
    for (path, key) in [("", 80), ("v1/submissions", 81)] {
        let first = server.get(path, &[]).await;
        let tag = first.headers()["etag"].to_str().unwrap().to_owned();
        let again = server.get(path, &[("if-none-match", &tag)]).await;
        assert_eq!(again.status(), 304, "{path}");
        assert_eq!(again.text().await.unwrap(), "");
        seeded.record(key, "new/model", Admission::Queued).await;
        let changed = server.get(path, &[("if-none-match", &tag)]).await;
        assert_eq!(changed.status(), 200, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn before_the_node_made_its_store_the_answer_is_503_and_then_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let server = Served::start(score_api::router(path.clone())).await;
    assert_eq!(server.get("healthz", &[]).await.status(), 200);
    let early = server.get("v1/queue", &[]).await;
    assert_eq!(early.status(), 503);
    let text = early.text().await.unwrap();
    assert!(!text.contains("node.db"), "a path got out: {text}");
    let _store = Store::open(&path, RetryPolicy::default()).unwrap();
    assert_eq!(body(&server, "v1/queue").await, json!({ "queue": [] }));
    let html = server.get("", &[]).await.text().await.unwrap();
    assert!(html.contains("No model has a score yet."));
    server.stop().await;
}
