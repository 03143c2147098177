"""The buffer plan: live buffers never overlap, and the arena is close to the largest live set."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansor_py.codegen.memory import ALIGNMENT
from ansor_py.graph import partition_model
from ansor_py.graph.memory import Buffer, MemoryPlan, plan_memory
from ansor_py.graph.planning import lifetimes
from ansor_py.graph.random_weights import find_light_models

LIMIT = 1.3


def check(buffers: list[Buffer], plan: MemoryPlan) -> None:
    """Every pair that is alive at once lies apart, everything is aligned and inside, and the arena is small."""
    live = [0] * (max((buffer.last for buffer in buffers), default=0) + 1)
    for index, buffer in enumerate(buffers):
        start = plan.offsets[buffer.name]
        assert start % ALIGNMENT == 0
        assert 0 <= start <= plan.arena_bytes - buffer.bytes
        for other in buffers[:index]:
            if buffer.first <= other.last and other.first <= buffer.last and buffer.bytes and other.bytes:
                begin = plan.offsets[other.name]
                assert start + buffer.bytes <= begin or begin + other.bytes <= start, (buffer, other)
        for step in range(buffer.first, buffer.last + 1):
            live[step] += -(-buffer.bytes // ALIGNMENT) * ALIGNMENT
    assert plan.live_bytes == max(live)
    assert plan.arena_bytes <= LIMIT * plan.live_bytes


@pytest.mark.parametrize("name", list(find_light_models()))
def test_arena_of_light_models(name: str) -> None:
    buffers = lifetimes(partition_model(find_light_models()[name]))
    check(buffers, plan_memory(buffers))


@st.composite
def random_lifetimes(draw: st.DrawFn) -> list[Buffer]:
    """The values of a random DAG: one is written in each step and lives to a later one, mostly a near one."""
    buffers = []
    sizes = st.one_of(st.integers(1, 4096), st.sampled_from([64, 4096, 65536, 1 << 20]))
    for step in range(draw(st.integers(1, 60))):
        reach = draw(st.one_of(st.integers(0, 4), st.integers(0, 30)))
        buffers.append(Buffer(f"v{step}", draw(sizes), step, step + reach))
    return buffers


@given(random_lifetimes())
@settings(max_examples=150, deadline=None)
def test_arena_of_random_dags(buffers: list[Buffer]) -> None:
    check(buffers, plan_memory(buffers))


def test_nothing_to_place() -> None:
    assert plan_memory([]) == MemoryPlan({}, 0, 0)


def test_a_chain_needs_two_buffers() -> None:
    chain = [Buffer(f"v{step}", 1000, step, step + 1) for step in range(50)]
    assert plan_memory(chain).arena_bytes == 2 * 1024
