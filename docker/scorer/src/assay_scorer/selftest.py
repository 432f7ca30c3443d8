"""Does the engine still compute what it computed when this was written? Run while the image is
built (without a GPU) and on each worker."""

from __future__ import annotations

import shutil

from .failure import Failure

IDS = [1, 7, 3, 9, 4]
EXPECTED = [-0.110_782_8, 0.135_986_28, 0.057_849_53, 0.169_256_32]
TOLERANCE = 1e-4


def selftest(engine: str, gpu: bool) -> None:
    """The made-up model of 2 layers that the CPU scorer's self-test uses must give the known
    logits; vLLM also needs a compiler at run time. Raises `I_SELFTEST`, `I_DRIVER`."""
    import torch

    if engine == "vllm":
        if not shutil.which("gcc"):
            raise Failure("I_SELFTEST", "vLLM compiles kernels at run time and finds no gcc")
        import vllm  # noqa: F401, an import error shows here, not in a job
    if gpu and not torch.cuda.is_available():
        raise Failure("I_DRIVER", "torch sees no GPU; leave the GPU out with --no-gpu")
    for place in ["cpu", "cuda:0"] if gpu else ["cpu"]:
        found = _logits(place)
        if any(abs(a - b) >= TOLERANCE for a, b in zip(found, EXPECTED, strict=True)):
            raise Failure("I_SELFTEST", f"logits on {place} are {found}, expected {EXPECTED}")


def _logits(place: str) -> list[float]:
    import torch

    from .engines import accelerator

    accelerator.answer_none()
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    model = Qwen2ForCausalLM(config)
    with torch.inference_mode():
        for name, tensor in model.named_parameters():
            tensor.copy_(torch.tensor(_values(name, tensor.numel())).reshape(tensor.shape))
        model.to(place).eval()
        return model(torch.tensor([IDS], device=place)).logits[0, -1, :4].float().tolist()


def _values(name: str, count: int) -> list[float]:
    """Numbers in -0.5..0.5 that depend on the name and the position only."""
    state = 7
    for byte in name.encode():
        state = (state * 31 + byte) % 2**32
    values = []
    for _ in range(count):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        values.append((state >> 16) / 65_536 - 0.5)
    return values
