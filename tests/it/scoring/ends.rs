//! The strict reader and the table of ends.

use crate::harness::probe;
use assay::incentive::RejectionCode;
use assay::scoring::job::{JobPath, PreparedJob};
use assay::scoring::outcome::{Attempt, Outcome, classify};
use assay::scoring::replies::{NoReport, read};
use assay::scoring::{Finished, Kill};
use assay_protocol::{
    CanaryProof, ErrorDetail, ExitClass, Finish, JobResult, LINE_BYTES_MAX, Metrics, Proof,
    REPLIES_BYTES_MAX, RESULT_SCHEMA, Reply, ResultCode, ScorerInfo, Stage, Status, Timing,
};
use sha2::{Digest, Sha256};
use std::os::unix::fs::symlink;
use std::time::Duration;

fn reply(id: &str) -> Reply {
    Reply {
        id: id.to_owned(),
        text: format!("hello from {id}"),
        finish: Finish::Stop,
        prompt_tokens: 5,
        tokens: 3,
        ids_sha256: "0".repeat(64),
    }
}

fn lines(replies: &[Reply]) -> Vec<u8> {
    let line = |reply| serde_json::to_string(reply).unwrap() + "\n";
    replies.iter().map(line).collect::<String>().into_bytes()
}

/// An honest result for `job` with these replies.
fn result(job: &PreparedJob, replies: &[u8]) -> JobResult {
    JobResult {
        schema: RESULT_SCHEMA.to_owned(),
        job_id: job.job.job_id.clone(),
        nonce: job.job.nonce.clone(),
        status: Status::Ok,
        error: None,
        proof: Proof {
            files: job.job.model.files.clone(),
            files_unchanged: true,
            tensor_digest: job.job.model.tensor_digest.clone(),
            canary: vec![CanaryProof {
                tensor: "model.norm.weight".to_owned(),
                sha256_file: "1".repeat(64),
                sha256_loaded: "1".repeat(64),
            }],
            samples_sha256: job.job.dataset.samples_sha256.clone(),
            replies_sha256: hex::encode(Sha256::digest(replies)),
            likelihood_sha256: None,
        },
        scorer: ScorerInfo {
            version: "0".to_owned(),
            engine: "test".to_owned(),
            device: "cpu".to_owned(),
            batch_invariant: true,
        },
        metrics: Metrics {
            replies: 2,
            tokens: 6,
            ..Metrics::default()
        },
        timing: Timing::default(),
        mac: String::new(),
    }
}

fn write(job: &PreparedJob, result: JobResult, replies: &[u8]) {
    std::fs::write(job.path(JobPath::Replies), replies).unwrap();
    let sealed = result.seal().unwrap();
    let bytes = serde_json::to_vec(&sealed).unwrap();
    std::fs::write(job.path(JobPath::Result), bytes).unwrap();
}

#[test]
fn an_honest_result_is_read_in_the_jobs_order() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::prepared(dir.path(), "x", probe::patient());
    let bytes = lines(&[reply("b"), reply("a")]);
    write(&job, result(&job, &bytes), &bytes);
    let report = read(&job).unwrap();
    assert_eq!(report.replies, [reply("a"), reply("b")]);
    assert_eq!(report.replies_sha256, hex::encode(Sha256::digest(&bytes)));
}

#[test]
fn replies_that_break_the_protocol_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::prepared(dir.path(), "x", probe::patient());
    let good = lines(&[reply("a"), reply("b")]);
    let with = |alter: fn(&mut Reply)| {
        let mut altered = reply("b");
        alter(&mut altered);
        lines(&[reply("a"), altered])
    };
    let mut cases = vec![
        ("one missing", lines(&[reply("a")])),
        ("one twice", lines(&[reply("a"), reply("a")])),
        ("one too many", lines(&[reply("a"), reply("b"), reply("c")])),
        ("foreign id", with(|reply| reply.id = "z".into())),
        ("too many tokens", with(|reply| reply.tokens = 9)),
        ("too long a prompt", with(|reply| reply.prompt_tokens = 65)),
        ("no digest", with(|reply| reply.ids_sha256 = "zz".into())),
        ("count of cuts", with(|reply| reply.finish = Finish::Length)),
        ("last line cut", good[..good.len() - 1].to_vec()),
        ("no JSON", b"x\ny\n".to_vec()),
        ("empty", Vec::new()),
        ("not UTF-8", b"\xff\n\xfe\n".to_vec()),
        (
            "too long a line",
            with(|reply| reply.text = "x".repeat(LINE_BYTES_MAX)),
        ),
        (
            "too long a file",
            vec![b'\n'; usize::try_from(REPLIES_BYTES_MAX).unwrap() + 1],
        ),
    ];
    let text = String::from_utf8(good).unwrap();
    cases.push((
        "unknown field",
        text.replacen("{", "{\"x\":1,", 1).into_bytes(),
    ));
    for (name, bytes) in cases {
        write(&job, result(&job, &bytes), &bytes);
        assert!(
            matches!(read(&job), Err(NoReport::Malformed { .. })),
            "{name}"
        );
    }
}

