"""A comparison that is called from Python, in this process."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from studies.comparison import arms as ways
from studies.comparison import data as given
from studies.comparison.conduct import conduct
from studies.comparison.result import Comparison
from studies.comparison.settings import Settings
from studies.engine.execute import Outcome
from studies.engine.executors import HereExecutor, LocalExecutor
from studies.engine.worker import run_cell
from studies.report.write import write_scale


def compare(
    build: Callable | str,
    data: Any,
    arms: Sequence[Any],
    settings: Settings,
    results: Any = None,
    workers: int | None = None,
    data_folder: Any = None,
    error: str | Callable | None = None,
    **options: Any,
) -> Comparison:
    """See `studies.compare`; `options` are those of `studies.comparison.data.source`."""
    with ExitStack() as stack:
        folder = Path(results) if results else _temporary(stack)
        made = ways.made(build, arms, settings.optimizer, settings.pretraining_optimizer, error)
        source = given.source(data, folder / "compare", data_folder=data_folder, **options)
        with _executor(workers, folder) as executor:
            cells = executor, run_cell, executor.workers
            run, outcome = conduct(made, source, settings, folder, *cells, data_folder)
        _check(outcome)
        if results:
            write_scale(run.folder, run.study, run.scale_name)
        return Comparison(run, stack.pop_all().close)


def _temporary(stack: ExitStack) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="compare-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _executor(workers: int | None, folder: Path) -> LocalExecutor | HereExecutor:
    return LocalExecutor(workers, folder / "compare" / "logs") if workers else HereExecutor()


def _check(outcome: Outcome) -> None:
    if outcome.failures:
        cell, error = next(iter(outcome.failures.items()))
        raise RuntimeError(
            f"{len(outcome.failures)} cells of the comparison failed. The first is {cell}: {error}"
        )
