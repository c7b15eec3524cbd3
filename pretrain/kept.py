"""Stages that are kept in a folder, so that a pretraining goes on where it was."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pretrain.describing import digest
from pretrain.files import replacing


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
