"""Plain calls: the caller's arrays wherever they lie, outputs in memory that is used again only when nobody holds it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

import ansor_py
from ansor_py.codegen.memory import aligned_array, data_address
from ansor_py.errors import FeedError, OptionError
from ansor_py.graph import CompiledModel
from graph_interpreter import floats, make_model
from targets import executed_targets

Array = NDArray[Any]
SHAPE = (33, 70)


def difference(target: str | None = None) -> CompiledModel:
    """y = relu(a - b) and z = softmax(a - b): which input is which can be seen."""
    nodes = [
        helper.make_node("Sub", ["a", "b"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
        helper.make_node("Softmax", ["d"], ["z"]),
    ]
    feed = {"a": floats(*SHAPE, seed=1), "b": floats(*SHAPE, seed=2)}
    return ansor_py.compile(make_model(nodes, feed, ["y", "z"]), threads=2, workers=0, target=target)


def feed_of(seed: int) -> dict[str, Array]:
    return {"a": floats(*SHAPE, seed=seed), "b": floats(*SHAPE, seed=seed + 100)}


def expected(feed: dict[str, Array]) -> Array:
    return np.maximum(feed["a"] - feed["b"], 0)


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    return difference()


class Foreign:
    """An array of another library, which offers it through DLPack."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


def at_offset(array: Array, offset: int) -> Array:
    """The array in memory that begins `offset` bytes behind a multiple of 64."""
    memory = np.empty(array.nbytes + 128, np.uint8)
    begin = -memory.ctypes.data % 64 + offset
    result = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


@pytest.mark.parametrize("offset", [0, 4, 16, 20, 60, 62])  # at 62 not even a float's own alignment
@pytest.mark.parametrize("target", executed_targets())
def test_inputs_may_lie_anywhere(target: Any, offset: int) -> None:
    compiled = difference(str(target))
    feed = feed_of(1)
    given = {name: at_offset(array, offset) for name, array in feed.items()}
    assert given["a"].ctypes.data % 64 == offset
    np.testing.assert_allclose(compiled.run(given)["y"], expected(feed), rtol=1e-6)
    call, outputs = compiled.bind(given)
    call()
    np.testing.assert_allclose(outputs["y"], expected(feed), rtol=1e-6)


FORMS: dict[str, Callable[[Array], Any]] = {
    "a plain array": lambda array: array,
    "every second row": lambda array: np.repeat(array, 2, axis=0)[::2],
    "a transpose": lambda array: np.ascontiguousarray(array.T).T,
    "in the order of Fortran": np.asfortranarray,
    "a row that is repeated": lambda array: np.broadcast_to(array, array.shape),
    "read-only": lambda array: _read_only(array),
    "a list": lambda array: [list(row) for row in array],
    "of another library": Foreign,
    "a subclass": lambda array: array.view(np.recarray).view(np.ndarray).view(_Subclass),
}


class _Subclass(np.ndarray[Any, Any]):
    """As of `numpy.memmap` or a library that adds units."""


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("form", FORMS)
def test_inputs_may_have_any_form(model: CompiledModel, form: str) -> None:
    for seed in (3, 4):  # a copy of the first call must not be what the second one reads
        feed = feed_of(seed)
        given = {"a": FORMS[form](feed["a"].copy()), "b": feed["b"]}
        np.testing.assert_allclose(model.run(given)["y"], expected(feed), rtol=1e-6)


def test_a_bound_copy_is_not_overwritten_by_later_runs(model: CompiledModel) -> None:
    first, second = feed_of(5), feed_of(6)
    call, outputs = model.bind({name: np.asfortranarray(array) for name, array in first.items()})
    model.run({name: np.asfortranarray(array) for name, array in second.items()})
    call()
    np.testing.assert_allclose(outputs["y"], expected(first), rtol=1e-6)


