"""The device before and while it is used, and what its errors mean."""

from __future__ import annotations

from ..failure import Failure

FREE_SHARE_MIN = 0.97


def describe() -> str:
    """`cpu`, or name and UUID of the first GPU. Raises `I_DRIVER`, `I_GPU_BUSY`: a GPU that others
    use, or that does not come up, is never the model's fault."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    try:
        free, total = torch.cuda.mem_get_info(0)
        properties = torch.cuda.get_device_properties(0)
    except Exception as err:
        raise Failure("I_DRIVER", f"the GPU does not come up: {err}") from err
    if free < FREE_SHARE_MIN * total:
        raise Failure("I_GPU_BUSY", f"{free >> 20} of {total >> 20} MiB are free before anything was loaded")
    return f"{properties.name} GPU-{properties.uuid}"


def failure(err: Exception, code: str) -> Failure:
    """An engine's exception as a failure; `code` unless the message tells more."""
    import torch

    text = f"{type(err).__name__}: {err}"
    if isinstance(err, Failure):
        return err
    if isinstance(err, torch.OutOfMemoryError):
        return Failure("E_OOM_MODEL", text)
    if "device-side assert" in text:
        return Failure("E_DEVICE_ASSERT", text)
    if any(sign in text for sign in ("CUDA driver", "ECC", "unspecified launch failure", "NCCL")):
        return Failure("I_DRIVER", text)
    if isinstance(err, OSError):
        return Failure("I_IO", text)
    return Failure(code, text)
