//! What a healthy model's job leaves behind.

use crate::harness::{Case, golden, sha256};
use assay_protocol::{Finish, Mode, Stage, Status};
use safetensors::Dtype;

#[test]
fn the_sample_model_answers_as_stored() {
    let golden = golden();
    let case = Case::new(golden.len());
    let job = case.job();
    let ended = case.run_job(&job);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    for (reply, golden) in ended.replies.iter().zip(&golden) {
        assert_eq!((&reply.id, &reply.text), (&golden.id, &golden.reply));
        assert_eq!(reply.finish, Finish::Stop);
    }
    assert_eq!(ended.replies.len(), golden.len());

    let result = ended.result.unwrap();
    result.check_mac().unwrap();
    assert_eq!(result.status, Status::Ok);
    assert_eq!((result.job_id, result.nonce), (job.job_id, job.nonce));
    assert_eq!(result.proof.files, job.model.files);
    assert!(result.proof.files_unchanged);
    assert_eq!(result.proof.tensor_digest, job.model.tensor_digest);
    assert_eq!(result.proof.canary.len(), 8);
    assert_eq!(result.proof.samples_sha256, job.dataset.samples_sha256);
    let replies = std::fs::read(case.path("out/replies.jsonl")).unwrap();
    assert_eq!(result.proof.replies_sha256, sha256(replies));
    assert_eq!(
        usize::try_from(result.metrics.replies).unwrap(),
        golden.len()
    );
    assert_eq!((result.metrics.empty, result.metrics.hit_length), (0, 0));
    let tokens: u64 = ended.replies.iter().map(|r| u64::from(r.tokens)).sum();
    assert_eq!(result.metrics.tokens, tokens);

    let stages: Vec<Stage> = ended.progress.iter().map(|line| line.stage).collect();
    for stage in [Stage::Verify, Stage::Load, Stage::Generate, Stage::Write] {
        assert!(stages.contains(&stage), "{stage:?}");
    }
    let told = stages.iter().filter(|s| **s == Stage::Generate).count();
    assert!(told > golden.len(), "a line for each reply");
}

#[test]
fn two_runs_and_any_number_of_threads_give_the_same_bytes() {
    let case = Case::new(6);
    assert_eq!(case.run().exit, 0);
    let first = std::fs::read(case.path("out/replies.jsonl")).unwrap();
    for threads in ["1", "2", "7"] {
        case.clear();
        let mut scorer = std::process::Command::new("/usr/bin/env");
        scorer.arg(format!("RAYON_NUM_THREADS={threads}"));
        scorer.arg(format!("CANDLE_NUM_THREADS={threads}"));
        scorer.arg(env!("CARGO_BIN_EXE_scorer-cpu"));
        assert_eq!(case.start(&mut scorer).exit, 0);
        let again = std::fs::read(case.path("out/replies.jsonl")).unwrap();
        assert!(first == again, "other replies with {threads} threads");
    }
}

#[test]
fn a_reply_without_a_stop_token_ends_at_the_cap() {
    let case = Case::new(3);
    let mut job = case.job();
    job.generation.stop_token_ids = vec![];
    job.generation.max_tokens = 50;
    let ended = case.run_job(&job);
    assert_eq!(ended.exit, 0);
    assert!(
        ended
            .replies
            .iter()
            .all(|r| r.tokens == 50 && r.finish == Finish::Length)
    );
    assert_eq!(ended.result.unwrap().metrics.hit_length, 3);
}

#[test]
fn a_long_prompt_keeps_its_end() {
    let mut case = Case::new(2);
    let short = case.run();
    let prompt = &golden()[0].prompt;
    case.set_prompt(1, &format!("{}{prompt}", "lost ".repeat(2000)));
    case.clear();
    let mut job = case.job();
    job.generation.max_prompt_tokens = short.replies[0].prompt_tokens;
    let cut = case.run_job(&job);
    assert_eq!(cut.exit, 0, "{}", cut.stderr);
    assert_eq!(cut.replies[1].text, short.replies[0].text);
    assert_eq!(cut.replies[1].prompt_tokens, short.replies[0].prompt_tokens);
}

