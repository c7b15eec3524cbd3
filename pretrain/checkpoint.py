"""Pretrained stages on disk, so that an interrupted pretraining can go on."""

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
    """A folder with a file for every stage that has been pretrained.

    The `description` is plain data about the arguments, which differs if the arguments differ.
    """

    def __init__(self, folder: str | os.PathLike, description: Any) -> None:
        self._folder = Path(folder)
        canonical = json.dumps(description, sort_keys=True, default=repr)
        self._key = hashlib.sha256(canonical.encode()).hexdigest()

    def read(self, number: int) -> tuple[list[np.ndarray], dict] | None:
        """What `write` was given for a stage; `None` if its file is missing or damaged."""
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
        """Writes the weights of a stage, and its report as plain data."""
        about = np.array(json.dumps({"key": self._key, "report": report}))
        with replacing(self._path(number)) as file:
            np.savez(file, about=about, **{f"{i}": array for i, array in enumerate(arrays)})

    def _path(self, number: int) -> Path:
        return self._folder / f"stage_{number}.npz"


def digest(blocks: Iterable[Block]) -> str:
    """SHA-256 of examples, in hexadecimal digits."""
    sha = hashlib.sha256()
    for block in blocks:
        for array in block:
            if array is not None:
                sha.update(f"{array.dtype} {array.shape}".encode())
                sha.update(np.ascontiguousarray(array))
    return sha.hexdigest()