HOLDERS: dict[str, Callable[[Array], Any]] = {
    "the array": lambda array: array,
    "a row": lambda array: array[3],
    "a view of a view of another type": lambda array: array[2:].view(np.int32)[1:],
    "a reversed view": lambda array: array[::-1, ::-1],
    "a memoryview": memoryview,
    "a DLPack capsule": lambda array: array.__dlpack__(),
    "an array made of the capsule": np.from_dlpack,
    "a buffer of another kind": lambda array: np.frombuffer(array, np.uint8),
    "a slice in a list of lists": lambda array: [[array[:1]]],
    "a generator that reads it": lambda array: (row for row in array),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_memory_that_is_held_is_not_written(model: CompiledModel, holder: str) -> None:
    array = model.run(feed_of(7))["y"]
    address = array.ctypes.data
    held = HOLDERS[holder](array)
    del array
    taken = []
    for seed in range(8, 14):
        result = model.run(feed_of(seed))["y"]
        assert not address <= result.ctypes.data < address + result.nbytes
        taken.append(result.ctypes.data)
    del held
    assert len(set(taken)) <= 2


def test_outputs_that_are_kept_stay_as_they_were(model: CompiledModel) -> None:
    feeds = [feed_of(seed) for seed in range(30)]
    outputs = [model.run(feed) for feed in feeds]
    for feed, output in zip(feeds, outputs, strict=True):
        np.testing.assert_allclose(output["y"], expected(feed), rtol=1e-6)
        assert output["y"].flags.writeable
        assert output["y"].ctypes.data % 64 == 0


def test_memory_is_used_again_when_it_is_dropped(model: CompiledModel) -> None:
    addresses = {model.run(feed_of(1))["y"].ctypes.data for _ in range(10)}
    assert len(addresses) == 1
    result: dict[str, Array] = {}
    addresses = set()
    for _ in range(10):
        result = model.run(feed_of(1))  # while the last one is held
        addresses.add(result["y"].ctypes.data)
    assert len(addresses) == 2


def test_what_a_caller_does_to_an_output_is_not_seen_by_the_next(model: CompiledModel) -> None:
    output = model.run(feed_of(1))["y"]
    output.shape = (SHAPE[1], SHAPE[0])
    output.flags.writeable = False
    del output
    again = model.run(feed_of(2))["y"]
    assert again.shape == SHAPE
    assert again.flags.writeable
    np.testing.assert_allclose(again, expected(feed_of(2)), rtol=1e-6)


def test_outputs_outlive_the_model() -> None:
    compiled = difference()
    output = compiled.run(feed_of(3))["y"]
    del compiled
    gc.collect()
    np.testing.assert_allclose(output, expected(feed_of(3)), rtol=1e-6)


def test_threads_never_get_the_memory_of_each_other(model: CompiledModel) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        feed = feed_of(number)
        correct = model.run(feed)["y"].copy()
        kept = []
        for index in range(300):
            output = model.run(feed)["y"]
            if index % 5 == 0:
                kept.append(output)
            wrong.append(not np.array_equal(output, correct))
        wrong.append(not all(np.array_equal(output, correct) for output in kept))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 4 * 301
    assert sum(wrong) == 0


@pytest.mark.parametrize("offset", [0, 4, 48])
def test_outputs_go_into_the_arrays_of_the_caller(model: CompiledModel, offset: int) -> None:
    feed = feed_of(9)
    mine = at_offset(np.zeros(SHAPE, np.float32), offset)
    outputs = model.run(feed, out={"y": mine})
    assert outputs["y"] is mine
    np.testing.assert_allclose(mine, expected(feed), rtol=1e-6)
    np.testing.assert_allclose(outputs["z"].sum(axis=1), 1, rtol=1e-5)
    again = model.run(feed_of(10), out={"y": Foreign(mine), "z": aligned_array(SHAPE, "float32")})
    assert np.shares_memory(again["y"], mine)
    np.testing.assert_allclose(mine, expected(feed_of(10)), rtol=1e-6)


def test_arrays_that_cannot_take_an_output(model: CompiledModel) -> None:
    feed = feed_of(1)
    good = np.zeros(SHAPE, np.float32)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"q": good}, r"out: the model has no numeric output 'q'; it has y, z"),
        ({"y": good[:-1]}, r"out\['y'\] is float32\[32, 70\], but the output is float32\[33, 70\]"),
        ({"y": good.astype(np.float64)}, r"out\['y'\] is float64"),
        ({"y": np.zeros((66, 70), np.float32)[::2]}, r"out\['y'\] must be contiguous"),
        ({"y": _read_only(np.zeros(SHAPE, np.float32))}, r"out\['y'\] must be .* writeable"),
        ({"y": feed["a"]}, r"out\['y'\] overlaps input 'a'"),
        ({"y": good, "z": good}, r"out\['z'\] overlaps out\['y'\]"),
        ({"y": object()}, r"out\['y'\] is object"),
    ]
    for out, message in wrong:
        with pytest.raises(FeedError, match=message):
            model.run(feed, out=out)
    assert not good.any()


def test_what_cannot_be_read_is_an_error(model: CompiledModel) -> None:
    class Elsewhere(Foreign):
        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("the memory is on another device")

    feed = feed_of(1)
    with pytest.raises(FeedError, match="'a' cannot be read as a NumPy array: the memory is on another device"):
        model.run({"a": Elsewhere(feed["a"]), "b": feed["b"]})
    with pytest.raises(FeedError, match="'a' cannot be read as a NumPy array"):
        model.run({"a": [[1.0], [1.0, 2.0]], "b": feed["b"]})
    with pytest.raises(FeedError, match="input 'b' is missing"):
        model.run({"a": feed["a"]})
    with pytest.raises(FeedError, match="the model has no input 'c'"):
        model.run({"a": feed["a"], "c": feed["b"]})


def test_the_address_of_an_array() -> None:
    base = np.arange(100, dtype=np.float64)
    for array in (base, base[3:], base.reshape(4, 25)[1:, 2:], np.zeros(()), np.zeros((0, 3)), base.view(_Subclass)):
        assert data_address(array) == array.ctypes.data


def test_calls_use_no_more_threads_than_they_may(model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansor_py.codegen import thread_pool

    assert thread_pool.allowed_threads(4) == 4
    with ansor_py.limit_threads(1):
        assert thread_pool.allowed_threads(4) == 1
        np.testing.assert_allclose(model.run(feed_of(1))["y"], expected(feed_of(1)), rtol=1e-6)
        with ansor_py.limit_threads(3):
            assert thread_pool.allowed_threads(4) == 3
            assert thread_pool.allowed_threads(2) == 2
        seen: list[int] = []
        other = threading.Thread(target=lambda: seen.append(thread_pool.allowed_threads(4)))
        other.start()
        other.join()
        assert seen == [4]
    for text, allowed in (("2", 2), ("", 4)):
        monkeypatch.setenv(thread_pool.THREADS_VARIABLE, text)
        thread_pool._limit_of_process.cache_clear()
        assert thread_pool.allowed_threads(4) == allowed
    for wrong in ("many", "0", "-1", "1.5"):
        monkeypatch.setenv(thread_pool.THREADS_VARIABLE, wrong)
        thread_pool._limit_of_process.cache_clear()
        with pytest.raises(OptionError, match=f"ANSOR_PY_NUM_THREADS: '{wrong}' is not a number of threads"):
            model.run(feed_of(1))
    with pytest.raises(OptionError, match="limit_threads: '0' is not"), ansor_py.limit_threads(0):
        raise AssertionError("the block must not run")
    thread_pool._limit_of_process.cache_clear()
