"""Inference engines. Each loads a verified model, gives loaded values back for the canary, answers
prompts greedily and scores references. Imported only when chosen: an image carries one of them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

NAMES = ("vllm", "hf")


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What a sequence may use, after job and model were fitted to each other."""

    max_tokens: int
    max_prompt: int
    max_len: int
    stop: frozenset[int]


@dataclasses.dataclass(frozen=True)
class Scored:
    """Teacher-forced tokens of one reference: natural-log probabilities under the full softmax,
    then per token the probability within the `top_k` set (0 when outside) and that set's entropy
    in nats."""

    logps: list[float]
    top_p: list[float]
    top_entropy: list[float]


class Engine(typing.Protocol):
    """What `run` needs of an engine."""

    name: str
    device: str
    batch_invariant: bool
    dtype: object

    def loaded(self, tensor: str, positions: list[int]) -> list[float]:
        """Values of a loaded tensor, flattened row by row, as f32."""

    def generate(self, prompts: list[list[int]], beat) -> Iterator[tuple[int, list[int], str]]:
        """Yields (index, ids without the stop token, `stop` or `length`) as replies finish."""

    def score(self, prompt: list[int], target: list[int], top_k: int) -> Scored:
        """Likelihood of `target` after `prompt`."""


def load(name: str, job: dict, model: Path, bounds: Bounds, beat) -> Engine:
    """Loads the model. Raises `Failure`."""
    if name == "vllm":
        from .vllm import VllmEngine

        return VllmEngine(job, model, bounds, beat)
    from .hf import HfEngine

    return HfEngine(job, model, bounds, beat)
