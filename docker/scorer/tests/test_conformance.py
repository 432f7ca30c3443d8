"""What every scorer of the protocol must do alike. Each test runs on the Python scorer (engines hf and
vllm, CPU, float32) and on the Rust scorer."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct

import jsonschema
import pytest

from conftest import NONCE, SCHEMAS, Case, command, sha256

# Two implementations of float32 arithmetic: log-probabilities in nats and their sums.
NLL_TOLERANCE = 2e-3


def valid(name: str, value: dict) -> None:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)


def mac(result: dict) -> str:
    bare = json.dumps({**result, "mac": ""}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hmac.new(bytes.fromhex(NONCE), bare.encode(), hashlib.sha256).hexdigest()


def test_a_good_job_gives_the_golden_replies_and_a_whole_proof(case: Case, scorer: str) -> None:
    job = case.job(("generate", "likelihood"))
    valid("job", job)
    ended = case.run(scorer, job)
    assert ended.exit == 0, ended.stderr
    assert [reply["text"] for reply in ended.replies] == [g["reply"] for g in case.golden]
    result, proof = ended.result, ended.result["proof"]
    valid("result", result)
    for name, lines in {"reply": ended.replies, "progress": ended.progress, "likelihood": ended.likelihood}.items():
        assert lines
        for line in lines:
            valid(name, line)
    assert result["status"] == "ok" and "error" not in result
    assert proof["files"] == job["model"]["files"] and proof["files_unchanged"]
    assert proof["tensor_digest"] == job["model"]["tensor_digest"]
    assert proof["replies_sha256"] == sha256(ended.raw["replies.jsonl"])
    assert proof["likelihood_sha256"] == sha256(ended.raw["likelihood.jsonl"])
    assert len(proof["canary"]) == 8
    assert all(c["sha256_file"] == c["sha256_loaded"] for c in proof["canary"])
    assert [p["stage"] for p in ended.progress][0] == "verify" and ended.progress[-1]["stage"] == "write"


@pytest.mark.parametrize("other", ["vllm", "cpu"])
def test_all_scorers_give_the_same_tokens_canary_and_likelihood(case: Case, other: str) -> None:
    command(other)
    job = case.job(("generate", "likelihood"))
    hf, ended = case.run("hf", job), case.run(other, job)
    assert hf.exit == 0 and ended.exit == 0, hf.stderr + ended.stderr
    assert hf.replies == ended.replies
    assert hf.result["proof"]["canary"] == ended.result["proof"]["canary"]
    for ours, theirs in zip(hf.likelihood, ended.likelihood, strict=True):
        assert (ours["id"], ours["tokens"], ours["bytes"]) == (theirs["id"], theirs["tokens"], theirs["bytes"])
        for key in ("nll", "entropy"):
            assert ours[key] == pytest.approx(theirs[key], abs=NLL_TOLERANCE), key
        assert ours["ngram_sums"] == pytest.approx(theirs["ngram_sums"], abs=NLL_TOLERANCE)


def test_the_mac_covers_everything_else(case: Case) -> None:
    # The Rust scorer writes floats with all digits, which Python may spell otherwise.
    ended = case.run("hf", case.job())
    assert ended.result["mac"] == mac(ended.result)
    assert mac({**ended.result, "status": "rejected"}) != ended.result["mac"]


@pytest.mark.parametrize("ids", [[2], [2, 0]])
def test_stop_ids_end_a_reply_and_are_not_part_of_it(case: Case, scorer: str, ids: list[int]) -> None:
    job = case.job()
    job["generation"]["stop_token_ids"] = ids
    ended = case.run(scorer, job)
    assert all(reply["finish"] == "stop" and reply["text"] for reply in ended.replies)


def test_the_cap_cuts_an_endless_reply(case: Case, scorer: str) -> None:
    job = case.job()
    job["generation"].update(stop_token_ids=[], max_tokens=7)
    ended = case.run(scorer, job)
    assert ended.exit == 0
    assert [(reply["finish"], reply["tokens"]) for reply in ended.replies] == [("length", 7)] * 4
    assert ended.result["metrics"]["hit_length"] == 4


def test_a_long_prompt_keeps_its_end(case: Case, scorer: str) -> None:
    whole = case.run(scorer, case.job()).replies[0]
    case.samples[0]["prompt"] = "<|im_start|>user\nwords " * 400 + case.samples[0]["prompt"]
    ended = case.run(scorer, case.job())
    assert ended.replies[0]["prompt_tokens"] == 512 > whole["prompt_tokens"]


def test_nan_weights_end_as_the_models_fault(case: Case, scorer: str) -> None:
    path = case.root / "model/model.safetensors"
    data = bytearray(path.read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8 : 8 + length])["model.norm.weight"]
    at = 8 + length + entry["data_offsets"][0]
    data[at : at + 2] = b"\xc0\x7f"
    path.write_bytes(data)
    ended = case.run(scorer, case.job())
    assert (ended.exit, ended.code) == (10, "E_NONFINITE")


def test_generation_config_of_the_model_has_no_effect(case: Case, scorer: str) -> None:
    plain = case.run(scorer, case.job()).replies
    case.write("generation_config.json", json.dumps({"do_sample": True, "temperature": 9.0, "max_new_tokens": 1, "eos_token_id": 5}))
    assert case.run(scorer, case.job()).replies == plain


def break_size(case: Case, job: dict) -> dict:
    case.write("model.safetensors", (case.root / "model/model.safetensors").read_bytes() + b"x")
    return job


def break_bytes(case: Case, job: dict) -> dict:
    data = bytearray((case.root / "model/model.safetensors").read_bytes())
    data[-1] ^= 1
    case.write("model.safetensors", bytes(data))
    return job


def break_missing(case: Case, job: dict) -> dict:
    (case.root / "model/tokenizer.json").unlink()
    return job


def break_tensor_digest(_case: Case, job: dict) -> dict:
    job["model"]["tensor_digest"] = "sha256:" + "0" * 64
    return job


def break_samples(_case: Case, job: dict) -> dict:
    job["dataset"]["samples_sha256"] = "0" * 64
    return job


def break_count(_case: Case, job: dict) -> dict:
    job["dataset"]["count"] += 1
    return job


def break_key(_case: Case, job: dict) -> dict:
    return {**job, "surprise": 1}


def break_nonce(_case: Case, job: dict) -> dict:
    return {**job, "nonce": "short"}


def break_path(_case: Case, job: dict) -> dict:
    job["model"]["files"][0]["path"] = "../config.json"
    return job


def break_architecture(_case: Case, job: dict) -> dict:
    job["model"]["architecture"] = "Qwen2ForCausalLM"
    return job


def break_tokenizer(case: Case, _job: dict) -> dict:
    case.write("tokenizer.json", "{}")
    return case.job()


def break_vocabulary(case: Case, _job: dict) -> dict:
    tokenizer = json.loads((case.root / "model/tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 99_999, "content": "<|far|>"})
    case.write("tokenizer.json", json.dumps(tokenizer))
    return case.job()


def break_list(_case: Case, job: dict) -> dict:
    job["model"]["files"] = [f for f in job["model"]["files"] if f["path"] != "config.json"]
    return job


def break_header(case: Case, _job: dict) -> dict:
    data = (case.root / "model/model.safetensors").read_bytes()
    case.write("model.safetensors", b"\xff" * 8 + data[8:])
    return case.job()


def break_room(case: Case, _job: dict) -> dict:
    case.config(max_position_embeddings=64)
    return case.job()


@pytest.mark.parametrize(
    ("breaks", "code", "exit_code"),
    [
        (break_size, "I_MOUNT", 20),
        (break_bytes, "I_MOUNT", 20),
        (break_missing, "I_MOUNT", 20),
        (break_tensor_digest, "I_MOUNT", 20),
        (break_samples, "J_DIGEST", 30),
        (break_count, "J_SAMPLES", 30),
        (break_key, None, 30),
        (break_nonce, None, 30),
        (break_path, "J_SCHEMA", 30),
        (break_architecture, "E_ARCH", 10),
        (break_tokenizer, "E_TOKENIZER", 10),
        (break_vocabulary, "E_VOCAB", 10),
        (break_list, "E_FILES", 10),
        (break_header, "E_FORMAT", 10),
        (break_room, "E_CONFIG", 10),
    ],
)
def test_each_fault_has_its_code(case: Case, scorer: str, breaks, code: str | None, exit_code: int) -> None:
    ended = case.run(scorer, breaks(case, case.job()))
    assert ended.exit == exit_code, ended.stderr
    if code is None:
        assert ended.result is None
        return
    assert ended.code == code
    valid("result", ended.result)
    assert ended.result["status"] == ("rejected" if exit_code == 10 else "infra")


def test_a_used_out_folder_is_refused(case: Case, scorer: str) -> None:
    assert case.run(scorer, case.job()).exit == 0
    assert case.start(scorer)[0] == 20
