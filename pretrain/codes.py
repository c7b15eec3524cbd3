"""Codes: what the stages before the stage at hand compute of the examples, once."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import repeat

import keras
import numpy as np

from pretrain.describing import digest_of_arrays
from pretrain.examples import Block, Examples, as_labels, join, on_device, rows_within
from pretrain.members import Members
from pretrain.objectives.objective import Moments

# Numbers of which sums are taken at once.
_SUMMED_AT_ONCE = 2**17


class Codes:
    """Inputs of the stage at hand for every member, kept if they fit in `max_memory` bytes.

    `dtype` is the data type of the model's input. Blocks that are computed anew have a `multiple`
    of so many examples. Only with `labeled` do blocks have targets.
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
    ) -> None:
        self._examples = examples
        self.dtype = dtype
        self._members = members
        self._max_memory = max_memory
        self._multiple = multiple
        self._labeled = labeled
        self._encoders: list[Members] = []
        fits = examples.is_dataset or examples.count * examples.bytes_of_one(dtype) <= max_memory
        rows = self._rows() if examples.is_dataset else None
        self._kept = self._keep(self._read(rows)) if fits else None

    def __iter__(self) -> Iterator[list[Block]]:
        """Consecutive examples: a block for all members, or one for each."""
        if self._kept is not None:
            yield self._kept
            return
        for blocks in self._read(self._rows()):
            for encoder in self._encoders:
                blocks = encode(encoder, blocks)
            yield on_device(blocks)

    def _read(self, rows: int | None) -> Iterator[list[Block]]:
        for blocks in self._examples.blocks(rows):
            yield [
                Block(
                    block.x.astype(self.dtype, copy=False),
                    as_labels(block.y).astype("int32") if self._labeled else None,
                    block.weight,
                )
                for block in blocks
            ]

    def advance(self, encoder: Members) -> None:
        """Makes the inputs what `encoder` computes from what they were."""
        self._encoders.append(encoder)
        parts = map(_arrays, self) if self._kept is None else self._encoded(self._kept, encoder)
        # From here on only `parts` holds the former inputs, and no longer than it reads them.
        self._kept = None
        self._kept = self._keep(parts)

    def _encoded(self, kept: list[Block], encoder: Members) -> Iterator[list[Block]]:
        blocks, rows = _arrays(kept), self._rows()
        for start in range(0, len(blocks[0].x), rows):
            yield encode(encoder, [block.take(start, start + rows) for block in blocks])

    def _keep(self, parts: Iterable[list[Block]]) -> list[Block] | None:
        """All parts as one, or `None` if they take too much memory."""
        kept, size = [], 0
        for blocks in parts:
            size += sum(block.x.nbytes for block in blocks)
            if size > self._max_memory:
                return None
            kept.append(blocks)
        whole = [join(of_member) for of_member in zip(*kept, strict=True)]
        kept.clear()
        return on_device(whole)

    def _rows(self) -> int:
        """Examples in a block that fits in memory at every stage so far."""
        rows = [self._examples.rows_within(self._max_memory, self._multiple, self.dtype)]
        for encoder in self._encoders:
            features = math.prod(encoder.template.features_out) * self._members
            size = features * np.dtype(keras.config.floatx()).itemsize
            rows.append(rows_within(self._max_memory, size, self._multiple))
        return min(rows)

    def sample(self, rows: int) -> list[Block]:
        """The first examples, `rows` at most: a block for all members, or one for each."""
        return [block.take(0, rows) for block in _arrays(next(iter(self)))]

    def moments(self, encoder: Members | None = None) -> tuple[int, list[Moments]]:
        """Number of examples, and their moments for each array of inputs, maybe once encoded."""
        n, sums = 0, []
        for blocks in self:
            blocks = encode(encoder, _arrays(blocks)) if encoder else blocks
            n += len(blocks[0].x)
            sums = sums or [_Sums(block) for block in blocks]
            for total, block in zip(sums, _arrays(blocks), strict=True):
                total.add(block)
        return n, [total.moments(n) for total in sums]

    def digest(self) -> str:
        """A text that is equal for equal examples; a dataset may bring them in another order."""
        reading = self._examples.blocks(self._rows())
        if not self._examples.is_dataset:
            parts = (part for blocks in reading for block in blocks for part in block)
            return digest_of_arrays(part for part in parts if part is not None)
        total = 0
        for (block,) in reading:
            y = block.y if self._labeled else None
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
        self._labels: Counter = Counter()

    def add(self, block: Block) -> None:
        rows = max(1, _SUMMED_AT_ONCE // max(1, math.prod(block.x.shape[1:])))
        for start in range(0, len(block.x), rows):
            self._add(block.take(start, start + rows))

    def _add(self, block: Block) -> None:
        x, weight = block.x.astype("float64"), block.weight
        scale = 1 if weight is None else weight.reshape(-1, *[1] * (x.ndim - 1))
        # With the former sum as first row, rows are added in the order of a single sum.
        self._of_x = np.concatenate([self._of_x[None], x * scale]).sum(axis=0)
        self._of_squares = np.concatenate([self._of_squares[None], x**2 * scale]).sum(axis=0)
        self._of_weights += len(x) if weight is None else float(weight.sum(dtype="float64"))
        if block.y is not None:
            self._count(block.y.tolist(), weight)

    def _count(self, labels: list, weight: np.ndarray | None) -> None:
        counts = repeat(1, len(labels)) if weight is None else weight.tolist()
        for label, times in zip(labels, counts, strict=True):
            self._labels[label] += times

    def moments(self, n: int) -> Moments:
        total = self._of_weights
        counts = np.array(list(self._labels.values())) / total if self._labels else None
        return Moments(self._of_x / total, self._of_squares / total, counts, total / n)


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
