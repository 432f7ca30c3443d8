"""What torch says of accelerators on a host without one."""

from __future__ import annotations

import torch


def answer_none() -> None:
    """Makes `torch.accelerator.current_accelerator` answer None where there is none. torch 2.6, which
    Debian 13 ships, raises instead, and transformers asks while it is imported: call this before."""
    try:
        torch.accelerator.current_accelerator()
    except RuntimeError:
        torch.accelerator.current_accelerator = lambda check_available=False: None
