"""Stages that are kept in a folder, so that a pretraining goes on where it was."""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import types
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from pretrain.files import replacing
from pretrain.graph import Call, Graph
from pretrain.internals import layers_of

# Settings without an effect on a stage, whose dropout is off.
_WITHOUT_EFFECT = ("name", "seed", "build_config")

_BLOCK = 2**24  # Bytes that are digested at once.


class KeptStage(NamedTuple):
    """A stage that was trained: weights and optimizer states, each stacked over members."""

    values: list[np.ndarray]
    states: list[np.ndarray]
    report: dict
    finished: bool


class StageFolder:
    """A folder with a file for every stage that has been pretrained.

    Args:
        folder: The folder.
        common: Plain data about what all stages depend on, by name.
        stages: For each stage, plain data about what the stage depends on beside that, by name.
        epochs: Epochs of each stage.

    Raises:
        ValueError: If the folder holds stages of another pretraining, or of more epochs.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        common: dict[str, Any],
        stages: list[dict[str, Any]],
        epochs: list[int],
    ) -> None:
        self._folder = Path(folder)
        self._epochs = epochs
        self._keys = [_key(common, stages[: number + 1]) for number in range(len(stages))]
        for number in range(len(stages)):
            self._check(number)

    def read(self, number: int, continues: bool) -> KeptStage | None:
        """A stage as it was kept, after all its epochs or after fewer.

        Args:
            number: Number of the stage, from 0.
            continues: Whether a stage that had all of fewer epochs can be trained on.

        Returns:
            The stage; `None` if it is to be trained from the start.
        """
        content = self._content(number)
        if content is None:
            return None
        about, arrays = content
        *before, own = about["epochs"]
        finished = own == self._epochs[number] or max(about["report"]["history"]["epoch"]) < own
        if before != self._epochs[:number] or not (finished or continues):
            return None
        cut = about["values"]
        return KeptStage(arrays[:cut], arrays[cut:], about["report"], finished)

    def write(self, number: int, values: list, states: list, report: dict[str, Any]) -> None:
        """Writes the weights of a stage, the states of its optimizers and its report."""
        epochs = self._epochs[: number + 1]
        about = {"key": self._keys[number], "epochs": epochs, "values": len(values)}
        text = np.array(json.dumps({**about, "report": report}))
        arrays = {f"{i}": array for i, array in enumerate([*values, *states])}
        with replacing(self._path(number)) as file:
            np.savez(file, about=text, **arrays)

    def _path(self, number: int) -> Path:
        return self._folder / f"stage_{number}.npz"

    def _content(self, number: int) -> tuple[dict, list[np.ndarray]] | None:
        """What `write` wrote; `None` if the file is missing or damaged."""
        try:
            with self._path(number).open("rb") as file, np.load(file) as content:
                about = json.loads(str(content["about"]))
                return about, [content[f"{i}"] for i in range(len(content.files) - 1)]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def _check(self, number: int) -> None:
        """Refuses a kept stage of another pretraining, or of more epochs."""
        about = (self._content(number) or [None])[0]
        if about is None:
            return
        key, found = self._keys[number], about["key"] if isinstance(about["key"], dict) else {}
        other = [name for name in key if found.get(name) != key[name]]
        pairs = zip(about.get("epochs", []), self._epochs, strict=False)
        more = [f"epochs ({kept}, more than {asked})" for kept, asked in pairs if kept > asked]
        if other or more:
            raise ValueError(
                "`folder` holds stages that were made with another model, other data or other "
                f"arguments: other {', '.join(other + more[:1])}. Choose another folder, or empty "
                "this one. A pretraining goes on with a model that has the weights that the model "
                "had before its first stage was trained, with the same arguments, and with as many "
                f"epochs or more. Received: folder={str(self._folder)!r}"
            )


def _key(common: dict[str, Any], stages: list[dict[str, Any]]) -> dict[str, str]:
    """By the name of what a stage depends on, a digest of it for the stage and those before."""
    own = {name: [stage[name] for stage in stages] for name in stages[0]}
    return {name: digest(value) for name, value in (common | own).items()}


def digest(value: Any) -> str:
    """A text that is equal for equal descriptions, in every process."""
    canonical = json.dumps(value, sort_keys=True, default=_described)
    return hashlib.sha256(canonical.encode()).hexdigest()


def digest_of_arrays(arrays: Iterable[Any]) -> str:
    """A text that is equal for arrays of equal shapes, types and values."""
    sha = hashlib.sha256()
    for array in arrays:
        array = np.atleast_1d(ops.convert_to_numpy(array))
        sha.update(f"{array.dtype} {array.shape}".encode())
        # In blocks of rows, since an array on disk need not fit in memory.
        rows = max(1, _BLOCK // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            sha.update(np.ascontiguousarray(array[start : start + rows]))
    return sha.hexdigest()


def describe_graph(graph: Graph | None) -> list:
    """A description of all calls and their settings, without names, equal in every process."""
    if graph is None:
        return []
    numbers: dict[int, int] = {}
    places: dict[int, int] = {}

    def describe(call: Call) -> list:
        place = places.setdefault(id(call.operation), len(places))
        ends = [*call.inputs.values(), -1, *call.outputs]
        tensors = [numbers.setdefault(number, len(numbers)) for number in ends]
        constants = call.arguments(lambda symbol: "tensor")
        return [place, _described(call.operation), tensors, call.output_shape, constants]

    return [graph.input_shape, *map(describe, graph.calls)]


def _described(value: Any) -> Any:
    """Plain data about an object that JSON does not know."""
    if isinstance(value, types.FunctionType | types.MethodType):
        return _described_function(value)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, keras.Operation):
        return [_described_operation(each) for each in _operations(value)]
    if hasattr(value, "__array__"):
        return digest_of_arrays([value])
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return [type(value).__qualname__, fields]
    if hasattr(value, "get_config"):
        return [type(value).__qualname__, _without_names(value.get_config())]
    state = getattr(value, "__dict__", None)
    return [type(value).__qualname__, _without_names(state) if state else str(value)]


def _operations(operation: keras.Operation) -> Sequence[keras.Operation]:
    return layers_of(operation) if isinstance(operation, keras.layers.Layer) else [operation]


def _described_operation(operation: keras.Operation) -> list:
    """What an operation computes, as far as its class, settings and attributes say."""
    config: dict[str, Any] = {}
    with warnings.catch_warnings(), contextlib.suppress(NotImplementedError):
        # Keras warns of functions that cannot be saved, but nothing is saved here.
        warnings.simplefilter("ignore")
        config = operation.get_config()
    attributes = {k: v for k, v in vars(operation).items() if not k.startswith("_") and _tells(v)}
    policy = getattr(operation, "dtype_policy", None)
    return [
        type(operation).__qualname__,
        _without_names(config),
        _without_names(attributes),
        policy and policy.name,
        [bool(weight.trainable) for weight in getattr(operation, "weights", [])],
        [] if _is_keras(type(operation)) else [type(operation).call],
    ]


def _tells(value: Any) -> bool:
    """Whether an attribute says what an operation computes: a setting, a function or a constant."""
    plain = (bool, int, float, str, tuple, types.FunctionType)
    constant = hasattr(value, "__array__") and not isinstance(value, keras.Variable)
    return isinstance(value, plain) or constant


def _is_keras(value: Any) -> bool:
    return (value.__module__ or "").split(".")[0] == "keras"


def _without_names(config: Any) -> Any:
    """A configuration without names, which Keras numbers, and without initial values."""
    if isinstance(config, dict):
        return {
            str(key): _without_names(value)
            for key, value in config.items()
            if key not in _WITHOUT_EFFECT and not str(key).endswith("initializer")
        }
    return [_without_names(v) for v in config] if isinstance(config, list | tuple) else config


def _described_function(function: Any) -> Any:
    """The code of a function, which its name does not tell, and what the code refers to."""
    if _is_keras(function):
        return function.__qualname__
    function = inspect.unwrap(getattr(function, "__func__", function))
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [_described_code(function.__code__), cells, function.__defaults__]


def _described_code(code: types.CodeType) -> list:
    return [code.co_code.hex(), [_described_constant(c) for c in code.co_consts], code.co_names]


def _described_constant(constant: Any) -> Any:
    if isinstance(constant, types.CodeType):
        return _described_code(constant)
    # The order of a set differs between processes.
    return repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant)
