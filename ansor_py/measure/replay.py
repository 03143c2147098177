"""The runner `replay`: answers from the records of an earlier search, so that a study of algorithms needs no machine.

What was not measured then has no answer, so a search takes its candidates from the `known_programs`. Records of
failed trials answer with their error.

    with create_measurer("replay:runs/resnet/records.jsonl", target=target, threads=2) as measurer:
        measurer.known_programs(task.workload_key)        # the records that there are
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ansor_py.errors import OptionError, ScheduleError
from ansor_py.measure.interface import MeasureInput, MeasureOptions, Measurer, measurer
from ansor_py.measure.records import Record, read_records
from ansor_py.measure.result import MeasureResult
from ansor_py.measure.virtual import VirtualMeasurer
from ansor_py.schedule.steps import Step
from ansor_py.target import Target


class ReplayMeasurer(VirtualMeasurer):
    """Answers from records. `path` is their file or the run directory that holds it.

    Of several records of one program the first one counts. Raises RecordError for a file that cannot be read.
    """

    def __init__(self, path: str | Path, target: Target, threads: int) -> None:
        super().__init__()
        self._path = Path(path) / "records.jsonl" if Path(path).is_dir() else Path(path)
        self._fitting = _machine(target, threads)
        self._records, _ = read_records(self._path)
        self._pools: dict[str, dict[str, Record]] = {}
        self._older: dict[str, dict[tuple[Step, ...], Record]] = {}
        for record in self._records:
            if (record.target, record.threads) == (str(target), threads):
                self._pools.setdefault(record.workload_key, {}).setdefault(json.dumps(record.steps), record)

    def known_programs(self, workload_key: str) -> Sequence[Record]:
        """All different programs of a task, in the order of their trials. Raises OptionError if there is none."""
        if workload_key not in self._pools:
            known = [record for record in self._records if record.workload_key == workload_key]
            if known:
                why = f"the {len(known)} of this task are for {_machine(Target.parse(known[0].target), known[0].threads)}"
            else:
                names = sorted({record.task or record.workload_key for record in self._records})
                why = f"its {len(self._records)} records are of {', '.join(names[:5]) or 'no task'}"
            raise OptionError(
                f"'{self._path}' has no record of task {workload_key} on {self._fitting}: {why}; replay a search like this one"
            )
        return list(self._pools[workload_key].values())

    def answer(self, program: MeasureInput) -> MeasureResult:
        """What the record says."""
        steps = json.dumps([step.to_json() for step in program.steps])
        record = self._pools.get(program.workload_key, {}).get(steps) or self._older_programs(program).get(program.steps)
        if record is None:
            return MeasureResult(
                error="build", error_text=f"'{self._path}' has no record of this program", error_stage="replay"
            )
        return record.result

    def _older_programs(self, program: MeasureInput) -> dict[tuple[Step, ...], Record]:
        """Records of the program's task that do not state register tiles, by the steps that do."""
        key = program.workload_key
        if key not in self._older:
            older = [record for record in self._pools.get(key, {}).values() if not record.states_tiles]
            self._older[key] = {}
            for record in older:
                with suppress(ScheduleError):
                    self._older[key].setdefault(record.concrete_steps(program.dag), record)
        return self._older[key]


def _machine(target: Target, threads: int) -> str:
    return target.with_cores(threads).summary()


@measurer("replay", virtual=True, argument="RECORDS")
def replay_measurer(target: Target, threads: int, options: MeasureOptions) -> Measurer:
    """A measurer of the programs in the file `options.argument`."""
    return ReplayMeasurer(options.argument, target, threads)