#[test]
fn a_result_that_proves_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::prepared(dir.path(), "x", probe::patient());
    let bytes = lines(&[reply("a"), reply("b")]);
    let cases: [super::Case<JobResult>; 16] = [
        ("foreign", |r| r.schema.push('x')),
        ("foreign", |r| r.job_id.push('x')),
        ("foreign", |r| r.nonce = "8".repeat(64)),
        ("proof", |r| r.proof.files.clear()),
        ("proof", |r| r.proof.files[0].sha256 = "0".repeat(64)),
        ("proof", |r| r.proof.files[0].path = "else".into()),
        ("proof", |r| r.proof.files_unchanged = false),
        ("proof", |r| r.proof.tensor_digest.push('x')),
        ("proof", |r| r.proof.samples_sha256.clear()),
        ("proof", |r| r.proof.replies_sha256.clear()),
        ("proof", |r| r.proof.canary.clear()),
        ("proof", |r| {
            r.proof.canary[0].sha256_loaded = "2".repeat(64)
        }),
        ("malformed", |r| r.status = Status::Infra),
        ("malformed", |r| r.error = error(ResultCode::Io)),
        ("malformed", |r| {
            r.status = Status::Rejected;
            r.error = error(ResultCode::Io);
        }),
        ("malformed", |r| r.metrics.tokens = 7),
    ];
    for (index, (kind, alter)) in cases.into_iter().enumerate() {
        let mut altered = result(&job, &bytes);
        alter(&mut altered);
        write(&job, altered, &bytes);
        let found = match read(&job).unwrap_err() {
            NoReport::Foreign(_) => "foreign",
            NoReport::Proof(_) => "proof",
            NoReport::Malformed { .. } => "malformed",
            other => panic!("{index}: {other:?}"),
        };
        assert_eq!(found, kind, "{index}");
    }
    let mut forged = result(&job, &bytes).seal().unwrap();
    forged.metrics.empty = 1;
    std::fs::write(
        job.path(JobPath::Result),
        serde_json::to_vec(&forged).unwrap(),
    )
    .unwrap();
    assert!(matches!(read(&job), Err(NoReport::Foreign(_))));
}

#[test]
fn only_plain_files_of_bounded_size_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::prepared(dir.path(), "x", probe::patient());
    let path = job.path(JobPath::Result);
    assert_eq!(read(&job), Err(NoReport::Missing));
    let elsewhere = dir.path().join("elsewhere.json");
    let bytes = lines(&[reply("a"), reply("b")]);
    write(&job, result(&job, &bytes), &bytes);
    std::fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(
        matches!(read(&job), Err(NoReport::Unreadable { .. })),
        "link"
    );
    std::fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    assert!(
        matches!(read(&job), Err(NoReport::Unreadable { .. })),
        "pipe"
    );
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(
        matches!(read(&job), Err(NoReport::Unreadable { .. })),
        "folder"
    );
    std::fs::remove_dir(&path).unwrap();
    for hostile in [
        vec![b'['; 2 << 20],
        vec![b'['; 100_000],
        b"{}".to_vec(),
        Vec::new(),
    ] {
        std::fs::write(&path, hostile).unwrap();
        assert!(matches!(read(&job), Err(NoReport::Malformed { .. })));
    }
}

fn error(code: ResultCode) -> Option<ErrorDetail> {
    Some(ErrorDetail {
        code,
        message: format!("{} \u{1b}[31mhere", code.as_str()),
    })
}

fn finished(exit: i64) -> Finished {
    Finished {
        exit: Some(exit),
        oom_killed: false,
        killed: None,
        log_tail: String::new(),
        image_id: None,
        wall: Duration::ZERO,
    }
}

const FIRST: Attempt = Attempt {
    memory_raised: false,
};

/// One word for the class of an outcome, and its code.
fn row(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Replies(_) => ("replies", String::new()),
        Outcome::Rejected(rejection) => ("rejected", rejection.code.to_string()),
        Outcome::Suspect { code, .. } => ("suspect", (*code).to_owned()),
        Outcome::Fault(fault) if fault.retryable => ("retry", fault.code.clone()),
        Outcome::Fault(fault) => ("alarm", fault.code.clone()),
    }
}

