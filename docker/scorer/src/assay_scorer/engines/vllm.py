"""vLLM: the production engine.

The engine runs in this process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`), so that weights can be read
back for the canary and one process is all that has to be ended. It never sees the model's tokenizer:
token ids go in and out. Prefix caching is off, because a cached prefix once gave stale prompt
log-probabilities; batch invariance is vLLM's own mode (`VLLM_BATCH_INVARIANT=1`), whose kernels need
a GPU. vLLM's build for CPUs does the same jobs eagerly, in float32: that is how the tests run it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch

GPU = torch.cuda.is_available()
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
if GPU:
    os.environ.setdefault("VLLM_BATCH_INVARIANT", "1")

import vllm
import vllm._custom_ops
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size

if not GPU:
    # oneDNN packs the weights away; the canary must be able to read them.
    vllm._custom_ops._supports_onednn = False

from ..failure import Failure
from . import Bounds, Scored, device


class Shard:
    """What vLLM's worker of each GPU is given beside its own methods."""

    def held(self, tensor: str, positions: list[int]) -> dict[int, float]:
        """The values that this worker holds of a canary tensor, by their index in `positions`, which are
        those of the whole tensor, row by row. Tensor parallelism cuts the embedding by rows, the
        projections by columns, and leaves the norm whole."""
        weight = self.get_model().get_parameter(tensor).detach()
        rank, size = get_tensor_model_parallel_rank(), get_tensor_model_parallel_world_size()
        at = torch.tensor(positions, device=weight.device)
        index = torch.arange(len(positions), device=weight.device)
        if weight.ndim == 2 and size > 1:
            cut = 0 if tensor == "model.embed_tokens.weight" else 1
            columns = weight.shape[1] * (size if cut else 1)
            where = [at // columns, at % columns]
            here = where[cut] // weight.shape[cut] == rank
            where[cut] = where[cut] - rank * weight.shape[cut]
            at, index = (where[0] * weight.shape[1] + where[1])[here], index[here]
        return dict(zip(index.tolist(), weight.reshape(-1)[at].float().tolist(), strict=True))


class VllmEngine:
    """A model loaded by vLLM in the job's dtype."""

    def __init__(self, job: dict, model: Path, bounds: Bounds, beat) -> None:
        self.device = device.describe()
        self.name = f"vllm {vllm.__version__} torch {torch.__version__}"
        self.batch_invariant = os.environ.get("VLLM_BATCH_INVARIANT") == "1"
        self.bounds = bounds
        args = job["engine_args"]
        self.dtype = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[args["dtype"]]
        try:
            self.llm = vllm.LLM(
                model=str(model),
                skip_tokenizer_init=True,
                trust_remote_code=False,
                load_format="safetensors",
                dtype=args["dtype"],
                seed=job["generation"]["seed"],
                max_model_len=bounds.max_len,
                max_num_seqs=args["max_num_seqs"],
                gpu_memory_utilization=args["gpu_memory_utilization"],
                tensor_parallel_size=max(1, torch.cuda.device_count()),
                enable_prefix_caching=False,
                enforce_eager=not GPU,
                worker_extension_cls=f"{__name__}.{Shard.__name__}",
                generation_config="vllm",
                disable_log_stats=True,
                max_logprobs=64,
            )
        except Exception as err:
            raise device.failure(err, "E_ENGINE_LOAD") from err
        beat()

    def loaded(self, tensor: str, positions: list[int]) -> list[float]:
        found: dict[int, float] = {}
        for held in self.llm.collective_rpc("held", args=(tensor, positions)):
            found.update(held)
        return [found[index] for index in range(len(positions))]

    def generate(self, prompts: list[list[int]], beat) -> Iterator[tuple[int, list[int], str]]:
        sampling = vllm.SamplingParams(
            temperature=0.0,
            max_tokens=self.bounds.max_tokens,
            stop_token_ids=sorted(self.bounds.stop),
            ignore_eos=True,
            detokenize=False,
            logprobs=1,
        )
        for index, ids in enumerate(prompts):
            self._add(index, ids, sampling)
        while self.llm.llm_engine.has_unfinished_requests():
            for output in self._step():
                if output.finished:
                    yield int(output.request_id), *self._reply(output.outputs[0])
            beat()

    def _add(self, index: int, ids: list[int], sampling) -> None:
        try:
            self.llm.llm_engine.add_request(str(index), {"prompt_token_ids": ids}, sampling)
        except Exception as err:
            raise device.failure(err, "E_ENGINE_LOAD") from err

    def _step(self):
        try:
            return self.llm.llm_engine.step()
        except Exception as err:
            raise device.failure(err, "E_DEVICE_ASSERT") from err

    def _reply(self, completion) -> tuple[list[int], str]:
        for chosen in completion.logprobs or []:
            if any(not math.isfinite(entry.logprob) for entry in chosen.values()):
                raise Failure("E_NONFINITE", "a log-probability is NaN or infinite")
        ids = list(completion.token_ids)
        if completion.finish_reason == "stop":
            if ids and ids[-1] in self.bounds.stop:
                ids.pop()
            return ids, "stop"
        return ids, "length"

    def score(self, prompt: list[int], target: list[int], top_k: int) -> Scored:
        sampling = vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=top_k, detokenize=False)
        self._add(0, prompt + target, sampling)
        last = None
        while self.llm.llm_engine.has_unfinished_requests():
            for output in self._step():
                last = output
        logps, top_p, top_entropy = [], [], []
        for token, entries in zip(target, last.prompt_logprobs[len(prompt) :], strict=True):
            logps.append(entries[token].logprob)
            best = [entry for entry in entries.values() if entry.rank is not None and entry.rank <= top_k]
            total = sum(math.exp(entry.logprob) for entry in best)
            shares = [math.exp(entry.logprob) / total for entry in best]
            top_p.append(math.exp(entries[token].logprob) / total if entries[token].rank <= top_k else 0.0)
            top_entropy.append(-sum(share * math.log(share) for share in shares if share > 0))
        if not all(math.isfinite(logp) for logp in logps):
            raise Failure("E_NONFINITE", "a log-probability is NaN or infinite")
        return Scored(logps, top_p, top_entropy)
