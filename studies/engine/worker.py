"""The work of a worker: to train a cell by its kind, and to record where the cell was trained."""

import functools
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from studies.engine.trial import Cell, Trial


def run_cell(
    cell: Cell, cache: Path, dataset: str | None = None, data_folder: Path | None = None
) -> list[dict]:
    """Train a cell, in a worker's process.

    The trials name a dataset from a file by its content, so that `dataset` says what
    `pretrain.datasets.load` takes instead; `data_folder` is where datasets are looked for first.
    Returns for each trial, in order, what `studies.kinds.kind.Kind.train` says, and `provenance`.
    """
    start = time.perf_counter()

    def load(trial: Trial):
        sizes = trial.train_size, trial.validation_size
        return _load(dataset or trial.dataset, *sizes, trial.seed, data_folder)

    results = cell.kind.train(cell, cache, load)
    common = {"seconds": time.perf_counter() - start, "provenance": _provenance()}
    return [result | common for result in results]


# A worker meets the same few splits in cell after cell.
@functools.lru_cache(maxsize=16)
def _load(name: str, train_size: int, validation_size: int, seed: int, folder: Path | None):
    # Imported only here: the driver, which imports this module, does without NumPy.
    from pretrain import datasets

    return datasets.load(name, train_size, validation_size, seed=seed, folder=folder)


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
    packages = [p for p in ("keras", "numpy", "pretrain", backend) if p and _version(p)]
    return {
        "backend": backend,
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in packages}},
        "commit": _commit(),
        "processor": processor(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree, with `-dirty` if it was changed; `None` outside of one."""
    here = Path(__file__)
    git = functools.partial(
        subprocess.run, cwd=here.parent, capture_output=True, text=True, check=True
    )
    try:
        # An installed package may lie in a folder of somebody's own repository.
        git(["git", "ls-files", "--error-unmatch", here.name])
        return git(["git", "describe", "--always", "--dirty", "--exclude=*"]).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
