"""PyTorch's functions for ONNX nodes: what `contenders.py` runs eagerly, one function a node.

    function = function_of(node, opset=17)
    result = function(x, weight)             # tensors; int64 initializers as lists, those without axes as numbers

The operators are those of the suite and of `networks.py`; another one, or a form that PyTorch has not, is refused in one line.
A sibling module of the scripts in this folder.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from math import prod
from typing import Any, TypeAlias

import onnx

Attributes: TypeAlias = Mapping[str, Any]
Function: TypeAlias = Callable[..., Any]


def function_of(node: onnx.NodeProto, opset: int) -> Function:
    """The function from a node's inputs to its first output. Ends the process with one line where PyTorch has none."""
    attributes = {
        item.name: onnx.helper.get_attribute_value(item.default_value)
        for item in onnx.defs.get_schema(node.op_type, opset, node.domain).attributes.values()
        if item.default_value.name
    }
    attributes |= {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    functions = torch_functions()
    if node.op_type not in functions:
        raise SystemExit(f"node '{node.name}': no function of PyTorch is known here for operator {node.op_type}")
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise SystemExit(f"node '{node.name}': PyTorch has no auto_pad")
    return functions[node.op_type](attributes)


def torch_functions() -> dict[str, Callable[[Attributes], Function]]:
    """By operator: from a node's attributes, with those of the standard that it does not give, to PyTorch's function."""
    import torch

    functional = torch.nn.functional
    types = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.INT32: torch.int32, onnx.TensorProto.INT64: torch.int64}

    def sliced(x: Any, begins: list[int], ends: list[int], axes: list[int], steps: list[int]) -> Any:
        cuts = {axis: slice(*cut) for axis, *cut in zip(axes, begins, ends, steps, strict=True)}
        return x[tuple(cuts.get(axis, slice(None)) for axis in range(x.dim()))]

    def padded(x: Any, pads: list[int], value: float = 0.0) -> Any:
        """Pads of the last axes, all first ones before all last ones."""
        count = len(pads) // 2
        pairs = list(zip(pads[:count], pads[count:], strict=True))
        return functional.pad(x, [width for pair in reversed(pairs) for width in pair], value=value)

    def placed(a: Attributes, fill: float | None = 0.0) -> tuple[Callable[[Any], Any], dict[str, Any]]:
        """What is done to the data before a window slides over it, and the window's stride and padding.

        PyTorch pads both ends alike; other pads are filled beforehand, and refused where nothing can fill them.
        """
        rank = len(a["kernel_shape"])
        strides, pads = a.get("strides", [1] * rank), a.get("pads", [0] * 2 * rank)
        if pads[:rank] == pads[rank:]:
            return lambda x: x, {"stride": strides, "padding": pads[:rank]}
        if fill is None:
            raise SystemExit("PyTorch has no average without the pads where these differ between begin and end")
        return lambda x: padded(x, pads, fill), {"stride": strides, "padding": 0}

    def convolved(a: Attributes) -> Function:
        rank = len(a["kernel_shape"])
        function = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[rank]
        before, spans = placed(a)
        spans |= {"dilation": a.get("dilations", [1] * rank), "groups": a["group"]}
        return lambda x, weight, bias=None: function(before(x), weight, bias, **spans)

    def maximum(a: Attributes) -> Function:
        rank = len(a["kernel_shape"])
        function = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[rank]
        before, spans = placed(a, -torch.inf)
        spans |= {"dilation": a.get("dilations", [1] * rank), "ceil_mode": bool(a.get("ceil_mode", 0))}
        return lambda x: function(before(x), a["kernel_shape"], **spans)

    def average(a: Attributes) -> Function:
        function = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[len(a["kernel_shape"])]
        before, spans = placed(a, 0.0 if a["count_include_pad"] else None)
        spans |= {"ceil_mode": bool(a.get("ceil_mode", 0)), "count_include_pad": bool(a["count_include_pad"])}
        return lambda x: function(before(x), a["kernel_shape"], **spans)

    def product(a: Attributes) -> Function:
        if a["transB"] and not a["transA"] and a["alpha"] == a["beta"] == 1:
            return functional.linear

        def general(x: Any, weight: Any, bias: Any = 0.0) -> Any:
            left, right = x.T if a["transA"] else x, weight.T if a["transB"] else weight
            return a["alpha"] * (left @ right) + a["beta"] * bias

        return general

    def gathered(a: Attributes) -> Function:
        axis = a["axis"]
        return lambda x, index: functional.embedding(index, x) if axis == 0 else x.index_select(axis, index)

    def unsqueezed(x: Any, axes: list[int]) -> Any:
        return reduce(lambda value, axis: value.unsqueeze(axis), sorted(axes), x)

    def reshaped(x: Any, shape: list[int]) -> Any:
        return x.reshape([extent or x.shape[axis] for axis, extent in enumerate(shape)])

    return {
        "MatMul": lambda a: torch.matmul,
        "Gemm": product,
        "Add": lambda a: operator.add,
        "Sub": lambda a: operator.sub,
        "Mul": lambda a: operator.mul,
        "Div": lambda a: operator.truediv,
        "Sum": lambda a: lambda *parts: reduce(operator.add, parts),
        "Relu": lambda a: torch.relu,
        "Clip": lambda a: lambda x, *bounds: torch.clamp(x, *(bounds or (a["min"], a["max"]))),
        "Erf": lambda a: torch.erf,
        "Tanh": lambda a: torch.tanh,
        "Softmax": lambda a: lambda x: torch.softmax(x, a["axis"]),
        "Cast": lambda a: lambda x: x.to(types[a["to"]]),
        "Dropout": lambda a: lambda x, *more: x,
        "ReduceL2": lambda a: lambda x: torch.linalg.vector_norm(x, dim=a["axes"]),
        "LayerNormalization": lambda a: (
            lambda x, scale, bias=None: functional.layer_norm(x, scale.shape, scale, bias, a["epsilon"])
        ),
        "BatchNormalization": lambda a: (
            lambda x, scale, bias, mean, variance: functional.batch_norm(x, mean, variance, scale, bias, eps=a["epsilon"])
        ),
        "LRN": lambda a: lambda x: functional.local_response_norm(x, a["size"], a["alpha"], a["beta"], a["bias"]),
        "GlobalAveragePool": lambda a: lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True),
        "AveragePool": average,
        "MaxPool": maximum,
        "Gather": gathered,
        "Transpose": lambda a: lambda x: x.permute(a["perm"]),
        "Flatten": lambda a: lambda x: x.reshape(prod(x.shape[: a["axis"]]), -1),
        "Unsqueeze": lambda a: lambda x, *axes: unsqueezed(x, *(axes or (a["axes"],))),
        "Reshape": lambda a: reshaped,
        "Concat": lambda a: lambda *parts: torch.cat(parts, a["axis"]),
        "Slice": lambda a: sliced,
        "Pad": lambda a: padded,
        "Conv": convolved,
        "ConvTranspose": lambda a: (
            lambda x, weight, bias=None: functional.conv_transpose2d(x, weight, bias, a["strides"], a["pads"][:2])
        ),
    }
