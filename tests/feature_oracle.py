"""The slow, obvious feature extractor: one concrete program, its scheduled nest walked statement by statement.

It is the definition in code of `docs/features.md` and checks the batched extractor, with which it shares no function.
Numbers are Python numbers, indices are expressions, and every quantity is recomputed where it is needed.

    oracle_features(State.initial(dag).replay(sketch.concretise(row)), target)[0]["iterations"]
"""

from __future__ import annotations

import itertools
import math

from ansor_py.lower.nest import Loop, Nest, Statement, scheduled_nest, statements
from ansor_py.schedule.micro_kernels import MICRO_KERNELS, micro_kernel_for
from ansor_py.schedule.state import State
from ansor_py.target import Target
from ansor_py.te.expr import Binary, Call, Cast, Compare, Expr, Not, Read, Select, Var, reads_of, walk
from feature_oracle_uses import (
    BYTES,
    Located,
    Use,
    dimension_width,
    footprint,
    iteration_count,
    linear_terms,
    stride_along,
    uses_of,
)

FLOATS = ("float32", "float64")


def oracle_features(state: State, target: Target) -> list[dict[str, float]]:
    """Scaled features by name, one dict for each stage that is not inlined, producers first."""
    nest = scheduled_nest(state)
    located = [Located(loops, item, uses_of(nest, loops, item)) for loops, item in statements(nest)]
    order = [stage.name for stage in state.stages]
    located.sort(key=lambda item: order.index(item.statement.stage))
    rows = []
    for item in located:
        raw: dict[str, float] = {}
        raw |= _computation(item)
        for kind in ("vectorize", "unroll", "parallel"):
            raw |= _annotation(item, kind)
        raw |= _allocation(nest, item)
        iterations = iteration_count(item.loops)
        raw |= {"iterations": iterations, "unroll_limit": item.statement.unroll_limit}
        raw["loops"] = sum(1 for loop in item.loops if loop.extent > 1)
        raw |= _buffers(item, located, target)
        raw |= _intensity(item)
        raw |= _machine(state, item, located, target)
        raw |= {"prepacked": float(_is_prepacked(nest, item, located))}
        raw |= _accesses(state, item, raw, target)
        raw |= _roofline(state, item, raw, target)
        rows.append(raw)
    return [{name: math.log2(value + 1) for name, value in raw.items()} for raw in rows]


def _computation(item: Located) -> dict[str, float]:
    names = ["float_mad", "float_addsub", "float_mul", "float_divmod", "float_cmp", "float_math", "float_other"]
    names += ["int_mad", "int_addsub", "int_mul", "int_divmod", "int_cmp", "bool_op", "select"]
    counts: dict[str, float] = dict.fromkeys(names, 0)
    value = item.statement.value
    if item.statement.combiner is not None:
        accumulator = Read(item.statement.buffer, item.statement.indices)
        operator = {"sum": "add", "prod": "mul"}.get(item.statement.combiner, item.statement.combiner)
        value = Binary(operator, accumulator, value)
    for name in _operations(value):
        counts[name] += 1
    return {name: count * iteration_count(item.loops) for name, count in counts.items()}


def _operations(value: Expr) -> list[str]:
    """The kinds of all operations of a formula, each distinct one once; a product that only one sum uses is a part of that."""
    distinct: dict[Expr, None] = {}
    users: dict[Expr, list[Expr]] = {value: []}
    pending = [value]
    while pending:
        expr = pending.pop()
        if expr in distinct or not expr.operands or isinstance(expr, Read) or _only_indices(expr):
            continue
        distinct[expr] = None
        for operand in expr.operands:
            users.setdefault(operand, []).append(expr)
            pending.append(operand)
    sums = [expr for expr in distinct if isinstance(expr, Binary) and expr.op in ("add", "sub")]
    parts: set[Expr] = set()
    for expr in sums:
        products = [x for x in expr.operands if isinstance(x, Binary) and x.op == "mul" and x in distinct]
        parts.update([x for x in products if len(users[x]) == 1][:1])
    takes_product = {expr for expr in sums if parts & set(expr.operands)}
    return [_operation_name(expr, expr in takes_product) for expr in distinct if expr not in parts]


