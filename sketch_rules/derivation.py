"""Derivation: from a compute DAG to its sketches, breadth first over (partial sketch, stage) (paper, section 4.1).

The rules fix the tile structure and what is inlined, cached or factored. Then the annotations add the decisions that
complete a program (paper, section 4.2), as holes: vector loops, compute locations, parallel loops, unrolling.

    for sketch in generate_sketches(dag, target):
        print(sketch.name, [hole.name for hole in sketch.holes])
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Sequence
from typing import get_args

from ansor_py.errors import OptionError, PlugInError, line_of_error, plug_in, words_of_error
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.sketch import Sketch
from ansor_py.sketch_rules import (  # noqa: F401  # the rules register themselves
    add_cache_write,
    add_packing,
    add_rfactor,
    add_row_blocks,
    always_inline,
    choose_algorithm,
    inline_padding,
    inline_transposition,
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
    user's or in what comes of one.
    """
    found = find_rules(rules)
    complete = derive(dag, target, found, options)
    own = [f"'{item.name}' ({_file_of(item)})" for item in found if not _is_built_in(item)]
    if not own:
        return [_completed(partial) for partial in complete]
    sketches = []
    for partial in complete:
        with plug_in(f"the completion of sketch '{' '.join(partial.label)}' of sketch rules {', '.join(own)}"):
            sketches.append(_completed(partial))
    return sketches


def _completed(partial: PartialSketch) -> Sketch:
    """The sketch with the holes of the annotations."""
    for annotate in ANNOTATIONS:
        partial = annotate(partial)
    return partial.finish()


def find_rules(rules: str | Sequence[str | Rule]) -> list[Rule]:
    """Rule objects from a preset's name or from a list of names and rules."""
    if isinstance(rules, str):
        if rules not in PRESETS:
            raise OptionError(f"there is no preset of sketch rules '{rules}'; known are {', '.join(PRESETS)}")
        rules = PRESETS[rules]
    if not isinstance(rules, Sequence):
        raise OptionError(f"sketch rules are {rules!r:.60}; give a preset's name, or a sequence of rules and names of rules")
    found: list[Rule] = []
    for item in rules:
        if isinstance(item, str):
            make = RULES.find(item)
            with plug_in(f"sketch rule '{item}': its construction"):
                item = make()
        if not isinstance(item, Rule):
            raise PlugInError(
                f"sketch rules hold {item!r:.60}; a rule is the name of one or an object of a class that extends Rule"
            )
        found.append(item)
    return found


# The preset's rules as they are here, whatever is registered later under their names.
DEFAULT_RULES = tuple(find_rules("default"))


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
    if _is_built_in(item):
        verdict = item.condition(partial, number)
        return verdict, item.apply(partial, number) if verdict != "skip" else []
    try:
        verdict = item.condition(partial, number)
        made = list(itertools.islice(item.apply(partial, number), MOST_PARTIAL_SKETCHES)) if verdict != "skip" else []
        if len(made) == MOST_PARTIAL_SKETCHES:
            raise PlugInError(f"apply gave {MOST_PARTIAL_SKETCHES} sketches or more")
        if verdict not in get_args(Verdict):
            raise PlugInError(f"condition gave {verdict!r:.60}; it must give one of {', '.join(get_args(Verdict))}")
        for derived in made:
            _check_derived(derived, partial)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a rule of the user's may do anything
        file = _file_of(item)
        line = line_of_error(error, file)
        place = f"{file}, line {line}: " if line is not None else f"{file}: "
        stage = partial.stage(number).name
        raise PlugInError(f"{place}sketch rule '{item.name}' failed on stage '{stage}': {words_of_error(error)}") from error
    return verdict, made


def _check_derived(derived: object, partial: PartialSketch) -> None:
    """Raise PlugInError unless it is a sketch of the same DAG and the number of one of its stages, or -1 for no further one."""
    pair = derived if isinstance(derived, tuple) and len(derived) == 2 else (None, None)
    sketch, following = pair
    if not isinstance(sketch, PartialSketch) or type(following) is not int:
        raise PlugInError(
            f"apply gave {derived!r:.60}; it must give pairs of a PartialSketch and the number of the stage to go on with"
        )
    if sketch.dag is not partial.dag:
        raise PlugInError("apply gave a sketch of another compute DAG")
    if not -1 <= following < len(sketch.state.stages):
        raise PlugInError(
            f"apply gave {following} as the stage to go on with; there are stages 0 to {len(sketch.state.stages) - 1}, and -1 "
            "says that the sketch is complete"
        )


def _is_built_in(item: Rule) -> bool:
    return type(item).__module__.startswith(f"{__package__}.")


def _file_of(item: Rule) -> str:
    """The file that defines a rule, for messages."""
    return getattr(sys.modules.get(type(item).__module__), "__file__", None) or type(item).__module__
