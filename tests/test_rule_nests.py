"""Every sketch rule, in pairs: what it makes of a stage, and where it does not apply.

`PAIRS` has one entry a rule. What the rule makes is shown by the nests in its docstring (`docstring_nests` says how): one for
each sketch, with genes for lengths. A refusal is a stage on which the rule must not be tried, with the reason; where no other
rule is left, the derivation ends with an error that says so. A registered rule without an entry fails a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ansor_py.errors import OptionError
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.sketch_rules import RULES, Rule
from ansor_py.sketch_rules.add_cache_write import AddCacheWrite
from ansor_py.sketch_rules.add_packing import AddPacking
from ansor_py.sketch_rules.add_rfactor import AddParallelRfactor, AddRfactor
from ansor_py.sketch_rules.add_row_blocks import AddRowBlocks
from ansor_py.sketch_rules.always_inline import AlwaysInline
from ansor_py.sketch_rules.choose_algorithm import ChooseAlgorithm
from ansor_py.sketch_rules.derivation import derive
from ansor_py.sketch_rules.inline_padding import InlinePadding
from ansor_py.sketch_rules.inline_transposition import InlineTransposition
from ansor_py.sketch_rules.multi_level_tiling import MultiLevelTiling
from ansor_py.sketch_rules.multi_level_tiling_with_fusion import MultiLevelTilingWithFusion
from ansor_py.sketch_rules.partial_sketch import PartialSketch
from ansor_py.sketch_rules.skip import Skip
from ansor_py.sketch_rules.space_options import DEFAULT_SPACE, SpaceOptions
from ansor_py.target import Target
from ansor_py.te.tensor import Tensor
from docstring_nests import documented, nest_of
from nest_examples import (
    chain,
    exponentials,
    normalised_product,
    padded_windows,
    product,
    product_of_exponentials,
    product_relu,
    row_sums,
    scaled_relu,
    shifted_transposition,
    transposed_product,
)

TARGET = Target.parse("x86-64 cpu=haswell cores=4")


@dataclass(frozen=True)
class Refusal:
    """A stage of what an output needs to which a rule does not apply, and why not."""

    output: Tensor
    stage: str
    reason: str


@dataclass(frozen=True)
class Pair:
    """`output` is what the docstring's example computes; `refused` is empty for a rule that applies to every stage.

    `options` are those of the rules for both.
    """

    output: Tensor
    refused: tuple[Refusal, ...]
    options: SpaceOptions = DEFAULT_SPACE


PAIRS: dict[type[Rule], Pair] = {
    AlwaysInline: Pair(
        scaled_relu(),
        (
            Refusal(exponentials(), "D", "it is an output"),
            Refusal(product_relu(), "C", "it is a reduction"),
            Refusal(product_of_exponentials(), "D", "each exponential would be computed once for every column"),
        ),
    ),
    InlineTransposition: Pair(
        transposed_product(),
        (
            Refusal(shifted_transposition(), "T", "no product reads it"),
            Refusal(product_of_exponentials(), "D", "it is no transposition"),
        ),
    ),
    InlinePadding: Pair(
        padded_windows(),
        (
            Refusal(padded_windows(depthwise=False), "P", "every filter would mask an element again"),
            Refusal(padded_windows(stride=2), "P", "lanes are not neighbours"),
            Refusal(transposed_product(), "T", "it has no frame"),
        ),
    ),
    ChooseAlgorithm: Pair(
        row_sums(),
        (
            Refusal(row_sums(20, 15), "S", "no algorithm applies to an odd number of summands"),
            Refusal(exponentials(), "D", "it is no reduction"),
        ),
        SpaceOptions(math="fast"),
    ),
    AddRowBlocks: Pair(
        normalised_product(),
        (
            Refusal(product_relu(), "D", "there is no reduction between the product and it"),
            Refusal(chain(), "E", "there is no product behind it"),
        ),
    ),
    AddRfactor: Pair(
        row_sums(4, 4096),
        (
            Refusal(exponentials(), "D", "it is no reduction"),
            Refusal(row_sums(4096, 4), "S", "its reduction is shorter than there are cores"),
            Refusal(product(), "C", "there are more elements of the result than of the reduction"),
        ),
    ),
    AddParallelRfactor: Pair(
        row_sums(4, 4096),
        (
            Refusal(row_sums(4096, 4096), "S", "there are rows enough for all cores"),
            Refusal(row_sums(4, 32), "S", "there is too little to share out"),
        ),
    ),
    AddPacking: Pair(
        product(32, constant=True),
        (
            Refusal(product(32), "C", "to copy an operand that is read this little costs more than it saves"),
            Refusal(exponentials(), "D", "it is no reduction"),
        ),
    ),
    AddCacheWrite: Pair(
        product(),
        (
            Refusal(product_relu(), "C", "it can be computed inside its consumer"),
            Refusal(exponentials(), "D", "it reuses no data"),
        ),
    ),
    MultiLevelTilingWithFusion: Pair(
        product_relu(),
        (
            Refusal(product(), "C", "it has no consumer"),
            Refusal(normalised_product(), "C", "it has two consumers"),
            Refusal(exponentials(), "D", "it reuses no data"),
        ),
    ),
    MultiLevelTiling: Pair(product(), (Refusal(exponentials(), "D", "it reuses no data"),)),
    Skip: Pair(exponentials(), ()),
}


def initial(output: Tensor, options: SpaceOptions = DEFAULT_SPACE) -> PartialSketch:
    return PartialSketch.initial(ComputeDAG.from_outputs(output), TARGET, options)


def number_of(sketch: PartialSketch, stage: str) -> int:
    return [item.name for item in sketch.state.stages].index(stage)


def nests(cls: type[Rule]) -> tuple[str, ...]:
    """The nest before, and that of each sketch after, under what the rule adds to the sketch's name."""
    before = initial(PAIRS[cls].output, PAIRS[cls].options)
    number = number_of(before, documented(cls).subject)
    assert cls().condition(before, number) != "skip"
    after = [sketch for sketch, _ in cls().apply(before, number)]
    return (nest_of(before.state), *("\n".join([*sketch.label, nest_of(sketch.state)]) for sketch in after))


