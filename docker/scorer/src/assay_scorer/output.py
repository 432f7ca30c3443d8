"""`/out`: signs of life, lines as they are finished, and the result that ends the job."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from pathlib import Path

from .failure import Failure

LINE_BYTES_MAX = 20 * 1024
REPLIES_BYTES_MAX = 16 * 1024 * 1024
BEAT_S = 5.0


def encode(value: object) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def number(value: float) -> float:
    """A float whose shortest decimal form every JSON writer spells alike (no exponent), because
    the result's MAC is computed over the text: rounded to 4 decimals."""
    return round(float(value), 4)


def seal(result: dict) -> dict:
    """Adds `mac`: HMAC-SHA256 under the nonce over the JSON with sorted keys and an empty `mac`."""
    bare = json.dumps({**result, "mac": ""}, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
    mac = hmac.new(bytes.fromhex(result["nonce"]), bare.encode(), hashlib.sha256)
    return {**result, "mac": mac.hexdigest()}


class Output:
    """The output folder of a running job; its files must not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, time.monotonic()
        self.stage, self._told = "verify", 0.0
        self._files, self._digests = {}, {}
        self._open("progress")
        self._open("replies")

    def _open(self, name: str) -> None:
        try:
            self._files[name] = (self.folder / f"{name}.jsonl").open("xb", buffering=0)
        except OSError as err:
            raise Failure("I_IO", f"creating {name}.jsonl: {err.strerror}") from err
        self._digests[name] = hashlib.sha256()

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def beat(self, stage: str, done: int, total: int) -> None:
        """Called often while work goes on; writes when the stage is new or the last line is old."""
        if stage != self.stage or time.monotonic() - self._told >= BEAT_S:
            self.tell(stage, done, total)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Writes a progress line."""
        self.stage, self._told = stage, time.monotonic()
        self._append("progress", encode({"t": number(self.seconds()), "stage": stage, "done": done, "total": total}))

    def reply(self, reply: dict, count: int) -> dict:
        """Appends a reply. A text that would make the line longer than the node reads loses its
        end and counts as cut. Returns what was written."""
        most = min(LINE_BYTES_MAX, REPLIES_BYTES_MAX // max(1, count))
        line = encode(reply)
        while len(line) + 1 > most and reply["text"]:
            keep = len(reply["text"].encode()) * 3 // 4
            reply = {**reply, "text": reply["text"].encode()[:keep].decode(errors="ignore"), "finish": "length"}
            line = encode(reply)
        self._append("replies", line)
        return reply

    def likelihood(self, line: dict) -> None:
        """Appends a line of `likelihood.jsonl`, which the first line creates."""
        if "likelihood" not in self._files:
            self._open("likelihood")
        self._append("likelihood", encode(line))

    def _append(self, name: str, line: bytes) -> None:
        line += b"\n"
        self._digests[name].update(line)
        try:
            if self._files[name].write(line) != len(line):
                raise Failure("I_IO", f"{name}.jsonl: short write")
        except OSError as err:
            raise Failure("I_IO", f"writing {name}.jsonl: {err.strerror}") from err

    def digest(self, name: str) -> str:
        """Makes a line file durable and gives its SHA-256."""
        try:
            os.fsync(self._files[name].fileno())
        except OSError as err:
            raise Failure("I_IO", f"syncing {name}.jsonl: {err.strerror}") from err
        return self._digests[name].hexdigest()

    def finish(self, result: dict) -> None:
        """Ends the job: the result is there completely or not at all."""
        partial = self.folder / "result.json.tmp"
        try:
            with partial.open("xb") as file:
                file.write(encode(result) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            partial.rename(self.folder / "result.json")
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(folder)
            os.close(folder)
        except OSError as err:
            raise Failure("I_IO", f"writing result.json: {err.strerror}") from err
