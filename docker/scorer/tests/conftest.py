"""A job folder around a copy of the sample model, and the scorers that do it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import typing
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LADDER = ROOT / "docker/scorer-cpu/ladder"
SCHEMAS = ROOT / "docker/protocol/schemas"
NONCE = "5a" * 32
# One GiB of cache: vLLM would take most of the memory of a host that has no GPU.
ENV = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT / "docker/scorer/src"),
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def rust_scorer() -> Path | None:
    """The CPU scorer: `ASSAY_SCORER_CPU`, else the newest build of this checkout."""
    named = os.environ.get("ASSAY_SCORER_CPU")
    built = [Path(named)] if named else [ROOT / f"target/{profile}/scorer-cpu" for profile in ("debug", "release")]
    return next((path for path in built if path.is_file()), None)


def skip(reason: str) -> typing.NoReturn:
    """Leaves the test out, and says so among the warnings, which every run prints."""
    warnings.warn(f"SKIPPED: {reason}", stacklevel=2)
    pytest.skip(reason)


def command(scorer: str) -> list[str]:
    if scorer in ("hf", "hf-process"):
        return [sys.executable, "-m", "assay_scorer", "--engine", "hf"]
    if scorer == "vllm":
        if importlib.util.find_spec("vllm") is None:
            skip("vLLM is not installed (tests/vllm_cpu.py)")
        return [sys.executable, "-m", "assay_scorer", "--engine", "vllm"]
    path = rust_scorer()
    if path is None:
        skip("the CPU scorer is not built (cargo build -p assay-scorer-cpu)")
    return [str(path)]


class Case:
    """A job folder. Change `job` or the files, then `run`."""

    def __init__(self, root: Path, count: int = 4) -> None:
        self.root = root
        for name in ("job", "out"):
            (root / name).mkdir()
        shutil.copytree(LADDER / "model", root / "model")
        golden = [json.loads(line) for line in (LADDER / "golden.jsonl").read_text().splitlines()][:count]
        self.golden = golden
        self.samples = [{"id": g["id"], "prompt": g["prompt"]} for g in golden]
        self.references = [{"id": g["id"], "content": g["reference"]} for g in golden]

    def write(self, name: str, data: bytes | str) -> None:
        (self.root / "model" / name).write_bytes(data.encode() if isinstance(data, str) else data)

    def config(self, **changes: object) -> None:
        config = json.loads((self.root / "model/config.json").read_text())
        self.write("config.json", json.dumps({**config, **changes}))

    def job(self, mode: tuple[str, ...] = ("generate",), **changes: object) -> dict:
        samples, references = _lines(self.samples), _lines(self.references)
        (self.root / "job/samples.jsonl").write_bytes(samples)
        (self.root / "job/references.jsonl").write_bytes(references)
        files = []
        for path in sorted((self.root / "model").iterdir()):
            data = path.read_bytes()
            files.append({"path": path.name, "size": len(data), "sha256": sha256(data)})
        job = {
            "schema": "assay-job/1",
            "job_id": "job-1",
            "nonce": NONCE,
            "attempt": 1,
            "mode": list(mode),
            "model": {
                "dir": "/model",
                "architecture": "LlamaForCausalLM",
                "files": files,
                "tensor_digest": tensor_digest(self.root / "model/model.safetensors"),
                "param_count": 1,
            },
            "dataset": {
                "snapshot": "sha256:00",
                "samples_sha256": sha256(samples),
                "references_sha256": sha256(references),
                "count": len(self.samples),
            },
            "generation": {"max_tokens": 120, "max_prompt_tokens": 512, "stop_token_ids": [2], "seed": 1},
            "engine_args": {"max_model_len": 1024, "max_num_seqs": 1, "gpu_memory_utilization": 0.9, "dtype": "float32"},
            "limits": {"load_s": 60, "generate_s": 60, "likelihood_s": 60, "total_s": 120, "stall_s": 30},
            "canary": {"tensors": 8, "values": 1024},
        }
        if "likelihood" in mode:
            job["likelihood"] = {"count": len(self.references), "top_k": 10, "max_target_tokens": 200}
        return {**job, **changes}

    def run(self, scorer: str, job: dict | str) -> Ended:
        shutil.rmtree(self.root / "out")
        (self.root / "out").mkdir()
        text = job if isinstance(job, str) else json.dumps(job)
        (self.root / "job/job.json").write_text(text)
        exit_code, stderr = self.start(scorer)
        return Ended(self.root / "out", exit_code, stderr)

    def start(self, scorer: str) -> tuple[int, str]:
        """Runs a scorer on the folder as it is: `hf` in this process, because importing torch costs
        seconds; `hf-process`, `vllm` and `cpu` as the node starts them."""
        if scorer == "hf":
            from assay_scorer.run import run

            told = io.StringIO()
            with contextlib.redirect_stderr(told):
                return run(self.root, "hf"), told.getvalue()
        ended = subprocess.run(
            [*command(scorer), "run", "--root", str(self.root)], capture_output=True, text=True, timeout=300, env=ENV
        )
        return ended.returncode, ended.stderr


class Ended:
    """How a scorer ended and what it left."""

    def __init__(self, out: Path, exit_code: int, stderr: str) -> None:
        self.exit, self.stderr = exit_code, stderr
        self.raw = {path.name: path.read_bytes() for path in out.iterdir()}
        result = self.raw.get("result.json")
        self.result = json.loads(result) if result else None
        self.replies = _parsed(self.raw.get("replies.jsonl", b""))
        self.likelihood = _parsed(self.raw.get("likelihood.jsonl", b""))
        self.progress = _parsed(self.raw.get("progress.jsonl", b""))

    @property
    def code(self) -> str:
        assert self.result is not None, self.stderr
        return self.result["error"]["code"]


def _lines(items: list[dict]) -> bytes:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items).encode()


def _parsed(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.decode().splitlines()]


def tensor_digest(path: Path) -> str:
    """Written from the documentation of `docker/protocol/src/tensor_digest.rs`, beside the
    scorer's own, so that both are compared with a third."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    try:
        header = json.loads(data[8 : 8 + length])
    except ValueError:
        return ""
    whole = hashlib.sha256()
    for name in sorted(header):
        if name == "__metadata__":
            continue
        entry = header[name]
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        shape = ",".join(str(d) for d in entry["shape"])
        whole.update(f"{name}\0{entry['dtype']}\0{shape}\0".encode())
        whole.update(hashlib.sha256(data[begin:end]).digest())
    return f"sha256:{whole.hexdigest()}"


@pytest.fixture(params=["hf", "vllm", "cpu"])
def scorer(request: pytest.FixtureRequest) -> str:
    """Each conformance test runs against both engines and the Rust scorer."""
    command(request.param)
    return request.param


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)
