"""The engine hf on a GPU: the ladder's golden replies, and how fast a large model with random weights loads,
prefills and decodes, beside the estimates by which workers are planned. `just gpu-test` runs it; without a
GPU it says so and is skipped, unless ASSAY_RATES=cpu asks for a small model on this CPU."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from assay_scorer.engines import Bounds
from assay_scorer.engines.hf import HfEngine
from conftest import Case, skip

ON_CPU = os.environ.get("ASSAY_RATES") == "cpu"
# Layers and width: 6.7 thousand million parameters, or 5 million.
SHAPE = (2, 256) if ON_CPU else (32, 4096)
PROMPTS, PROMPT_TOKENS, REPLY_TOKENS = (2, 64, 8) if ON_CPU else (16, 1500, 250)
# Peak of dense bf16 and of memory, per second: an H200 (the data sheet's 989 TFLOP and 4.8 TB).
FLOPS, MEMORY_BYTES = 989e12, 4.8e12


@pytest.fixture(autouse=True)
def _needs_gpu() -> None:
    if not torch.cuda.is_available() and not ON_CPU:
        skip("torch sees no GPU")


def test_the_ladder_gives_its_golden_replies(case: Case) -> None:
    ended = case.run("hf", case.job(("generate", "likelihood")))
    assert ended.exit == 0, ended.stderr
    assert ended.result["scorer"]["device"].startswith("cpu") == ON_CPU
    assert [reply["text"] for reply in ended.replies] == [g["reply"] for g in case.golden]


def test_rates_beside_their_estimates(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    params, seconds = write_random_model(tmp_path), {}
    bounds = Bounds(REPLY_TOKENS, PROMPT_TOKENS, PROMPT_TOKENS + REPLY_TOKENS, frozenset())
    job = {
        "engine_args": {"dtype": "bfloat16", "max_num_seqs": PROMPTS},
        "generation": {"seed": 1},
        "model": {"architecture": "LlamaForCausalLM"},
    }
    begun = time.monotonic()
    engine = HfEngine(job, tmp_path, bounds, lambda: None)
    seconds["load"] = time.monotonic() - begun
    beats: list[float] = []
    begun = time.monotonic()
    prompts = [[(7 * row + at) % 31_000 for at in range(PROMPT_TOKENS)] for row in range(PROMPTS)]
    replies = list(engine.generate(prompts, lambda: beats.append(time.monotonic())))
    assert [len(ids) for _, ids, _ in replies] == [REPLY_TOKENS] * PROMPTS
    seconds["prefill"], seconds["decode"] = beats[0] - begun, beats[-1] - beats[0]
    estimates = estimated(params)
    with capsys.disabled():
        print(f"\n{engine.device}, {engine.name}: {params / 1e9:.2f}e9 parameters, {PROMPTS} x ({PROMPT_TOKENS} + {REPLY_TOKENS}) tokens")
        for what, took in seconds.items():
            beside = f", estimate for an H200 {estimates[what]:.2f} s" if what in estimates else ""
            print(f"{what:8} {took:8.2f} s{beside}")
        print(f"decode   {PROMPTS * (REPLY_TOKENS - 1) / seconds['decode']:8.0f} tokens/s")


def write_random_model(folder: Path) -> int:
    from transformers import LlamaConfig, LlamaForCausalLM

    layers, width = SHAPE
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=width,
        intermediate_size=width * 43 // 16,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 128, 1),
        max_position_embeddings=4096,
        dtype=torch.bfloat16,
    )
    torch.manual_seed(1)
    with torch.device("cpu" if ON_CPU else "cuda:0"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return sum(tensor.numel() for tensor in model.parameters())


def estimated(params: int) -> dict[str, float]:
    """Seconds by the throughput model: prefill at 55 % of the peak; a decode step reads the weights at 75 %
    and the cache at 60 % of the memory's peak, computes at 45 %, and costs 2 ms beside."""
    layers, width = SHAPE
    cache = 2 * 2 * layers * width * PROMPT_TOKENS
    step = 2 * params / (0.75 * MEMORY_BYTES) + PROMPTS * cache / (0.6 * MEMORY_BYTES) + 2 * PROMPTS * params / (0.45 * FLOPS) + 2e-3
    return {"prefill": PROMPTS * PROMPT_TOKENS * 2 * params / (0.55 * FLOPS), "decode": REPLY_TOKENS * step}
