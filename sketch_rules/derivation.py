"""Derivation: from a compute DAG to its sketches, breadth first over (partial sketch, stage) (paper, section 4.1).

The rules fix the tile structure and what is inlined, cached or factored. Then the annotations add the decisions that
complete a program (paper, section 4.2), as holes: vector loops, compute locations, parallel loops, unrolling.

    for sketch in generate_sketches(dag, target):
        print(sketch.name, [hole.name for hole in sketch.holes])
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ansor_py.errors import OptionError
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Sketch
from ansor_py.sketch_rules import (  # noqa: F401  # the rules register themselves
    add_cache_write,
    add_packing,
    add_rfactor,
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
from ansor_py.sketch_rules.rule import RULES, Rule
from ansor_py.target import Target

# In this order: a vector loop takes no attachments, and attachments limit the parallel loops.
ANNOTATIONS = (annotate_vectorize, annotate_location, annotate_parallel, annotate_unroll)


def generate_sketches(dag: ComputeDAG, target: Target, rules: str | Sequence[str | Rule] = "default") -> list[Sketch]:
    """All sketches of a DAG, fewest derivations first, with all holes; deterministic.

    `rules` is a preset's name, or rules (by name or as objects) in the order in which they are tried. Raises OptionError
    for an unknown name, or if some stage is met by no rule.
    """
    complete = derive(dag, target, find_rules(rules))
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


def derive(dag: ComputeDAG, target: Target, rules: Sequence[Rule]) -> list[PartialSketch]:
    """The tile structures that the rules lead to, before annotation (reference page, section 3.1)."""
    initial = PartialSketch.initial(dag, target)
    queue: deque[tuple[PartialSketch, int]] = deque([(initial, len(initial.state.stages) - 1)])
    complete: list[PartialSketch] = []
    while queue:
        partial, number = queue.popleft()
        if number < 0:
            complete.append(partial)
            continue
        derived: list[tuple[PartialSketch, int]] = []
        for item in rules:
            verdict = item.condition(partial, number)
            if verdict != "skip":
                derived.extend(item.apply(partial, number))
            if verdict == "apply_and_stop":
                break
        if not derived:
            names = ", ".join(item.name for item in rules)
            raise OptionError(f"no sketch rule applies to stage '{partial.stage(number).name}' (tried {names}); add 'skip'")
        queue.extend(derived)
    return complete
