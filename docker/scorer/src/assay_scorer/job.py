"""`/job`: what is to be done, checked before anything else is touched."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

from .failure import Failure

JOB_SCHEMA = "assay-job/1"
JOB_BYTES_MAX = 1 << 20
LINES_BYTES_MAX = 1 << 28
DTYPES = ("float32", "float16", "bfloat16")

_KEYS = {
    "": "schema job_id nonce attempt mode model dataset generation likelihood? engine_args limits canary",
    "model": "dir architecture files tensor_digest param_count",
    "dataset": "snapshot samples_sha256 references_sha256? count",
    "generation": "max_tokens max_prompt_tokens stop_token_ids seed",
    "likelihood": "count top_k max_target_tokens",
    "engine_args": "max_model_len max_num_seqs gpu_memory_utilization dtype",
    "limits": "load_s generate_s likelihood_s total_s stall_s",
    "canary": "tensors values",
}


@dataclasses.dataclass(frozen=True)
class Item:
    """A sample (`text` is the whole prompt) or a reference (`text` is the reply)."""

    id: str
    text: str


@dataclasses.dataclass(frozen=True)
class Items:
    """The line files of a job, compared with their digests."""

    samples: list[Item]
    references: list[Item]
    samples_sha256: str


def read(folder: Path) -> dict:
    """Parses `job.json`, refusing unknown and missing keys. Raises `J_SCHEMA`, `I_IO`."""
    raw = _read_bounded(folder / "job.json", JOB_BYTES_MAX)
    try:
        job = json.loads(raw)
    except ValueError as err:
        raise Failure("J_SCHEMA", f"job.json: {err}") from err
    _same_keys("job.json", job, _KEYS[""])
    for section, keys in _KEYS.items():
        if section and job.get(section) is not None:
            _same_keys(section, job[section], keys)
    return job


def _same_keys(where: str, found: object, wanted: str) -> None:
    if not isinstance(found, dict):
        raise Failure("J_SCHEMA", f"{where} is not an object")
    names = wanted.split()
    known = {name.rstrip("?") for name in names}
    missing = {name for name in names if not name.endswith("?")} - found.keys()
    if missing or found.keys() - known:
        raise Failure("J_SCHEMA", f"{where}: missing {sorted(missing)}, unknown {sorted(found.keys() - known)}")


def check(job: dict, model_dir: Path) -> None:
    """Checks everything that the keys do not. Raises `J_SCHEMA` with the first problem."""
    mode, generation, args = job["mode"], job["generation"], job["engine_args"]
    likelihood = "likelihood" in mode
    problems = [
        (job["schema"] != JOB_SCHEMA, f"schema is not {JOB_SCHEMA}"),
        (not re.fullmatch(r"[0-9a-f]{64}", str(job["nonce"])), "nonce is not 64 hex digits"),
        (not 1 <= len(str(job["job_id"])) <= 128, "job_id is empty or too long"),
        (not _at_least(job["attempt"], 1), "attempt is 0"),
        (not mode or len(set(mode)) != len(mode) or set(mode) - {"generate", "likelihood"}, "mode is empty, repeats or is unknown"),
        (job["model"]["dir"] not in ("/model", str(model_dir)), "model.dir is not the model folder"),
        (not _plain(job["model"]["files"]), "model.files: a name is not plain or comes twice"),
        (not _at_least(job["dataset"]["count"], 1), "dataset.count is 0"),
        ((job.get("likelihood") is not None) != likelihood, "likelihood does not fit mode"),
        (likelihood and not job["dataset"].get("references_sha256"), "references_sha256 is missing"),
        (not _at_least(generation["max_tokens"], 1), "max_tokens is 0"),
        (not _at_least(generation["max_prompt_tokens"], 1), "max_prompt_tokens is 0"),
        (args["dtype"] not in DTYPES, f"dtype is none of {DTYPES}"),
        (not _at_least(args["max_num_seqs"], 1), "max_num_seqs is 0"),
        (not _at_least(job["limits"]["total_s"], 1) or not _at_least(job["limits"]["stall_s"], 1), "limits has a 0"),
        (args["max_model_len"] <= generation["max_tokens"], "max_model_len leaves no room for a prompt"),
    ]
    for bad, problem in problems:
        if bad:
            raise Failure("J_SCHEMA", f"job.json: {problem}")


def _at_least(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _plain(files: list[dict]) -> bool:
    names = [file["path"] for file in files]
    return len(set(names)) == len(names) and all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", n) for n in names)


def items(job: dict, folder: Path) -> Items:
    """Reads samples and references. Raises `J_DIGEST`, `J_SAMPLES`, `I_IO`."""
    dataset = job["dataset"]
    samples, digest = _lines(folder, "samples.jsonl", dataset["samples_sha256"], "prompt")
    ids = {sample.id for sample in samples}
    if len(samples) != dataset["count"] or len(ids) != len(samples) or "" in ids:
        raise Failure("J_SAMPLES", "samples.jsonl: the number of lines is not dataset.count, or an id is empty or comes twice")
    references: list[Item] = []
    if job.get("likelihood") is not None:
        references, _ = _lines(folder, "references.jsonl", dataset["references_sha256"], "content")
        if len(references) != job["likelihood"]["count"] or any(r.id not in ids for r in references):
            raise Failure("J_SAMPLES", "references.jsonl: the number of lines is not likelihood.count, or an id has no sample")
    return Items(samples, references, digest)


def _lines(folder: Path, name: str, expected: str, key: str) -> tuple[list[Item], str]:
    raw = _read_bounded(folder / name, LINES_BYTES_MAX)
    digest = hashlib.sha256(raw).hexdigest()
    if digest != expected:
        raise Failure("J_DIGEST", f"{name} has digest {digest}, the job says {expected}")
    found = []
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n"), 1):
        try:
            value = json.loads(line)
            if value.keys() != {"id", key}:
                raise ValueError(f"keys are {sorted(value)}")
            found.append(Item(str(value["id"]), str(value[key])))
        except (ValueError, AttributeError) as err:
            raise Failure("J_SAMPLES", f"{name}, line {number}: {err}") from err
    return found, digest


def _read_bounded(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as err:
        raise Failure("I_IO", f"reading {path.name}: {err.strerror}") from err
    if len(raw) > most:
        raise Failure("J_SCHEMA", f"{path.name} is longer than {most} bytes")
    return raw
