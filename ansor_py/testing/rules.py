"""What holds for every sketch rule and kind of hole. See `ansor_py.testing`."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np

from ansor_py.errors import OptionError
from ansor_py.measure import MeasureInput, create_measurer
from ansor_py.schedule.hole import HOLE_KINDS, Hole
from ansor_py.schedule.sketch import Population, Sketch
from ansor_py.search.evolution.mutation import MUTATIONS, mutate
from ansor_py.search.sampling.sampler import sample
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import accepts, repair
from ansor_py.sketch_rules.derivation import generate_sketches
from ansor_py.sketch_rules.presets import PRESETS
from ansor_py.sketch_rules.rule import RULES
from ansor_py.sketch_rules.space_options import DEFAULT_SPACE, SpaceOptions
from ansor_py.target import Target
from ansor_py.testing.subjects import SEARCH, TARGETS, Workload, check, features_of, registered_as, task_of

PROGRAMS = 4  # of every sketch are run


class RuleConformance:
    """Subclass it, name the rule and the operators to which it applies.

    Attributes:
        name: under which it is registered.
        specs: what it makes sketches of: operators by their specs, or functions that make an output tensor.
        rules: what is tried in a derivation, in order; the rule before those of the default preset unless that has it.
        options: constants of the derivation.
    """

    name: ClassVar[str]
    specs: ClassVar[tuple[Workload, ...]]
    rules: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[SpaceOptions] = DEFAULT_SPACE

    @property
    def _rules(self) -> tuple[str, ...]:
        preset = PRESETS["default"]
        return self.rules or (preset if self.name in preset else (self.name, *preset))

    def _sketches(self, spec: Workload, target: str) -> list[Sketch]:
        task = task_of(spec, target)
        return generate_sketches(task.dag, task.target, self._rules, self.options)

    def test_it_is_registered_and_says_what_it_does(self) -> None:
        """By name and docstring; its options have a default."""
        registered_as(RULES, self.name)

    def test_it_applies_and_derivations_agree(self) -> None:
        """On four targets: the sketches are others than without it, and the same when they are derived again."""
        without = tuple(rule for rule in self._rules if rule != self.name)
        applies = False
        for spec in self.specs:
            for target in TARGETS:
                first, second = self._sketches(spec, target), self._sketches(spec, target)
                check(first, f"there is no sketch of {spec} on {target}")
                check(_words(first) == _words(second), f"two derivations of {spec} on {target} give different sketches")
                task = task_of(spec, target)
                try:
                    others = _words(generate_sketches(task.dag, task.target, without, self.options))
                except OptionError:  # no other rule applies to some stage
                    others = []
                applies |= _words(first) != others
        check(applies, f"it changes no sketch of {', '.join(map(str, self.specs))}: it never applies")

    def test_random_programs_are_valid_have_features_and_can_be_mutated(self) -> None:
        """On four targets."""
        rng = np.random.default_rng(0)
        for spec in self.specs:
            for target in TARGETS:
                for sketch in self._sketches(spec, target):
                    space = Space(sketch, Target.parse(target), SEARCH)
                    genes = sample(space, 2 * PROGRAMS, rng)
                    if not len(genes):
                        continue
                    features_of([Population(sketch, genes)], target)
                    for mutation in MUTATIONS:
                        changed = mutate(space, mutation, genes, rng)
                        if changed is not None:
                            accepts(space, repair(space, changed, rng))

    def test_programs_compute_the_right_thing(self) -> None:
        """On this machine, random programs of every sketch against the naive program of the task."""
        rng = np.random.default_rng(0)
        for spec in self.specs:
            task = task_of(spec, str(Target.detect().with_cores(2)))
            inputs, names = [], []
            for sketch in generate_sketches(task.dag, task.target, self._rules, self.options):
                for row in np.unique(sample(Space(sketch, task.target, SEARCH), PROGRAMS, rng), axis=0):
                    inputs.append(MeasureInput(task.workload_key, task.dag, sketch.concretise(row), task.target, 2))
                    names.append(f"sketch '{sketch.name}', genes {row.tolist()}")
            check(inputs, f"no sketch of {spec} has a valid program")
            with create_measurer("inline", target=task.target, threads=2) as measurer:
                for name, result in zip(names, measurer.measure(inputs), strict=True):
                    check(result.valid, f"a program of {spec} fails ({result.error}: {result.error_text:.200}): {name}")


class HoleKindConformance:
    """Subclass it, name the kind of hole, the rules that make such holes, and operators of which they do.

    Attributes:
        name: under which the kind is registered.
        rules: of the derivation.
        specs: operators.
    """

    name: ClassVar[str]
    rules: ClassVar[str | tuple[str, ...]] = "default"
    specs: ClassVar[tuple[Workload, ...]]

    def _holes(self) -> list[tuple[Space, int, Hole]]:
        found = []
        for spec in self.specs:
            for target in TARGETS:
                task = task_of(spec, target)
                for sketch in generate_sketches(task.dag, task.target, self.rules):
                    space = Space(sketch, task.target, SEARCH)
                    found += [(space, column, hole) for column, hole in enumerate(sketch.holes) if hole.kind == self.name]
        check(found, f"no sketch of {', '.join(map(str, self.specs))} by these rules has a hole of kind '{self.name}'")
        return found

    def test_it_is_registered_and_says_what_it_does(self) -> None:
        """By name and docstring."""
        registered_as(HOLE_KINDS, self.name)

    def test_its_choices_are_a_table(self) -> None:
        """Each once; plain and undecided ones are among them; distances are a matrix of them."""
        for _, _, hole in self._holes():
            count = len(hole.choices)
            check(len(set(map(repr, hole.choices))) == count, f"hole '{hole.name}' has a choice twice: {hole.choices}")
            for word in ("plain", "undecided"):
                check(0 <= getattr(hole, word) < count, f"hole '{hole.name}': its {word} choice is not in its table")
            distances = np.asarray(hole.distances())
            check(
                distances.shape == (count, count), f"hole '{hole.name}': distances are {distances.shape}, not {(count, count)}"
            )
            check(np.isfinite(distances).all() and (distances >= 0).all(), f"hole '{hole.name}': a distance is not 0 or more")
            check(np.allclose(distances, distances.T), f"hole '{hole.name}': one way is farther than the other")
            near = hole.neighbours(4)
            check(((near >= 0) & (near < count)).all(), f"hole '{hole.name}': a neighbour is not in its table")

    def test_every_choice_makes_a_program(self) -> None:
        """Where the other genes allow it: a sketch with the choice replays, or the row is invalid and says so."""
        rng = np.random.default_rng(0)
        for space, column, hole in self._holes():
            rows = sample(space, 4, rng)
            for choice in range(len(hole.choices)) if len(rows) else ():
                changed = rows.copy()
                changed[:, column] = choice
                changed = repair(space, changed, rng)
                for row in changed[accepts(space, changed)]:
                    space.sketch.structure(row)
                    space.sketch.concretise(row)

    def test_repaired_rows_agree(self) -> None:
        """What `agreement` repairs, it accepts, and leaves as it is when it repairs again."""
        rng = np.random.default_rng(0)
        for space, column, hole in self._holes():
            agreement = space.agreements.get(column)
            if agreement is None:
                continue
            rows = rng.integers(0, space.sketch.sizes, (64, len(space.sketch.holes))).astype(np.int32)
            agreement.repair(rows, rng)
            check(agreement.fits(rows).all(), f"hole '{hole.name}': rows that were repaired do not agree")
            again = rows.copy()
            agreement.repair(again, rng)
            check(np.array_equal(rows, again), f"hole '{hole.name}': repairing again changes what was repaired")


def _words(sketches: list[Sketch]) -> list[str]:
    """What tells sketches apart: names, holes with choices, steps."""
    return [json.dumps([s.name, [(h.kind, h.name, repr(h.choices)) for h in s.holes], repr(s.steps)]) for s in sketches]
