"""Reading a model: from a path, bytes or a `ModelProto` to a `ModelProto`, with one clear error for what is not one.

model = read_model("m.onnx")     # with external data loaded
"""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from onnx import ModelProto

from ansor_py.errors import ModelError


def read_model(model: str | os.PathLike[str] | bytes | ModelProto) -> ModelProto:
    """The model, with the weights of external data files (beside a file given by path) loaded. Raises ModelError."""
    if isinstance(model, ModelProto):
        return model
    if isinstance(model, bytes):
        return _parsed(model, "the given bytes")
    path = Path(model)
    if not path.exists():
        raise ModelError(f"model file '{path}' does not exist")
    if path.is_dir():
        raise ModelError(f"'{path}' is a folder; give the ONNX file in it")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"model file '{path}' cannot be read: {error.strerror}") from error
    parsed = _parsed(data, f"'{path}'")
    try:
        onnx.load_external_data_for_model(parsed, str(path.resolve().parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"external data of '{path}' cannot be loaded: {first_line(error)}") from error
    return parsed


def _parsed(data: bytes, what: str) -> ModelProto:
    model = ModelProto()
    # Field 1 of a ModelProto is `ir_version`, and every writer emits fields in order: an ONNX file starts with 0x08.
    starts_like_onnx = data[:1] == b"\x08"
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        if starts_like_onnx and data:
            raise ModelError(f"{what} is truncated or damaged: it starts like an ONNX model but cannot be decoded") from error
        raise ModelError(f"{what} is not an ONNX file") from error
    if not model.HasField("graph") or not (model.ir_version or model.graph.node):
        if starts_like_onnx:
            raise ModelError(f"{what} is truncated or damaged: it holds no graph")
        raise ModelError(f"{what} is not an ONNX file")
    return model


def first_line(error: Exception) -> str:
    """What an error of ONNX says, without the places in its sources."""
    return str(error).strip().split("\n\n")[0].replace("\n", " ")[:400]
