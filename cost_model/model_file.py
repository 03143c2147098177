"""A cost model in a file, with what has to be known of it before it may enter a search: `cost_model.npz`.

Every model writes its own file by `save`, in a format of its own. That file goes into NumPy's npz together with a header: the
model's name, the features it reads with their version, vector bytes of the target, and the tasks of its programs by number.

    header = ModelHeader.of("lightgbm", model, [target], [KnownTask(0, task.workload_key, task.name)])
    save_model(Path("trained.npz"), model, header)
    model, header = load_model(Path("trained.npz"), target)      # OptionError if it does not fit
"""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from ansor_py import __version__
from ansor_py.cost_model.checked_model import CheckedModel, checked_model
from ansor_py.cost_model.feature_groups import FEATURE_VERSION, feature_names
from ansor_py.cost_model.interface import CostModel, create_cost_model, needs_of
from ansor_py.errors import OptionError
from ansor_py.strategy_options import NO_OPTIONS, OptionSet
from ansor_py.target import Target

FORMAT: Literal[1] = 1
_AGAIN = "register the same feature groups, or train the model again"


class KnownTask(Struct, frozen=True):
    """A task of which a model has seen programs: the number in its `update`, and what it was."""

    number: int
    workload_key: str
    name: str = ""


class ModelHeader(Struct, frozen=True, kw_only=True):
    """What is known of a saved model without loading it. `targets` are those of its programs, as text."""

    format: Literal[1] = FORMAT
    engine: str = ""
    model: str
    needs: tuple[str, ...]
    feature_version: int
    feature_names: tuple[str, ...]
    vector_bytes: tuple[int, ...]
    targets: tuple[str, ...]
    tasks: tuple[KnownTask, ...] = ()

    @staticmethod
    def of(name: str, model: CostModel, targets: Sequence[Target], tasks: Sequence[KnownTask] = ()) -> ModelHeader:
        """The header of a model that is registered as `name`, with today's features."""
        return ModelHeader(
            engine=__version__,
            model=name,
            needs=needs_of(model),
            feature_version=FEATURE_VERSION,
            feature_names=feature_names(),
            vector_bytes=tuple(sorted({target.vector_bytes for target in targets})),
            targets=tuple(dict.fromkeys(map(str, targets))),
            tasks=tuple(tasks),
        )

    @property
    def free_number(self) -> int:
        """The first number that no task has, 0 or more."""
        return max([-1, *(task.number for task in self.tasks)]) + 1

    def check(self, path: Path, target: Target, model: str | None = None) -> None:
        """Raise OptionError unless the model fits a search: for this target, by the cost model of that name."""
        if model is not None and model != self.model:
            raise OptionError(f"'{path}' was saved by cost model '{self.model}', not '{model}'; say --cost-model {self.model}")
        if target.vector_bytes not in self.vector_bytes:
            widths = " and ".join(map(str, self.vector_bytes)) or "no"
            raise OptionError(
                f"'{path}' was trained on programs with vectors of {widths} bytes and this target's have "
                f"{target.vector_bytes}; programs for one are no guide to the other, so start without it"
            )
        if "features" in self.needs:
            self._check_features(path)

    def _check_features(self, path: Path) -> None:
        now = feature_names()
        if self.feature_names != now:
            gone = [name for name in self.feature_names if name not in now]
            new = [name for name in now if name not in self.feature_names]
            parts = [f"{what} {_few(names)}" for what, names in (("it reads", gone), ("it lacks", new)) if names]
            how = " and ".join(parts) or "in another order"
            raise OptionError(f"'{path}' was trained on other program features: {how}; {_AGAIN}")
        if self.feature_version != FEATURE_VERSION:
            raise OptionError(
                f"'{path}' was trained on program features of version {self.feature_version}, and these are of version "
                f"{FEATURE_VERSION}, in which some are defined otherwise; train the model again"
            )


def save_model(path: Path, model: CostModel, header: ModelHeader) -> bool:
    """Write model and header to a file, by way of a temporary one; False, and no file, for a model that saves nothing.

    Raises PlugInError for a model that fails, OSError where a file cannot be written.
    """
    own, partial = path.with_name(f"partial.own.{path.name}"), path.with_name(f"partial.{path.name}")
    try:
        (model if isinstance(model, CheckedModel) else checked_model(header.model, model)).save(own)
        if not own.exists():  # a model that learns nothing has nothing to save
            return False
        with partial.open("wb") as file:
            np.savez_compressed(file, header=_bytes(msgspec.json.encode(header)), model=_bytes(own.read_bytes()))
        os.replace(partial, path)
        return True
    finally:
        own.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def read_header(path: Path) -> ModelHeader:
    """The header of a saved model. Raises OptionError for any other file."""
    return _read(path)[0]


def load_into(model: CheckedModel, path: Path, target: Target) -> ModelHeader:
    """Let a model take over a file of `save_model`. Raises OptionError if it does not fit, PlugInError if the model fails."""
    header, content = _read(path)
    header.check(path, target, model.name)
    with tempfile.TemporaryDirectory(prefix="ansor-py-") as folder:
        own = Path(folder) / "model.npz"
        own.write_bytes(content)
        model.load(own)
    return header


def load_model(
    path: str | Path, target: Target, seed: int | np.random.Generator = 0, options: OptionSet = NO_OPTIONS
) -> tuple[CheckedModel, ModelHeader]:
    """The model of a file of `save_model`, made by the name in it. Raises as `load_into` and `create_cost_model` do."""
    header = read_header(Path(path))
    model = checked_model(header.model, create_cost_model(header.model, seed, options))
    return model, load_into(model, Path(path), target)


def is_model_file(path: Path) -> bool:
    """Whether a file is of this kind, a saved model, and not records."""
    return path.is_file() and zipfile.is_zipfile(path)


def saved_content(path: Path) -> io.BytesIO | Path:
    """The file that the model itself wrote, as NumPy reads it; of a model that was saved without a header, the file."""
    try:
        return io.BytesIO(_read(path)[1])
    except OptionError:
        return path


def _read(path: Path) -> tuple[ModelHeader, bytes]:
    try:
        with np.load(path, allow_pickle=False) as file:
            header = msgspec.json.decode(file["header"].tobytes(), type=ModelHeader)
            return header, file["model"].tobytes()
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        raise OptionError(
            f"'{path}' is not a saved cost model ({error}); name the cost_model.npz of a run, or a file of "
            "ansor_py.cost_model.save_model"
        ) from error


def _bytes(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, dtype=np.uint8)


def _few(names: Sequence[str]) -> str:
    """Some names, for messages."""
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
