"""Examples to train on: arrays, frames, lists, or a dataset of batches, all read in blocks."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
import scipy.sparse
from keras import ops

from pretrain.checks import ONE_INPUT, fits, positive

MAX_MEMORY = 2 * 1024**3
# A block, its copy on the device, and both of the block before, beside what the backend needs.
_BLOCKS_AT_ONCE = 8
_CHECKED_AT_ONCE = 4 * 1024**2
_FEW = 7


class Block(NamedTuple):
    """Consecutive examples: inputs, targets or `None`, weights or `None`."""

    x: np.ndarray
    y: np.ndarray | None = None
    weight: np.ndarray | None = None

    def take(self, start: int, stop: int) -> "Block":
        return Block(*(None if part is None else part[start:stop] for part in self))


class Examples:
    """Examples of whatever kind Keras's `fit` takes: this is the only place that asks the kind.

    Rows are converted as they are read. A dataset is read anew in every pass, so it may augment; it
    must end.

    Args:
        x: Array of inputs (n, ...), also a `pandas.DataFrame`, a SciPy sparse matrix or nested
            lists; or a list with an array, of equal shape, for each member of a population; or a
            finite dataset of `x`, `(x, y)` or `(x, y, sample_weight)`. Inputs may stand in a
            dictionary under the name of the model's input.
        y: Targets (n, ...), or a list of them; `None` for a dataset, which brings its own.
        sample_weight: Weights (n,), or a list of them; `None` for a dataset.
        model: The model whose inputs `x` must fit; `None` if any shape fits.
        members: Number of members of the population; `None` for a model alone, for which a list
            is always a nested list.
        class_weight: For a class, the weight of its examples, 1 for a class that is not named.
        missing: Whether NaN in `x` stands for a missing value.
        paired: Whether `y` has what is to be reconstructed of `x`, of the same shape.

    Raises:
        ValueError: If the arrays are empty, not numeric, not finite, of unequal lengths or do not
            fit the model; or the dataset is infinite or was given targets.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        model: keras.Layer | None = None,
        members: int | None = None,
        class_weight: Mapping[int, float] | None = None,
        missing: bool = False,
        paired: bool = False,
    ) -> None:
        self._class_weight = _checked_class_weight(class_weight, sample_weight)
        self._shape_in, name = _input_of(model)
        x = x[name] if isinstance(x, Mapping) and name in x else x
        self._tables, self._dataset = [], None
        meaning = _Meaning(missing, "targets" if paired else "y")
        if _is_array(x) or isinstance(x, list):
            self._tables = _tables(x, y, sample_weight, members, meaning)
        else:
            self._dataset = _Stream(x, y, sample_weight, self._shape_in, name, meaning)
        self.is_batched = self._dataset is not None and not self._dataset.single
        first = self.first()[0].x
        self.shape = (self.count, *first.shape[1:]) if self._tables else first.shape
        _check_shape(self.shape, self._shape_in)

    @property
    def count(self) -> int:
        """Number of examples of arrays."""
        return self._tables[0].length

    @property
    def is_dataset(self) -> bool:
        return self._dataset is not None

    def batch_size(self, given: int | None, default: int) -> int:
        """The size of batches: what is given, or that of a dataset's first batch, or a default."""
        own = len(self.first()[0].x) if self.is_batched else default
        return positive("batch_size", own if given is None else given)

    def blocks(self, rows: int | None = None) -> Iterator[list[Block]]:
        """Reads all examples once, `rows` in a block: one block for all members, or one for each.

        All blocks but the last are of one size; `None` stands for one block of all examples.
        """
        if self._dataset is not None:
            blocks = ([block] for block in _regroup(self._dataset.batches(), rows or math.inf))
        else:
            blocks = self._rows(rows or self.count)
        return map(self._weighed, blocks)

    def _rows(self, rows: int) -> Iterator[list[Block]]:
        distinct = {id(part): part for table in self._tables for part in table.parts if part}
        for start in range(0, self.count, rows):
            read = {key: part.rows(start, start + rows) for key, part in distinct.items()}
            yield [Block(*(part and read[id(part)] for part in t.parts)) for t in self._tables]

    def _weighed(self, blocks: list[Block]) -> list[Block]:
        if self._class_weight is None:
            return blocks
        return [block._replace(weight=_weights(block.y, self._class_weight)) for block in blocks]

    def first(self) -> list[Block]:
        """A few first examples: of an array, or one batch of a dataset."""
        if self._dataset is not None:
            return self._weighed([self._dataset.first])
        return self._weighed(next(self._rows(_FEW)))

    def targets(self) -> Iterator[list[np.ndarray | None]]:
        """Targets without their inputs: all of an array, or those of one batch of a dataset."""
        if self._dataset is not None or self._tables[0].parts[1] is None:
            yield [block.y for block in self.first()]
            return
        yield [table.parts[1].rows(0, self.count) for table in self._tables]

    def rows_within(self, memory: int, multiple: int, dtype: Any = None, copies: int = 1) -> int:
        """How many examples to read at once, so that no more than `memory` bytes are held.

        The result is a multiple of `multiple`, and at least `multiple`.
        """
        return rows_within(memory, self.bytes_of_one(dtype) * copies, multiple)

    def bytes_of_one(self, dtype: Any = None) -> int:
        """Bytes of an example's inputs, of all members that have inputs of their own."""
        own = len({id(table.parts[0]) for table in self._tables}) or 1
        itemsize = np.dtype(dtype or self.first()[0].x.dtype).itemsize
        return max(1, math.prod(self.shape[1:]) * itemsize * own)

    def reader(
        self, memory: int, multiple: int, check: Callable = lambda blocks: blocks
    ) -> Callable[[], Iterable[list[Block]]]:
        """A function that reads all examples once, in blocks on the device.

        Arrays that take no more than `memory` bytes are kept there, as one block.
        """
        if self._tables and self.count * self.bytes_of_one() <= memory:
            kept = [on_device(check(next(self.blocks())))]
            return lambda: kept
        rows = self.rows_within(memory, multiple)
        return lambda: map(on_device, map(check, self.blocks(rows)))

    def split(self, fraction: float) -> tuple["Examples", "Examples"]:
        """The first examples, and the last ones as Keras's `validation_split` takes them."""
        if self._dataset is not None or not 0 < fraction < 1:
            raise ValueError(
                "`validation_split` must be a number between 0 and 1, and x an array; beside a "
                "dataset, give `validation_data`. Received: "
                f"validation_split={fraction!r}, x of shape {self.shape}"
            )
        cut = math.floor(self.count * (1 - fraction))
        if not 0 < cut < self.count:
            raise ValueError(
                "Expected `validation_split` to leave examples on both sides. "
                f"Received: validation_split={fraction}, {self.count} examples"
            )
        return self._part(0, cut), self._part(cut, self.count, class_weight=None)

    def _part(self, start: int, stop: int, **changes: Any) -> "Examples":
        part = object.__new__(Examples)
        part.__dict__ |= self.__dict__ | {f"_{name}": value for name, value in changes.items()}
        distinct = {id(p): p.part(start, stop) for t in self._tables for p in t.parts if p}
        part._tables = [
            _Table([p and distinct[id(p)] for p in t.parts], stop - start) for t in self._tables
        ]
        part.shape = (stop - start, *self.shape[1:])
        return part


