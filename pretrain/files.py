"""Files that are written whole or not at all."""

import glob
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# No writer is as slow as that: an older file is what a killed process has left.
_ABANDONED_SECONDS = 24 * 3600


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Opens a new file that takes the place of `path` when the block ends without an error.

    Nobody sees half a file: after an error or a power failure, `path` is what it was before.

    Args:
        path: The file to write. Its folder is made if it does not exist.

    Yields:
        The new file, open for writing bytes.

    Raises:
        OSError: If the file cannot be written.
    """
    path = Path(path)
    _remove_abandoned(path)
    # The name is unique because processes on several machines may write the same file at once.
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise OSError(
            f"Could not write a file: {error.strerror or error}. Expected a folder that can be "
            f"written to, on a disk with space left. Received: {path}"
        ) from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Removes the new files that killed processes have left beside a file."""
    with suppress(OSError):
        for new in path.parent.glob(f".{glob.escape(path.name)}.*.new"):
            if time.time() - new.stat().st_mtime > _ABANDONED_SECONDS:
                new.unlink()
