"""Codes: what the stages before the stage at hand compute of the examples, once."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any

import keras
import numpy as np
from keras import ops

from pretrain.describing import digest_of_arrays
from pretrain.examples import Block, Examples, as_labels, join, on_device, rows_within
from pretrain.members import Members
from pretrain.objectives.objective import Moments

# Numbers of which sums are taken at once.
_SUMMED_AT_ONCE = 2**17


class Codes:
    """Inputs of the stage at hand for every member, kept if they fit in `max_memory` bytes.

    `dtype` is the data type of the model's input. Blocks that are computed anew have a `multiple`
    of so many examples. Only with `labeled` do blocks have labels as targets; with `paired` they
    have what is to be reconstructed instead, of which codes are made, too. With `missing`, inputs
    may be NaN until `fill` is called.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        dtype: str,
        members: int,
        max_memory: int,
        multiple: int,
        labeled: bool,
        paired: bool = False,
        missing: bool = False,
    ) -> None:
        self._examples = examples
        self.dtype = dtype
        self._members = members
        self._max_memory = max_memory
        self._multiple = multiple
        self._labeled = labeled
        self._paired = paired
        self._missing = missing
        # Inputs, and what is to be reconstructed.
        self._copies = 1 + (paired or missing)
        self._steps: list[Callable[[list[Block]], list[Block]]] = []
        self._features: list[int] = []
        size = self._copies * examples.bytes_of_one(dtype)
        fits = examples.is_dataset or examples.count * size <= max_memory
        rows = self._rows() if examples.is_dataset else None
        self._kept = self._keep(self._read(rows)) if fits else None

    def __iter__(self) -> Iterator[list[Block]]:
        """Consecutive examples: a block for all members, or one for each."""
        if self._kept is not None:
            yield self._kept
            return
        for blocks in self._read(self._rows()):
            for step in self._steps:
                blocks = step(blocks)
            yield on_device(blocks)

    def _read(self, rows: int | None) -> Iterator[list[Block]]:
        for blocks in self._examples.blocks(rows):
            yield [
                Block(block.x.astype(self.dtype, copy=False), self._targets(block.y), block.weight)
                for block in blocks
            ]

    def _targets(self, y: np.ndarray) -> np.ndarray | None:
        if self._paired:
            return y.astype(self.dtype, copy=False)
        return as_labels(y).astype("int32") if self._labeled else None

    def advance(self, encoder: Members) -> None:
        """Makes the inputs, and what is to be reconstructed, what `encoder` computes of them."""
        self._features.append(math.prod(encoder.template.features_out) * self._members)
        self._apply(lambda blocks: self._encoded(encoder, blocks))

    def fill(self) -> None:
        """Makes missing inputs 0 and leaves them NaN in what is to be reconstructed."""
        self._apply(lambda blocks: list(map(_filled, blocks)))

    def _apply(self, step: Callable[[list[Block]], list[Block]]) -> None:
        parts = map(_arrays, self) if self._kept is None else self._applied(self._kept, step)
        self._steps.append(step)
        # From here on only `parts` holds the former inputs, and no longer than it reads them.
        self._kept = None
        self._kept = self._keep(parts)

    def _applied(self, kept: list[Block], step: Callable) -> Iterator[list[Block]]:
        blocks, rows = _arrays(kept), self._rows()
        for start in range(0, len(blocks[0].x), rows):
            yield step([block.take(start, start + rows) for block in blocks])

    def _encoded(self, encoder: Members, blocks: list[Block]) -> list[Block]:
        codes = encode(encoder, blocks)
        if self._paired:
            targets = encode(encoder, [block._replace(x=block.y) for block in blocks])
            return [code._replace(y=each.x) for code, each in zip(codes, targets, strict=True)]
        # No code is missing.
        return codes if self._labeled else [code._replace(y=None) for code in codes]

    def _keep(self, parts: Iterable[list[Block]]) -> list[Block] | None:
        """All parts as one, or `None` if they take too much memory."""
        kept, size = [], 0
        for blocks in parts:
            size += self._copies * sum(block.x.nbytes for block in blocks)
            if size > self._max_memory:
                return None
            kept.append(blocks)
        whole = [join(of_member) for of_member in zip(*kept, strict=True)]
        kept.clear()
        return on_device(whole)

    def _rows(self) -> int:
        """Examples in a block that fits in memory at every stage so far."""
        options = self._max_memory, self._multiple, self.dtype, self._copies
        rows = [self._examples.rows_within(*options)]
        for features in self._features:
            size = self._copies * features * np.dtype(keras.config.floatx()).itemsize
            rows.append(rows_within(self._max_memory, size, self._multiple))
        return min(rows)

    def sample(self, rows: int) -> list[Block]:
        """The first examples, `rows` at most: a block for all members, or one for each."""
        return [block.take(0, rows) for block in _arrays(next(iter(self)))]

    def moments(
        self, encoder: Members | None = None, unpadded: Callable[[Any], Any] = lambda x: None
    ) -> tuple[int, list[Moments]]:
        """Number of examples, and moments of what is to be reconstructed, for each array of inputs.

        With an `encoder`, the moments are those of what it computes of the inputs. A function
        `unpadded` says which values of inputs are no padding; `None` for all.
        """
        n, sums = 0, []
        for blocks in self:
            blocks = _arrays(blocks)
            if encoder:
                blocks = [block._replace(y=None) for block in encode(encoder, blocks)]
            n += len(blocks[0].x)
            sums = sums or [_Sums(block) for block in blocks]
            for total, block in zip(sums, blocks, strict=True):
                total.add(block, self._counted(block, unpadded))
        return n, [total.moments(n) for total in sums]

    def _counted(self, block: Block, unpadded: Callable[[Any], Any]) -> np.ndarray | None:
        """Which values count, booleans; `None` for all."""
        counted = unpadded(block.x)
        given = [] if counted is None else [ops.convert_to_numpy(counted)]
        given += [~np.isnan(_target(block))] if self._missing else []
        return np.logical_and.reduce(given) if given else None

    def bounds(self) -> tuple[float, float]:
        """Minimum and maximum of what is to be reconstructed."""
        targets = (_target(block) for blocks in self for block in _arrays(blocks))
        ends = [(float(np.nanmin(target)), float(np.nanmax(target))) for target in targets]
        return min(low for low, _ in ends), max(high for _, high in ends)

    def digest(self) -> str:
        """A text that is equal for equal examples; a dataset may bring them in another order."""
        reading = self._examples.blocks(self._rows())
        if not self._examples.is_dataset:
            parts = (part for blocks in reading for block in blocks for part in block)
            return digest_of_arrays(part for part in parts if part is not None)
        total = 0
        for (block,) in reading:
            y = block.y if self._labeled or self._paired else None
            parts = [part for part in (block.x, y, block.weight) if part is not None]
            for row in zip(*parts, strict=True):
                total += int.from_bytes(hashlib.sha256(b"".join(map(bytes, row))).digest())
        return f"{total % 2**256:x}"


