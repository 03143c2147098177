"""Division by constants whose reciprocals are exact is multiplication by these.

Divisors that are powers of two, such as the square root of attention's 64 features, have exact reciprocals, and the product is
the quotient to the last bit. A division takes as long as some ten multiplications, and a formula that is cheap may be computed
in several places instead of being stored.

    before:  y = Div(x, 8)
    after:   y = Mul(x, 0.125)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ansor_py.graph.ir import Array, Graph, OperatorNode, Value, fresh_name, rebuild


def multiply_by_reciprocals(graph: Graph) -> Graph:
    """Every division by a constant of such numbers as a multiplication."""
    values = dict(graph.values)
    graph = replace(graph, values=values)  # sees the constants that are added
    nodes: list[OperatorNode] = []
    for node in graph.nodes:
        divisor = graph.constant(node.inputs[1]) if node.op_type == "Div" and not node.domain else None
        reciprocals = exact_reciprocals(divisor) if divisor is not None else None
        if reciprocals is not None:
            name = fresh_name(graph, f"{node.inputs[1]}_reciprocal")
            values[name] = Value(name, graph.values[node.inputs[1]].shape, str(reciprocals.dtype), reciprocals)
            node = replace(node, op_type="Mul", inputs=(node.inputs[0], name))
        nodes.append(node)
    return rebuild(graph, nodes)


def exact_reciprocals(numbers: Array) -> Array | None:
    """1 / x of floating-point numbers that are all powers of two, or their negatives, neither of them subnormal; else None."""
    if not np.issubdtype(numbers.dtype, np.floating) or not np.isfinite(numbers).all() or not numbers.all():
        return None
    wide = numbers.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        reciprocals = (1.0 / wide).astype(numbers.dtype)
    smallest = float(np.ldexp(1.0, _least_exponent(numbers.dtype)))
    powers = np.abs(np.frexp(wide)[0]) == 0.5
    normal = np.isfinite(reciprocals) & (np.abs(reciprocals) >= smallest) & (np.abs(wide) >= smallest)
    return reciprocals if bool((powers & normal).all()) else None


def _least_exponent(dtype: np.dtype[np.generic]) -> int:
    """Of the smallest normal number."""
    return {"float16": -14, "float32": -126}.get(dtype.name, -1022)
