"""What a template is, the registry of templates, and the sketches they make.

A template looks at a DAG in which everything cheap is inlined, and returns schedules with knobs for it: partial sketches,
several where there is a choice of packing. It returns none if the DAG is not of its kind, which it tells from the structure of
the expressions. A new kind is one function in one file:

    @template("transpose")
    def transpose(partial: PartialSketch) -> list[PartialSketch]:
        ...

What is left to do is the same for all templates and done here: the other stages get vector loops and run in parallel, and the
reductions get their unroll knob. Nothing else is open: where stages are computed and which loops run in parallel is fixed.
"""

from __future__ import annotations

from collections.abc import Callable

from ansor_py.errors import NoSpaceError, plug_in
from ansor_py.schedule.dag import ComputeDAG, tensor_flops
from ansor_py.schedule.hole_kinds import ParallelHole
from ansor_py.schedule.sketch import Sketch
from ansor_py.schedule.state import Root, Stage
from ansor_py.sketch_rules.always_inline import AlwaysInline
from ansor_py.sketch_rules.annotate_unroll import annotate_unroll
from ansor_py.sketch_rules.annotate_vectorize import annotate_vectorize
from ansor_py.sketch_rules.notes import TileLevels
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.space_options import DEFAULT_SPACE, SpaceOptions
from ansor_py.target import Target

Template = Callable[[PartialSketch], list[PartialSketch]]
TEMPLATES: dict[str, Template] = {}

# Outer loops of a stage without tiles are fused until there are so many iterations for every core.
CHUNKS_PER_CORE = 4


def template(name: str) -> Callable[[Template], Template]:
    """Register a template under the name of the kind of operator that it is for."""

    def register(function: Template) -> Template:
        TEMPLATES[name] = function
        return function

    return register


def template_sketches(dag: ComputeDAG, target: Target, options: SpaceOptions = DEFAULT_SPACE) -> list[Sketch]:
    """The sketches of the first template that fits. Raises NoSpaceError that lists the kinds of operators if none does."""
    plain = _inlined(PartialSketch.initial(dag, target, options))
    for name, make in TEMPLATES.items():
        with plug_in(f"template '{name}'", NoSpaceError):
            if variants := make(plain.with_label(f"template({name})")):
                return [_finished(partial) for partial in variants]
    kinds = ", ".join(sorted(TEMPLATES))
    computed = ", ".join(tensor.name for tensor in dag.computed)
    raise NoSpaceError(
        f"no template fits the operator that computes {computed}; there are templates for {kinds}. Use another policy"
    )


def _inlined(partial: PartialSketch) -> PartialSketch:
    rule = AlwaysInline()
    for number in reversed(range(len(partial.state.stages))):
        if rule.condition(partial, number) != "skip":
            [(partial, _)] = rule.apply(partial, number)
    return partial


def _finished(partial: PartialSketch) -> Sketch:
    partial = annotate_vectorize(partial)
    for stage in partial.state.stages:
        loops = _parallel_loops(partial, stage)
        if loops:
            # A hole of one choice: where stages have no such hole, analyses and checks take them for serial.
            partial = partial.choose(ParallelHole(f"parallel {stage.name}", stage.name, (len(loops),), loops))
    return annotate_unroll(partial).finish()


def _parallel_loops(partial: PartialSketch, stage: Stage) -> tuple[str, ...]:
    """The outermost tile loops, or the outer loops of a stage without tiles; none if it is small or not at root."""
    small = max(tensor_flops(stage.tensor), stage.tensor.size) < partial.options.serial_operations
    if partial.target.cores == 1 or not isinstance(stage.location, Root) or stage.name in partial.state.prepacked:
        return ()
    if levels := partial.note(stage.name, TileLevels):
        return levels.loops[0]
    extents = {axis.name: axis.extent for axis in stage.op.axes}
    loops: list[str] = []
    chunks = 1
    for iterator in stage.plain_outer_iterators:
        full = chunks >= CHUNKS_PER_CORE * partial.target.cores
        if small or full or iterator.name not in extents:
            break
        loops.append(iterator.name)
        chunks *= extents[iterator.name]
    return tuple(loops)
