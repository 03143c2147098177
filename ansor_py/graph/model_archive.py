"""The file of a compiled model, `model.ansor`: an uncompressed zip.

manifest.json    format version, sizes and SHA-256 of the other members
plan.json        the execution plan, with the target that the code is for
weights.bin      the constants; its bytes start at a multiple of 64 in the file, so that they can be mapped
code/NAME.o      object code: one file a kernel, and the run function
fallback/N.onnx  the node that ONNX's reference evaluator runs as the N-th, if there are such nodes

write_archive("m.ansor", Archive(plan, objects, weights))
read_archive("m.ansor").weights            # numpy.memmap, read-only
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ansor_py.codegen.memory import ALIGNMENT
from ansor_py.errors import ModelError, TargetError
from ansor_py.graph.plan import Plan
from ansor_py.target import Target

FORMAT = 2  # 1: before the parallel runtime that kernels are linked with now
_MANIFEST, _PLAN, _WEIGHTS, _CODE, _FALLBACK = "manifest.json", "plan.json", "weights.bin", "code/", "fallback/"
# A local file header of a zip is 30 bytes, then the name, then the extra field, by whose length data is aligned.
_HEADER_BYTES = 30
_PADDING_TAG = 0xA115  # the id under which padding stands in the extra field
_CHUNK_BYTES = 1 << 24
# What `zipfile` and `json` raise on bytes that were not written by this module.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    KeyError,
    ValueError,
    EOFError,
    RuntimeError,
    OverflowError,
    TypeError,
    AttributeError,
)


@dataclass(frozen=True, eq=False)
class Archive:
    """What a compiled model is made of: the plan, object code by name, the constants as bytes, and ONNX models of the
    fallback nodes in the plan's order."""

    plan: Plan
    objects: Mapping[str, bytes]
    weights: NDArray[np.uint8]
    fallback_models: Sequence[bytes] = ()


def write_archive(path: str | os.PathLike[str], archive: Archive) -> None:
    """Write the file, replacing one of the same name only when the new one is complete. Raises ModelError."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as file:
            weights = np.ascontiguousarray(archive.weights)
            members: dict[str, Any] = {_WEIGHTS: weights.data}
            members[_PLAN] = json.dumps(archive.plan.to_json(), indent=1).encode()
            members.update((f"{_CODE}{name}.o", code) for name, code in archive.objects.items())
            members.update((f"{_FALLBACK}{index}.onnx", data) for index, data in enumerate(archive.fallback_models))
            entries = {name: _entry(data) for name, data in members.items()}
            manifest = {"format": FORMAT, "members": entries, "objects": list(archive.objects)}
            for name, data in members.items():
                _write_member(file, name, data)
            _write_member(file, _MANIFEST, json.dumps(manifest, indent=1).encode())
        os.replace(partial, path)
    except OSError as error:
        raise ModelError(f"the compiled model cannot be written to '{path}': {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def read_archive(path: str | os.PathLike[str]) -> Archive:
    """Open the file, check every hash, and check that this CPU can run the code; weights are mapped, not read into memory.

    Raises ModelError for a missing, truncated or damaged file and for another format, TargetError for another CPU.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle, zipfile.ZipFile(handle) as file:
            manifest = json.loads(file.read(_MANIFEST))
            if manifest.get("format") != FORMAT:
                raise ModelError(f"'{path}' has format {manifest.get('format')}, this version reads {FORMAT}; compile it again")
            entries: Mapping[str, Mapping[str, Any]] = manifest["members"]
            plan = Plan.from_json(json.loads(_checked(file, _PLAN, entries, path)))
            check_cpu(Target.from_json(plan.target), str(path))
            names = [str(name) for name in manifest["objects"]]
            objects = {name: _checked(file, f"{_CODE}{name}.o", entries, path) for name in names}
            count = sum(not node.library for node in plan.fallback.nodes) if plan.fallback is not None else 0
            models = [_checked(file, f"{_FALLBACK}{index}.onnx", entries, path) for index in range(count)]
            weights = _mapped(handle, file, entries, path)
    except FileNotFoundError as error:
        raise ModelError(f"compiled model '{path}' does not exist") from error
    except OSError as error:
        raise ModelError(f"compiled model '{path}' cannot be read: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise ModelError(f"'{path}' is truncated, damaged or not a compiled model ({error}); compile it again") from error
    return Archive(plan, objects, weights, models)


def check_cpu(target: Target, what: str) -> None:
    """TargetError unless this machine has the architecture and all CPU features that the code was made for."""
    if misfit := target.misfit():
        raise TargetError(f"{what} is compiled for {target.architecture} CPU '{target.cpu}'; {misfit}; compile it here")


def _entry(data: Any) -> dict[str, Any]:
    return {"bytes": memoryview(data).nbytes, "sha256": hashlib.sha256(data).hexdigest()}


def _write_member(file: zipfile.ZipFile, name: str, data: Any) -> None:
    """Store a member so that its first byte lies at a multiple of the alignment in the file."""
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o644 << 16
    size = memoryview(data).nbytes
    offset = file.fp.tell() if file.fp else 0
    zip64 = 20 if size * 1.05 > zipfile.ZIP64_LIMIT else 0  # what `zipfile` adds to the header of a large member
    start = offset + _HEADER_BYTES + len(name.encode()) + zip64 + 4
    padding = -start % ALIGNMENT
    info.extra = _PADDING_TAG.to_bytes(2, "little") + padding.to_bytes(2, "little") + bytes(padding)
    info.file_size = size
    with file.open(info, "w", force_zip64=bool(zip64)) as member:
        view = memoryview(data).cast("B") if size else memoryview(b"")
        for begin in range(0, size, _CHUNK_BYTES):
            member.write(view[begin : begin + _CHUNK_BYTES])


def _checked(file: zipfile.ZipFile, name: str, entries: Mapping[str, Mapping[str, Any]], path: Path) -> bytes:
    data = file.read(name)
    if hashlib.sha256(data).hexdigest() != entries[name]["sha256"]:
        raise ModelError(f"'{path}' is damaged: the hash of its member {name} does not match; compile it again")
    return data


def _mapped(
    handle: IO[bytes], file: zipfile.ZipFile, entries: Mapping[str, Mapping[str, Any]], path: Path
) -> NDArray[np.uint8]:
    """The weights as a read-only mapping of the file, after a check of their hash."""
    info, size = file.getinfo(_WEIGHTS), int(entries[_WEIGHTS]["bytes"])
    handle.seek(info.header_offset)
    header = handle.read(_HEADER_BYTES)
    start = (
        info.header_offset + _HEADER_BYTES + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    )
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != size or start % ALIGNMENT:
        raise ModelError(f"'{path}' is damaged: its weights are not stored as they were written; compile it again")
    if size == 0:
        return np.empty(0, np.uint8)
    mapping = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    weights = np.frombuffer(mapping, np.uint8, count=size, offset=start)
    if hashlib.sha256(weights.data).hexdigest() != entries[_WEIGHTS]["sha256"]:
        raise ModelError(f"'{path}' is damaged: the hash of its weights does not match; compile it again")
    return weights
