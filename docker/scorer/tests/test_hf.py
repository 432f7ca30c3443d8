"""What only the Python scorer does."""

from __future__ import annotations


import base64
import json
import os
import stat
import struct
import subprocess

import pytest

from assay_scorer import likelihood, proof
from assay_scorer.engines import Scored
from assay_scorer.failure import CLASSES, EXIT, Failure, status
from conftest import ROOT, SCHEMAS, Case, command


def test_codes_are_the_protocols() -> None:
    schema = json.loads((SCHEMAS / "result.json").read_text())
    known = {one["const"] for one in schema["$defs"]["ResultCode"]["oneOf"]}
    assert known == set(CLASSES)
    assert {status(name) for name in EXIT} == {"ok", "rejected", "infra"}


def test_a_failure_quotes_no_control_characters() -> None:
    failure = Failure("E_CONFIG", "a\x1b[31m\n" + "b" * 900)
    assert failure.message.isprintable() and len(failure.message) == 500


def test_batches_of_the_same_job_give_the_same_replies_again(case: Case) -> None:
    job = case.job()
    job["engine_args"]["max_num_seqs"] = 4
    first, second = case.run("hf", job), case.run("hf", job)
    assert first.exit == 0, first.stderr
    assert first.raw["replies.jsonl"] == second.raw["replies.jsonl"]
    assert first.result["scorer"]["batch_invariant"] is False
    # In float32 the small model answers as without a batch.
    assert [reply["text"] for reply in first.replies] == [g["reply"] for g in case.golden]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to drop to another user")
def test_an_unreadable_file_is_infrastructure(case: Case) -> None:
    path = case.root / "model/model.safetensors"
    files = case.job()["model"]["files"]
    path.chmod(stat.S_IRUSR)
    os.seteuid(65532)
    try:
        with pytest.raises(Failure) as refused:
            proof.verify(case.root / "model", files, lambda _done: None)
    finally:
        os.seteuid(0)
    assert refused.value.code == "I_IO"


def test_the_command_line_is_the_nodes(case: Case) -> None:
    ended = case.run("hf-process", case.job(("generate", "likelihood")))
    assert ended.exit == 0, ended.stderr
    assert [reply["text"] for reply in ended.replies] == [g["reply"] for g in case.golden]
    scorer = command("hf-process")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "docker/scorer/src")}
    selftest = subprocess.run([*scorer, "selftest", "--no-gpu"], capture_output=True, text=True, env=env)
    assert (selftest.returncode, selftest.stdout) == (0, "self-test passed\n"), selftest.stderr
    assert subprocess.run([*scorer, "walk"], capture_output=True, env=env).returncode == 64


def test_another_loader_is_caught_by_the_canary(case: Case) -> None:
    files = case.job()["model"]["files"]
    tensors = proof.verify(case.root / "model", files, lambda _done: None)
    import torch

    from safetensors.torch import load_file

    loaded = load_file(case.root / "model/model.safetensors")

    def honest(name: str, positions: list[int]) -> list[float]:
        return loaded[name].reshape(-1)[torch.tensor(positions)].float().tolist()

    job = case.job()
    assert len(proof.canary(job, tensors, 3, torch.float32, honest)) == 8
    loaded["model.layers.0.self_attn.o_proj.weight"].mul_(1.01)
    with pytest.raises(Failure) as refused:
        proof.canary(job, tensors, 3, torch.float32, honest)
    assert refused.value.code == "I_MOUNT"


def test_a_likelihood_line_follows_its_definition() -> None:
    line = likelihood.line("a", Scored([-0.5, -2.0], [0.5, 0.0], [0.3, 0.1]), 9, 10)
    assert line["ngram_sums"] == [0.5, 0.0, 0, 0]
    assert (line["tokens"], line["bytes"], line["nll"]) == (2, 9, 2.5)
    assert struct.unpack("<2H", base64.b64decode(line["lp_q16"])) == (512, 2048)


IMAGE = os.environ.get("ASSAY_IMAGE_CPU")


@pytest.mark.skipif(not IMAGE, reason="SKIPPED: ASSAY_IMAGE_CPU names no image (just image-cpu)")
def test_the_cpu_image_scores_sealed(case: Case) -> None:
    job = case.job(("generate", "likelihood"))
    (case.root / "job/job.json").write_text(json.dumps(job))
    (case.root / "out").chmod(0o777)
    sealed = "--network none --read-only --cap-drop ALL --security-opt no-new-privileges --pids-limit 256 --memory 2g --memory-swap 2g --tmpfs /tmp:exec"
    mounts = [part for name in ("model", "job", "out") for part in ("--mount", f"type=bind,source={case.root}/{name},target=/{name}" + (",readonly" if name != "out" else ""))]
    ended = subprocess.run(["docker", "run", "--rm", *sealed.split(), *mounts, IMAGE, "run"], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    replies = [json.loads(line)["text"] for line in (case.root / "out/replies.jsonl").read_text().splitlines()]
    assert replies == [g["reply"] for g in case.golden]
