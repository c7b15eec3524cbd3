"""Arrays that figures are drawn from, in a small file beside the records."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from pretrain.files import replacing


def file_name(key: str) -> str:
    """Name of the file with the arrays of a trial, by its key."""
    return f"{key}.npz"


def save(folder: Path, key: str, arrays: dict[str, Any]) -> None:
    """Write the arrays of a trial, whole or not at all.

    Args:
        folder: The folder of the scale's results.
        key: Key of the trial.
        arrays: Arrays by name.

    Raises:
        OSError: If the file cannot be written.
    """
    # Only here: the driver does without it, but for a few cells.
    import numpy as np

    with replacing(folder / file_name(key)) as file:
        np.savez_compressed(file, **arrays)


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the arrays of all trials that have any.

    Args:
        folder: The folder of the scale's results.

    Returns:
        The arrays by name, by the key of the trial.

    Raises:
        OSError: If a file cannot be read.
    """
    import numpy as np

    loaded = {}
    for path in folder.glob(file_name("*")):
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                loaded[path.stem] = dict(arrays)
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise OSError(
                f"Could not read the arrays of a trial: {error}. Expected a file that `run` wrote; "
                f"restore it, or delete it to report without its figures. Received: {path}"
            ) from error
    return loaded
