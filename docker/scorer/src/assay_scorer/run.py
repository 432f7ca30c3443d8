"""One job from beginning to end."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
import traceback
from pathlib import Path

from . import VERSION, engines, job as jobs, likelihood, proof
from .failure import EXIT, Failure, status
from .output import Output, number, seal
from .text import Text

RESULT_SCHEMA = "assay-result/1"


def run(root: Path, engine: str) -> int:
    """Does the job in `root/job` with the model in `root/model` and writes `root/out`. Returns the
    exit code. Every failure after `job.json` was parsed leaves a result; an earlier one is told on
    stderr only, because there is no nonce to bind a result to."""
    try:
        job = jobs.read(root / "job")
        output = Output(root / "out")
    except Failure as failure:
        return _tell(failure)
    session = Session(root, engine, job, output)
    try:
        session.work()
        failure = None
    except Failure as ended:
        failure = ended
    except Exception as err:  # what the model brought along, or a mistake of ours
        traceback.print_exc()
        code = "E_ENGINE_LOAD" if output.stage in ("verify", "load") else "E_DEVICE_ASSERT"
        failure = Failure(code, f"{type(err).__name__} in stage {output.stage}; see the log")
    return session.finish(failure)


def _tell(failure: Failure) -> int:
    print(failure, file=sys.stderr, flush=True)
    return EXIT[failure.exit_class]


class Session:
    """The state of one job."""

    def __init__(self, root: Path, engine: str, job: dict, output: Output) -> None:
        self.root, self.wanted, self.job, self.output = root, engine, job, output
        self.model = root / "model"
        self.engine: engines.Engine | None = None
        self.proof = {"files": [], "files_unchanged": False, "tensor_digest": "", "canary": [], "samples_sha256": "", "replies_sha256": ""}
        self.metrics = {"replies": 0, "empty": 0, "hit_length": 0, "tokens": 0, "bits_per_byte": 0.0}
        self.timing = {"verify_s": 0.0, "load_s": 0.0, "generate_s": 0.0, "likelihood_s": 0.0, "total_s": 0.0}

    def work(self) -> None:
        try:
            jobs.check(self.job, self.model)
        except (TypeError, KeyError, AttributeError) as err:
            raise Failure("J_SCHEMA", f"job.json: a value has the wrong type: {err!r}") from err
        items, tensors, stats = self._verify()
        text = self._load(tensors, stats)
        prompts = {sample.id: text.prompt(sample.text) for sample in items.samples}
        if "generate" in self.job["mode"]:
            self._generate(text, prompts)
        if "likelihood" in self.job["mode"]:
            self._likelihood(text, prompts, items.references)
        self.output.tell("write", 0, 1)

    def _verify(self):
        files = self.job["model"]["files"]
        self.output.tell("verify", 0, len(files))
        items = jobs.items(self.job, self.root / "job")
        self.proof["samples_sha256"] = items.samples_sha256
        stats = proof.stat_all(self.model, files)
        tensors = proof.verify(self.model, files, lambda done: self.output.beat("verify", done, len(files)))
        self.proof["files"] = files
        self.proof["tensor_digest"] = proof.tensor_digest(tensors)
        self.timing["verify_s"] = number(self.output.seconds())
        if self.proof["tensor_digest"] != self.job["model"]["tensor_digest"]:
            raise Failure("I_MOUNT", f"tensor digest is {self.proof['tensor_digest']}, the job says another")
        return items, tensors, stats

    def _load(self, tensors: list[proof.Tensor], stats: list) -> Text:
        started = self.output.seconds()
        self.output.tell("load", 0, 1)
        config = self._config()
        text = Text(self._file("tokenizer.json"), config["vocab_size"], self._bounds(config).max_prompt)
        self.engine = engines.load(self.wanted, self.job, self.model, self._bounds(config), lambda: self.output.beat("load", 0, 1))
        layers = config["num_hidden_layers"]
        self.proof["canary"] = proof.canary(self.job, tensors, layers, self.engine.dtype, self.engine.loaded)
        self.proof["files_unchanged"] = proof.stat_all(self.model, self.job["model"]["files"]) == stats
        self.timing["load_s"] = number(self.output.seconds() - started)
        if not self.proof["files_unchanged"]:
            raise Failure("I_MOUNT", "a file of the model changed while it was loaded")
        return text

    def _file(self, name: str) -> Path:
        if all(file["path"] != name for file in self.job["model"]["files"]):
            raise Failure("E_FILES", f"the model has no {name}")
        return self.model / name

    def _config(self) -> dict:
        try:
            config = json.loads(self._file("config.json").read_bytes())
            sizes = [config[key] for key in ("vocab_size", "num_hidden_layers", "max_position_embeddings")]
        except (ValueError, KeyError, TypeError) as err:
            raise Failure("E_FORMAT", f"config.json: {err!r}") from err
        if not all(isinstance(size, int) and 0 < size < 1 << 24 for size in sizes):
            raise Failure("E_CONFIG", "config.json: vocab_size, num_hidden_layers or max_position_embeddings is out of range")
        wanted = self.job["model"]["architecture"]
        if config.get("architectures") != [wanted]:
            raise Failure("E_ARCH", f"config.json says {config.get('architectures')}, the job says {wanted!r}")
        return config

    def _bounds(self, config: dict) -> engines.Bounds:
        asked = self.job["generation"]
        longest = min(config["max_position_embeddings"], self.job["engine_args"]["max_model_len"])
        room = longest - asked["max_tokens"]
        if room <= 0:
            raise Failure("E_CONFIG", f"max_position_embeddings {longest} leaves no room beside {asked['max_tokens']} new tokens")
        return engines.Bounds(asked["max_tokens"], min(asked["max_prompt_tokens"], room), longest, frozenset(asked["stop_token_ids"]))

    def _generate(self, text: Text, prompts: dict[str, list[int]]) -> None:
        started, total = self.output.seconds(), len(prompts)
        self.output.tell("generate", 0, total)
        names = list(prompts)
        beat = lambda: self.output.beat("generate", self.metrics["replies"], total)  # noqa: E731
        for index, ids, finish in self.engine.generate(list(prompts.values()), beat):
            reply = {
                "id": names[index],
                "text": text.decode(ids),
                "finish": finish,
                "prompt_tokens": len(prompts[names[index]]),
                "tokens": len(ids),
                "ids_sha256": hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest(),
            }
            reply = self.output.reply(reply, total)
            self.metrics["replies"] += 1
            self.metrics["empty"] += not reply["text"].strip()
            self.metrics["hit_length"] += reply["finish"] == "length"
            self.metrics["tokens"] += len(ids)
            self.output.beat("generate", self.metrics["replies"], total)
        self.timing["generate_s"] = number(self.output.seconds() - started)

    def _likelihood(self, text: Text, prompts: dict[str, list[int]], references: list[jobs.Item]) -> None:
        started, total = self.output.seconds(), len(references)
        asked = self.job["likelihood"]
        self.output.tell("likelihood", 0, total)
        nats, size = 0.0, 0
        for done, reference in enumerate(references, 1):
            target, ends = text.encode(reference.text)
            covered = len(reference.text.encode())
            if len(target) > asked["max_target_tokens"]:
                target = target[: asked["max_target_tokens"]]
                covered = len(reference.text[: ends[len(target) - 1]].encode()) if target else 0
            scored = self.engine.score(prompts[reference.id], target, asked["top_k"])
            nats -= math.fsum(scored.logps)
            size += covered
            self.output.likelihood(likelihood.line(reference.id, scored, covered, asked["top_k"]))
            self.output.beat("likelihood", done, total)
        self.metrics["bits_per_byte"] = number(nats / math.log(2) / size) if size else 0.0
        self.proof["likelihood_sha256"] = self.output.digest("likelihood")
        self.timing["likelihood_s"] = number(self.output.seconds() - started)

    def finish(self, failure: Failure | None) -> int:
        """Writes the result; if that fails, the exit code is all that is left."""
        try:
            if failure is None:
                self.proof["replies_sha256"] = self.output.digest("replies")
        except Failure as ended:
            failure = ended
        exit_class = "ok" if failure is None else failure.exit_class
        if failure is not None:
            _tell(failure)
        self.timing["total_s"] = number(self.output.seconds())
        result = {
            "schema": RESULT_SCHEMA,
            "job_id": self.job["job_id"],
            "nonce": self.job["nonce"],
            "status": status(exit_class),
            "proof": self.proof,
            "scorer": scorer_info(self.wanted, self.engine),
            "metrics": self.metrics,
            "timing": self.timing,
        }
        if failure is not None:
            result["error"] = {"code": failure.code, "message": failure.message}
        try:
            self.output.finish(seal(result))
        except Failure as ended:
            return _tell(ended)
        except (ValueError, TypeError) as err:
            return _tell(Failure("J_SCHEMA", f"sealing the result: {err}"))
        return EXIT[exit_class]


def scorer_info(wanted: str, engine: engines.Engine | None) -> dict:
    """Versions, as they stand in every result. A container's word about itself proves nothing."""
    return {
        "version": VERSION,
        "engine": engine.name if engine else wanted,
        "device": engine.device if engine else "",
        "batch_invariant": bool(engine and engine.batch_invariant),
    }
