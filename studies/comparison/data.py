"""The user's data in one file, which a comparison loads and splits as every study does."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pretrain import datasets, readers
from pretrain.checks import brief
from pretrain.files import replacing
from pretrain.seeds import derive
from studies.kinds.classification import NUMBERS

_TASKS = ("classification", "regression", None)


@dataclass(frozen=True)
class Source:
    """What a comparison must know of its data without loading them.

    Args:
        name: Name of the data, as `pretrain.datasets.fingerprint` returns it.
        path: File of `write`; `None` for data that `pretrain.datasets.load` knows by name.
        features: Size of the flattened input.
        classes: Number of classes; 1 if the targets are numbers.
        chance_error: Error of the most frequent class, or of the mean.
        train_size: Number of examples that are not for validation.
        validation_size: Number of examples for validation.
        test_size: Number of test examples.
        unlabeled: Number of examples without labels.
    """

    name: str
    path: Path | None
    features: int
    classes: int
    chance_error: float
    train_size: int
    validation_size: int
    test_size: int
    unlabeled: int = 0


def source(
    data: Any,
    folder: Path,
    *,
    target: str | None = None,
    unlabeled: Any = None,
    task: str | None = None,
    data_folder: Any = None,
    name: str | None = None,
) -> Source:
    """Make the source of a comparison from what the user has.

    Args:
        data: A name or a path, as for `pretrain.datasets.load`; `(x, y)` or `(x, y, x_test,
            y_test)`; or a `pretrain.datasets.Dataset`.
        folder: Where the file of the data is written.
        target: Column of the targets, of a `.csv` file.
        unlabeled: Inputs without labels: an array, or a path.
        task: `"classification"` or `"regression"`; `None`: targets of floating point are numbers.
        data_folder: As `folder` of `pretrain.datasets.load`.
        name: Beginning of the data's name; by default, that of the file.

    Raises:
        ValueError: If the data are no examples with targets.
    """
    if task not in _TASKS:
        raise ValueError(
            f"`task` must be 'classification', 'regression' or None. Received: task={task!r}"
        )
    if isinstance(data, str) and data in datasets.NAMES and unlabeled is None:
        return _of_dataset(datasets.load(data, folder=data_folder), None)
    stem, arrays = _arrays(data, target, data_folder)
    arrays |= {"unlabeled": _inputs(unlabeled)} if unlabeled is not None else {}
    path = write(arrays, name or stem, folder, task)
    return _of_dataset(load(str(path), None, None), path)


def _of_dataset(data: datasets.Dataset, path: Path | None) -> Source:
    (x, y), (_, test) = data.train, data.test
    labels = np.concatenate([y, data.validation[1], test])
    frequent = np.bincount(labels).max() / len(labels) if data.classes != NUMBERS else 0
    return Source(
        data.name,
        path,
        int(np.prod(x.shape[1:])),
        data.classes,
        1 - float(frequent),
        len(x),
        len(data.validation[0]),
        len(test),
        0 if data.unlabeled is None else len(data.unlabeled),
    )


def _arrays(data: Any, target: str | None, data_folder: Any) -> tuple[str, dict[str, np.ndarray]]:
    """A name for the data, and their arrays: `x`, `y` and, if there is a test set, its two."""
    if isinstance(data, datasets.Dataset):
        pairs = zip(data.train, data.validation, strict=True)
        x, y = (np.concatenate(pair) for pair in pairs)
        return data.name.partition("-")[0], dict(zip(_KEYS, (x, y, *data.test), strict=True))
    if isinstance(data, str | os.PathLike):
        if data in datasets.NAMES:
            return _arrays(datasets.load(data, folder=data_folder), target, data_folder)
        path = Path(data).expanduser()
        return path.name.partition(".")[0], _of_file(_of_tuple(readers.read(path, target)))
    if isinstance(data, tuple | list) and len(data) in (2, 4):
        return "arrays", _of_tuple(tuple(data))
    raise ValueError(
        "Expected data as a name or a path, (x, y), (x, y, x_test, y_test), or a Dataset of "
        f"pretrain.datasets. Received: data={brief(data)}"
    )


_KEYS = ("x", "y", "x_test", "y_test")


def _of_tuple(arrays: tuple) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in zip(_KEYS, arrays, strict=False) if v is not None}


def _of_file(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Images as `pretrain.datasets.load` has them: with channels, and in [0, 1]."""
    images = {k: v for k, v in arrays.items() if v.ndim > 2}
    images = {k: v[..., None] if v.ndim == 3 else v for k, v in images.items()}
    scaled = {k: v / np.float32(255) if v.dtype == np.uint8 else v for k, v in images.items()}
    return arrays | scaled


def _inputs(unlabeled: Any) -> np.ndarray:
    """Inputs without labels, of an array or of a file."""
    if not isinstance(unlabeled, str | os.PathLike):
        return np.asarray(unlabeled)
    return _of_file({"x": readers.read_inputs(Path(unlabeled).expanduser())})["x"]


