"""transformers: where vLLM cannot run, and on CPU.

Greedy decoding is a loop of ours over the forward pass: `generate()` would read the model's own
generation_config.json. With `max_num_seqs` 1 a reply does not depend on its neighbours; larger
batches are always cut from the job's order, so a job gives the same replies again on the same device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from . import accelerator

accelerator.answer_none()
import transformers  # noqa: E402, it asks torch for its accelerator while it is imported

from ..failure import Failure  # noqa: E402
from . import Bounds, Scored, device  # noqa: E402

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class HfEngine:
    """A model loaded by transformers in the job's dtype."""

    def __init__(self, job: dict, model: Path, bounds: Bounds, beat) -> None:
        self.device = device.describe()
        self.name = f"transformers {transformers.__version__} torch {torch.__version__}"
        self.dtype = DTYPES[job["engine_args"]["dtype"]]
        self.bounds, self.batch = bounds, job["engine_args"]["max_num_seqs"]
        self.batch_invariant = self.batch == 1
        torch.manual_seed(job["generation"]["seed"])
        torch.use_deterministic_algorithms(True, warn_only=True)
        self._place = torch.device("cpu" if self.device == "cpu" else "cuda:0")
        try:
            self.model = transformers.AutoModelForCausalLM.from_pretrained(
                model,
                dtype=self.dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                attn_implementation="sdpa",
            )
            found = type(self.model).__name__
            if found != job["model"]["architecture"]:
                raise Failure("E_ARCH", f"the model is a {found}, the job says {job['model']['architecture']}")
            self.model.to(self._place).eval()
        except Exception as err:
            raise device.failure(err, "E_ENGINE_LOAD") from err
        beat()

    def loaded(self, tensor: str, positions: list[int]) -> list[float]:
        values = self.model.get_parameter(tensor).detach().reshape(-1)
        where = torch.tensor(positions, device=values.device)
        return values[where].float().tolist()

    def generate(self, prompts: list[list[int]], beat) -> Iterator[tuple[int, list[int], str]]:
        for start in range(0, len(prompts), self.batch):
            group = prompts[start : start + self.batch]
            try:
                replies = self._group(group, beat)
            except Exception as err:
                raise device.failure(err, "E_DEVICE_ASSERT") from err
            for offset, (ids, finish) in enumerate(replies):
                yield start + offset, ids, finish

    @torch.inference_mode()
    def _group(self, prompts: list[list[int]], beat) -> list[tuple[list[int], str]]:
        width = max(map(len, prompts))
        rows = [[0] * (width - len(p)) + p for p in prompts]
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._place)
        ids = torch.tensor(rows, device=self._place)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        replies: list[list[int]] = [[] for _ in prompts]
        ends: list[str | None] = [None] * len(prompts)
        cache = None
        while True:
            out = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            cache = out.past_key_values
            logits = out.logits[:, -1, :].float()
            alive = torch.tensor([end is None for end in ends], device=self._place)
            if not bool(torch.isfinite(logits[alive]).all()):
                raise Failure("E_NONFINITE", "a logit is NaN or infinite")
            chosen = logits.argmax(-1)
            for row, token in enumerate(chosen.tolist()):
                if ends[row] is not None:
                    continue
                if token in self.bounds.stop:
                    ends[row] = "stop"
                    continue
                replies[row].append(token)
                if len(replies[row]) >= self.bounds.max_tokens:
                    ends[row] = "length"
            beat()
            if all(ends):
                return list(zip(replies, ends, strict=True))
            ids = chosen[:, None]
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones((len(prompts), 1))], dim=1)

    @torch.inference_mode()
    def score(self, prompt: list[int], target: list[int], top_k: int) -> Scored:
        try:
            ids = torch.tensor([prompt + target], device=self._place)
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=len(target) + 1).logits[0, :-1].double()
        except Exception as err:
            raise device.failure(err, "E_DEVICE_ASSERT") from err
        if not bool(torch.isfinite(logits).all()):
            raise Failure("E_NONFINITE", "a logit is NaN or infinite")
        wanted = torch.tensor(target, device=self._place)[:, None]
        logps = logits.log_softmax(-1).gather(-1, wanted)[:, 0].tolist()
        best, where = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
        probabilities = best.softmax(-1)
        entropy = -(probabilities * probabilities.clamp(min=1e-300).log()).sum(-1)
        hit = (where == wanted) * probabilities
        return Scored(logps, hit.sum(-1).tolist(), entropy.tolist())


