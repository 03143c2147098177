"""A data set as files: `programs.parquet`, a row a program, and `tasks.jsonl` beside it, with the compute DAG of every task.

| column | type | content |
| --- | --- | --- |
| `run`, `trial`, `round`, `seed`, `engine` | text, int | where the program was measured |
| `workload_key`, `task`, `target`, `threads` | text, int | what was computed, and on what |
| `sketch`, `genes`, `operator`, `predicted` | text, list of int, float | where the program came from |
| `steps`, `states_tiles` | text, bool | its concrete transform steps as JSON; false for steps of schema 1 |
| `valid`, `error` | bool, text | whether it ran to the end and passed its checks, and what became of it if not |
| `costs`, `cost_seconds` | list of float, float | seconds per call of every repeat; their median, null for a failure |
| `statements`, `features` | int, list of float | rows of features, and all of them, row by row |
| `within_task`, `by_task`, `by_target` | text | `train` or `test` by each split |

The schema's metadata `ansor_py` (JSON) has the names of the features, their version, seed and share of the splits. Any program
that reads Parquet reads the file. Needs pyarrow, the extra `analysis`.

    write_data_set(data, Path("data"))
    data = read_data_set(Path("data"))
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ansor_py import __version__
from ansor_py.cost_model.interface import FeatureBatch
from ansor_py.errors import OptionError
from ansor_py.measure.records import Origin, Record
from ansor_py.measure.result import MeasureResult
from ansor_py.measure.tasks import TASKS, read_tasks, write_tasks
from ansor_py.search.data_set.data_set import DataSet
from ansor_py.search.data_set.splits import SPLITS

PROGRAMS, METADATA, FORMAT = "programs.parquet", b"ansor_py", 1


def write_data_set(data: DataSet, folder: Path) -> None:
    """Write a data set into a folder. Raises OptionError for one that holds a data set already or cannot be written."""
    arrow, parquet = _arrow()
    path = folder / PROGRAMS
    if path.exists():
        raise OptionError(f"'{folder}' holds a data set already; choose another folder")
    metadata = {
        "format": FORMAT,
        "engine": __version__,
        "feature_version": data.version,
        "feature_names": list(data.names),
        "seed": data.seed,
        "test_share": data.test_share,
        "left_out": dict(data.left_out),
    }
    table = arrow.table(_columns(data, arrow)).replace_schema_metadata({METADATA: json.dumps(metadata).encode()})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tasks(folder / TASKS, data.tasks.values())
        partial = path.with_name(f"{path.name}.partial")
        parquet.write_table(table, partial, compression="zstd")
        partial.replace(path)
    except OSError as error:
        raise OptionError(f"cannot write a data set to '{folder}': {error}; choose another folder") from error


def read_data_set(folder: Path) -> DataSet:
    """The data set of a folder. Raises OptionError for anything else."""
    arrow, parquet = _arrow()
    path = folder / PROGRAMS
    try:
        table = parquet.read_table(path)
        metadata = json.loads(table.schema.metadata[METADATA])
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']!r:.20}, and this version reads {FORMAT}")
        names = tuple(map(str, metadata["feature_names"]))
        columns = {name: table[name].to_pylist() for name in table.column_names if name != "features"}
        return DataSet(
            tasks=read_tasks(folder / TASKS),
            records=tuple(_record({name: column[row] for name, column in columns.items()}) for row in range(table.num_rows)),
            runs=tuple(columns["run"]),
            batch=_batch(table, len(names)),
            splits={name: np.array([side == "test" for side in columns[name]], dtype=np.bool_) for name in SPLITS},
            seed=int(metadata["seed"]),
            test_share=float(metadata["test_share"]),
            names=names,
            version=int(metadata["feature_version"]),
            left_out=dict(metadata["left_out"]),
        )
    except (OSError, KeyError, TypeError, ValueError, arrow.ArrowException) as error:
        raise OptionError(f"'{path}' is not a data set of export_dataset.py: {type(error).__name__}: {error}") from error


def _columns(data: DataSet, arrow: Any) -> dict[str, Any]:
    records, width = data.records, len(data.names)
    values = arrow.array(np.ascontiguousarray(data.batch.rows).reshape(-1))
    sides = {name: np.where(is_test, "test", "train") for name, is_test in data.splits.items()}
    return {
        "run": arrow.array(data.runs, arrow.string()),
        "trial": [record.trial for record in records],
        "round": [record.round for record in records],
        "seed": [record.seed for record in records],
        "engine": [record.engine for record in records],
        "workload_key": [record.workload_key for record in records],
        "task": [record.task for record in records],
        "target": [record.target for record in records],
        "threads": [record.threads for record in records],
        "sketch": arrow.array([record.origin.sketch for record in records], arrow.string()),
        "genes": arrow.array([list(record.genes) for record in records], arrow.list_(arrow.int32())),
        "operator": arrow.array([record.origin.operator for record in records], arrow.string()),
        "predicted": arrow.array([record.origin.predicted for record in records], arrow.float64()),
        "steps": [json.dumps(record.steps) for record in records],
        "states_tiles": [record.states_tiles for record in records],
        "valid": data.is_valid,
        "error": [record.result.error for record in records],
        "costs": arrow.array([list(record.result.costs) for record in records], arrow.list_(arrow.float64())),
        "cost_seconds": arrow.array(
            [record.cost if math.isfinite(record.cost) else None for record in records], arrow.float64()
        ),
        "statements": data.batch.rows_per_program,
        "features": arrow.LargeListArray.from_arrays(arrow.array(data.batch.offsets * width), values),
        **{name: side.astype(object) for name, side in sides.items()},
    }


def _batch(table: Any, width: int) -> FeatureBatch:
    statements = table["statements"].to_numpy()
    values = table["features"].combine_chunks()
    flat = values.flatten().to_numpy() if len(values) else np.empty(0, dtype=np.float32)
    offsets = np.concatenate([[0], np.cumsum(statements)]).astype(np.int64)
    return FeatureBatch(flat.reshape(-1, width), offsets)


def _record(row: Mapping[str, Any]) -> Record:
    origin = Origin(sketch=row["sketch"], genes=tuple(row["genes"]), operator=row["operator"], predicted=row["predicted"])
    return Record(
        engine=row["engine"],
        workload_key=row["workload_key"],
        target=row["target"],
        threads=row["threads"],
        task=row["task"],
        trial=row["trial"],
        round=row["round"],
        seed=row["seed"],
        steps=tuple(json.loads(row["steps"])),
        states_tiles=row["states_tiles"],
        origin=origin,
        result=MeasureResult(costs=tuple(row["costs"]), error=row["error"]),
    )


def _arrow() -> tuple[Any, Any]:
    """pyarrow and its module for Parquet. Raises OptionError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise OptionError("data sets need pyarrow; install it with: pip install 'ansor-py[analysis]'") from error
    return pyarrow, pyarrow.parquet
