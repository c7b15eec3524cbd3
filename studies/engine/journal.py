"""The journal of a scale, `records.jsonl`: one JSON line per trial, one writer, nothing lost.

A record is flat: `format`, `study`, `key`, `cell` and `members` (the number of trials that are
written together), every field of the trial, `status` and every metric. Only `curves` (rounded to
4 significant digits) and `provenance` nest; NaN is null. The records of a cell are written at once
and count only if all of them are there.

The last field of a line is `checksum`: the first 16 hexadecimal digits of the SHA-256 of the line
without this field, from the opening to the closing brace. It is checked and taken off when the line
is read. Lines of earlier versions have no checksum and are read as they are.
"""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from pretrain.checks import is_count, is_number
from pretrain.files import replacing

FORMAT = 1
FINAL = ("done", "diverged")
FILE = "records.jsonl"

_STATUSES = (*FINAL, "error", "killed")
_CHECKSUM = re.compile(rb'(.*),"checksum":"([0-9a-f]{16})"}', re.DOTALL)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


# What every record holds, and whether a value makes sense.
_REQUIRED: dict[str, Callable[[Any], bool]] = {
    "key": _is_text,
    "cell": _is_text,
    "members": is_count,
    "status": _STATUSES.__contains__,
    "role": _is_text,
    "arm": _is_text,
    "learning_rate": is_number,
    "seed": lambda value: value == 0 or is_count(value),
}
Check = Callable[[dict], None]
# A record begins with what identifies it; then it has the trial's fields, then the results.
_BEFORE_TRIAL, _AFTER_TRIAL = "members", "status"


class JournalError(Exception):
    """The journal cannot be read or written, or its records are no sound records."""


def _anything(record: dict) -> None:
    """The check of a reader that does not know the kind of the records."""


def read(path: Path, check: Check = _anything) -> list[dict]:
    """Read the records of a journal, the newest of each trial; no record if there is no file.

    A torn last line is dropped, and so are the other records of its cell. A line that is corrupted
    or of another format raises `JournalError`, and so does a record for which `check` raises
    `ValueError`. The file itself is not changed.
    """
    return _newest(_scan(path, check)[0])


class Journal:
    """The one writer of a folder's journal: a context manager that holds its lock.

    Entering makes the folder, and cuts off what a killed writer left unfinished; `check` raises
    `ValueError` for a record that is no sound record of its kind. Every method
    raises `JournalError` if another writer has the folder, or the journal cannot be read or
    written; the records in the journal then stay as they were.
    """

    def __init__(self, folder: Path, check: Check = _anything):
        self.path, self._check = Path(folder) / FILE, check
        self._records: list[dict] = []

    def __enter__(self) -> "Journal":
        self._lock = _locked(self.path.with_name("records.lock"))
        try:
            self._records, size = _scan(self.path, self._check)
            if self.path.exists() and size < self.path.stat().st_size:
                with _explained("cut the torn end off", self.path):
                    os.truncate(self.path, size)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._lock.release()

    @property
    def records(self) -> list[dict]:
        """The newest record of each trial."""
        return _newest(self._records)

    def append(self, records: list[dict]) -> None:
        """Append the records of one cell, all or none, and wait until they are on the disk."""
        lines = [_line(record) for record in records]
        # The next plan must not depend on whether records were read back from the file, and a
        # record that could not be read back would end every later run.
        number = len(self._records) + 1
        read_back = [_parse(b, self.path, i, self._check) for i, b in enumerate(lines, number)]
        with _explained("append to", self.path):
            _append(self.path, b"".join(lines))
        self._records += read_back

    def sort(self) -> None:
        """Put the records in an order that does not depend on when they were made."""
        records = self.records
        if not records:
            return
        members = Counter(r["cell"] for r in records)
        records = [{**r, "members": members[r["cell"]]} for r in _sorted(records)]
        if records == self._records:
            return
        with _explained("replace", self.path), replacing(self.path) as file:
            file.write(b"".join(_line(r) for r in records))
        # The next records must not go to a file that a power failure leaves without a name.
        _sync_folder(self.path.parent)
        self._records = records


def _scan(path: Path, check: Check) -> tuple[list[dict], int]:
    """Return all whole records in the order of the file, and the bytes they take."""
    with _explained("read", path):
        content = path.read_bytes() if path.exists() else b""
    # What follows the last newline is a line whose writer was killed, or nothing.
    *lines, torn = content.split(b"\n")
    records = [_parse(line, path, number, check) for number, line in enumerate(lines, 1)]
    whole = len(records) - (_unfinished(records) if torn else 0)
    return records[:whole], sum(len(line) + 1 for line in lines[:whole])


def _parse(line: bytes, path: Path, number: int, check: Check) -> dict:
    place = f"{path}, line {number}"
    try:
        record = _checked(line.rstrip(b"\n"))
        if record.get("format") == FORMAT:
            _check_fields(record)
            check(record)
    # A line of nothing but brackets is too deep.
    except (ValueError, RecursionError) as error:
        raise JournalError(
            f"A line of the journal is corrupted: {error}. Expected one record in JSON; restore "
            f"the file, or delete the line to run its trial again. Received: {place}: {line[:60]!r}"
        ) from error
    if record.get("format") != FORMAT:
        raise JournalError(
            f"The journal was written by another version. Expected records of format {FORMAT}; "
            f"choose another folder with --results, or use the version that wrote the journal. "
            f"Received: {place}: format={record.get('format')!r}"
        )
    return record