def rows_within(memory: int, bytes_of_one: int, multiple: int) -> int:
    """How many examples to read at once, so that no more than `memory` bytes are held."""
    return max(1, memory // _BLOCKS_AT_ONCE // bytes_of_one // multiple) * multiple


def split_validation(
    examples: Examples, validation_data: Any, validation_split: float = 0.0, **options: Any
) -> tuple[Examples, Examples | None]:
    """What to train on, and what to validate on, as Keras's `fit` takes both.

    Args:
        examples: All examples.
        validation_data: `(x,)`, `(x, y)` or `(x, y, sample_weight)`, as a tuple or a list; or
            inputs alone; or a dataset; or `None`.
        validation_split: Share of the examples to hold out, the last ones; 0 for none.
        options: Further arguments of `Examples`.
    """
    if validation_split:
        if validation_data is not None:
            raise ValueError(
                "Expected either `validation_data` or `validation_split`. Received: "
                f"validation_split={validation_split} beside `validation_data`"
            )
        return examples.split(validation_split)
    if validation_data is None:
        return examples, None
    if not _has_parts(validation_data):
        return examples, Examples(validation_data, **options)
    if not 1 <= len(validation_data) <= 3:
        raise ValueError(
            "`validation_data` must be (x, y) or (x, y, sample_weight), or a dataset. "
            f"Received: a {type(validation_data).__name__} of {len(validation_data)}"
        )
    return examples, Examples(*validation_data, **options)


def _has_parts(data: Any) -> bool:
    """Whether data are inputs, targets and weights; a list may be nested rows of numbers."""
    if isinstance(data, list):
        return bool(data) and (
            _is_array(data[0]) or isinstance(data[0], Mapping) or _lists(data[0])
        )
    return isinstance(data, tuple)


def _lists(part: Any) -> bool:
    """Whether a part is a list of arrays, one for each member."""
    return isinstance(part, list) and all(map(_is_array, part))


def _is_array(value: Any) -> bool:
    if scipy.sparse.issparse(value):
        return True
    return hasattr(value, "__array__") and not isinstance(value, type)


def _input_of(model: keras.Layer | None) -> tuple[tuple | None, str | None]:
    """The shape of a model's only input, its first axis `None`, and the input's name, if known."""
    shape, inputs = getattr(model, "input_shape", None), getattr(model, "inputs", None) or [None]
    if len(inputs) > 1:
        raise ValueError(f"{ONE_INPUT} Received: a model with {len(inputs)} inputs")
    return shape if isinstance(shape, tuple) else None, getattr(inputs[0], "name", None)


def _check_shape(shape: tuple, expected: tuple | None) -> None:
    if expected is not None and not fits(shape, expected):
        raise ValueError(
            f"Expected x of shape {('n', *expected[1:])}, the model's input"
            f"{_slip(shape, expected)}. Received: x.shape={tuple(shape)}"
        )


def _slip(shape: tuple, expected: tuple) -> str:
    """How to mend a shape that is nearly right."""
    wanted = tuple(expected[1:])
    if None in wanted:
        return ""
    if tuple(shape) == wanted:
        return "; for one example, pass x[None]"
    if tuple(shape[1:]) == (wanted[-1], *wanted[:-1]):
        return "; for images with channels first, pass numpy.moveaxis(x, 1, -1)"
    same = math.prod(shape[1:]) == math.prod(wanted)
    return f"; pass x.reshape({', '.join(map(str, (-1, *wanted)))})" if same else ""


class _Table(NamedTuple):
    """Inputs, targets and weights of equal length; `None` for a part that is not given."""

    parts: list
    length: int


class _Meaning(NamedTuple):
    """Whether NaN in x stands for a missing value, and under which name errors know y."""

    missing: bool
    y: str


def _tables(x: Any, y: Any, weight: Any, members: int | None, meaning: _Meaning) -> list[_Table]:
    """A table for all members, or one for each if any part is a list with an array for each."""
    given = {"x": x, meaning.y: y, "sample_weight": weight}
    known: dict[int, _Part] = {}

    def part(name: str, value: Any) -> "_Part | None":
        if value is not None and (name, id(value)) not in known:
            known[name, id(value)] = _Part(name, value, meaning.missing)
        return None if value is None else known[name, id(value)]

    own = {name: members is not None and _per_member(name, v, members) for name, v in given.items()}
    tables = []
    for i in range(members if members and any(own.values()) else 1):
        values = {name: value[i] if own[name] else value for name, value in given.items()}
        tables.append(_table([part(name, value) for name, value in values.items()], meaning))
    shapes = sorted({table.parts[0].shape for table in tables})
    if len(shapes) > 1:
        raise ValueError(
            f"Expected as many examples for each member. Received: x of shapes {shapes}"
        )
    return tables


def _per_member(name: str, value: Any, members: int) -> bool:
    """Whether a part of the data of a population is a list with an array for each member."""
    axes = 2 if name in ("x", "targets") else 1
    arrays = isinstance(value, list) and all(
        _is_array(item) and len(item.shape) >= axes for item in value
    )
    if arrays and value and len(value) != members:
        raise ValueError(
            f"`{name}` must be an array, or a list with an array for each of {members} "
            f"members. Received: {name}, a list of {len(value)}: {type(value[0]).__name__}"
        )
    return arrays and bool(value)


def _table(parts: list["_Part | None"], meaning: _Meaning) -> _Table:
    x, y, _ = parts
    shape = None if y is None else y.shape
    if meaning.y == "targets" and shape != x.shape:
        raise ValueError(
            "`targets` must have what is to be reconstructed of each input, in the shape of x; "
            "data to validate on are (x, targets), and a dataset yields such pairs. "
            f"Received: x.shape={x.shape}, targets.shape={shape}"
        )
    for part in filter(None, parts):
        if part.shape[0] != x.shape[0]:
            raise ValueError(
                f"Expected as many examples in {part.name} as in x. Received: "
                f"x.shape={x.shape}, {part.name}.shape={part.shape}"
            )
    return _Table(parts, x.shape[0])


class _Part:
    """The rows of inputs, targets or weights, which are converted as they are read."""

    def __init__(self, name: str, value: Any, missing: bool) -> None:
        self.name = name
        self._missing = missing and name == "x"
        self._get, length, self._columns = _opened(name, value)
        self._start = 0
        if length == 0:
            _refuse_empty(name, np.shape(value))
        self.shape = (length, *self.rows(0, 1).shape[1:])
        self._check_finite()

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows as an array of numbers; floating-point numbers are of Keras's precision."""
        stop = min(stop, self.shape[0]) if hasattr(self, "shape") else stop
        return _as_numbers(self.name, self._get(self._start + start, self._start + stop))

    def part(self, start: int, stop: int) -> "_Part":
        """The same rows, of which only some are there."""
        part = object.__new__(_Part)
        part.__dict__ |= self.__dict__
        part._start, part.shape = self._start + start, (stop - start, *self.shape[1:])
        return part

    def _check_finite(self) -> None:
        count, columns = 0, set()
        for start in range(0, self.shape[0], step := _rows_checked(self.shape)):
            rows = self.rows(start, start + step)
            if rows.dtype.kind != "f":
                return
            finite = ~np.isinf(rows) if self._missing else np.isfinite(rows)
            if not finite.all():
                count += int((~finite).sum())
                columns |= set(np.nonzero(~finite)[-1].tolist() if rows.ndim == 2 else ())
        if count:
            raise _not_finite(self.name, count, [self._column(i) for i in sorted(columns)])

    def _column(self, i: int) -> Any:
        return i if self._columns is None else self._columns[i]


def _rows_checked(shape: tuple) -> int:
    return max(1, _CHECKED_AT_ONCE // max(1, math.prod(shape[1:]) * 8))


_MISSING = "; greedy_pretrain and joint_pretrain leave NaN out of the loss with missing=True"


def _not_finite(name: str, count: int, columns: Sequence[Any] = ()) -> ValueError:
    where = f", in columns {list(columns[:5])}{' and others' * (len(columns) > 5)}"
    return ValueError(
        f"`{name}` must be finite: fill missing values, or leave their examples out"
        f"{_MISSING if name == 'x' else ''}. Received: {name} with {count} NaN or infinite values"
        f"{where if columns else ''}"
    )


def _refuse_empty(name: str, shape: tuple) -> None:
    raise ValueError(f"`{name}` must have at least one example. Received: {name}.shape={shape}")


def _opened(name: str, value: Any) -> tuple[Callable, int, list | None]:
    """A function from a range of rows to an array, the number of rows and names of columns."""
    if scipy.sparse.issparse(value):
        # Other forms than compressed rows have no slices of rows.
        table = value.tocsr()
        return lambda start, stop: table[start:stop].toarray(), table.shape[0], None
    if isinstance(value, pd.DataFrame | pd.Series):
        return _opened_frame(name, value)
    array = _array(name, value)
    if name == "sample_weight":
        array = _as_weights(array)
    if array.ndim == 0:
        _refuse_empty(name, array.shape)
    return lambda start, stop: array[start:stop], len(array), None


def _opened_frame(name: str, frame: Any) -> tuple[Callable, int, list | None]:
    table = isinstance(frame, pd.DataFrame)
    columns = list(frame.columns) if table else None
    kinds = list(frame.dtypes) if table else [frame.dtype]
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in kinds]
    if not all(numeric):
        place = numeric.index(False)
        which = f"column {columns[place]!r}" if table else f"a {type(frame).__name__}"
        raise ValueError(
            f"`{name}` must be one array of numbers: encode text and categories as numbers, for "
            f"example by pandas.get_dummies or pandas.factorize. Received: {name} of type "
            f"{type(frame).__name__}, with {which} of dtype {kinds[place]}"
        )
    # Columns of integers stay integers, since they may be labels; nullable ones, too.
    whole = all(kind.kind in "biu" for kind in kinds) and not frame.isna().to_numpy().any()
    dtypes = [getattr(kind, "numpy_dtype", kind) for kind in kinds]
    dtype = np.result_type(*dtypes) if whole else np.dtype(keras.config.floatx())
    missing = {} if whole else {"na_value": np.nan}
    with_rows = frame.iloc
    return (
        lambda start, stop: with_rows[start:stop].to_numpy(dtype=dtype, **missing),
        len(frame),
        columns,
    )


def _array(name: str, value: Any) -> np.ndarray:
    """An array of numbers, as yet without a copy."""
    try:
        array = np.asarray(value)
        detail = f", shape {array.shape}, dtype {array.dtype}"
    except (ValueError, TypeError) as error:
        array, detail = None, f" ({error})"
    if array is None or isinstance(value, np.ma.MaskedArray) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must be one array of numbers; {_how_to_mend(array)}. "
            f"Received: {name} of type {type(value).__name__}{detail}"
        )
    return array