class _Sums:
    """Weighted sums over examples, of which few at a time are held in double precision."""

    def __init__(self, block: Block) -> None:
        self._of_x = np.zeros(block.x.shape[1:])
        self._of_squares = np.zeros(block.x.shape[1:])
        self._of_weights = 0.0
        # Weights of the examples in which each feature counts, and the number of what counts.
        self._shares: np.ndarray | None = None
        self._counted = 0
        self._labels: Counter = Counter()

    def add(self, block: Block, counted: np.ndarray | None) -> None:
        rows = max(1, _SUMMED_AT_ONCE // max(1, math.prod(block.x.shape[1:])))
        for start in range(0, len(block.x), rows):
            stop = start + rows
            self._add(block.take(start, stop), None if counted is None else counted[start:stop])

    def _add(self, block: Block, counted: np.ndarray | None) -> None:
        x, weight = _target(block).astype("float64"), block.weight
        scale = 1 if weight is None else weight.reshape(-1, *[1] * (x.ndim - 1))
        if counted is not None:
            x, scale = np.where(counted, x, 0), scale * counted
            self._shares = scale.sum(axis=0) + (0 if self._shares is None else self._shares)
            self._counted += int(counted.sum())
        # With the former sum as first row, rows are added in the order of a single sum.
        self._of_x = np.concatenate([self._of_x[None], x * scale]).sum(axis=0)
        self._of_squares = np.concatenate([self._of_squares[None], x**2 * scale]).sum(axis=0)
        self._of_weights += len(x) if weight is None else float(weight.sum(dtype="float64"))
        if block.y is not None and block.y.ndim == 1:
            self._count(block.y.tolist(), weight)

    def _count(self, labels: list, weight: np.ndarray | None) -> None:
        counts = repeat(1, len(labels)) if weight is None else weight.tolist()
        for label, times in zip(labels, counts, strict=True):
            self._labels[label] += times

    def moments(self, n: int) -> Moments:
        total = self._of_weights
        frequencies = np.array(list(self._labels.values())) / total if self._labels else None
        if self._shares is None:
            mean, square = self._of_x / total, self._of_squares / total
            return Moments(mean, square, frequencies, total / n)
        # A feature that never counts has the mean 0.
        weights = np.where(self._shares > 0, self._shares, 1)
        mean, square = self._of_x / weights, self._of_squares / weights
        shares = self._shares / total
        return Moments(mean, square, frequencies, total / n, shares, self._counted / n)


def _target(block: Block) -> np.ndarray:
    """What is to be reconstructed; labels (n,) are not."""
    return block.x if block.y is None or block.y.ndim == 1 else block.y


def _filled(block: Block) -> Block:
    target = block.x if block.y is None else block.y
    return block._replace(x=np.where(np.isnan(block.x), 0, block.x), y=target)


def encode(encoder: Members, blocks: list[Block]) -> list[Block]:
    """Examples with an encoder's outputs as inputs; a fixed encoder serves all members."""
    arrays = [block.x for block in blocks]
    if len(encoder) == 1:
        codes = [encoder.outputs([x])[0] for x in arrays]
    else:
        codes = encoder.outputs(arrays)
        # Members that share their examples have codes of their own.
        blocks = blocks if len(blocks) == len(codes) else blocks * len(codes)
    return [block._replace(x=x) for block, x in zip(blocks, codes, strict=True)]


def _arrays(blocks: list[Block]) -> list[Block]:
    """The same blocks for NumPy; on a processor, tensors are not copied."""
    return [
        Block(*(None if part is None else np.asarray(part) for part in block)) for block in blocks
    ]
