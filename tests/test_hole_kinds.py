"""Kinds of holes: what every kind promises, and two kinds that are defined here, with a rule, and searched from end to end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ansor_py.codegen.kernel import LoadedKernel, build_kernel
from ansor_py.cost_model import extract_features
from ansor_py.errors import PlugInError, ScheduleError
from ansor_py.measure.records import read_records
from ansor_py.schedule.hole import HOLE_KINDS, Agreement, Genes, Hole, Mask, hole_kind
from ansor_py.schedule.hole_kinds import (
    FactorHole,
    LengthHole,
    LocationHole,
    ParallelHole,
    RegisterTileHole,
    TileHole,
    UnrollHole,
    VectorHole,
)
from ansor_py.schedule.sketch import Alternatives, Population, Sketch
from ansor_py.schedule.state import Gene
from ansor_py.schedule.steps import Pragma, Reorder, Split, Step, Unroll, Vectorize
from ansor_py.schedule.task import Task
from ansor_py.search import tune
from ansor_py.search.evolution.crossover import crossover
from ansor_py.search.evolution.mutation import MUTATIONS, mutate
from ansor_py.search.loop.tuning_options import TuningOptions
from ansor_py.search.options import SearchOptions
from ansor_py.search.policies.annealing import AnnealingOptions
from ansor_py.search.policies.genetic import GeneticOptions
from ansor_py.search.policies.policy import create_policy
from ansor_py.search.policies.template import SEARCHES, TemplateOptions
from ansor_py.search.sampling.sampler import draw, sample
from ansor_py.search.sampling.space import Space
from ansor_py.search.sampling.validity import accepts, plausible, repair
from ansor_py.sketch_rules import RULES, Derived, PartialSketch, Rule, Verdict, generate_sketches, rule
from ansor_py.target import Target
from targets import executed_targets, structure_targets

on_four_targets = pytest.mark.parametrize("target", structure_targets("cores=2"))
KINDS = ("evolution", "random", "beam", "limited", *(f"template {search}" for search in SEARCHES))


@pytest.fixture(scope="module", autouse=True)
def own_kinds() -> Iterator[None]:
    """Registers the kinds and the rule below for this module alone."""
    yield
    for name in ("column_vectors", "unrolled_vectors", "window"):
        HOLE_KINDS.pop(name)
    RULES.pop("sum_columns_side_by_side")


@hole_kind("unrolled_vectors")
@dataclass(frozen=True)
class UnrolledVectors(Hole):
    """Whether the vectors of a block are unrolled: choices that are no numbers, each another structure."""

    loop: str

    def steps(self, choice: str) -> tuple[Step, ...]:
        return (Unroll(self.stage, self.loop),) if choice == "unrolled" else ()


@hole_kind("column_vectors")
class ColumnVectors(LengthHole):
    """Lanes and vectors of a block of columns. An unrolled block has at most four vectors."""

    @property
    def plain(self) -> int:
        return 1

    def agreement(self, sketch: Sketch, column: int) -> Agreement:
        unrolled = next(c for c, hole in enumerate(sketch.holes) if isinstance(hole, UnrolledVectors))
        return ShortIfUnrolled(self.table[:, 1], column, unrolled)


@dataclass(frozen=True)
class ShortIfUnrolled:
    vectors: np.ndarray[tuple[int], np.dtype[np.int64]]
    column: int
    unrolled: int

    def repair(self, genes: Genes, rng: np.random.Generator) -> None:
        wrong = ~self.fits(genes)
        genes[wrong, self.column] = rng.choice(np.flatnonzero(self.vectors <= 4), int(wrong.sum()))

    def fits(self, genes: Genes) -> Mask:
        return np.asarray((self.vectors[genes[:, self.column]] <= 4) | (genes[:, self.unrolled] == 0))


@rule("sum_columns_side_by_side")
class SumColumnsSideBySide(Rule):
    """A sum over rows, for a block of columns at a time."""

    def condition(self, sketch: PartialSketch, number: int) -> Verdict:
        return "apply_and_stop" if sketch.stage(number).op.reduce_axes else "skip"

    def apply(self, sketch: PartialSketch, number: int) -> list[Derived]:
        stage = sketch.stage(number)
        [column], [row] = stage.op.axes, stage.op.reduce_axes
        lanes = sketch.target.lanes(stage.tensor.dtype)
        choices = tuple((lanes * width, vectors) for width in (1, 2) for vectors in (1, 2, 4, 8))
        sketch, hole = sketch.with_hole(ColumnVectors("block", stage.name, choices))
        outer, block, vector = (f"{column.name}.{part}" for part in range(3))
        sketch = sketch.apply(
            Split(stage.name, column.name, (Gene(hole, 0), Gene(hole, 1))),
            Reorder(stage.name, (outer, row.name, block, vector)),
            Vectorize(stage.name, vector),
        ).choose(UnrolledVectors("unrolled", stage.name, ("rolled", "unrolled"), block))
        return [(sketch.with_label("side by side"), number - 1)]


TASK = Task.from_spec("reduce_sum:24,600,axis=0", Target.parse("x86-64 cpu=haswell cores=2"))


def space_for(target: Target) -> Space:
    [sketch] = generate_sketches(TASK.dag, target, ("sum_columns_side_by_side", "skip"))
    options = SearchOptions(population=128, iterations=2)
    return Space(sketch, target, options.with_own(AnnealingOptions(steps=4), GeneticOptions(population=8)))


@on_four_targets
def test_random_programs_agree_and_have_every_choice(target: Target) -> None:
    space = space_for(target)
    rows = sample(space, 500, np.random.default_rng(0))
    kinds = [hole.kind for hole in space.sketch.holes]
    assert kinds == ["column_vectors", "unrolled_vectors", "parallel", "unroll"]
    assert list(space.sketch.structural) == [1]
    assert {tuple(row) for row in rows[:, :2].tolist()} == {
        (block, unrolled) for block in range(8) for unrolled in range(2) if unrolled == 0 or block % 4 != 3
    }


@on_four_targets
def test_genes_that_disagree_are_refused_and_repaired(target: Target) -> None:
    space = space_for(target)
    rows = draw(space, 500, np.random.default_rng(0))
    disagree = (rows[:, 0] % 4 == 3) & (rows[:, 1] == 1)
    assert disagree.any()
    assert not plausible(space, rows)[disagree].any()
    mended = repair(space, rows, np.random.default_rng(1))
    changed = (mended != rows).any(axis=1)
    assert np.array_equal(changed, disagree)
    assert plausible(space, mended)[disagree].all()


@on_four_targets
def test_mutation_changes_the_holes_that_name_the_operator(target: Target) -> None:
    space = space_for(target)
    rows = sample(space, 300, np.random.default_rng(0))
    for name in MUTATIONS:
        children = mutate(space, name, rows, np.random.default_rng(1))
        changed = set() if children is None else set(np.flatnonzero((children != rows).any(axis=0)).tolist())
        assert changed == {c for c, hole in enumerate(space.sketch.holes) if name in hole.moves and len(hole.choices) > 1}


@on_four_targets
def test_crossover_keeps_genes_of_the_parents(target: Target) -> None:
    space = space_for(target)
    first, second = sample(space, 200, np.random.default_rng(0)), sample(space, 200, np.random.default_rng(1))
    shares = np.full((200, 1), 0.5)
    children = crossover(space, first, second, shares, np.random.default_rng(2), space.legal_structures)
    assert ((children == first) | (children == second)).all()
    assert accepts(space, repair(space, children, np.random.default_rng(3))).all()


@on_four_targets
def test_features_of_a_population_are_those_of_its_programs(target: Target) -> None:
    space = space_for(target)
    rows = sample(space, 40, np.random.default_rng(0))
    together = extract_features(Population(space.sketch, rows), target)
    for number, row in enumerate(rows):
        concrete = Sketch("concrete", TASK.dag, space.sketch.concretise(row), ())
        alone = extract_features(Population(concrete, np.zeros((1, 0), dtype=np.int32)), target)
        start, end = together.offsets[number : number + 2]
        assert np.allclose(together.rows[start:end], alone.rows, rtol=1e-5)


@on_four_targets
@pytest.mark.parametrize("kind", KINDS)
def test_every_policy_searches_them(kind: str, target: Target) -> None:
    space = space_for(target)
    name, _, search = kind.partition(" ")
    options = space.options.with_own(TemplateOptions(search=search or "annealing"))
    policy = create_policy(name, [space.sketch], target, column_sum, np.random.default_rng(0), options)
    for number in range(3):
        batch = policy.propose(16)
        rows = np.stack([candidate.genes for candidate in batch])
        assert accepts(space, rows).all()
        policy.observe([Measured(0, tuple(row), 1e-3 * (1 + row.sum()), 16 * number + place) for place, row in enumerate(rows)])
    assert all(len(np.unique(rows[:, column])) > 1 for column in (0, 1) if kind != "template grid")


def column_sum(populations: Sequence[Population]) -> list[NDArray[np.float32]]:
    return [(1 / (1 + population.genes.sum(axis=1))).astype(np.float32) for population in populations]


@dataclass(frozen=True)
class Measured:
    sketch_id: int | None
    genes: tuple[int, ...]
    cost: float
    trial: int


@pytest.mark.parametrize("target", executed_targets("cores=2"))
def test_their_kernels_are_right_and_records_hold_their_steps(target: Target, tmp_path: Path) -> None:
    space = space_for(target)
    a = np.random.default_rng(1).standard_normal((24, 600), dtype=np.float32)
    for block in range(8):
        for unrolled in range(1 if block % 4 == 3 else 2):
            kernel = build_kernel(TASK.dag, space.sketch.concretise([block, unrolled, 0, 0]), target, threads=2)
            [output] = LoadedKernel(kernel).run([a])
            assert np.allclose(output, a.sum(axis=0), rtol=1e-4, atol=1e-4)
    search = SearchOptions(population=32, iterations=1, rules=("sum_columns_side_by_side", "skip"))
    options = TuningOptions(cost_model="random", search=search)
    result = tune(Task("sum", TASK.dag, target), trials=12, runner="simulated", options=options)
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(record.to_json()) + "\n" for record in result.records))
    mine = [record for record in read_records(path)[0] if record.sketch_id is not None]
    assert len(mine) > 5
    assert all(record.concrete_steps(space.sketch.dag) == space.sketch.concretise(record.genes) for record in mine)


@hole_kind("window")
class Window(Hole):
    """Another way to say an unroll limit: a value that needs no template."""

    sets = "unroll_limit"

    def steps(self, choice: int) -> tuple[Step, ...]:
        return (Pragma(self.stage, choice),)


@on_four_targets
def test_a_kind_that_sets_a_value_has_one_template_and_the_features_of_its_steps(target: Target) -> None:
    partial = PartialSketch.initial(TASK.dag, target).choose(Window("window", "reduce_sum", (3, 24)))
    sketch = partial.finish()
    assert not len(sketch.structural)
    genes = np.array([[0], [1]], dtype=np.int32)
    rows = extract_features(Population(sketch, genes), target).rows
    assert not np.array_equal(rows[0], rows[1])
    for row, gene in zip(rows, genes, strict=True):
        steps = sketch.concretise(gene)
        alone = extract_features(Population(Sketch("alone", TASK.dag, steps, ()), np.zeros((1, 0), dtype=np.int32)), target)
        assert np.allclose(row, alone.rows[0], rtol=1e-5)


HOLES = {
    "tile of two levels": (TileHole("h", "s", ((1, 1), (1, 2), (2, 1), (4, 4))), 0, 0),
    "tile of one level": (TileHole("h", "s", ((1,), (2,), (4,))), 2, 0),
    "register tile": (RegisterTileHole("h", "s", ((1, 8), (6, 16), (4, 24), (2, 32))), 1, 0),
    "vectors": (VectorHole("h", "s", (4, 8, 16)), 2, 0),
    "lanes that are not neighbours": (VectorHole("h", "s", (1, 4, 8)), 0, 0),
    "location": (LocationHole("h", "s", (None, ("t", "i"))), 0, 0),
    "factor": (FactorHole("h", "s", (2, 4), "r", 0), 1, 0),
    "parallel": (ParallelHole("h", "s", (0, 1, 2), ("i", "j")), 2, 2),
    "unroll": (UnrollHole("h", "s", (0, 16, 64, 512)), 2, 0),
    "a kind that says nothing": (UnrolledVectors("h", "s", ("a", "b", "c"), "i"), 0, 0),
}


def test_every_built_in_kind_is_in_the_table() -> None:
    assert {hole.kind for hole, _, _ in HOLES.values()} >= {n for n, c in HOLE_KINDS.items() if "ansor_py" in c.__module__}


@pytest.mark.parametrize("name", HOLES)
def test_plain_and_undecided_choices(name: str) -> None:
    hole, plain, undecided = HOLES[name]
    assert (hole.plain, hole.undecided) == (plain, undecided)


@pytest.mark.parametrize("name", HOLES)
def test_neighbours_are_all_other_choices_the_nearest_first(name: str) -> None:
    hole = HOLES[name][0]
    count, distances = len(hole.choices), hole.distances()
    near = hole.neighbours(count)
    assert near.shape == (count, count - 1)
    for choice in range(count):
        assert sorted([choice, *near[choice]]) == list(range(count))
        assert (np.diff(distances[choice][near[choice]]) >= 0).all()
    assert np.array_equal(hole.neighbours(1), near[:, :1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TileHole("h", "s", ()), r"hole 'h' has the choices \(\)"),
        (lambda: Hole("h", "s", (1,)), "hole 'h': write @hole_kind\\(\"name\"\\) above the class Hole"),
        (lambda: hole_kind("mine")(Task), "hole kind 'mine': write @hole_kind"),  # type: ignore[type-var]
        (lambda: hole_kind(3)(TileHole), "hole kind 3: write @hole_kind"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_kind_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        make()


class Wrong:
    """An agreement that does not do what it should."""

    def __init__(self, repair: Callable[..., None] = lambda *_: None, fits: Callable[[Genes], object] = len) -> None:
        self.repair, self.fits = repair, fits


def out_of_range(genes: Genes, rng: np.random.Generator) -> None:
    genes[:] = 9


WRONG_METHODS: dict[str, tuple[str, Callable[..., object], str]] = {
    "steps raise": ("steps", lambda self, choice: 1 / 0, "failed.*: ZeroDivisionError"),
    "plain is no choice": ("plain", property(lambda self: 9), "failed.*: IndexError"),  # type: ignore[dict-item]
    "agreement exits": ("agreement", lambda *_: sys.exit(0), "failed.*: SystemExit: 0"),
    "repair raises": ("agreement", lambda *_: Wrong(lambda *_: 1 / 0), "failed.*: ZeroDivisionError"),  # type: ignore[arg-type]
    "repair gives no choice": ("agreement", lambda *_: Wrong(out_of_range), ": repair gave gene 9 of 2 choices"),
    "fits raises": ("agreement", lambda *_: Wrong(fits=lambda genes: genes[99999]), "failed.*: IndexError"),
    "fits gives another shape": ("agreement", lambda *_: Wrong(fits=lambda genes: [True, False]), "failed.*: ValueError"),
}


@pytest.mark.parametrize("title", WRONG_METHODS)
def test_a_wrong_kind_is_named(title: str) -> None:
    method, function, words = WRONG_METHODS[title]
    kind = hole_kind("wrong")(type("WrongHole", (Hole,), {method: function}))
    del HOLE_KINDS["wrong"]
    hole = kind("decision", "reduce_sum", (0, 1))
    sketch = Sketch("wrong", TASK.dag, (Alternatives(0),), (hole,))
    with pytest.raises(PlugInError, match=f"hole 'decision' of kind 'wrong' ?{words}") as caught:
        sample(Space(sketch, TASK.target, SearchOptions()), 8, np.random.default_rng(0))
    assert "\n" not in str(caught.value)