def _operation_name(expr: Expr, takes_product: bool) -> str:
    kind = "float" if expr.dtype in FLOATS else "int"
    match expr:
        case Binary(op="add" | "sub"):
            return f"{kind}_mad" if takes_product else f"{kind}_addsub"
        case Binary(op="mul"):
            return f"{kind}_mul"
        case Binary(op="div" | "floordiv" | "mod"):
            return f"{kind}_divmod"
        case Binary(op="min" | "max"):
            return f"{kind}_cmp"
        case Binary(op="and" | "or" | "bitand" | "bitor" | "bitxor" | "shl" | "shr") | Not():
            return "bool_op"
        case Binary(op="pow") | Call():
            return "float_math"
        case Compare():
            return "float_cmp" if expr.left.dtype in FLOATS else "int_cmp"
        case Select():
            return "select"
        case Cast():
            return "float_other"
    raise AssertionError(f"no operation: {expr}")


def _only_indices(expr: Expr) -> bool:
    """Integers that come from no read."""
    return expr.dtype not in (*FLOATS, "bool") and not _reads(expr)


def _reads(expr: Expr) -> bool:
    return any(isinstance(node, Read) for node in walk(expr))


def _is_whole_row(state: State, item: Located) -> bool:
    """Whether the lanes are those of a whole axis, so that masks are the same in every row."""
    lanes = item.loops[-1]
    axes = zip(state.stage(item.statement.stage).op.axes, item.statement.indices, strict=True)
    along = [axis for axis, index in axes if Var(lanes.variable) in walk(index)]
    return lanes.annotation == "vectorize" and bool(along) and lanes.extent >= along[0].extent


def _annotation(item: Located, kind: str) -> dict[str, float]:
    marked = [loop for loop in item.loops if loop.annotation == kind]
    positions = ["none", "mixed"]
    positions += [f"{where}_{loops}" for where in ("inner", "middle", "outer") for loops in ("spatial", "reduction")]
    position = "none"
    if len({loop.kind for loop in marked}) > 1:
        position = "mixed"
    elif marked:
        same = [loop.variable for loop in item.loops if loop.kind == marked[-1].kind]
        number = same.index(marked[-1].variable)
        position = "inner" if number == len(same) - 1 else "outer" if number == 0 else "middle"
        position += f"_{marked[-1].kind}"
    result: dict[str, float] = {f"{kind}.at_{name}": float(name == position) for name in positions}
    result[f"{kind}.loops"] = len(marked)
    result[f"{kind}.product"] = math.prod(loop.extent for loop in marked) if marked else 0
    result[f"{kind}.length"] = marked[-1].extent if marked else 0
    return result


def _allocation(nest: Nest, item: Located) -> dict[str, float]:
    place = nest.buffers[item.statement.buffer.name]
    if place.scope != "workspace":
        return {"allocated_bytes": 0, "allocated_total": 0, "allocation_outer": 0, "allocation_inner": 0}
    use = item.uses[0]
    outer = tuple(loop for loop in item.loops if loop.variable in use.fixed)
    inner = tuple(loop for loop in item.loops if loop.variable not in use.fixed)
    elements = math.prod(use.shape)
    return {
        "allocated_bytes": elements * use.element,
        "allocated_total": elements * iteration_count(outer),
        "allocation_outer": iteration_count(outer),
        "allocation_inner": iteration_count(inner),
    }


def _inside(item: Located, depth: int, all_items: list[Located]) -> list[Located]:
    """The statements in the body of the statement's loop number `depth - 1` (0: in the whole program)."""
    prefix = [loop.variable for loop in item.loops[:depth]]
    return [other for other in all_items if [loop.variable for loop in other.loops[:depth]] == prefix]


def _body_bytes(item: Located, depth: int, all_items: list[Located]) -> int:
    """Bytes touched in that body, a buffer counted once, as often as the statement that touches most of it."""
    most: dict[str, int] = {}
    for other in _inside(item, depth, all_items):
        for use in other.uses:
            most[use.name] = max(most.get(use.name, 0), use.element * footprint(use, other.loops[depth:]))
    return sum(most.values())


