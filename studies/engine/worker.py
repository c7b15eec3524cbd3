"""The work of a worker: to train a cell by its kind, and to record where the cell was trained.

A worker trains nothing but what the driver planned: with the driver's own source, on the data that
the trials name.
"""

import functools
import hashlib
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from studies.arms import Arm
from studies.engine.trial import Cell, Trial


def run_cell(
    cell: Cell, cache: Path, dataset: str | None = None, data_folder: Path | None = None
) -> list[dict]:
    """Train a cell, in a worker's process.

    The trials name a dataset from a file by its content, so that `dataset` says what
    `pretrain.datasets.load` takes instead; `data_folder` is where datasets are looked for first.
    Returns for each trial, in order, what `studies.kinds.kind.Kind.train` says, and `provenance`.
    Raises `ValueError` if the data are not what the trials name.
    """
    start, digests = time.perf_counter(), {}

    def load(trial: Trial):
        source, sizes = dataset or trial.dataset, (trial.train_size, trial.validation_size)
        places = trial.seed, data_folder
        data, digests[trial.dataset] = _load(cell.kind.load, trial.dataset, source, *sizes, *places)
        # A kind may also test on other data than those that its trials name.
        if trial.dataset == cell.trials[0].dataset:
            _check_shape(cell, data)
        # Large data cannot stay for the next cells.
        if _load.cache_info().currsize * data.train[0].nbytes > _KEPT:
            _load.cache_clear()
        return data

    results = cell.kind.train(cell, cache, load)
    day = datetime.now(UTC).date().isoformat()
    seconds, place = time.perf_counter() - start, _provenance() | {"code": cell.code, "date": day}
    return [
        result | {"seconds": seconds, "provenance": place | {"data": digests.get(trial.dataset)}}
        for trial, result in zip(cell.trials, results, strict=True)
    ]


# Bytes of data that a worker keeps for its next cells.
_KEPT = 2**30
# The test set of each digest.
_TESTS: dict[str, Any] = {}


# A worker meets the same few splits in cell after cell.
@functools.lru_cache(maxsize=16)
def _load(
    load: Callable[..., Any],
    name: str,
    source: str,
    train_size: int,
    validation_size: int,
    seed: int,
    folder: Path | None,
) -> tuple[Any, str]:
    """The dataset of a name, from its source, and a digest of its test set."""
    # Imported only here: the driver, which imports this module, does without NumPy.
    from pretrain import datasets

    folder = folder if source in datasets.TO_BE_FOUND else None
    data = load(source, train_size, validation_size, seed=seed, folder=folder)
    # A file may be replaced while it is read.
    for found in (data.name, datasets.fingerprint(source)):
        if found != name:
            raise ValueError(
                "The data are not what the trial names. Expected the content that the data had "
                "when the run began: give it back, or run the study again on the new data. "
                f"Received: {found}, not {name}"
            )
    digest = hashlib.sha256(b"".join(array.tobytes() for array in data.test)).hexdigest()[:12]
    # All seeds have the same test set, which needs to be in memory once.
    return data._replace(test=_TESTS.setdefault(digest, data.test)), digest


def _check_shape(cell: Cell, data: Any) -> None:
    """Refuse a file that has the name of a known dataset and is another dataset."""
    shape = math.prod(data.train[0].shape[1:]), data.classes
    if cell.shape not in (None, shape):
        raise ValueError(
            f"The data are not what the plan counts on. Expected {cell.shape[0]} features and "
            f"{cell.shape[1]} classes. Received: {data.name} with {shape[0]} and {shape[1]}"
        )


def package() -> str:
    """Digest of the source of this package without its reports, as it now stands on the disk."""
    return _digest(_package())


def code(arm: Arm, kind: Any) -> str:
    """Digest of the source that an arm is trained by: this package, and a study's own files."""
    return _digest([*_package(), *_own_files(arm, kind)])


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def check_code(cell: Cell) -> None:
    """Refuse a cell that the driver planned with another source than that of this worker."""
    if cell.code and cell.code != (here := code(cell.arm, cell.kind)):
        raise RuntimeError(
            "The worker's source is not the driver's: the worker would train something else. "
            "Expected the same version of the package and of the study's file, which do not change "
            f"during a run; run the study again. Received: code={here}, not {cell.code}"
        )


def _roots() -> list[Path]:
    return [Path(*import_module(name).__path__) for name in ("pretrain", "studies")]


def _package() -> Iterator[Path]:
    for root in _roots():
        paths = sorted(Path(root).rglob("*.py"), key=lambda path: path.relative_to(root).parts)
        yield from (p for p in paths if p.relative_to(root).parts[0] not in ("report", "docs"))


def _own_files(arm: Arm, kind: Any) -> Iterator[Path]:
    """The files outside of the package that hold the kind, its trials, the arm and its network."""
    modules = {type(kind).__module__, kind.trial.__module__, type(arm).__module__}
    named = (function for function in (arm.build, arm.start) if function)
    modules |= {f.__module__ if callable(f) else f.partition(":")[0] for f in named}
    # A function that `exec` makes, as that of a notebook, may name no module.
    for name in sorted(filter(None, modules)):
        # The file of a network imports Keras, which the driver does without.
        known = sys.modules.get(name) or find_spec(name)
        file = getattr(known, "__file__", None) or getattr(known, "origin", None)
        if file and name.partition(".")[0] not in ("pretrain", "studies"):
            yield Path(file)


def processor() -> str:
    """Name of the processor's model."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def _provenance() -> dict:
    # A kind that trains nothing has not imported Keras.
    keras = sys.modules.get("keras")
    backend = keras.backend.backend() if keras else None
    programs = sys.modules.get("pretrain.backend")
    accelerator = programs.accelerator() if programs else None
    packages = [p for p in ("keras", "numpy", "pretrain", backend) if p and _version(p)]
    return {
        "backend": backend,
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in packages}},
        "commit": _commit(),
        "processor": processor(),
        **({"accelerator": accelerator} if accelerator else {}),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree, with `-dirty` if source changed; `None` outside of one."""
    here = Path(__file__)
    git = functools.partial(
        subprocess.run, cwd=here.parent, capture_output=True, text=True, check=True
    )
    try:
        # An installed package may lie in a folder of somebody's own repository.
        git(["git", "ls-files", "--error-unmatch", here.name])
        commit = git(["git", "describe", "--always", "--exclude=*"]).stdout.strip()
        # Records that a run writes are in the tree, too, and change no source.
        changed = git(["git", "status", "--porcelain", "--", *map(str, _roots())]).stdout
        return commit + "-dirty" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return None
