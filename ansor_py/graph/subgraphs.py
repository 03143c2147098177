"""The graphs inside of ONNX nodes (branches of If, bodies of Loop and Scan): what they take from outside, and inlining.

values_read(node)                              # inputs, and what the subgraphs capture
tensors, nodes = inlined_branch(node, True)    # the nodes of an If whose condition is known, in the place of the If
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

Rename = Callable[[str], str]


def values_read(node: NodeProto) -> tuple[str, ...]:
    """What a node reads of the graph that it stands in: its inputs, and what its subgraphs take from outside."""
    names = [name for name in node.input if name]
    for graph in subgraphs_of(node):
        own = _own_names(graph)
        read = [name for inner in graph.node for name in values_read(inner)] + [info.name for info in graph.output]
        names += [name for name in read if name not in own]
    return tuple(dict.fromkeys(names))


def subgraphs_of(node: NodeProto) -> list[GraphProto]:
    """The graphs among a node's attributes."""
    found = []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            found.append(attribute.g)
        elif attribute.type == AttributeProto.GRAPHS:
            found.extend(attribute.graphs)
    return found


def operators_in(node: NodeProto) -> set[str]:
    """The operator types of a node and of all nodes in its subgraphs."""
    return {node.op_type}.union(*(operators_in(inner) for graph in subgraphs_of(node) for inner in graph.node))


def rename_captures(node: NodeProto, rename: Rename) -> None:
    """Rename, in place, what the subgraphs of a node take from outside."""
    for graph in subgraphs_of(node):
        own = _own_names(graph)

        def inside(name: str, own: set[str] = own) -> str:
            return name if name in own or not name else rename(name)

        for inner in graph.node:
            inner.input[:] = [inside(name) for name in inner.input]
            rename_captures(inner, inside)
        for info in graph.output:
            info.name = inside(info.name)


def inlined_branch(node: NodeProto, condition: bool, prefix: str) -> tuple[list[TensorProto], list[NodeProto]]:
    """The initialisers and nodes of an If's branch under names of their own, with the If's outputs as results."""
    wanted = "then_branch" if condition else "else_branch"
    (branch,) = [attribute.g for attribute in node.attribute if attribute.name == wanted]
    names = {name: f"{prefix}{name}" for name in _own_names(branch)}
    copied = []
    for inner in branch.node:
        copy = NodeProto()
        copy.CopyFrom(inner)
        copy.name = f"{prefix}{inner.name or inner.op_type}"
        copy.input[:] = [names.get(name, name) for name in inner.input]
        copy.output[:] = [names.get(name, name) for name in inner.output]
        rename_captures(copy, lambda name: names.get(name, name))
        copied.append(copy)
    for info, output in zip(branch.output, node.output, strict=True):
        if output:
            source = names.get(info.name, info.name)
            copied.append(helper.make_node("Identity", [source], [output], name=f"{prefix}{output}"))
    tensors = []
    for tensor in branch.initializer:
        moved = TensorProto()
        moved.CopyFrom(tensor)
        moved.name = names[tensor.name]
        tensors.append(moved)
    return tensors, copied


def _own_names(graph: GraphProto) -> set[str]:
    own = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    own |= {tensor.values.name for tensor in graph.sparse_initializer}
    return own | {name for node in graph.node for name in node.output if name}
