//! The container runner against a real engine, with a scorer that misbehaves on demand.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test ends it, in shared functions too"
)]

use crate::harness::probe;
use assay::fault::{Fault, Party};
use assay::scoring::docker::{DockerScorer, ImagePin, Resources};
use assay::scoring::job::{JobPath, PreparedJob, prepare};
use assay::scoring::outcome::{Attempt, Outcome, classify};
use assay::scoring::{Finished, Kill, Scorer, replies};
use assay::shutdown::Shutdown;
use assay_protocol::{Limits, Stage};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

/// An image, a node name and a folder of one test, cleaned up whatever happens.
struct Case {
    scorer: DockerScorer,
    dir: tempfile::TempDir,
}

impl Case {
    async fn run(&self, what: &str, limits: Limits) -> (PreparedJob, Result<Finished, Fault>) {
        let job = probe::prepared(self.dir.path(), what, limits);
        let finished = self.scorer.run(&job, &Shutdown::new()).await;
        (job, finished)
    }

    async fn containers(&self) -> usize {
        docker_ps(&self.scorer.node).await
    }
}

async fn docker_ps(node: &str) -> usize {
    let out = tokio::process::Command::new("docker")
        .args(["ps", "-aq", "--filter", &format!("label=assay.node={node}")])
        .output()
        .await
        .unwrap();
    String::from_utf8_lossy(&out.stdout).lines().count()
}

