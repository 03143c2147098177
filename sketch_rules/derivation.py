"""Derivation: from a compute DAG to its sketches, breadth first over (partial sketch, stage) (paper, section 4.1).

The rules fix the tile structure and what is inlined, cached or factored. Then the annotations add the decisions that
complete a program (paper, section 4.2), as holes: vector loops, compute locations, parallel loops, unrolling.

    for sketch in generate_sketches(dag, target):
        print(sketch.name, [hole.name for hole in sketch.holes])
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import get_args

from ansor_py.errors import AnsorError, OptionError, line_of_error
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Sketch
from ansor_py.sketch_rules import (  # noqa: F401  # the rules register themselves
    add_cache_write,
    add_packing,
    add_rfactor,
    add_row_blocks,
    always_inline,
    multi_level_tiling,
    multi_level_tiling_with_fusion,
    skip,
)
from ansor_py.sketch_rules.annotate_location import annotate_location
from ansor_py.sketch_rules.annotate_parallel import annotate_parallel
from ansor_py.sketch_rules.annotate_unroll import annotate_unroll
from ansor_py.sketch_rules.annotate_vectorize import annotate_vectorize
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.presets import PRESETS
from ansor_py.sketch_rules.rule import RULES, Derived, Rule, Verdict
from ansor_py.sketch_rules.space_options import DEFAULT_SPACE, SpaceOptions
from ansor_py.target import Target

# More partial sketches than any list of rules leads to, other than one that goes round in circles.
MOST_PARTIAL_SKETCHES = 10_000
# In this order: a vector loop takes no attachments, and attachments limit the parallel loops.
ANNOTATIONS = (annotate_vectorize, annotate_location, annotate_parallel, annotate_unroll)


def generate_sketches(
    dag: ComputeDAG,
    target: Target,
    rules: str | Sequence[str | Rule] = "default",
    options: SpaceOptions = DEFAULT_SPACE,
) -> list[Sketch]:
    """All sketches of a DAG, fewest derivations first, with all holes; deterministic.

    `rules` is a preset's name, or rules (by name or as objects) in the order in which they are tried, `options` are their
    constants. Raises OptionError for an unknown name, if some stage is met by no rule, and for an error in a rule of the
    user's.
    """
    complete = derive(dag, target, find_rules(rules), options)
    sketches = []
    for partial in complete:
        for annotate in ANNOTATIONS:
            partial = annotate(partial)
        sketches.append(partial.finish())
    return sketches


def find_rules(rules: str | Sequence[str | Rule]) -> list[Rule]:
    """Rule objects from a preset's name or from a list of names and rules."""
    if isinstance(rules, str):
        if rules not in PRESETS:
            raise OptionError(f"unknown preset of sketch rules '{rules}'; known are {', '.join(PRESETS)}")
        rules = PRESETS[rules]
    found: list[Rule] = []
    for item in rules:
        if isinstance(item, str):
            if item not in RULES:
                raise OptionError(f"unknown sketch rule '{item}'; known are {', '.join(sorted(RULES))}")
            item = RULES[item]()
        found.append(item)
    return found


def derive(
    dag: ComputeDAG, target: Target, rules: Sequence[Rule], options: SpaceOptions = DEFAULT_SPACE
) -> list[PartialSketch]:
    """The tile structures that the rules lead to, before annotation (reference page, section 3.1)."""
    initial = PartialSketch.initial(dag, target, options)
    queue: deque[tuple[PartialSketch, int]] = deque([(initial, len(initial.state.stages) - 1)])
    complete: list[PartialSketch] = []
    visited = 0
    while queue:
        partial, number = queue.popleft()
        visited += 1
        if visited > MOST_PARTIAL_SKETCHES:
            names = ", ".join(item.name for item in rules)
            raise OptionError(f"the sketch rules {names} come to no end at stage '{partial.stage(number).name}'")
        if number < 0:
            complete.append(partial)
            continue
        derived: list[tuple[PartialSketch, int]] = []
        for item in rules:
            verdict, made = _try_rule(item, partial, number)
            derived.extend(made)
            if verdict == "apply_and_stop":
                break
        if not derived:
            names = ", ".join(item.name for item in rules)
            raise OptionError(f"no sketch rule applies to stage '{partial.stage(number).name}' (tried {names}); add 'skip'")
        queue.extend(derived)
    return complete


def _try_rule(item: Rule, partial: PartialSketch, number: int) -> tuple[Verdict, list[Derived]]:
    """What a rule says of a stage and what it makes of it. An error in a user's rule is one line that names its place."""
    try:
        verdict = item.condition(partial, number)
        made = item.apply(partial, number) if verdict != "skip" else []
        if verdict not in get_args(Verdict):
            raise OptionError(f"condition gave {verdict!r}; it must give one of {', '.join(get_args(Verdict))}")
        for sketch, following in made:
            if not isinstance(sketch, PartialSketch) or not following < len(sketch.state.stages):
                raise OptionError("apply must give pairs of a PartialSketch and the number of the stage to go on with")
    except Exception as error:  # a rule of the user's may do anything
        if type(item).__module__.startswith(f"{__package__}."):
            raise
        file = type(item).condition.__code__.co_filename
        line = line_of_error(error, file)
        place = f"{file}, line {line}: " if line is not None else f"{file}: "
        kind = "" if isinstance(error, AnsorError) else f"{type(error).__name__}: "
        raise OptionError(
            f"{place}sketch rule '{item.name}' failed on stage '{partial.stage(number).name}': {kind}{error}"
        ) from error
    return verdict, made