#[test]
fn the_files_element_type_does_not_change_replies() {
    let case = Case::new(4);
    let stored = case.run();
    case.edit_weights(|weights| {
        for (dtype, _, bytes) in weights.values_mut() {
            let wide = |b: &[u8; 2]| half::bf16::from_le_bytes(*b).to_f32().to_le_bytes();
            *bytes = bytes.as_chunks::<2>().0.iter().flat_map(wide).collect();
            *dtype = Dtype::F32;
        }
    });
    case.clear();
    let wide = case.run();
    assert_eq!(wide.exit, 0, "{}", wide.stderr);
    assert_eq!(wide.replies, stored.replies);
}

#[test]
fn weights_may_be_spread_over_files() {
    let case = Case::new(2);
    let whole = case.run();
    let mut names = case.weights().into_keys().collect::<Vec<_>>();
    let second = names.split_off(names.len() / 2);
    let digest = case.job().model.tensor_digest;
    let copy = std::fs::read(case.path("model/model.safetensors")).unwrap();
    case.edit_weights(|weights| weights.retain(|name, _| second.contains(name)));
    case.write(
        "model-00002-of-00002.safetensors",
        std::fs::read(case.path("model/model.safetensors")).unwrap(),
    );
    case.write("model.safetensors", copy);
    case.edit_weights(|weights| weights.retain(|name, _| names.contains(name)));
    case.clear();
    let mut job = case.job();
    job.model.tensor_digest = digest;
    let ended = case.run_job(&job);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert_eq!(ended.replies, whole.replies);
}

#[test]
fn the_trained_model_is_not_surprised_by_references() {
    let case = Case::new(4);
    let bits = |ended: crate::harness::Ended| {
        assert_eq!(ended.exit, 0, "{}", ended.stderr);
        let result = ended.result.unwrap();
        let file = std::fs::read(case.path("out/likelihood.jsonl")).unwrap();
        assert_eq!(result.proof.likelihood_sha256, Some(sha256(file)));
        assert_eq!(ended.likelihood.len(), 4);
        let nats: f64 = ended.likelihood.iter().map(|line| line.nll).sum();
        let bytes: u64 = ended.likelihood.iter().map(|line| line.bytes).sum();
        for line in &ended.likelihood {
            let packed: f64 = line.log_probabilities().unwrap().iter().sum();
            let coarse = 0.5 / 1024.0 * f64::from(line.tokens);
            assert!((packed + line.nll).abs() <= coarse, "{line:?}");
        }
        let per_byte = nats / std::f64::consts::LN_2 / f64::from(u32::try_from(bytes).unwrap());
        assert!((per_byte - result.metrics.bits_per_byte).abs() < 1e-9);
        per_byte
    };
    let both = vec![Mode::Generate, Mode::Likelihood];
    let trained = bits(case.run_job(&case.likelihood_job(both)));
    assert!(trained > 0.0 && trained < 0.3, "{trained}");

    case.edit_weights(|weights| {
        let (_, _, norm) = weights.get_mut("model.norm.weight").unwrap();
        norm.fill(0);
    });
    case.clear();
    let uniform = bits(case.run_job(&case.likelihood_job(vec![Mode::Likelihood])));
    // With all logits 0 each of the 512 ids costs 9 bits.
    assert!(uniform > 1.5 && uniform < 9.0, "{uniform}");
    assert!(
        std::fs::read(case.path("out/replies.jsonl"))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn selftest_version_and_usage() {
    let scorer = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_scorer-cpu"));
        let output = command.env_clear().args(args).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(
        scorer(&["selftest"]),
        (Some(0), "selftest passed\n".to_owned())
    );
    assert!(scorer(&["version"]).1.starts_with("scorer-cpu "));
    for wrong in [
        &[][..],
        &["walk"],
        &["run", "--root"],
        &["run", "--toor", "/"],
    ] {
        assert_eq!(scorer(wrong).0, Some(64), "{wrong:?}");
    }
}
