"""Records of schema 1 as those of today: there a trial was one flat object, and costs, origin and times were fields of it.

converted({"schema": 1, "trial": 4, "genes": [2], "costs": [0.001], ...})
# {"schema": 2, "trial": 4, "origin": {"genes": [2]}, "result": {"costs": [0.001]}, ...}
"""

from __future__ import annotations

from typing import Any

ORIGIN = ("sketch_id", "sketch", "genes", "parent", "operator", "predicted")
RESULT = ("costs", "error", "error_text", "error_stage", "output_checked")


def converted(record_json: dict[str, Any]) -> dict[str, Any]:
    """A record of schema 1 in schema 2. What is wrong in it stays wrong, for the decoder to name.

    Its steps stay as they are: which register tiles they stood for is known with the DAG (`Record.concrete_steps`).
    """
    rest = {**record_json, "schema": 2, "states_tiles": False}
    origin = {name: rest.pop(name) for name in ORIGIN if name in rest}
    result = {name: rest.pop(name) for name in RESULT if name in rest}
    phases = rest.pop("build_phases", {})
    for name in ("build", "run"):
        started, finished = rest.pop(f"{name}_started", None), rest.pop(f"{name}_finished", None)
        if started is not None and finished is not None:
            result[name] = {"started": started, "finished": finished} | ({"phases": phases} if name == "build" else {})
    return rest | {"origin": origin, "result": result}
