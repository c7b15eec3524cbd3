"""The driver: plans, hands out cells, and writes down their records as they end.

It never imports Keras. Whatever happens to it, the journal is all that it needs to go on.
"""

import shutil
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from studies.runner import arrays, journal
from studies.runner.journal import Journal, JournalError
from studies.runner.plan import flops, plan, progress
from studies.runner.scale import CUSTOM, Scale, save
from studies.runner.selection import lowest, mean_by_rate, metric, score
from studies.runner.trial import Cell, Trial

RunCell = Callable[[Cell, Path], list[dict]]

_PATIENCE_SECONDS = 1


@dataclass(frozen=True)
class Run:
    """A study at a scale, and where its results go.

    Args:
        study: Name of the study.
        scale_name: Name of the scale.
        scale: The scale.
        results: Folder of the results of all studies.
    """

    study: str
    scale_name: str
    scale: Scale
    results: Path

    @property
    def folder(self) -> Path:
        return self.results / self.study / self.scale_name

    @property
    def journal(self) -> Path:
        return self.folder / journal.FILE

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def cache(self) -> Path:
        """Pretrained stacks, shared by all studies; losing it costs time and nothing else."""
        return self.results / "cache"


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Args:
        cells: Number of cells that were run or found in another study's results.
        failures: The error of each cell that failed, by the cell's description.
    """

    cells: int
    failures: dict[str, str]


def train(
    cell: Cell, cache: Path, dataset: str | None = None, data_folder: Path | None = None
) -> list[dict]:
    """Train a cell, in a worker's process.

    Args:
        cell: The cell.
        cache: Folder of the pretrained stacks.
        dataset: What `pretrain.datasets.load` takes for the dataset of the trials (which name a
            file by its content); by default their `dataset` itself.
        data_folder: Where to look for datasets first.

    Returns:
        For each trial, in order, its `status`, metrics, `curves` and `provenance`, and `arrays` by
        name if figures need any.
    """
    # Only here: this module is the driver's too, and the driver does without Keras.
    from studies.runner.worker import run_cell

    return run_cell(cell, cache, dataset=dataset, data_folder=data_folder)


def execute(run: Run, run_cell: RunCell, executor: Executor, workers: int) -> Outcome:
    """Run what is missing of a scale, and record it.

    A trial that any study under the same results folder has a result of is not run again. A cell
    that fails is recorded as such, leaves the others running, and is tried again by the next run.

    Args:
        run: What to run.
        run_cell: Called with a cell and the folder of pretrained stacks, in the executor. Returns
            for each trial, in order, a dict of `status`, metrics, `curves` and `provenance`.
        executor: Where cells run. A death of its process is a `BrokenExecutor`.
        workers: Number of cells in flight.

    Returns:
        What was done.

    Raises:
        JournalError: If the results cannot be read or written. What was recorded stays.
    """
    with Journal(run.folder) as records:
        if run.scale_name == CUSTOM:
            save(run.scale, run.folder)
        driver = _Driver(run, run_cell, executor, workers, records)
        with driver.bar:
            driver.loop()
        records.sort()
    return Outcome(driver.cells, driver.failures)


def results_elsewhere(run: Run) -> dict[str, dict]:
    """Read the results of all other studies and scales under the same folder.

    Args:
        run: The run that may take them over.

    Returns:
        The records by key. Those of a journal that cannot be read are left out, and said to be.
    """
    results = {}
    for path in sorted(run.results.glob(f"*/*/{journal.FILE}")):
        if path == run.journal:
            continue
        try:
            records = journal.read(path)
        except JournalError as error:
            tqdm.write(f"Nothing of this journal is reused: {error}")
            continue
        results |= {r["key"]: r for r in records if r["status"] in journal.FINAL}
    return results


@dataclass(frozen=True)
class _Failure:
    """Why a cell has no results, as text: exceptions do not always survive the way back."""

    status: str
    error: str
    traceback: str = ""


def _attempt(run_cell: RunCell, cell: Cell, cache: Path) -> list[dict] | _Failure:
    """Run a cell, in a worker's process."""
    try:
        results = run_cell(cell, cache)
        _check(cell, results)
    # SystemExit too: raised again by the future, it would end the driver.
    except BaseException as error:
        return _failure(error, traceback.format_exc(limit=-3))
    return results


def _check(cell: Cell, results: list[dict]) -> None:
    """Raise if these are no results of the cell: once in the journal, they would stay there."""
    first = cell.trials[0]
    needed = metric(first.arm, first.role)
    sound = [r["status"] == "diverged" or r["status"] == "done" and needed in r for r in results]
    if sound != [True] * len(cell.trials):
        raise ValueError(
            f"Expected {len(cell.trials)} results, each of status diverged, or done with a "
            f"{needed}. Received: {len(results)} results, {sum(sound)} of them such"
        )


def _failure(error: BaseException, trace: str = "") -> _Failure:
    advice = " (out of memory: try fewer workers)" if isinstance(error, MemoryError) else ""
    return _Failure("error", f"{type(error).__name__}: {error}{advice}", trace)


