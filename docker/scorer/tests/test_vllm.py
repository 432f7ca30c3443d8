"""What only the engine vllm does; on vLLM's build for CPUs, in float32."""

from __future__ import annotations

import json
import subprocess
import sys

from conftest import ENV, Case, command

# Two processes stand for two GPUs, each with a core of its own.
TWO = """
import sys
import torch
torch.cuda.is_available = lambda: False
torch.cuda.device_count = lambda: 2
from assay_scorer.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""


def test_a_model_cut_over_two_workers_answers_and_proves_as_a_whole_one(case: Case) -> None:
    command("vllm")
    job = case.job(("generate", "likelihood"))
    whole = case.run("hf", job)
    (case.root / "two.py").write_text(TWO)
    for path in (case.root / "out").iterdir():
        path.unlink()
    ended = subprocess.run(
        [sys.executable, str(case.root / "two.py"), "--engine", "vllm", "run", "--root", str(case.root)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**ENV, "VLLM_CPU_OMP_THREADS_BIND": "0|1"},
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads((case.root / "out/result.json").read_text())
    assert (case.root / "out/replies.jsonl").read_bytes() == whole.raw["replies.jsonl"]
    assert result["proof"]["canary"] == whole.result["proof"]["canary"]
    assert "tensor_parallel_size=2" in ended.stdout


def test_batches_give_the_same_replies_as_one_at_a_time(case: Case) -> None:
    command("vllm")
    job = case.job()
    job["engine_args"]["max_num_seqs"] = 4
    ended = case.run("vllm", job)
    assert ended.exit == 0, ended.stderr
    assert {reply["id"]: reply["text"] for reply in ended.replies} == {g["id"]: g["reply"] for g in case.golden}
