"""Stages kept in a folder as they end, so that an interrupted pretraining can go on."""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.examples import Block
from pretrain.files import replacing


class StageFolder:
    """A file for every stage that ended, each written whole or not at all.

    Args:
        folder: The folder, which is made if it does not exist.
        description: What the stages were made with, plain data: other arguments, other stages.
    """

    def __init__(self, folder: str | os.PathLike, description: Any) -> None:
        self._folder = Path(folder)
        canonical = json.dumps(description, sort_keys=True, default=repr)
        self._key = hashlib.sha256(canonical.encode()).hexdigest()

    def read(self, number: int) -> tuple[list[np.ndarray], dict] | None:
        """What was written of a stage.

        Args:
            number: Position of the stage.

        Returns:
            Arrays and plain data, as they were given to `write`; `None` if the stage was not
            written, or its file is damaged.

        Raises:
            ValueError: If the stage was made with other arguments.
        """
        path = self._path(number)
        try:
            with path.open("rb") as file, np.load(file) as content:
                about = json.loads(str(content["about"]))
                arrays = [content[f"{i}"] for i in range(len(content.files) - 1)]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if about["key"] != self._key:
            raise ValueError(
                "`folder` holds stages that were made with another model, other data or other "
                "arguments: choose another folder, or empty this one. "
                f"Received: folder={str(self._folder)!r}"
            )
        return arrays, about["report"]

    def write(self, number: int, arrays: list[np.ndarray], report: dict) -> None:
        """Keeps a stage.

        Args:
            number: Position of the stage.
            arrays: Its weights.
            report: Plain data.

        Raises:
            OSError: If the file cannot be written.
        """
        about = np.array(json.dumps({"key": self._key, "report": report}))
        with replacing(self._path(number)) as file:
            np.savez(file, about=about, **{f"{i}": array for i, array in enumerate(arrays)})

    def _path(self, number: int) -> Path:
        return self._folder / f"stage_{number}.npz"


def digest(blocks: Iterable[Block]) -> str:
    """A short text that is equal for equal examples."""
    sha = hashlib.sha256()
    for block in blocks:
        for part in block:
            if part is not None:
                sha.update(f"{part.dtype} {part.shape}".encode())
                sha.update(np.ascontiguousarray(part))
    return sha.hexdigest()