/// Runs `test` when an engine answers; says so when none does.
async fn with_engine(name: &str, test: impl AsyncFnOnce(&Case)) {
    let Some(engine) = probe::engine(name).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    // A name behind the program makes each test's image its own, so that it can be removed.
    let binary = dir.path().join("probe");
    let mut bytes = std::fs::read(probe::binary()).unwrap();
    bytes.extend_from_slice(format!("{name} {}", std::process::id()).as_bytes());
    std::fs::write(&binary, bytes).unwrap();
    let id = engine.build_image_from_binary(&binary).await.unwrap();
    let case = Case {
        scorer: DockerScorer {
            engine: engine.clone(),
            image: id.parse().unwrap(),
            resources: Resources {
                memory_bytes: 64 << 20,
                tmp_bytes: 8 << 20,
                shm_bytes: 4 << 20,
                grace: Duration::from_secs(5),
                ..Resources::default()
            },
            node: format!("test-{name}-{}", std::process::id()),
        },
        dir,
    };
    let result = AssertUnwindSafe(test(&case)).catch_unwind().await;
    engine.reap_orphans(&case.scorer.node).await.unwrap();
    engine.remove_image(&id).await.unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn outcome(job: &PreparedJob, finished: &Finished) -> Outcome {
    let attempt = Attempt {
        memory_raised: false,
    };
    classify(replies::read(job), finished, &job.job, attempt)
}

#[tokio::test]
async fn a_container_is_sealed() {
    with_engine("sealed", async |case| {
        let (job, finished) = case.run("look", probe::patient()).await;
        let finished = finished.unwrap();
        assert_eq!((finished.exit, finished.killed), (Some(0), None));
        assert_eq!(finished.log_tail, "probe: look");
        assert_eq!(finished.image_id, Some(case.scorer.image.to_string()));
        let seen = std::fs::read_to_string(job.path(JobPath::Out).join("look.txt")).unwrap();
        let mut env: Vec<&str> = seen.lines().filter(|l| l.starts_with("env ")).collect();
        env.retain(|line| !line.starts_with("env PATH=") && !line.starts_with("env HOSTNAME="));
        assert_eq!(env.len(), 7, "{seen}");
        for line in [
            "env HOME=/tmp",
            "env HF_HUB_OFFLINE=1",
            "Uid: 65532 65532 65532 65532",
            "Gid: 65532 65532 65532 65532",
            "CapEff: 0000000000000000",
            "CapBnd: 0000000000000000",
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "write / false",
            "write /job false",
            "write /model false",
            "write /out true",
            "write /tmp true",
            "links lo",
            "Max core file size 0 0 bytes",
        ] {
            assert!(
                seen.lines().any(|l| l == line),
                "{line:?} is not in\n{seen}"
            );
        }
        // The folder's sum is the watchdog's; one file cannot outgrow it between two looks.
        let file = seen.lines().find(|l| l.starts_with("Max file size"));
        assert!(file.is_some_and(|l| !l.contains("unlimited")), "{seen}");
        assert_eq!(case.containers().await, 0);
        job.remove().unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_engine_holds_every_restriction() {
    with_engine("inspect", async |case| {
        let job = probe::prepared(case.dir.path(), "silent", probe::patient());
        let stop = Shutdown::new();
        let look = async {
            let found = loop {
                let out = tokio::process::Command::new("docker")
                    .args(["ps", "-q", "--filter"])
                    .arg(format!("label=assay.node={}", case.scorer.node))
                    .output()
                    .await
                    .unwrap();
                let id = String::from_utf8(out.stdout).unwrap().trim().to_owned();
                if !id.is_empty() {
                    break id;
                }
            };
            let out = tokio::process::Command::new("docker")
                .args(["inspect", &found])
                .output()
                .await
                .unwrap();
            stop.trigger();
            serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
        };
        let (finished, seen) = tokio::join!(case.scorer.run(&job, &stop), look);
        assert_eq!(finished.unwrap().killed, Some(Kill::Stopped));
        let host = &seen[0]["HostConfig"];
        for (key, value) in [
            ("NetworkMode", serde_json::json!("none")),
            ("ReadonlyRootfs", serde_json::json!(true)),
            ("Privileged", serde_json::json!(false)),
            ("CapAdd", serde_json::json!(null)),
            ("CapDrop", serde_json::json!(["ALL"])),
            ("SecurityOpt", serde_json::json!(["no-new-privileges:true"])),
            ("IpcMode", serde_json::json!("private")),
            ("PidMode", serde_json::json!("")),
            ("PidsLimit", serde_json::json!(256)),
            ("Memory", serde_json::json!(64 << 20)),
            ("MemorySwap", serde_json::json!(64 << 20)),
            ("NanoCpus", serde_json::json!(1_000_000_000)),
            ("ShmSize", serde_json::json!(4 << 20)),
            ("Init", serde_json::json!(true)),
            ("Binds", serde_json::json!(null)),
            ("AutoRemove", serde_json::json!(false)),
        ] {
            assert_eq!(host[key], value, "{key}");
        }
        assert_eq!(host["RestartPolicy"]["Name"], "no");
        assert_eq!(host["LogConfig"]["Config"]["max-size"], "10m");
        assert_eq!(host["Ulimits"][0]["Name"], "core");
        assert_eq!(host["Ulimits"][0]["Hard"], 0);
        assert_eq!(host["Mounts"].as_array().unwrap().len(), 3);
        assert_eq!(seen[0]["Config"]["User"], "65532:65532");
        assert_eq!(seen[0]["Config"]["StopTimeout"], 5);
        assert_eq!(seen[0]["Config"]["Labels"]["assay.job"], "job");
        assert_eq!(seen[0]["Config"]["Labels"]["assay.attempt"], "1");
        assert_eq!(seen[0]["Image"], case.scorer.image.to_string());
    })
    .await;
}

#[tokio::test]
async fn another_image_is_refused_before_anything_starts() {
    with_engine("pin", async |case| {
        let mut other = case.scorer.clone();
        for pin in [
            format!("sha256:{}", "0".repeat(64)),
            format!("assay-absent@sha256:{}", "0".repeat(64)),
        ] {
            other.image = pin.parse().unwrap();
            let job = probe::prepared(case.dir.path(), "look", probe::patient());
            let fault = other.run(&job, &Shutdown::new()).await.unwrap_err();
            assert_eq!(
                (fault.party, fault.code.as_str()),
                (Party::Engine, "IMAGE_NOT_PINNED")
            );
            assert!(!fault.retryable && fault.message.contains("is not on this host"));
            assert_eq!(
                std::fs::read_dir(job.path(JobPath::Out)).unwrap().count(),
                0
            );
        }
        assert_eq!(case.containers().await, 0);
    })
    .await;
}

#[test]
fn only_content_pins_an_image() {
    let hex = "a".repeat(64);
    for good in [
        format!("sha256:{hex}"),
        format!("r.example:5000/x/y@sha256:{hex}"),
    ] {
        assert_eq!(good.parse::<ImagePin>().unwrap().to_string(), good);
    }
    for bad in [
        "scorer",
        "scorer:latest",
        "sha256:",
        "sha256:zz",
        "",
        "@",
        &format!("@sha256:{hex}"),
        &format!("a b@sha256:{hex}"),
        &format!("x@sha256:{hex}0"),
        &format!("sha256:{}", "A".repeat(64)),
        &format!("x@{hex}"),
    ] {
        assert!(bad.parse::<ImagePin>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn deadlines_and_stalls_end_a_container() {
    with_engine("deadline", async |case| {
        let total = Limits {
            total_s: 1,
            ..probe::patient()
        };
        let generate = Limits {
            generate_s: 1,
            ..probe::patient()
        };
        let stall = Limits {
            stall_s: 1,
            ..probe::patient()
        };
        for (what, limits, kill) in [
            ("busy load", total.clone(), Kill::Total),
            ("busy generate", generate, Kill::Generate),
            (
                "busy load",
                Limits {
                    load_s: 1,
                    ..probe::patient()
                },
                Kill::Load,
            ),
            (
                "stall generate",
                stall.clone(),
                Kill::Stall(Some(Stage::Generate)),
            ),
            ("silent", stall, Kill::Stall(None)),
        ] {
            let (job, finished) = case.run(what, limits).await;
            let finished = finished.unwrap();
            assert_eq!(finished.killed, Some(kill), "{what}");
            // SIGTERM sufficed: nowhere near the grace time.
            assert_eq!(finished.exit, Some(143), "{what}");
            let suspect = matches!(outcome(&job, &finished), Outcome::Suspect { .. });
            assert_eq!(
                suspect,
                kill == Kill::Stall(Some(Stage::Generate)),
                "{what}"
            );
            assert_eq!(case.containers().await, 0, "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_flooded_out_folder_ends_the_scorer() {
    with_engine("flood", async |case| {
        let (job, finished) = case.run("flood", probe::patient()).await;
        let finished = finished.unwrap();
        // Whichever comes first: the watchdog's look, or the limit of a single file (SIGXFSZ).
        let looked = finished.killed == Some(Kill::Quota);
        assert!(looked || finished.exit == Some(128 + 25), "{finished:?}");
        let ended = outcome(&job, &finished);
        assert!(
            matches!(&ended, Outcome::Fault(fault) if fault.code == "OUT_QUOTA"),
            "{ended:?}"
        );
        assert_eq!(case.containers().await, 0);
    })
    .await;
}

#[tokio::test]
async fn who_ignores_the_request_to_end_is_killed() {
    with_engine("stubborn", async |case| {
        let mut scorer = case.scorer.clone();
        scorer.resources.grace = Duration::from_secs(1);
        let job = probe::prepared(case.dir.path(), "stubborn", probe::patient());
        let stop = Shutdown::new();
        let ready = job.path(JobPath::Out).join("ready");
        let finished = tokio::join!(scorer.run(&job, &stop), trigger_at(ready, &stop))
            .0
            .unwrap();
        assert_eq!(
            (finished.exit, finished.killed),
            (Some(137), Some(Kill::Stopped))
        );
        assert!(!finished.oom_killed);
        assert_eq!(case.containers().await, 0);
    })
    .await;
}

/// Triggers `stop` once `path` is there.
async fn trigger_at(path: PathBuf, stop: &Shutdown) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !path.exists() {
        ticks.tick().await;
    }
    stop.trigger();
}

#[tokio::test]
async fn memory_and_crashes_are_told_apart() {
    with_engine("ends", async |case| {
        for (what, exit, oom, code) in [
            ("memory", 137, true, "OOM_HOST"),
            ("abort", 134, false, "CRASHED"),
            ("exit 10", 10, false, "NO_RESULT"),
            ("exit 0", 0, false, "NO_RESULT"),
        ] {
            let (job, finished) = case.run(what, probe::patient()).await;
            let finished = finished.unwrap();
            assert_eq!(
                (finished.exit, finished.oom_killed),
                (Some(exit), oom),
                "{what}"
            );
            assert_eq!(finished.killed, None);
            match outcome(&job, &finished) {
                Outcome::Fault(fault) => assert_eq!(fault.code, code),
                Outcome::Suspect { code: found, .. } => assert_eq!(found, code),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_mount_is_refused_and_not_made() {
    with_engine("mount", async |case| {
        let job = probe::prepared(case.dir.path(), "look", probe::patient());
        std::fs::remove_dir_all(&job.model_dir).unwrap();
        let fault = case.scorer.run(&job, &Shutdown::new()).await.unwrap_err();
        assert_eq!(fault.code, "ENGINE_REFUSED", "{fault}");
        assert!(
            !job.model_dir.exists(),
            "the engine made the missing folder"
        );
        assert_eq!(case.containers().await, 0);
    })
    .await;
}

#[tokio::test]
async fn orphans_are_reaped_by_their_node_alone() {
    with_engine("orphan", async |case| {
        let job = probe::prepared(case.dir.path(), "stubborn", probe::patient());
        let never = Shutdown::new();
        abandon(&case.scorer, &job).await;
        assert_eq!(case.containers().await, 1);
        let engine = &case.scorer.engine;
        assert_eq!(engine.reap_orphans("another-node").await.unwrap(), 0);
        assert_eq!(case.containers().await, 1);
        assert_eq!(engine.reap_orphans(&case.scorer.node).await.unwrap(), 1);
        assert_eq!(case.containers().await, 0);
        // Without a new start of the node, the next attempt of the same job clears the way.
        abandon(
            &case.scorer,
            &probe::prepared(case.dir.path(), "stubborn", probe::patient()),
        )
        .await;
        let mut again = probe::job(case.dir.path(), "exit 0", probe::patient());
        again.attempt = 2;
        let again = prepare(&again, &case.dir.path().join("jobs")).unwrap();
        let finished = case.scorer.run(&again, &never).await.unwrap();
        assert_eq!(finished.exit, Some(0));
        assert_eq!(case.containers().await, 0);
    })
    .await;
}

/// Drops a run in its middle, as a crash of the node does.
async fn abandon(scorer: &DockerScorer, job: &PreparedJob) {
    let (never, reached) = (Shutdown::new(), Shutdown::new());
    let ready = job.path(JobPath::Out).join("ready");
    tokio::select! {
        finished = scorer.run(job, &never) => panic!("{finished:?}"),
        () = trigger_at(ready, &reached) => {}
    }
}

#[tokio::test]
async fn a_gpu_that_is_not_there_is_a_fault_of_the_gpu() {
    with_engine("gpu", async |case| {
        let mut scorer = case.scorer.clone();
        scorer.resources.gpus = vec!["GPU-00000000-0000-0000-0000-000000000000".to_owned()];
        let job = probe::prepared(case.dir.path(), "exit 0", probe::patient());
        let fault = scorer.run(&job, &Shutdown::new()).await.unwrap_err();
        assert_eq!(
            (fault.party, fault.code.as_str()),
            (Party::Gpu, "GPU_START"),
            "{fault}"
        );
        assert_eq!(case.containers().await, 0);
    })
    .await;
}
