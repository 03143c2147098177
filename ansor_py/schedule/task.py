"""A task: one subgraph to tune on one target.

task = Task.from_compute(te.matmul(512, 512, 512), Target.detect())
task = Task.from_operator("matmul", (512, 512, 512))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ansor_py.schedule.dag import ComputeDAG
from ansor_py.target import Target
from ansor_py.te.tensor import Tensor


@dataclass(frozen=True, eq=False)
class Task:
    """A compute DAG with the target it is tuned for and its weight, the number of times the model contains it."""

    name: str
    dag: ComputeDAG
    target: Target
    weight: int = 1

    @property
    def workload_key(self) -> str:
        """What identifies the computation (not the target)."""
        return self.dag.workload_key

    @property
    def flops(self) -> int:
        """Floating-point operations of one evaluation."""
        return self.dag.flops

    @staticmethod
    def from_compute(outputs: Tensor | Sequence[Tensor], target: Target | None = None, name: str | None = None) -> Task:
        """A task for the given output tensors; the target is this machine's unless given."""
        dag = ComputeDAG.from_outputs(outputs)
        return Task(name or dag.outputs[-1].name, dag, target or Target.detect())

    @staticmethod
    def from_operator(operator: str, sizes: Sequence[int], target: Target | None = None) -> Task:
        """A task for a named operator and its sizes, as on the command line: `from_operator("matmul", (512, 512, 512))`."""
        return Task.from_spec(f"{operator}:{','.join(map(str, sizes))}", target)

    @staticmethod
    def from_spec(spec: str, target: Target | None = None) -> Task:
        """A task for an operator spec such as `conv2d:1,64,56,56,64,3,pad=1`; raises OptionError for nonsense."""
        from ansor_py.te.ops.registry import from_spec

        return Task.from_compute(from_spec(spec), target, name=spec)
