//! What both sides rely on when they read each other's files.

use assay_protocol::{
    ErrorDetail, ExitClass, JOB_SCHEMA, Job, JobResult, MacError, Metrics, Proof, RESULT_SCHEMA,
    Reply, ResultCode, ScorerInfo, Status, Timing,
};
use serde_json::{Value, json};

fn job() -> Value {
    json!({
        "schema": JOB_SCHEMA, "job_id": "j1", "nonce": "ab".repeat(32), "attempt": 1,
        "mode": ["generate"],
        "model": {"dir": "/model", "architecture": "LlamaForCausalLM", "files": [
            {"path": "config.json", "size": 2, "sha256": "00".repeat(32)}],
            "tensor_digest": "sha256:00", "param_count": 1},
        "dataset": {"snapshot": "sha256:00", "samples_sha256": "00", "count": 1},
        "generation": {"max_tokens": 8, "max_prompt_tokens": 8, "stop_token_ids": [2], "seed": 1},
        "engine_args": {"max_model_len": 16, "max_num_seqs": 1, "gpu_memory_utilization": 0.9,
            "dtype": "float32"},
        "limits": {"load_s": 1, "generate_s": 1, "likelihood_s": 1, "total_s": 1, "stall_s": 1},
        "canary": {"tensors": 8, "values": 16}
    })
}

fn result() -> JobResult {
    JobResult {
        schema: RESULT_SCHEMA.to_owned(),
        job_id: "j1".to_owned(),
        nonce: "ab".repeat(32),
        status: Status::Rejected,
        error: Some(ErrorDetail {
            code: ResultCode::NonFinite,
            message: "a NaN".to_owned(),
        }),
        proof: Proof::default(),
        scorer: ScorerInfo {
            version: "1".to_owned(),
            engine: "candle".to_owned(),
            device: "cpu".to_owned(),
            batch_invariant: true,
        },
        metrics: Metrics {
            bits_per_byte: 0.1 + 0.2,
            ..Metrics::default()
        },
        timing: Timing::default(),
        mac: String::new(),
    }
}

#[test]
fn a_job_survives_the_round_trip() {
    let parsed: Job = serde_json::from_value(job()).unwrap();
    assert_eq!(serde_json::to_value(&parsed).unwrap(), job());
}

#[test]
fn unknown_and_missing_fields_are_refused_at_every_level() {
    for at in [
        "",
        "/model",
        "/model/files/0",
        "/dataset",
        "/generation",
        "/engine_args",
        "/limits",
        "/canary",
    ] {
        let mut more = job();
        let level = more.pointer_mut(at).unwrap();
        level["surprise"] = json!(1);
        assert!(serde_json::from_value::<Job>(more).is_err(), "{at}");

        let keys: Vec<String> = job()
            .pointer(at)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        for key in keys {
            let mut less = job();
            less.pointer_mut(at)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(&key);
            assert!(serde_json::from_value::<Job>(less).is_err(), "{at}/{key}");
        }
    }
}

#[test]
fn a_negative_or_fractional_count_is_refused() {
    for bad in [json!(-1), json!(1.5), json!("8"), json!(4_294_967_296u64)] {
        let mut changed = job();
        changed["generation"]["max_tokens"] = bad.clone();
        assert!(serde_json::from_value::<Job>(changed).is_err(), "{bad}");
    }
}

#[test]
fn a_sealed_result_survives_the_file_and_any_change_breaks_it() {
    let sealed = result().seal().unwrap();
    let text = serde_json::to_string(&sealed).unwrap();
    let read: JobResult = serde_json::from_str(&text).unwrap();
    assert_eq!(read, sealed);
    read.check_mac().unwrap();

    let mut tree: Value = serde_json::from_str(&text).unwrap();
    tree["metrics"]["tokens"] = json!(1);
    let forged: JobResult = serde_json::from_value(tree.clone()).unwrap();
    assert_eq!(forged.check_mac(), Err(MacError::Mismatch));

    tree["metrics"]["tokens"] = json!(0);
    tree["nonce"] = json!("cd".repeat(32));
    let replayed: JobResult = serde_json::from_value(tree).unwrap();
    assert_eq!(replayed.check_mac(), Err(MacError::Mismatch));
}

#[test]
fn any_duration_survives_the_file() {
    for n in 1u32..20_000 {
        let mut timed = result();
        timed.timing.total_s = f64::from(n).sqrt() / 977.0;
        timed.metrics.bits_per_byte = 1.0 / f64::from(n);
        let text = serde_json::to_string(&timed.seal().unwrap()).unwrap();
        let read: JobResult = serde_json::from_str(&text).unwrap();
        assert_eq!(read.check_mac(), Ok(()), "{text}");
    }
}

#[test]
fn a_bad_nonce_cannot_seal() {
    for nonce in ["", "ab", "zz"] {
        let bad = JobResult {
            nonce: nonce.repeat(3),
            ..result()
        };
        assert_eq!(bad.seal(), Err(MacError::Nonce));
    }
}

#[test]
fn every_code_has_one_text_and_only_a_miners_code_rejects() {
    for code in ResultCode::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), json!(code.as_str()));
        let class = code.class();
        assert_eq!(
            class.status() == Status::Rejected,
            class == ExitClass::Miner
        );
        assert_ne!(class.exit_code(), 0);
    }
    assert_eq!(ExitClass::Ok.status(), Status::Ok);
}

#[test]
fn a_reply_with_another_finish_is_refused() {
    let line =
        r#"{"id":"a","text":"","finish":"abort","prompt_tokens":1,"tokens":0,"ids_sha256":""}"#;
    assert!(serde_json::from_str::<Reply>(line).is_err());
}
