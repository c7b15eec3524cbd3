"""Examples to train on: arrays, or a dataset of batches that is read in blocks."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

MAX_MEMORY = 2 * 1024**3


class Block(NamedTuple):
    """Consecutive examples: inputs, targets or `None`, weights or `None`."""

    x: np.ndarray
    y: np.ndarray | None = None
    weight: np.ndarray | None = None

    def take(self, start: int, stop: int) -> "Block":
        return Block(*(None if part is None else part[start:stop] for part in self))


class Examples:
    """Examples from arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset`.

    A dataset is read anew in every pass, so it may augment; it must end.

    Args:
        x: Array of inputs (n, ...); or a list with such an array, of equal shape, for each member
            of a population; or a finite dataset of batches `x`, `(x, y)` or
            `(x, y, sample_weight)`.
        y: Targets (n, ...), or a list of them; `None` for a dataset, which brings its own.
        sample_weight: Weights (n,), or a list of them; `None` for a dataset.
        members: Number of members of the population.

    Raises:
        ValueError: If the arrays are empty, not numeric, not finite or of unequal lengths, or the
            dataset is infinite or was given targets.
    """

    def __init__(self, x: Any, y: Any = None, sample_weight: Any = None, members: int = 1) -> None:
        self._dataset = None
        if isinstance(x, list) or hasattr(x, "__array__"):
            self._blocks = _checked_blocks(x, y, sample_weight, members)
            return
        if y is not None or sample_weight is not None:
            raise ValueError(
                "A dataset brings its own targets and weights: expected y=None and "
                f"sample_weight=None. Received: x of type {type(x).__name__} with "
                f"y={type(y).__name__}, sample_weight={type(sample_weight).__name__}"
            )
        self._dataset = _checked_dataset(x)
        self._blocks = [next(_batches(self._dataset), None)]
        if self._blocks == [None]:
            raise ValueError("`x` must have at least one example. Received: an empty dataset")

    @property
    def is_dataset(self) -> bool:
        return self._dataset is not None

    def blocks(self, rows: int | None = None) -> Iterator[list[Block]]:
        """Reads all examples once, `rows` in a block: one block for all members, or one for each.

        All blocks but the last are of one size; `None` stands for one block of all examples.
        """
        if self._dataset is not None:
            yield from ([block] for block in _regroup(self._dataset, rows or math.inf))
            return
        n = len(self._blocks[0].x)
        for start in range(0, n, rows or n):
            yield [block.take(start, start + (rows or n)) for block in self._blocks]

    def first(self) -> list[Block]:
        """The first examples: all of an array, one batch of a dataset."""
        return self._blocks


def rows_within(memory: int, x: Any, multiple: int, copies: int = 1) -> int:
    """How many examples like those of `x` fit in `memory` bytes, `copies` of each.

    The result is a multiple of `multiple`, and at least `multiple`.
    """
    per_example = copies * max(1, math.prod(x.shape[1:]) * x.dtype.itemsize)
    return max(1, memory // per_example // multiple) * multiple


def split_validation(validation_data: Any, members: int) -> Examples | None:
    """Examples of `validation_data` as Keras takes it: a tuple of arrays, or a dataset."""
    if validation_data is None:
        return None
    if not isinstance(validation_data, tuple):
        return Examples(validation_data, members=members)
    if not 1 <= len(validation_data) <= 3:
        raise ValueError(
            "`validation_data` must be (x, y) or (x, y, sample_weight), or a dataset. "
            f"Received: a tuple of {len(validation_data)}"
        )
    return Examples(*validation_data, members=members)


def _checked_blocks(x: Any, y: Any, weight: Any, members: int) -> list[Block]:
    """A block for all members, or one for each if any part is a list."""
    parts = {"x": x, "y": y, "sample_weight": weight}
    lists = {name: part for name, part in parts.items() if isinstance(part, list)}
    for name, part in lists.items():
        if len(part) != members or not all(hasattr(array, "__array__") for array in part):
            raise ValueError(
                f"`{name}` must be an array, or a list with an array for each of {members} "
                f"members. Received: {name}, a list of {len(part)}: {_types(part)}"
            )
    if not lists:
        return [_checked_block(x, y, weight)]
    blocks = [
        _checked_block(*(part[i] if isinstance(part, list) else part for part in parts.values()))
        for i in range(members)
    ]
    if len({block.x.shape for block in blocks}) > 1:
        raise ValueError(
            "Expected as many examples for each member. Received: "
            f"x of shapes {sorted({block.x.shape for block in blocks})}"
        )
    return blocks


def _types(values: list) -> str:
    return ", ".join(sorted({type(value).__name__ for value in values})) or "empty"


def _checked_block(x: Any, y: Any, weight: Any) -> Block:
    parts = {"x": _as_array("x", x), "y": y, "sample_weight": weight}
    for name in ("y", "sample_weight"):
        if parts[name] is None:
            continue
        parts[name] = _as_array(name, parts[name])
        if len(parts[name]) != len(parts["x"]):
            raise ValueError(
                f"Expected as many examples in {name} as in x. Received: "
                f"x.shape={parts['x'].shape}, {name}.shape={parts[name].shape}"
            )
    if weight is not None and parts["sample_weight"].ndim > 1:
        raise ValueError(
            "`sample_weight` must have one weight for each example, shape (n,). Received: "
            f"sample_weight.shape={parts['sample_weight'].shape}"
        )
    return Block(*parts.values())


def _as_array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
        detail = f", dtype {array.dtype}"
    except (ValueError, TypeError) as error:
        array, detail = None, f" ({error})"
    if array is None or isinstance(value, np.ma.MaskedArray) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must be one array of numbers; ragged, masked and sparse arrays are not "
            f"supported. Received: {name} of type {type(value).__name__}{detail}"
        )
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(
            f"`{name}` must have at least one example. Received: {name}.shape={array.shape}"
        )
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        array = array.astype(keras.config.floatx(), copy=False)
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ValueError(
            f"`{name}` must be finite. Received: {name} with {count} NaN or infinite values"
        )
    return array


def _checked_dataset(x: Any) -> Any:
    if isinstance(x, dict | tuple | str) or not hasattr(x, "__iter__") and not _is_py_dataset(x):
        raise ValueError(
            "`x` must be one array, a tf.data.Dataset or a keras.utils.PyDataset. "
            f"Received: x of type {type(x).__name__}"
        )
    if hasattr(x, "__next__"):
        raise ValueError(
            "`x` is read once per epoch, which a generator cannot do: wrap it in a "
            f"keras.utils.PyDataset. Received: x of type {type(x).__name__}"
        )
    if hasattr(x, "cardinality") and int(x.cardinality()) == -1:
        raise ValueError(
            "`x` must be a finite dataset: remove `.repeat()`. Received: a dataset of infinite "
            "cardinality"
        )
    return x


def _is_py_dataset(x: Any) -> bool:
    return isinstance(x, keras.utils.PyDataset)


def _batches(dataset: Any) -> Iterator[Block]:
    if _is_py_dataset(dataset):
        yield from (_as_block(dataset[i]) for i in range(dataset.num_batches or len(dataset)))
        dataset.on_epoch_end()
    else:
        yield from (_as_block(batch) for batch in dataset)


def _as_block(batch: Any) -> Block:
    parts = batch if isinstance(batch, tuple | list) else (batch,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            "A dataset must yield x, (x, y) or (x, y, sample_weight). "
            f"Received: a {type(batch).__name__} of {len(parts)}"
        )
    return _checked_block(*parts, *[None] * (3 - len(parts)))


def _regroup(dataset: Any, rows: float) -> Iterator[Block]:
    """Joins and cuts batches into blocks of `rows` examples; the last holds the rest."""
    waiting: list[Block] = []
    for batch in _batches(dataset):
        waiting.append(batch)
        while sum(len(block.x) for block in waiting) >= rows:
            joined = join(waiting)
            yield joined.take(0, int(rows))
            rest = joined.take(int(rows), len(joined.x))
            waiting = [rest] if len(rest.x) else []
    if waiting:
        yield join(waiting)


def join(blocks: Sequence[Block]) -> Block:
    """Consecutive blocks as one."""
    shapes = {tuple(None if p is None else p.shape[1:] for p in block) for block in blocks}
    if len(shapes) > 1:
        raise ValueError(
            "A dataset must yield batches of one structure. Received: batches of examples whose "
            f"x, y and sample_weight have the shapes {' and '.join(sorted(map(str, shapes)))}"
        )
    parts = zip(*blocks, strict=True)
    return Block(*(None if p[0] is None else np.concatenate(p) for p in parts))


def on_device(blocks: list[Block]) -> list[Block]:
    """Blocks as tensors of the backend; an array that several members share is moved once."""
    arrays = {id(part): part for block in blocks for part in block if part is not None}
    tensors = {key: ops.convert_to_tensor(array) for key, array in arrays.items()}
    return [Block(*(None if p is None else tensors[id(p)] for p in block)) for block in blocks]