def write(arrays: Mapping[str, np.ndarray], stem: str, folder: Path, task: str | None) -> Path:
    """Write examples, targets and, if there are any, unlabeled examples to one file.

    The file is `<stem>.npz` in a folder of its own below `folder`, which its content names. Classes
    become 0, 1, ...; a fifth of examples without a test set, drawn at random, are the test set.
    """
    arrays = _with_test_set(dict(arrays))
    names, y = _targets(arrays, task)
    inputs = {k: arrays[k].astype("float32") for k in ("x", "x_test", "unlabeled") if k in arrays}
    wrong = {k: v.shape for k, v in inputs.items() if v.shape[1:] != inputs["x"].shape[1:]}
    if wrong or len(inputs["x"]) != len(arrays["y"]):
        raise ValueError(
            "Expected a target for each example, and examples of one shape. Received: x of shape "
            f"{inputs['x'].shape}, y of shape {arrays['y'].shape} and {wrong}"
        )
    if not all(np.isfinite(values).all() for values in inputs.values()):
        raise ValueError("Expected examples without NaN and infinite values. Received: some in x")
    is_table = inputs["x"].ndim == 2 and not _in_unit_interval(inputs["x"])
    held = inputs | y | {"classes": np.array(len(names) or NUMBERS), "table": np.array(is_table)}
    digest = hashlib.sha256()
    for key in sorted(held):
        digest.update(f"{key} {held[key].dtype} {held[key].shape}".encode() + held[key].tobytes())
    path = folder / f"data-{digest.hexdigest()[:12]}" / f"{stem}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.savez(file, **held)
    return path


def _with_test_set(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if "x_test" in arrays:
        return arrays
    order = np.random.RandomState(derive("comparison", "test")).permutation(len(arrays["x"]))
    test, train = np.split(order, [len(order) // 5])
    held_out = {f"{key}_test": arrays[key][test] for key in ("x", "y")}
    return arrays | {key: arrays[key][train] for key in ("x", "y")} | held_out


def _targets(arrays: dict[str, np.ndarray], task: str | None) -> tuple[np.ndarray, dict]:
    """The classes, none for numbers; and the targets as integers, or as numbers."""
    targets = {key: arrays[key].reshape(len(arrays[key]), -1) for key in ("y", "y_test")}
    if one_hot := targets["y"].shape[1] > 1:
        targets = {key: y.argmax(axis=1)[:, None] for key, y in targets.items()}
    y, tested = (targets[key][:, 0] for key in ("y", "y_test"))
    is_number = y.dtype.kind == "f" if task is None else task == "regression"
    if is_number and not one_hot:
        return np.array([]), {"y": y.astype("float32"), "y_test": tested.astype("float32")}
    both = np.concatenate([y, tested])
    both = both.astype(str) if both.dtype.kind == "O" else both
    names, indices = np.unique(both, return_inverse=True)
    rarest = np.bincount(indices).min()
    if task is None and len(names) > 2 and rarest < _FEW and both.dtype.kind in "iu":
        raise ValueError(
            f"Expected at least {_FEW} examples of each class. Say task='classification' or "
            f"task='regression' of such integers. Received: {len(names)} values in y, of which "
            f"one has {rarest} examples"
        )
    return names, {"y": indices[: len(y)], "y_test": indices[len(y) :]}


# Integers of which a value is rarer than this may be numbers and no classes.
_FEW = 5


def _in_unit_interval(x: np.ndarray) -> bool:
    return bool(x.min() >= 0 and x.max() <= 1)


def load(
    path: str,
    train_size: int | None,
    validation_size: int | None,
    seed: int = 0,
    folder: Any = None,
) -> datasets.Dataset:
    """Load and split the file that `write` has written, or data that have a name.

    Columns of a table are brought to mean 0 and standard deviation 1, and so are targets that are
    numbers, by the training examples. So the mean squared error of such targets is the share of
    their variance that is not explained. A table whose values are in [0, 1] stays as it is.
    """
    if path in datasets.NAMES:
        return datasets.load(path, train_size, validation_size, seed=seed, folder=folder)
    with np.load(path) as archive:
        held = dict(archive)
    name = datasets.fingerprint(path)
    train, validation = datasets.split(name, len(held["x"]), train_size, validation_size, seed)
    classes = int(held["classes"])
    x = _standardizer(held["x"][train]) if held["table"] else _same
    y = _standardizer(held["y"][train]) if classes == NUMBERS else _same
    return datasets.Dataset(
        name,
        *((x(held["x"][part]), y(held["y"][part])) for part in (train, validation)),
        (x(held["x_test"]), y(held["y_test"])),
        classes,
        unlabeled=x(held["unlabeled"]) if "unlabeled" in held else None,
    )


def _standardizer(values: np.ndarray) -> Any:
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    return lambda each: ((each - mean) / np.where(deviation > 0, deviation, 1)).astype("float32")


def _same(values: np.ndarray) -> np.ndarray:
    return values
