"""Lines of `likelihood.jsonl`: how well the model foresees a reference. Diagnostics and
fingerprints, never reward: a compromised container could write what it likes."""

from __future__ import annotations

import base64
import math
import struct

from .engines import Scored

STEPS_PER_NAT = 1024
ABSENT = 1e-9


def line(sample: str, scored: Scored, size: int, top_k: int) -> dict:
    """One line. `bytes` is the length of the text that the tokens cover; `nll` is in nats;
    `ngram_sums[k-1]` is the sum over positions of the product of k successive top-set
    probabilities (1e-9 for a token outside the set); `entropy` is the mean entropy of the top set
    divided by the log of its size; `lp_q16` is the base64 of one little-endian u16 for each token:
    the negative log-probability in steps of 1/1024 nat, at most 65535."""
    p = [value if value > 0 else ABSENT for value in scored.top_p]
    sums = []
    for k in range(1, 5):
        sums.append(math.fsum(math.prod(p[i : i + k]) for i in range(len(p) - k + 1)))
    steps = [min(65535, max(0, round(-logp * STEPS_PER_NAT))) for logp in scored.logps]
    count = max(1, len(p))
    return {
        "id": sample,
        "tokens": len(scored.logps),
        "bytes": size,
        "nll": round(max(0.0, -math.fsum(scored.logps)), 4),
        "ngram_sums": [round(value, 4) for value in sums],
        "entropy": round(math.fsum(scored.top_entropy) / count / math.log(max(2, top_k)), 4),
        "lp_q16": base64.b64encode(struct.pack(f"<{len(steps)}H", *steps)).decode(),
    }
