"""Codes: what the stages before the stage at hand compute of the examples, once."""

import hashlib
import operator
from collections import Counter
from collections.abc import Iterable, Iterator

import keras
import numpy as np
from keras import ops

from pretrain.examples import Block, Examples, join, on_device, rows_within
from pretrain.kept import digest_of_arrays
from pretrain.members import Members
from pretrain.objectives.objective import Moments


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
        self._kept = self._keep(self._read(self._rows() if examples.is_dataset else None))

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
            inputs = [block.x.astype(self.dtype, copy=False) for block in blocks]
            targets = [block.y.astype("int32") if self._labeled else None for block in blocks]
            yield list(map(Block, inputs, targets))

    def advance(self, encoder: Members) -> None:
        """Makes the inputs what `encoder` computes from what they were."""
        previous, self._kept = self._kept, None
        self._encoders.append(encoder)
        if previous is None:
            self._kept = self._keep(map(_arrays, self))
            return
        blocks, rows = _arrays(previous), self._rows()
        self._kept = self._keep(
            encode(encoder, [block.take(start, start + rows) for block in blocks])
            for start in range(0, len(blocks[0].x), rows)
        )

    def _keep(self, parts: Iterable[list[Block]]) -> list[Block] | None:
        """All parts as one, or `None` if they take too much memory."""
        kept, size = [], 0
        for blocks in parts:
            kept.append(blocks)
            size += sum(block.x.nbytes for block in blocks)
            if size > self._max_memory and (self._encoders or self._examples.is_dataset):
                return None
        whole = kept[0] if len(kept) == 1 else map(join, zip(*kept, strict=True))
        return on_device(list(whole))

    def _rows(self) -> int:
        """Examples in a block that fits in memory at every stage so far."""
        x = self._examples.first()[0].x
        rows = [rows_within(self._max_memory, x, self._multiple)]
        for encoder in self._encoders:
            codes = np.empty((0, *encoder.template.features_out), keras.config.floatx())
            rows.append(rows_within(self._max_memory, codes, self._multiple, self._members))
        return min(rows)

    def sample(self, rows: int) -> list[Block]:
        """The first examples, `rows` at most: a block for all members, or one for each."""
        return [block.take(0, rows) for block in _arrays(next(iter(self)))]

    def moments(self, encoder: Members | None = None) -> tuple[int, list[Moments]]:
        """Number of examples, and their moments for each array of inputs, maybe once encoded."""
        n, sums, counts = 0, None, None
        for blocks in self:
            blocks = encode(encoder, _arrays(blocks)) if encoder else _arrays(blocks)
            n += len(blocks[0].x)
            arrays = [block.x.astype("float64") for block in blocks]
            new = np.stack([[x.sum(axis=0), (x**2).sum(axis=0)] for x in arrays])
            sums = new if sums is None else sums + new
            if self._labeled:
                found = [Counter(block.y.tolist()) for block in blocks]
                counts = found if counts is None else list(map(operator.add, counts, found))
        frequencies = [np.array(list(c.values())) / n for c in counts] if counts else None
        return n, [
            Moments(mean, square, frequencies[i] if frequencies else None)
            for i, (mean, square) in enumerate(sums / n)
        ]

    def digest(self) -> str:
        """A text that is equal for equal examples; a dataset may bring them in another order."""
        if not self._examples.is_dataset:
            return digest_of_arrays(p for b in self._examples.first() for p in b if p is not None)
        total = 0
        for (block,) in self._examples.blocks(self._rows()):
            parts = [block.x, block.y] if self._labeled else [block.x]
            for row in zip(*parts, strict=True):
                total += int.from_bytes(hashlib.sha256(b"".join(map(bytes, row))).digest())
        return f"{total % 2**256:x}"


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
    return [
        Block(*(None if part is None else ops.convert_to_numpy(part) for part in block))
        for block in blocks
    ]