#[test]
fn every_code_of_a_result_has_its_outcome_whatever_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::prepared(dir.path(), "x", probe::patient());
    let bytes = lines(&[reply("a"), reply("b")]);
    write(&job, result(&job, &bytes), &bytes);
    for exit in [0, 1, 10, 137] {
        let outcome = classify(read(&job), &finished(exit), &job.job, FIRST);
        assert_eq!(row(&outcome).0, "replies", "{exit}");
    }
    for code in ResultCode::ALL {
        let mut failed = result(&job, b"");
        failed.error = error(*code);
        failed.status = match code.class() {
            ExitClass::Miner => Status::Rejected,
            _ => Status::Infra,
        };
        write(&job, failed.clone(), b"");
        let outcome = classify(read(&job), &finished(0), &job.job, FIRST);
        let (kind, shown) = row(&outcome);
        let expected = match code.class() {
            // The node admitted both before: the scorer lacks something.
            ExitClass::Miner if matches!(code, ResultCode::Arch | ResultCode::Config) => "alarm",
            ExitClass::Miner => "rejected",
            ExitClass::MinerIfConfirmed => "suspect",
            ExitClass::Infra | ExitClass::Timeout => "retry",
            ExitClass::Job => "alarm",
            ExitClass::Ok => panic!("no code is ok"),
        };
        assert_eq!(kind, expected, "{}", code.as_str());
        assert!(kind == "rejected" || shown == code.as_str());
        assert!(
            !format!("{outcome:?}").contains("u{1b}"),
            "the message is cleaned"
        );
        // Nothing counts against a miner when other files were read than the node verified.
        failed.proof.files[0].sha256 = "0".repeat(64);
        write(&job, failed, b"");
        let outcome = classify(read(&job), &finished(10), &job.job, FIRST);
        assert!(matches!(outcome, Outcome::Fault(_)), "{}", code.as_str());
    }
}

#[test]
fn a_miners_fault_keeps_its_public_code() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::prepared(dir.path(), "x", probe::patient());
    for (code, public) in [
        (ResultCode::NonFinite, RejectionCode::NonFinite),
        (ResultCode::Files, RejectionCode::FileMissing),
        (ResultCode::Format, RejectionCode::Format),
        (ResultCode::Tokenizer, RejectionCode::TokenizerInvalid),
        (ResultCode::Vocab, RejectionCode::TokenizerInvalid),
        (ResultCode::Shape, RejectionCode::TensorSet),
    ] {
        let mut failed = result(&job, b"");
        failed.error = error(code);
        failed.status = Status::Rejected;
        write(&job, failed, b"");
        let outcome = classify(read(&job), &finished(10), &job.job, FIRST);
        assert_eq!(row(&outcome), ("rejected", public.to_string()));
    }
}

#[test]
fn without_a_result_no_end_is_a_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::prepared(dir.path(), "x", probe::patient());
    let oom = |raised| {
        let end = Finished {
            oom_killed: true,
            ..finished(137)
        };
        let attempt = Attempt {
            memory_raised: raised,
        };
        row(&classify(Err(NoReport::Missing), &end, &job.job, attempt))
    };
    assert_eq!(oom(false), ("retry", "OOM_HOST".to_owned()));
    assert_eq!(oom(true), ("suspect", "OOM_HOST".to_owned()));
    for (exit, kind, code) in [
        (0, "retry", "NO_RESULT"),
        (1, "retry", "NO_RESULT"),
        (10, "retry", "NO_RESULT"),
        (11, "retry", "NO_RESULT"),
        (20, "retry", "NO_RESULT"),
        (30, "retry", "NO_RESULT"),
        (125, "retry", "ENGINE_START"),
        (126, "retry", "ENGINE_START"),
        (127, "retry", "ENGINE_START"),
        (134, "suspect", "CRASHED"),
        (139, "suspect", "CRASHED"),
        (137, "retry", "KILLED"),
        (143, "retry", "KILLED"),
    ] {
        let outcome = classify(Err(NoReport::Missing), &finished(exit), &job.job, FIRST);
        assert_eq!(row(&outcome), (kind, code.to_owned()), "exit {exit}");
    }
    for (kill, kind, code) in [
        (Kill::Total, "retry", "I_TIMEOUT_TOTAL"),
        (Kill::Load, "retry", "I_TIMEOUT_LOAD"),
        (Kill::Generate, "retry", "I_TIMEOUT_TOTAL"),
        (Kill::Likelihood, "retry", "I_TIMEOUT_TOTAL"),
        (Kill::Stall(Some(Stage::Generate)), "suspect", "E_GEN_STALL"),
        (Kill::Stall(Some(Stage::Load)), "retry", "STALLED"),
        (Kill::Stall(None), "retry", "STALLED"),
        (Kill::Quota, "retry", "OUT_QUOTA"),
        (Kill::Stopped, "retry", "INTERRUPTED"),
    ] {
        let end = Finished {
            killed: Some(kill),
            ..finished(143)
        };
        let outcome = classify(Err(NoReport::Missing), &end, &job.job, FIRST);
        assert_eq!(row(&outcome), (kind, code.to_owned()), "{kill:?}");
    }
}

#[test]
fn a_result_that_cannot_be_used_is_no_verdict_even_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let job = probe::prepared(dir.path(), "x", probe::patient());
    for (missing, code) in [
        (NoReport::Foreign("x"), "NO_RESULT"),
        (NoReport::Proof("x".into()), "PROOF_MISMATCH"),
        (
            NoReport::Malformed {
                file: "result.json",
                what: "x".into(),
            },
            "NO_RESULT",
        ),
        (
            NoReport::Unreadable {
                file: "result.json",
                message: "x".into(),
            },
            "OUT_UNREADABLE",
        ),
    ] {
        let outcome = classify(Err(missing), &finished(139), &job.job, FIRST);
        assert_eq!(row(&outcome), ("retry", code.to_owned()));
    }
}