def _answer(future: Future) -> list[dict] | _Failure:
    try:
        return future.result()
    except BrokenExecutor as death:
        return _Failure("killed", str(death))
    # The executor's own: a result that cannot be pickled, for one.
    except Exception as error:
        return _failure(error)


class _Driver:
    """The state of a run."""

    def __init__(
        self, run: Run, run_cell: RunCell, executor: Executor, workers: int, records: Journal
    ):
        self.cells = 0
        self.failures: dict[str, str] = {}
        self._run, self._run_cell, self._executor = run, run_cell, executor
        self._workers, self._journal = workers, records
        self._attempted: set[str] = set()
        self._running: dict[Future, Cell] = {}
        self._elsewhere: dict[str, dict] | None = None
        self.bar = _bar(run, records)

    def loop(self) -> None:
        self._hand_out()
        while self._running:
            ended, _ = wait(self._running, _PATIENCE_SECONDS, FIRST_COMPLETED)
            for future in ended:
                self._collect(self._running.pop(future), _answer(future))
            if ended:
                self._hand_out()
            self.bar.refresh()

    def _hand_out(self) -> None:
        while len(self._running) < self._workers and (cell := self._next()):
            if not self._reuse(cell):
                self._attempted |= {trial.key for trial in cell.trials}
                future = self._executor.submit(_attempt, self._run_cell, cell, self._run.cache)
                self._running[future] = cell
                if not self.cells:
                    # The first result may take minutes.
                    self._say(f"{cell}: started")

    def _next(self) -> Cell | None:
        ready = plan(self._run.scale, self._journal.records)
        return next((c for c in ready if not self._attempted & {t.key for t in c.trials}), None)

    def _reuse(self, cell: Cell) -> bool:
        """Take over the records that other studies have of the cell, if any."""
        if self._elsewhere is None:
            self._elsewhere = results_elsewhere(self._run)
        known = tuple(t for t in cell.trials if t.key in self._elsewhere)
        if known:
            # They take no time, and must not make the rest look as fast.
            self.bar.total -= flops(self._run.scale, known)
            for trial in known:
                for path in self._run.results.glob(f"*/*/{arrays.file_name(trial.key)}"):
                    shutil.copyfile(path, self._run.folder / path.name)
            self._record(Cell(known, cell.stacks), [self._elsewhere[t.key] for t in known])
        return bool(known)

    def _collect(self, cell: Cell, answer: list[dict] | _Failure) -> None:
        if isinstance(answer, _Failure):
            self.failures[str(cell)] = answer.error
            self._append(cell, [asdict(answer)] * len(cell.trials))
            self._say(f"{cell}: {answer.status}: {answer.error}")
        else:
            self._record(cell, answer)
            self.bar.update(flops(self._run.scale, cell.trials))

    def _record(self, cell: Cell, results: list[dict]) -> None:
        records = self._append(cell, results)
        self.cells += 1
        self._say(f"{cell}: {_summary(records, self._run.scale)}")

    def _append(self, cell: Cell, results: list[dict]) -> list[dict]:
        # First, since a record is never without its arrays.
        for trial, result in zip(cell.trials, results, strict=True):
            if "arrays" in result:
                arrays.save(self._run.folder, trial.key, result.pop("arrays"))
        pairs = zip(cell.trials, results, strict=True)
        records = [_record(self._run.study, cell, trial, result) for trial, result in pairs]
        self._journal.append(records)
        return records

    def _say(self, line: str) -> None:
        done = progress(self._run.scale, self._journal.records)
        tqdm.write(f"[{done.cells_done}/{done.cells}] {line}")


def _bar(run: Run, records: Journal) -> tqdm:
    done = progress(run.scale, records.records)
    return tqdm(
        desc=f"{run.study} {run.scale_name}",
        total=done.flops,
        initial=done.flops_done,
        unit="FLOP",
        unit_scale=True,
        # Cells end rarely and differ in size: only the average speed says when all will be done.
        smoothing=0,
        # None: only at a terminal.
        disable=None,
    )


def _record(study: str, cell: Cell, trial: Trial, result: dict) -> dict:
    identity = {
        "format": journal.FORMAT,
        "study": study,
        "key": trial.key,
        "cell": cell.key,
        "members": len(cell.trials),
        **asdict(trial),
    }
    # The second time for a record of another study, which names that study and its cell.
    return {**identity, **result, **identity}


def _summary(records: list[dict], scale: Scale) -> str:
    """Say in a few words what came out of a cell: the mean score, at the best rate."""
    name = metric(records[0]["arm"], records[0]["role"])
    means = mean_by_rate(records, lambda record: score(record, scale.classes))
    rate = lowest(means)
    best = -means[rate] if name.endswith("_bound") else means[rate]
    value = f"{best:.2%}" if name.endswith("_error") else f"{best:.4g}"
    where = f" at rate {rate:g}" if len(means) > 1 else ""
    count = sum(record["status"] == "diverged" for record in records)
    note = f", {count} diverged" if count else ""
    return f"{name.replace('_', ' ')} {value}{where}{note}"