def _buffers(item: Located, all_items: list[Located], target: Target) -> dict[str, float]:
    described = [_buffer(item, number, use, all_items, target) for number, use in enumerate(item.uses)]
    described.sort(key=lambda fields: (-fields["lines"], -fields["bytes"]))
    result: dict[str, float] = {}
    names = list(described[0])
    for number in range(5):
        for name in names:
            result[f"buffer{number}.{name}"] = described[number][name] if number < len(described) else 0
    return result


def _buffer(item: Located, number: int, use: Use, all_items: list[Located], target: Target) -> dict[str, float]:
    stores, accumulates = number == 0, number == 0 and item.statement.combiner is not None
    fields: dict[str, float] = {
        "read": float(not stores),
        "write": float(stores and not accumulates),
        "read_write": float(accumulates),
    }
    fields["bytes"] = iteration_count(item.loops) * use.element
    fields["unique_bytes"] = footprint(use, item.loops) * use.element
    fields["lines"] = 1
    for position in reversed(range(len(item.loops))):
        loop = item.loops[position]
        if loop.extent > 1 and stride_along(use, loop) != 0:
            share = min(1, stride_along(use, loop) * use.element / target.cache_line_bytes)
            fields["lines"] = max(1, iteration_count(item.loops[: position + 1]) * share)
            break
    run = _run(use, item.loops)
    fields["unique_lines"] = max(1, fields["unique_bytes"] / min(run * use.element, target.cache_line_bytes))
    fields |= _reuse(item, use, all_items)
    for name in ("bytes", "unique_bytes", "lines", "unique_lines"):
        count = fields["reuse_count"]
        fields[f"{name}_per_reuse"] = fields[name] / count if count > 0.5 else 2 * fields[name]
    fields["stride"] = stride_along(use, item.loops[-1]) if item.loops else 0
    return fields


def _run(use: Use, loops: tuple[Loop, ...]) -> int:
    run = 1
    for dimension in reversed(range(len(use.shape))):
        width = dimension_width(use, dimension, loops)
        run *= width
        if width != use.shape[dimension]:
            break
    return run


def _reuse(item: Located, use: Use, all_items: list[Located]) -> dict[str, float]:
    fields: dict[str, float] = {"loop_reuse": 0, "serial_reuse": 0, "no_reuse": 1}
    fields |= {"reuse_distance_iterations": 0, "reuse_distance_bytes": 0, "reuse_count": 0}
    for depth in reversed(range(len(item.loops) + 1)):
        loop = item.loops[depth - 1] if depth else None
        sharing = [
            footprint(shared, other.loops[depth:])
            for other in _inside(item, depth, all_items)
            for shared in other.uses
            if shared.name == use.name
        ]
        if len(sharing) > 1:
            fields |= {"serial_reuse": 1, "reuse_count": len(sharing) - 1, "reuse_distance_iterations": min(sharing)}
        elif loop is not None and loop.extent > 1 and stride_along(use, loop) == 0:
            fields |= {"loop_reuse": 1, "reuse_count": loop.extent}
            fields["reuse_distance_iterations"] = iteration_count(item.loops[depth:])
        else:
            continue
        fields["no_reuse"] = 0
        fields["reuse_distance_bytes"] = _body_bytes(item, depth, all_items)
        break
    return fields


def _statement_bytes(item: Located, depth: int) -> int:
    return sum(use.element * footprint(use, item.loops[depth:]) for use in item.uses)


def _intensity(item: Located) -> dict[str, float]:
    raw = _computation(item)
    total = sum(count for name, count in raw.items() if name.startswith("float_")) + raw["float_mad"]
    flops = total / iteration_count(item.loops)
    points = []
    for depth in reversed(range(max(1, len(item.loops)))):
        done = flops * iteration_count(item.loops[depth:])
        points.append((done, done / _statement_bytes(item, depth)))
    samples: dict[str, float] = {}
    for sample in range(1, 11):
        wanted = points[-1][0] * sample / 10
        value = points[0][1]
        for (low, start), (high, end) in itertools.pairwise(points):
            if low < wanted <= high:
                value = start + (end - start) * (wanted - low) / (high - low)
        samples[f"intensity_{sample}"] = value
    return samples