def _checked(line: bytes) -> dict:
    """The record of a line without its checksum, which must be that of the line if it has one."""
    sealed = _CHECKSUM.fullmatch(line)
    content = sealed[1] + b"}" if sealed else line
    if sealed and sealed[2] != _checksum(content):
        raise ValueError("its checksum is not that of its content")
    record = json.loads(content, parse_constant=_refuse, parse_float=_finite)
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    if "checksum" in record:
        raise ValueError("its checksum is damaged")
    return record


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:16].encode()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _check_fields(record: dict) -> None:
    """Refuse a record that lacks what every record holds, or holds what makes no sense there."""
    if missing := [field for field in _REQUIRED if field not in record]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    if wrong := [field for field, is_sound in _REQUIRED.items() if not is_sound(record[field])]:
        raise ValueError(f"its {wrong[0]} cannot be {record[wrong[0]]!r}")


def _unfinished(records: list[dict]) -> int:
    """Count the last records that belong to a cell of which not all were written."""
    if not records:
        return 0
    last = records[-1]
    written = sum(1 for _ in takewhile(lambda r: r["cell"] == last["cell"], reversed(records)))
    # A cell that was tried again stands there twice.
    return written % last["members"]


def _newest(records: Iterable[dict]) -> list[dict]:
    newest: dict[str, dict] = {}
    for record in records:
        known = newest.get(record["key"])
        if known is None or known["status"] not in FINAL:
            newest[record["key"]] = record
    return list(newest.values())


def _sorted(records: list[dict]) -> list[dict]:
    """Sort by what the trials are; a cell stays together, so that a torn cell can be told."""
    first: dict[str, tuple] = {}
    for record in records:
        cell, order = record["cell"], _order(record)
        first[cell] = min(first.get(cell, order), order)
    return sorted(records, key=lambda r: (first[r["cell"]], _order(r)))


def _order(record: dict) -> tuple:
    """Role and arm come first, then the other fields of the trial, rates and seeds last."""
    names = list(record)
    trial = names[names.index(_BEFORE_TRIAL) + 1 : names.index(_AFTER_TRIAL)]
    last = ("learning_rate", "seed", "key")
    fields = ["role", "arm", *(n for n in trial if n not in ("role", "arm", *last)), *last]
    # Records of several versions may hold a number and a name in one field.
    return tuple((isinstance(v, str), 0 if v is None else v) for v in map(record.get, fields))


def _line(record: dict) -> bytes:
    plain = {k: _plain(v, digits=4 if k == "curves" else None) for k, v in record.items()}
    content = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()
    return content[:-1] + b',"checksum":"' + _checksum(content) + b'"}\n'


def _plain(value: object, digits: int | None) -> object:
    """Return a value as JSON can hold it: NumPy's as Python's, NaN and infinity as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {k: _plain(v, digits) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, digits) for v in value]
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return value if digits is None else float(f"{value:.{digits}g}")


def _append(path: Path, content: bytes) -> None:
    is_new = not path.exists()
    size = 0 if is_new else path.stat().st_size
    try:
        with path.open("ab", buffering=0) as file:
            _write(file, content)
        if is_new:
            _sync_folder(path.parent)
    except OSError:
        # The disk may be full in the middle of a cell; the records before it must stay readable.
        with suppress(OSError):
            os.truncate(path, size)
        raise


def _write(file, content: bytes) -> None:
    while content:
        content = content[file.write(content) :]
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; syncing a file does not sync its name."""
    # Not every system and not every file system can do so, and no record depends on it.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _locked(path: Path):
    # Imported only here: who reads needs no lock.
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0)
    with _explained("write to", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise JournalError(
                "Another run is writing to this folder. Wait for the end of that run, or choose "
                f"another folder with --results. Received: {path.parent}"
            ) from None
    return lock


@contextmanager
def _explained(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"Could not {action} the journal: {error.strerror or error}. Expected a folder that "
            f"can be written to, on a disk with space left. Received: {path}"
        ) from error


# Arrays that figures are drawn from, in a small file beside the records


def arrays_name(key: str) -> str:
    """Name of the file with the arrays of a trial, by its key."""
    return f"{key}.npz"


def save_arrays(folder: Path, key: str, arrays: dict[str, Any]) -> None:
    """Write the arrays of a trial, by name, whole or not at all."""
    # Imported only here: for most cells, the driver does without NumPy.
    import numpy as np

    with replacing(folder / arrays_name(key)) as file:
        np.savez_compressed(file, **arrays)


def load_arrays(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the arrays by name of all trials that have any, by the key of the trial."""
    import numpy as np

    loaded = {}
    for path in folder.glob(arrays_name("*")):
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                loaded[path.stem] = dict(arrays)
        # A damaged archive can raise any exception.
        except Exception as error:
            raise OSError(
                f"Could not read the arrays of a trial: {error}. Expected a file that `run` wrote; "
                f"restore it, or delete it to report without its figures. Received: {path}"
            ) from error
    return loaded