def _how_to_mend(array: np.ndarray | None) -> str:
    if array is not None and array.dtype.kind in "US":
        return "encode text as integers, for example by numpy.unique(y, return_inverse=True)[1]"
    return "ragged, masked and sparse arrays are not supported: pad, fill or densify the array"


def _as_numbers(name: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        # Precision of integers is kept, since integers may be labels.
        return array.astype(keras.config.floatx(), copy=False) if array.dtype.kind == "f" else array


def _as_weights(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim > 1:
        raise ValueError(
            "`sample_weight` must have one weight for each example, shape (n,). Received: "
            f"sample_weight.shape={array.shape}"
        )
    return array


def _checked_class_weight(class_weight: Any, sample_weight: Any) -> Mapping[int, float] | None:
    if class_weight is None:
        return None
    if sample_weight is not None or not isinstance(class_weight, Mapping):
        raise ValueError(
            "`class_weight` must be a dictionary from classes to weights, without `sample_weight` "
            f"beside it. Received: class_weight of type {type(class_weight).__name__}, "
            f"sample_weight of type {type(sample_weight).__name__}"
        )
    return {int(label): float(weight) for label, weight in class_weight.items()}


def _weights(y: np.ndarray | None, class_weight: Mapping[int, float]) -> np.ndarray:
    """The weight of each example's class; targets are integers, in a column or not, or one-hot."""
    if y is None:
        raise ValueError("`class_weight` needs targets. Received: y=None")
    labels, places = np.unique(as_labels(y), return_inverse=True)
    weights = [class_weight.get(int(label), 1.0) for label in labels]
    return np.array(weights, keras.config.floatx())[places]


def as_labels(y: np.ndarray) -> np.ndarray:
    """Labels (n,) of targets that are integers, in a column or not, or one-hot."""
    if y.ndim != 2:
        return y
    return y[:, 0] if y.shape[1] == 1 else y.argmax(axis=1)


class _Stream:
    """A dataset of batches, or of single examples, that is read anew in every pass.

    `first` is its first batch, and `single` tells that it yields single examples.
    """

    def __init__(
        self, x: Any, y: Any, weight: Any, shape: tuple | None, name: str | None, meaning: _Meaning
    ) -> None:
        self._dataset, self._name, self._meaning = _checked_dataset(x), name, meaning
        if y is not None or weight is not None:
            none = "y=None" if meaning.y == "y" else "targets='y'"
            raise ValueError(
                f"A dataset brings its own targets and weights: expected {none} and "
                f"sample_weight=None. Received: x of type {type(x).__name__} with "
                f"{meaning.y}={type(y).__name__}, sample_weight={type(weight).__name__}"
            )
        self.single = hasattr(x, "element_spec") and self._yields_examples(shape)
        if self.single:
            self._dataset = self._dataset.batch(_SINGLE_AT_ONCE)
        self.first = next(self.batches(), None)
        if self.first is None:
            raise ValueError("`x` must have at least one example. Received: an empty dataset")

    def _yields_examples(self, shape: tuple | None) -> bool:
        x = self._parts(self._dataset.element_spec)[0]
        rank = getattr(getattr(x, "shape", None), "rank", None)
        return shape is not None and rank == len(shape) - 1

    def batches(self) -> Iterator[Block]:
        dataset = self._dataset
        if not _is_py_dataset(dataset):
            yield from map(self._block, dataset)
            return
        yield from (self._block(dataset[i]) for i in range(dataset.num_batches or len(dataset)))
        dataset.on_epoch_end()

    def _parts(self, batch: Any) -> list:
        parts = list(batch) if isinstance(batch, tuple | list) else [batch]
        if not 1 <= len(parts) <= 3:
            raise ValueError(
                "A dataset must yield x, (x, y) or (x, y, sample_weight). "
                f"Received: a {type(batch).__name__} of {len(parts)}"
            )
        if isinstance(parts[0], Mapping):
            if self._name not in parts[0]:
                raise ValueError(
                    "A dataset must yield x, (x, y) or (x, y, sample_weight), not a dict: use "
                    "dataset.map to make a tuple (x, y), or name x as the model's input, "
                    f"{self._name!r}. Received: a dict with keys {list(parts[0])}"
                )
            parts[0] = parts[0][self._name]
        return parts

    def _block(self, batch: Any) -> Block:
        parts = self._parts(batch)
        names, meaning = ("x", self._meaning.y, "sample_weight"), self._meaning
        values = zip(names, [*parts, None, None], strict=False)
        read = [None if v is None else _Part(name, v, meaning.missing) for name, v in values]
        table = _table(read, meaning)
        return Block(*(part and part.rows(0, table.length) for part in table.parts))


_SINGLE_AT_ONCE = 256


def _checked_dataset(x: Any) -> Any:
    if isinstance(x, Mapping | tuple | str) or not (hasattr(x, "__iter__") or _is_py_dataset(x)):
        pair = ": targets go to `y=`, which only SupervisedGreedy and Population use"
        keys = f" with keys {list(x)}" if isinstance(x, Mapping) else ""
        raise ValueError(
            "`x` must be one array, a tf.data.Dataset or a keras.utils.PyDataset"
            f"{pair if isinstance(x, tuple) else ''}. Received: x of type {type(x).__name__}{keys}"
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


def _regroup(batches: Iterable[Block], rows: float) -> Iterator[Block]:
    """Joins and cuts batches into blocks of `rows` examples; the last holds the rest."""
    waiting: list[Block] = []
    shapes: set[tuple] = set()
    for batch in batches:
        shapes.add(tuple(None if part is None else part.shape[1:] for part in batch))
        _check_one_structure(shapes)
        waiting.append(batch)
        while sum(len(block.x) for block in waiting) >= rows:
            joined = join(waiting)
            yield joined.take(0, int(rows))
            rest = joined.take(int(rows), len(joined.x))
            waiting = [rest] if len(rest.x) else []
    if waiting:
        yield join(waiting)


def _check_one_structure(shapes: set[tuple]) -> None:
    if len(shapes) > 1:
        raise ValueError(
            "A dataset must yield batches of one structure: pad sequences to one length, and "
            "resize images to one size. Received: batches of examples whose x, y and "
            f"sample_weight have the shapes {' and '.join(sorted(map(str, shapes)))}"
        )


def join(blocks: Sequence[Block]) -> Block:
    """Consecutive blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    parts = zip(*blocks, strict=True)
    return Block(*(None if p[0] is None else np.concatenate(p) for p in parts))


def on_device(blocks: list[Block]) -> list[Block]:
    """Blocks as tensors of the backend; an array that several members share is moved once."""
    arrays = {id(part): part for block in blocks for part in block if part is not None}
    tensors = {key: ops.convert_to_tensor(array) for key, array in arrays.items()}
    return [Block(*(None if p is None else tensors[id(p)] for p in block)) for block in blocks]
