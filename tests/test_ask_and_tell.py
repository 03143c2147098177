"""A task's space for a loop of one's own: names and integers and back, projection to valid programs, asking and telling."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from ansor_py.errors import OptionError
from ansor_py.schedule.task import Task
from ansor_py.search import GeneSpace, SearchOptions, SearchSpace, Space
from ansor_py.sketch_rules import generate_sketches
from ansor_py.target import Target
from targets import structure_targets

SPECS = ("conv2d:1,8,14,14,16,3,pad=1,bias=1,relu=1", "matmul:96,80,64", "softmax:24,160", "attention:1,2,32,16")
SMALL = SearchOptions(population=64, iterations=1)
TASK = Task.from_spec("matmul:48,40,32", Target.parse("x86-64 cpu=haswell cores=2"))


@functools.cache
def gene_space(spec: str, target: Target) -> GeneSpace:
    task = Task.from_spec(spec, target)
    return GeneSpace([Space(sketch, target, SearchOptions()) for sketch in generate_sketches(task.dag, target)])


@pytest.mark.parametrize("target", structure_targets("cores=2"))
@pytest.mark.parametrize("spec", SPECS)
def test_any_row_is_projected_to_a_near_valid_one(spec: str, target: Target) -> None:
    space = gene_space(spec, target)
    rng = np.random.default_rng(0)
    for number, sketch in enumerate(space.sketches):
        rows = rng.integers(0, sketch.sizes, (24, len(sketch.holes))).astype(np.int32)
        found = space.project(number, rows)
        assert space.valid(number, found).all()
        assert np.array_equal(space.project(number, found), found)
        assert np.array_equal(space.project(number, rows[:3]), found[:3])  # whatever the company
        valid = space.valid(number, rows)
        assert np.array_equal(found[valid], rows[valid])
        strangers = space.project(number, found[rng.permutation(len(found))])
        assert space.distances(number, rows, found).mean() < space.distances(number, rows, strangers).mean()
        outside = space.project(number, rows + 1000)
        assert space.valid(number, outside).all()


@pytest.mark.parametrize("spec", SPECS)
def test_programs_have_names_and_points_that_lead_back(spec: str) -> None:
    space = gene_space(spec, Target.parse("x86-64 cpu=haswell cores=2"))
    programs = space.sample(40, np.random.default_rng(1))
    assert len({(sketch, *genes.tolist()) for sketch, genes, *_ in programs}) == len(programs) > 0
    for sketch, genes, *_ in programs:
        assert space.valid(sketch, genes[None, :])[0]
        named = space.encode(sketch, genes)
        for back in (space.decode(named), space.at_point(space.point(sketch, genes))):
            assert (back.sketch, back.genes.tolist()) == (sketch, genes.tolist())
    sketch, genes, *_ = programs[0]
    near = space.neighbours(sketch, genes)
    assert space.valid(sketch, near).all()
    assert not (near == genes).all(axis=1).any()
    for description, parameters in zip(space.description(), map(space.parameters, range(len(space.sketches))), strict=True):
        assert [p["size"] for p in description["parameters"]] == [p.size for p in parameters]
        assert len({p.name for p in parameters}) == len(parameters)


def test_what_makes_no_sense_is_named() -> None:
    space = SearchSpace(TASK, SMALL, cost_model="random")
    [candidate] = space.sample(1, np.random.default_rng(0))
    named = space.encode(candidate.sketch, candidate.genes)
    first = space.parameters(candidate.sketch)[0]
    for changed, words in (
        ({"sketch": "none"}, "sketch 'none': there is none of that name; known are"),
        ({"depth": 3}, "has no 'depth'; it has"),
        ({first.name: first.size}, f"'{first.name}' is {first.size}; give a whole number from 0 to {first.size - 1}"),
        ({first.name: 0.5}, "is 0.5; give a whole number"),
    ):
        with pytest.raises(OptionError, match=words):
            space.decode({**named, **changed})
    with pytest.raises(OptionError, match="is missing"):
        space.decode({name: value for name, value in named.items() if name != first.name})
    with pytest.raises(OptionError, match="1 costs are given for 2 programs"):
        space.tell([candidate, candidate], [1.0])
    with pytest.raises(OptionError, match="a cost is nan"):
        space.tell([candidate], [math.nan])
    with pytest.raises(OptionError, match="ask for 0 programs"):
        space.ask(0)
    with pytest.raises(OptionError, match="a candidate is of sketch 99"):
        space.tell([candidate._replace(sketch=99)], [1.0])


@pytest.mark.parametrize("policy", ["evolution", "random", "beam"])
def test_asking_and_telling_searches_as_the_seed_decides(policy: str) -> None:
    def searched(seed: int) -> SearchSpace:
        space = SearchSpace(TASK, SMALL, policy, "roofline", seed)
        for _ in range(3):
            candidates = space.ask(8)
            records = space.measure(candidates, runner="simulated")
            assert [record.genes for record in records] == [tuple(c.genes.tolist()) for c in candidates]
            space.tell(candidates, [record.cost if place else math.inf for place, record in enumerate(records)])
        return space

    first, second = searched(3), searched(3)
    assert [record.genes for record in first.records] == [record.genes for record in second.records]
    assert [record.trial for record in first.records] == list(range(24))
    assert len({(record.sketch_id, record.genes) for record in first.records}) == 24
    assert sum(record.valid for record in first.records) == 21
    assert first.best is not None
    assert first.best.cost == min(record.cost for record in first.records)


def test_what_is_known_without_measuring() -> None:
    space = SearchSpace(TASK, SMALL, cost_model="random")
    [candidate] = space.sample(1, np.random.default_rng(0))
    row = candidate.genes[None, :]
    assert len(space.features(candidate.sketch, row)) == 1
    assert space.roofline_cycles(candidate.sketch, row)[0] > 0
    assert "for " in space.loops(candidate) or "parallel " in space.loops(candidate)
