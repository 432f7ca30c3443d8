"""Stable codes of a failed job and the class that each belongs to (docker/protocol/src/result.rs)."""

from __future__ import annotations

import errno
import os

EXIT = {"ok": 0, "miner": 10, "miner-if-confirmed": 11, "infra": 20, "timeout": 21, "job": 30}

CLASSES = {
    "E_FILES": "miner",
    "E_FORMAT": "miner",
    "E_CONFIG": "miner",
    "E_ARCH": "miner",
    "E_TOKENIZER": "miner",
    "E_NONFINITE": "miner",
    "E_SHAPE": "miner",
    "E_VOCAB": "miner",
    "E_OOM_MODEL": "miner-if-confirmed",
    "E_ENGINE_LOAD": "miner-if-confirmed",
    "E_GEN_STALL": "miner-if-confirmed",
    "E_DEVICE_ASSERT": "miner-if-confirmed",
    "I_DRIVER": "infra",
    "I_GPU_BUSY": "infra",
    "I_IO": "infra",
    "I_MOUNT": "infra",
    "I_SELFTEST": "infra",
    "I_TIMEOUT_LOAD": "timeout",
    "I_TIMEOUT_TOTAL": "timeout",
    "J_SCHEMA": "job",
    "J_SAMPLES": "job",
    "J_DIGEST": "job",
}


class Failure(Exception):
    """A job that ends without all replies. `message` never holds control characters and has at
    most 500 characters, because it may quote what a miner wrote."""

    def __init__(self, code: str, message: object) -> None:
        assert code in CLASSES, code
        text = "".join(c if c.isprintable() else " " for c in str(message))
        self.code, self.message = code, text[:500]
        super().__init__(f"{code}: {self.message}")

    @property
    def exit_class(self) -> str:
        """Class of the code: a key of `EXIT`."""
        return CLASSES[self.code]


def status(exit_class: str) -> str:
    """Only the class `miner` rejects: everything else is not the miner's, or not yet confirmed."""
    return {"ok": "ok", "miner": "rejected"}.get(exit_class, "infra")


def unread(name: str, err: OSError) -> Failure:
    """A file of the model that cannot be read. Missing means a wrong mount, because the node has
    verified it; anything else (modes, a broken disk) is I/O. Neither is the miner's fault."""
    code = "I_MOUNT" if err.errno == errno.ENOENT else "I_IO"
    reason = os.strerror(err.errno) if err.errno else err
    return Failure(code, f"reading {name} of the model: {reason}")