def _machine(state: State, item: Located, all_items: list[Located], target: Target) -> dict[str, float]:
    lanes = _lanes(item, target)

    def vectors(loops: tuple[Loop, ...]) -> int:
        return math.prod(math.ceil(x.extent / lanes) if x.annotation == "vectorize" else x.extent for x in loops)

    fields: dict[str, float] = {"lane_utilisation": 0, "tile_vectors": 0, "tile_register_pressure": 0}
    fields |= {"tile_loads": 0, "tile_work": 0, "accumulation_run": 0}
    for loop in item.loops:
        if loop.annotation == "vectorize":
            fields["lane_utilisation"] = loop.extent / (math.ceil(loop.extent / lanes) * lanes)
    start = _reduction_tile(state, item)
    if start is not None:
        fields["tile_vectors"] = vectors(item.loops[start:])
        fields["tile_register_pressure"] = fields["tile_vectors"] / target.vector_registers
        fields["tile_loads"] = _loads(item, item.loops[start:], lanes)
        fields["tile_work"] = fields["tile_vectors"] / max(1, fields["tile_loads"])
        run = 1
        for position in reversed(range(start)):
            loop = item.loops[position]
            alone = len(_inside(item, position + 1, all_items)) == 1
            if not alone or (loop.kind == "spatial" and loop.extent > 1):
                break
            run *= loop.extent
        fields["accumulation_run"] = run
    op = state.stage(item.statement.stage).op
    fields["redundancy"] = iteration_count(item.loops) / math.prod(axis.extent for axis in (*op.axes, *op.reduce_axes))
    chunks = math.prod(loop.extent for loop in item.loops if loop.annotation == "parallel")
    fields["parallel_chunks_per_core"] = chunks / target.cores
    fields["parallel_imbalance"] = math.ceil(chunks / target.cores) * target.cores / chunks
    core = target.core
    levels = (("l1", target.l1, core.first_ways), ("l2", target.l2, core.second_ways), ("l3", max(target.l3, target.l2), None))
    for name, capacity, ways in levels:
        period = None if ways is None else 2 ** math.floor(math.log2(capacity // ways))
        traffic = (_traffic(item, use, all_items, 0.75 * capacity, period, target) for use in item.uses)
        fields[f"{name}_traffic"] = sum(traffic)
    return fields


def _traffic(item: Located, use: Use, all_items: list[Located], capacity: float, period: int | None, target: Target) -> float:
    """Bytes of a buffer's lines that move into a cache whose sets repeat every `period` bytes."""
    vectorised = [position for position, loop in enumerate(item.loops) if loop.annotation == "vectorize"]
    least = vectorised[-1] if vectorised else len(item.loops)
    for depth in range(least + 1):
        inside = item.loops[depth:]
        moved, crowding, _ = _lines(use, inside, period, target)
        others = _body_bytes(item, depth, all_items) - use.element * footprint(use, inside)
        if depth == least or others + moved * crowding <= capacity:
            break
    if depth == 0:  # from the last call
        return 0
    moved, _, lone = _lines(use, item.loops[depth - 1 :], period, target)
    return iteration_count(item.loops[: depth - 1]) * moved * (3 if lone and capacity > target.l1 else 1)


def _lines(use: Use, inside: tuple[Loop, ...], period: int | None, target: Target) -> tuple[float, float, bool]:
    """Bytes of the lines that hold what is touched, how many times more room they take in a cache's crowded sets, and whether
    they are far from each other."""
    run = _run(use, inside) * use.element
    count = use.element * footprint(use, inside) / run
    line = run if run % target.cache_line_bytes == 0 else run + target.cache_line_bytes - use.element
    apart: list[tuple[int, int]] = []  # how many runs there are along further dimensions, and how far from each other
    whole = True
    for dimension in reversed(range(len(use.shape))):
        width = dimension_width(use, dimension, inside)
        if not whole and width > 1:
            apart.append((width, math.prod(use.shape[dimension + 1 :]) * use.element))
        whole = whole and width == use.shape[dimension]
    if apart:
        line = min(line, max(apart[0][1], run))
    lone = line < 256 and bool(apart) and apart[0][1] > 256
    if period is None:
        return count * line, 1.0, lone
    sets = line
    for number, (width, pitch) in enumerate(apart[:2]):
        held = width if number == 0 else count / apart[0][0]
        sets *= min(held, period // math.gcd(pitch, period))
    return count * line, period / min(sets, period) if count * line > sets else 1.0, lone


def _lanes(item: Located, target: Target) -> int:
    """Elements of a vector, of the widest numbers that the statement reads, computes or stores."""
    dtypes = {item.statement.buffer.dtype, item.statement.value.dtype}
    dtypes |= {read.tensor.dtype for read in reads_of(item.statement.value)}
    return max(2, min(target.vector_bytes // BYTES[dtype] for dtype in dtypes))


def _tile(state: State, item: Located) -> int:
    """How many loops are outside the register tile, which without a statement of the schedule is the vectorised loop."""
    stated = state.stage(item.statement.stage).register_tile
    own = f"{item.statement.stage}/"
    for position, loop in enumerate(item.loops):
        if loop.variable.startswith(own):
            name = loop.variable[len(own) :]
            if name == stated.loops[0] if stated is not None else loop.annotation == "vectorize":
                return position
    return len(item.loops)


def _reduction_tile(state: State, item: Located) -> int | None:
    """The same for a statement with reduction loops of its own; None for other statements."""
    own = f"{item.statement.stage}/"
    reduces = any(loop.kind == "reduction" and loop.variable.startswith(own) for loop in item.loops)
    return _tile(state, item) if reduces and item.statement.combiner is not None else None


def _loads(item: Located, inside: tuple[Loop, ...], lanes: int) -> int:
    """Loads of the read buffers in one step: whole vectors where a vectorised loop moves the buffer, else single elements."""
    total = 0
    for use in item.uses[1:]:
        elements = footprint(use, inside)
        moved = any(stride_along(use, loop) != 0 for loop in item.loops if loop.annotation == "vectorize")
        total += math.ceil(elements / lanes) if moved else elements
    return total


def _is_prepacked(nest: Nest, item: Located, all_items: list[Located]) -> bool:
    """Whether all that it depends on, with what stands in the same nests at root, comes from constants and is no output."""
    pending, seen = [item], set[int]()
    while pending:
        top = _top(nest, pending.pop())
        if top in seen:
            continue
        seen.add(top)
        region = [other for other in all_items if _top(nest, other) == top]
        if any(nest.buffers[other.statement.buffer.name].scope == "output" for other in region):
            return False
        for name in {use.name for other in region for use in other.uses}:
            writers = [other for other in all_items if other.statement.stage == name]
            if not writers and nest.buffers[name].scope != "constant":
                return False
            pending += writers
    return True


def _top(nest: Nest, item: Located) -> int:
    """Which of the nests at root it stands in."""
    return next(number for number, node in enumerate(nest.body) if any(x is item.statement for x in _statements_of(node)))


def _statements_of(node: Loop | Statement) -> list[Statement]:
    if isinstance(node, Statement):
        return [node]
    return [found for child in node.body for found in _statements_of(child)]


def _vector_share(item: Located, target: Target) -> float:
    """Vectors for each iteration."""
    lanes = _lanes(item, target)
    return math.prod(math.ceil(x.extent / lanes) / x.extent for x in item.loops if x.annotation == "vectorize")


def _accesses(state: State, item: Located, raw: dict[str, float], target: Target) -> dict[str, float]:
    lanes = _lanes(item, target)
    vectorised = [position for position, loop in enumerate(item.loops) if loop.annotation == "vectorize"]
    inside = _tile(state, item)
    around, tile = item.loops[:inside], item.loops[inside:]
    fields = dict.fromkeys(("broadcast_loads", "contiguous_loads", "gathered_loads"), 0.0)
    strides = [stride_along(use, item.loops[vectorised[-1]]) if vectorised else 0 for use in item.uses]
    for use, stride in zip(item.uses[1:], strides[1:], strict=True):
        loads = math.ceil(footprint(use, tile) / lanes) if stride == 1 else footprint(use, tile)
        kind = "broadcast_loads" if stride == 0 else "contiguous_loads" if stride == 1 else "gathered_loads"
        if 2 <= stride <= 4:
            kind, loads = "contiguous_loads", math.ceil(footprint(use, tile) / lanes)
        elif stride > 4 and item.statement.combiner is None and _run(use, tile) >= 4:
            kind, loads = "contiguous_loads", 2 * math.ceil(footprint(use, tile) / lanes)
        fields[kind] += iteration_count(around) * loads
    fields["stores"] = raw["iterations"] * _vector_share(item, target) / max(1, raw["accumulation_run"])
    fields["scattered_stores"] = fields["stores"] * lanes if strides[0] > 1 else 0
    fields["store_run"] = _run(item.uses[0], tile)
    fields["inner_trips"] = next((loop.extent for loop in reversed(around) if loop.extent > 1), 1)
    fields["loop_trips"] = sum(iteration_count(around[: position + 1]) for position in range(len(around)))
    return fields


def _roofline(state: State, item: Located, raw: dict[str, float], target: Target) -> dict[str, float]:
    """Cycles of arithmetic, of loads, of stores, of the caches, of loops."""
    core, share = target.core, _vector_share(item, target)
    operations = {"float_divmod": core.division * core.vector_units, "int_divmod": 8, "float_math": 20}
    counts = {name: round(raw[name] / raw["iterations"]) for name in raw if name.startswith(("float_", "int_"))}
    weight = sum(operations.get(name, 1) * count for name, count in counts.items())
    weight += round((raw["bool_op"] + raw["select"]) / raw["iterations"])
    start = _reduction_tile(state, item)
    if start is not None and _is_whole_row(state, item):
        weight -= len({x for x in walk(item.statement.value) if x.dtype == "bool" and not _reads(x)})
    around = item.loops[: _tile(state, item) if start is None else start]
    emitted = iteration_count(item.loops[len(around) :]) * share
    factors = _unrolled(item, around, emitted) if start is not None else [1.0] * len(around)
    reduces_lanes = any(loop.annotation == "vectorize" and loop.kind == "reduction" for loop in item.loops)
    in_a_row = 1.0 if reduces_lanes or _steps(item, around) < 32 else math.prod(factors)
    spilled = 0.0
    if start is not None:
        at_hand = min(raw["broadcast_loads"], raw["contiguous_loads"]) / iteration_count(around)
        spills = _registers(state, item, around, at_hand, target) > target.vector_registers
        spilled = iteration_count(around) * max(1.0, emitted) * spills
    vectors = max(1.0, emitted)
    executed = _executed(state, item, vectors, in_a_row, start is not None, target)
    waiting = _as_long_as(vectors, in_a_row, start is not None, target) / vectors
    cycles = {"compute_cycles": raw["iterations"] * share * weight / core.vector_units * waiting * executed}
    panels, covering = _special_loads(item, around, target)
    loads = raw["broadcast_loads"] + 2.5 * panels + spilled
    loads += 3 * (raw["contiguous_loads"] - panels + covering + raw["gathered_loads"])
    cycles["load_cycles"] = loads / core.loads * executed
    body = max(1.0, emitted) * math.prod(factors)
    spent = max(cycles.values()) * (1.1 if body > 256 else 1)
    for position, (loop, factor) in enumerate(zip(around, factors, strict=True)):
        iterations = math.ceil(loop.extent / factor)
        if iterations > 1:
            spent += iteration_count(around[:position]) * (1 + 0.4 * iterations)
    cycles["memory_cycles"] = raw["l1_traffic"] / core.second_bytes + raw["l2_traffic"] / core.third_bytes
    cycles["memory_cycles"] += raw["l3_traffic"] / core.memory_bytes
    is_transposed = raw["scattered_stores"] > 0 and raw["store_run"] >= 4
    cycles["store_cycles"] = (
        2
        / core.stores
        * (raw["stores"] + (min(4 * raw["stores"], raw["scattered_stores"]) if is_transposed else raw["scattered_stores"]))
    )
    chunks = math.prod(loop.extent for loop in item.loops if loop.annotation == "parallel")
    waves = math.ceil(chunks / target.cores)
    cycles["roofline_cycles"] = 0.0
    if not raw["prepacked"]:
        busiest = max(spent, cycles["memory_cycles"]) + min(spent, cycles["memory_cycles"]) / 4
        cycles["roofline_cycles"] = (busiest + cycles["store_cycles"]) * waves / chunks
        own = f"{item.statement.stage}/"
        if any(loop.annotation == "parallel" and loop.variable.startswith(own) for loop in item.loops):
            cycles["roofline_cycles"] += 5000 + 10 * waves
    return cycles


def _steps(item: Located, around: tuple[Loop, ...]) -> int:
    """Iterations of the reduction loops of its own right around the tile."""
    own = f"{item.statement.stage}/"
    inside = itertools.takewhile(lambda loop: loop.kind == "reduction" and loop.variable.startswith(own), reversed(around))
    return math.prod(loop.extent for loop in inside)


def _special_loads(item: Located, around: tuple[Loop, ...], target: Target) -> tuple[float, float]:
    """Loads of vectors from panels, and what others take beyond one vector: to cover strided lanes, or for a mask."""
    lanes, own = _lanes(item, target), f"{item.statement.stage}/"
    vectorised = [loop for loop in item.loops if loop.annotation == "vectorize"]
    tile = item.loops[len(around) :]
    reducing = len(list(itertools.takewhile(lambda x: x.kind == "reduction" and x.variable.startswith(own), reversed(around))))
    panels = covering = 0.0
    for use in item.uses[1:] if vectorised else ():
        stride, vectors = stride_along(use, vectorised[-1]), math.ceil(footprint(use, tile) / lanes)
        if not 1 <= stride <= 4:
            continue
        is_masked = stride == 1 and vectorised[-1].extent % lanes > 0 and not target.masks_freely
        covering += iteration_count(around) * vectors * (stride - 1 + is_masked)
        others = [stride_along(use, loop) for loop in item.loops if loop is not vectorised[-1] and loop.extent > 1]
        goes_on = _run(use, item.loops[len(around) - reducing :]) > _run(use, tile)
        if stride == 1 and goes_on and all(distance % lanes == 0 for distance in others):
            panels += iteration_count(around) * vectors
        else:
            known = 1 - _fresh(item, use, around, reducing, target)
            covering -= iteration_count(around) * vectors * (stride + is_masked) * known
    return panels, covering


def _fresh(item: Located, use: Use, around: tuple[Loop, ...], reducing: int, target: Target) -> float:
    """Of the loads of all steps of a short reduction emitted in a row those that no step before has made."""
    lanes, fresh = _lanes(item, target), 1.0
    emitted = iteration_count(item.loops[len(around) :]) * _vector_share(item, target)
    if 2 * emitted > target.vector_registers or _steps(item, around) >= 32:
        return 1.0
    for position in reversed(range(len(around) - reducing, len(around))):
        loop = item.loops[position]
        emitted *= loop.extent
        if emitted > item.statement.unroll_limit:
            break
        if loop.extent > 1 and abs(stride_along(use, loop)) >= lanes:
            more = footprint(use, item.loops[position:]) / footprint(use, item.loops[position + 1 :])
            fresh *= min(more / loop.extent, 1.0)
    return fresh


def _as_long_as(vectors: float, in_a_row: float, reduces: bool, target: Target) -> float:
    """Vector operations that one step of so many accumulators takes as long as, with sums side by side where they help."""
    if not reduces:
        return vectors
    busy, most = 1.2 * target.core.latency * target.core.vector_units, max(1.0, vectors)
    sums = max(1.0, min(math.ceil(busy / most), (target.vector_registers - 3) // most, in_a_row))
    return max(vectors, busy / sums)


def _executed(state: State, item: Located, vectors: float, in_a_row: float, reduces: bool, target: Target) -> float:
    """The time of the tiles that there are, over that of as many whole ones as loops go through: every tile is looked at."""
    own, share = f"{item.statement.stage}/", 1.0
    whole = _as_long_as(vectors, in_a_row, reduces, target)
    load = target.core.vector_units / target.core.loads if reduces else 0.0
    stage = state.stage(item.statement.stage)
    stated = stage.register_tile.loops if stage.register_tile is not None else ()
    extents = {loop.variable: loop.extent for loop in item.loops}
    for loop in item.loops:
        in_lanes = loop.annotation == "vectorize"
        is_inside = loop.variable.startswith(own) and (in_lanes or loop.variable[len(own) :] in stated)
        if loop.kind == "reduction" or not is_inside:
            continue
        guarded = [(slopes, limit) for slopes, limit in _guards(item) if slopes.get(loop.variable) == 1]
        whole_axis = {axis.name: axis.extent for axis in stage.op.axes}.get(loop.variable[len(own) :].partition(".")[0])
        others = {f"{own}{name}" for name in stated} - {loop.variable}
        for slopes, limit in guarded:
            if limit != whole_axis or others & set(slopes):
                continue
            outside = [[slope * x for x in range(extents[name])] for name, slope in slopes.items() if name != loop.variable]
            starts = sorted(map(sum, itertools.product(*outside)))
            if starts != list(range(0, loop.extent * len(starts), loop.extent)):
                continue
            lanes = _lanes(item, target) if in_lanes else 1
            most, spent = math.ceil(loop.extent / lanes), 0.0
            for left in (min(loop.extent, limit - start) for start in starts if start < limit):
                rows = math.ceil(left / lanes)
                time = max(_as_long_as(vectors * rows / most, in_a_row, reduces, target), (rows + vectors / most + 1) * load)
                spent += 1.0 if left == loop.extent else min(time / whole, 1.0)
            share *= min(spent / len(starts) + _idle(item, slopes, target), 1.0)
            break
    return share


def _idle(item: Located, slopes: dict[str, int], target: Target) -> float:
    """Of a thread's time, what it has nothing to do if its part of the outermost parallel loop is less than the others'."""
    parallel = [loop for loop in item.loops if loop.annotation == "parallel" and loop.extent > 1]
    if target.cores == 1 or not parallel or parallel[0].variable not in slopes:
        return 0.0
    return 0.5 / min(math.ceil(math.prod(loop.extent for loop in parallel) / target.cores), 4)


def _guards(item: Located) -> list[tuple[dict[str, int], int]]:
    """The guards that are sums of loop variables: by variable its factor, and the limit."""
    found = []
    for value, limit in item.statement.guards:
        terms: list[tuple[Expr, int]] = []
        constant = linear_terms(value, 1, terms)
        if constant == 0 and all(isinstance(term, Var) for term, _ in terms):
            found.append(({term.name: factor for term, factor in terms if isinstance(term, Var)}, limit))
    return found


def _registers(state: State, item: Located, around: tuple[Loop, ...], at_hand: float, target: Target) -> float:
    """Accumulators, the operand that stays, one of the other, and a copy where an instruction overwrites what stays.

    `at_hand` is the number of vectors or of broadcasts that a step loads, whichever is less.
    """
    tile = item.loops[len(around) :]
    rows = math.prod(loop.extent for loop in tile if loop.annotation != "vectorize")
    vectors = math.prod(math.ceil(loop.extent / _lanes(item, target)) for loop in tile if loop.annotation == "vectorize")
    stated = state.stage(item.statement.stage).register_tile
    kernel = (
        micro_kernel_for(state.body(item.statement.stage), target) if stated is None else MICRO_KERNELS[stated.micro_kernel]
    )
    stays = min(rows, vectors) if kernel.operands else vectors
    is_partial = any(loop.extent % _lanes(item, target) for loop in tile if loop.annotation == "vectorize")
    more = (stays > 1 and target.overwrites_operands) + (is_partial and target.masks_by_vectors)
    found = rows * vectors + stays + 1 + more
    return max(found, rows * vectors + at_hand + 1) if set(kernel.along) == {"rows", "lanes"} else found


def _unrolled(item: Located, around: tuple[Loop, ...], emitted: float) -> list[float]:
    """How many iterations of each loop around the tile are emitted in a row: of the reduction loops next to it."""
    factors = [1.0] * len(around)
    for position in reversed(range(len(around))):
        if around[position].kind != "reduction":
            break
        factors[position] = min(max(1.0, item.statement.unroll_limit // max(emitted, 1.0)), around[position].extent)
        emitted *= factors[position]
        if factors[position] < around[position].extent:
            break
    return factors
