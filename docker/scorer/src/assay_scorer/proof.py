"""Evidence that what was loaded is what the node verified: digests, file stats, canary values."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

from .failure import Failure, unread

BLOCK = 8 << 20
HEADER_BYTES_MAX = 8 << 20
DTYPES = {"BF16": 2, "F16": 2, "F32": 4}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor lies, and the SHA-256 of its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    sha256: bytes


def stat_all(folder: Path, files: list[dict]) -> list[tuple[int, ...]]:
    """Device, inode, size and modification time of every listed file."""
    stats = []
    for file in files:
        try:
            meta = os.stat(folder / file["path"])
        except OSError as err:
            raise unread(file["path"], err) from err
        stats.append((meta.st_dev, meta.st_ino, meta.st_size, meta.st_mtime_ns))
    return stats


def verify(folder: Path, files: list[dict], beat: Callable[[int], None]) -> list[Tensor]:
    """Hashes every file and, in the same read, every tensor of the safetensors files; several
    files at once. `beat` is called with the number of files done.

    Raises `I_MOUNT` when a file is missing, of another size or digest; `I_IO` when it cannot be
    read; `E_FORMAT` when a header is malformed."""
    tensors: list[Tensor] = []
    workers = min(8, os.cpu_count() or 1, max(1, len(files)))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(_verify_one, folder, file) for file in files}
        done = 0
        while pending:
            ended, pending = concurrent.futures.wait(pending, timeout=5, return_when="FIRST_COMPLETED")
            for one in ended:
                tensors.extend(one.result())
            done += len(ended)
            beat(done)
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        raise Failure("E_FORMAT", "a tensor is in two files")
    return tensors


def _verify_one(folder: Path, file: dict) -> list[Tensor]:
    name, path = file["path"], folder / file["path"]
    try:
        with path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if size != file["size"]:
                raise Failure("I_MOUNT", f"{name} has {size} bytes, the job says {file['size']}")
            digest, tensors = _hash(opened, path, size)
    except OSError as err:
        raise unread(name, err) from err
    if digest != file["sha256"]:
        raise Failure("I_MOUNT", f"{name} has digest {digest}, the job says {file['sha256']}")
    return tensors


def _hash(opened, path: Path, size: int) -> tuple[str, list[Tensor]]:
    whole = hashlib.sha256()
    tensors: list[Tensor] = []
    if path.suffix == ".safetensors":
        layout, head = _header(opened, path.name, size)
        whole.update(head)
        for name, dtype, shape, begin, end in layout:
            own, left = hashlib.sha256(), end - begin
            offset = opened.tell()
            while left:
                block = opened.read(min(BLOCK, left))
                if not block:
                    raise Failure("I_IO", f"{path.name} ends early")
                own.update(block)
                whole.update(block)
                left -= len(block)
            tensors.append(Tensor(name, dtype, shape, path, offset, own.digest()))
    while block := opened.read(BLOCK):
        whole.update(block)
    return whole.hexdigest(), tensors


def _header(opened, name: str, size: int) -> tuple[list[tuple], bytes]:
    """Tensors in the order of their bytes, and the bytes read so far. The node's own parser is
    stricter; this one only has to be safe on any input."""
    prefix = opened.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
    if length > min(HEADER_BYTES_MAX, size - 8):
        raise Failure("E_FORMAT", f"{name}: the header is longer than the file or 8 MiB")
    text = opened.read(length)
    try:
        header = json.loads(text)
        layout = [
            (str(tensor), str(entry["dtype"]), tuple(int(d) for d in entry["shape"]), *map(int, entry["data_offsets"]))
            for tensor, entry in header.items()
            if tensor != "__metadata__"
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise Failure("E_FORMAT", f"{name}: {err!r}") from err
    layout.sort(key=lambda entry: entry[3])
    at = 0
    for tensor, dtype, shape, begin, end in layout:
        width = DTYPES.get(dtype)
        elements = 1
        for dim in shape:
            elements *= dim
        if width is None or begin != at or end - begin != elements * width:
            raise Failure("E_FORMAT", f"{name}: tensor {tensor!r} of {dtype} has wrong offsets, shape or element type")
        at = end
    if 8 + length + at != size:
        raise Failure("E_FORMAT", f"{name}: {size - 8 - length - at} bytes are not described by the header")
    return layout, prefix + text


def tensor_digest(tensors: list[Tensor]) -> str:
    """As `docker/protocol/src/tensor_digest.rs`: independent of sharding and order."""
    whole = hashlib.sha256()
    for tensor in sorted(tensors, key=lambda t: t.name.encode()):
        shape = ",".join(map(str, tensor.shape))
        whole.update(f"{tensor.name}\0{tensor.dtype}\0{shape}\0".encode() + tensor.sha256)
    return f"sha256:{whole.hexdigest()}"


def canary_tensors(layers: int, count: int) -> list[str]:
    """As `docker/protocol/src/canary.rs`: tensors that every engine leaves unfused."""
    names = ["model.embed_tokens.weight", "model.norm.weight"]
    inner = min(max(0, count - 2), 2 * layers)
    for i in range(inner):
        part = "self_attn.o_proj" if i % 2 == 0 else "mlp.down_proj"
        name = f"model.layers.{i * layers // inner}.{part}.weight"
        if name not in names:
            names.append(name)
    return names[:count]


def canary_positions(nonce: bytes, tensor: str, elements: int, values: int) -> list[int]:
    """As `docker/protocol/src/canary.rs`: positions drawn from the nonce."""
    if elements == 0:
        return []
    drawn: list[int] = []
    block = 0
    while len(drawn) < values:
        text = b"assay-canary/1\0" + nonce + b"\0" + tensor.encode() + b"\0" + struct.pack("<Q", block)
        drawn.extend(number % elements for number in struct.unpack("<4Q", hashlib.sha256(text).digest()))
        block += 1
    return drawn[:values]


def canary(job: dict, tensors: list[Tensor], layers: int, dtype, loaded: Callable[[str, list[int]], list[float]]) -> list[dict]:
    """Compares values of the files, cast to the engine's `dtype`, with what the engine holds.
    `loaded(name, positions)` gives the engine's values as f32. Raises `I_MOUNT` on a difference:
    the loader took its bytes from somewhere else."""
    nonce = bytes.fromhex(job["nonce"])
    by_name = {tensor.name: tensor for tensor in tensors}
    proofs = []
    for name in canary_tensors(layers, job["canary"]["tensors"]):
        tensor = by_name.get(name)
        if tensor is None:
            raise Failure("E_SHAPE", f"tensor {name} is missing")
        elements = 1
        for dim in tensor.shape:
            elements *= dim
        positions = canary_positions(nonce, name, elements, job["canary"]["values"])
        proof = {
            "tensor": name,
            "sha256_file": _digest(_from_file(tensor, positions, dtype)),
            "sha256_loaded": _digest(loaded(name, positions)),
        }
        if proof["sha256_file"] != proof["sha256_loaded"]:
            raise Failure("I_MOUNT", f"the loaded {name} differs from the file")
        proofs.append(proof)
    return proofs


def _from_file(tensor: Tensor, positions: list[int], dtype) -> list[float]:
    import torch

    stored = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[tensor.dtype]
    width = DTYPES[tensor.dtype]
    raw = bytearray()
    try:
        with tensor.path.open("rb") as opened:
            for position in positions:
                raw += os.pread(opened.fileno(), width, tensor.offset + position * width)
    except OSError as err:
        raise unread(tensor.path.name, err) from err
    return torch.frombuffer(raw, dtype=stored).to(dtype).float().tolist()


def _digest(values: list[float]) -> str:
    return hashlib.sha256(struct.pack(f"<{len(values)}f", *values)).hexdigest()
