"""Records what the field's own package says: `reveal_rounds.py > tests/it/data/reveal_rounds.json`.

Needs bittensor-drand 2.0.0. Fifty cases of epoch state with the round that the package encrypts for,
and blobs of the package for rounds whose signature is known: they decrypt with it."""

import json
import random
import time

import bittensor_drand as drand

GENESIS_S, PERIOD_S = 1692803367, 3
HOTKEY = bytes(range(32))
# drand's published test vector of quicknet.
KNOWN = (1000, "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39")


def measured(case: dict) -> dict:
    """The package reads the clock itself: measure until a call begins and ends in one round."""
    while True:
        before = time.time()
        _, round_ = drand.get_encrypted_commit_v2(
            [0], [1], 0, case["last_epoch"], case["pending"], case["index"], case["tempo"], case["since_step"],
            case["block"], case["period"], case["block_ms"] / 1000, HOTKEY,
        )
        after = time.time()
        # The same fraction of a period at both ends, for any block time.
        if after - before < 0.05:
            return {**case, "now_ms": int(before * 1000), "slack_ms": int((after - before) * 1000) + 1, "round": round_}


def cases() -> list[dict]:
    draw = random.Random(20261125)
    fixed = [
        {"block": 1100, "last_epoch": 1000, "pending": 0, "index": 7, "tempo": 360, "since_step": 100, "period": 1, "block_ms": 12000},
        {"block": 1359, "last_epoch": 1000, "pending": 0, "index": 7, "tempo": 360, "since_step": 359, "period": 1, "block_ms": 12000},
        {"block": 1360, "last_epoch": 1000, "pending": 0, "index": 7, "tempo": 360, "since_step": 360, "period": 1, "block_ms": 12000},
        {"block": 1100, "last_epoch": 1000, "pending": 1200, "index": 7, "tempo": 360, "since_step": 100, "period": 1, "block_ms": 12000},
        {"block": 1100, "last_epoch": 1000, "pending": 1101, "index": 7, "tempo": 360, "since_step": 100, "period": 2, "block_ms": 12000},
    ]
    while len(fixed) < 50:
        tempo = draw.choice([20, 99, 360, 360, 720, 7200])
        into = draw.randrange(0, tempo + 1)
        last = draw.randrange(1, 7_000_000)
        block = last + into
        pending = draw.choice([0, 0, 0, block + draw.randrange(1, tempo + 1)])
        fixed.append(
            {"block": block, "last_epoch": last, "pending": pending, "index": draw.randrange(0, 5000), "tempo": tempo,
             "since_step": into, "period": draw.choice([1, 1, 1, 2, 3]), "block_ms": draw.choice([12000, 12000, 250])}
        )
    return fixed


def main() -> None:
    round_, signature = KNOWN
    plain = b"weights made by the package"
    blob, _ = drand.encrypt_at_round(plain, round_)
    print(json.dumps({
        "package": "bittensor-drand 2.0.0",
        "known": {"round": round_, "signature": signature, "plaintext": plain.hex(), "blob": bytes(blob).hex()},
        "cases": [measured(case) for case in cases()],
    }, indent=1))


main()
