"""The built-in kinds of holes, a file for each family. See `ansor_py.schedule.hole` for what a kind is.

| kind | choice | file |
| --- | --- | --- |
| `register_tile` | lengths of the innermost level, one for each split axis | `lengths.py` |
| `tile` | lengths of the levels of one axis | `lengths.py` |
| `vectorize` | length of a vector loop outside a register tile | `lengths.py` |
| `location` | root, or a loop of a stage that consumes it | `structure.py` |
| `rfactor` | length of the inner part of a factored reduction | `structure.py` |
| `parallel` | number of outermost loops that run in parallel | `loop_values.py` |
| `unroll` | limit of emitted vector instructions | `loop_values.py` |
"""

from ansor_py.schedule.hole_kinds.lengths import LengthHole, RegisterTileHole, TileHole, VectorHole
from ansor_py.schedule.hole_kinds.loop_values import ParallelHole, UnrollHole
from ansor_py.schedule.hole_kinds.structure import FactorHole, LocationHole

__all__ = [
    "FactorHole",
    "LengthHole",
    "LocationHole",
    "ParallelHole",
    "RegisterTileHole",
    "TileHole",
    "UnrollHole",
    "VectorHole",
]
