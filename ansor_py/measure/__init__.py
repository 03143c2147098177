"""Measuring: builders and runners behind one `Measurer`, timing, error kinds and records.

with create_measurer("process", target=target, threads=2) as measurer:
    results = measurer.measure([MeasureInput(dag.workload_key, dag, steps, target, threads=2)])
"""

from ansor_py.measure import inline, process, ray_backend, replay, simulated  # they register their kinds
from ansor_py.measure.interface import (
    MEASURERS,
    MeasureInput,
    MeasureOptions,
    Measurer,
    create_measurer,
    find_measurer,
    measurer,
)
from ansor_py.measure.records import (
    LostLine,
    Origin,
    Record,
    RecordWriter,
    best_records,
    read_records,
)
from ansor_py.measure.result import ERROR_KINDS, ErrorKind, MeasureResult, Span
from ansor_py.measure.run import RunSettings

__all__ = [
    "ERROR_KINDS",
    "MEASURERS",
    "ErrorKind",
    "LostLine",
    "MeasureInput",
    "MeasureOptions",
    "MeasureResult",
    "Measurer",
    "Origin",
    "Record",
    "RecordWriter",
    "RunSettings",
    "Span",
    "best_records",
    "create_measurer",
    "find_measurer",
    "inline",
    "measurer",
    "process",
    "ray_backend",
    "read_records",
    "replay",
    "simulated",
]