def printed_nests() -> Iterator[tuple[type[Rule], tuple[str, ...]]]:
    """What the docstrings should show."""
    for cls in PAIRS:
        yield cls, nests(cls)


def test_every_rule_has_its_pair() -> None:
    own = {cls for cls in RULES.values() if cls.__module__.startswith("ansor_py.")}
    assert own == set(PAIRS), "a rule needs nests in its docstring and an entry in PAIRS"


@pytest.mark.parametrize("cls", PAIRS, ids=lambda cls: cls.name)
def test_a_rule_makes_the_nests_of_its_docstring(cls: type[Rule]) -> None:
    assert nests(cls) == documented(cls).nests


@pytest.mark.parametrize("cls", PAIRS, ids=lambda cls: cls.name)
def test_a_rule_is_kept_from_stages_that_it_does_not_suit(cls: type[Rule]) -> None:
    for refusal in PAIRS[cls].refused:
        sketch = initial(refusal.output, PAIRS[cls].options)
        assert cls().condition(sketch, number_of(sketch, refusal.stage)) == "skip", refusal.reason
        with pytest.raises(OptionError, match=rf"no sketch rule applies to stage '\w' \(tried {cls.name}\); add 'skip'"):
            derive(sketch.dag, TARGET, [cls()], PAIRS[cls].options)


def test_a_rule_without_refusals_applies_to_every_stage() -> None:
    sketches = [initial(pair.output) for pair in PAIRS.values()]
    for cls in (cls for cls, pair in PAIRS.items() if not pair.refused):
        verdicts = {cls().condition(sketch, number) for sketch in sketches for number in range(len(sketch.state.stages))}
        assert verdicts == {"apply"}
