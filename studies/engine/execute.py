"""The driver: it plans, hands out cells, and writes down their records as the cells end.

It never imports Keras. Whatever happens to it, it needs nothing but the journal to go on.
"""

import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pretrain.files import replacing
from studies.engine import journal
from studies.engine.journal import Journal, JournalError
from studies.engine.plan import flops, mean_by_rate, plan, progress
from studies.engine.scale import Scale, is_custom, save_custom
from studies.engine.study import Study
from studies.engine.trial import Cell, Trial
from studies.engine.worker import check_code, code

RunCell = Callable[[Cell, Path], list[dict]]


def everything(cell: Cell) -> bool:
    """By default, a run makes all that its scale lacks."""
    return True


_PATIENCE_SECONDS = 1


@dataclass(frozen=True)
class Run:
    """A study at a scale, and `results`, the folder of the results of all studies."""

    study: Study
    scale_name: str
    scale: Scale
    results: Path

    @property
    def folder(self) -> Path:
        return self.results / self.study.name / self.scale_name

    @property
    def journal(self) -> Path:
        return self.folder / journal.FILE

    @property
    def records(self) -> list[dict]:
        """The records of the journal, of which each is a sound record of the study's kind."""
        return journal.read(self.journal, self.study.kind.check_record)

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

    `cells` counts the cells that were run, or found in another study's results; `failures` holds
    the error of each cell that failed, by the cell's description.
    """

    cells: int
    failures: dict[str, str]


def execute(
    run: Run,
    run_cell: RunCell,
    executor: Executor,
    workers: int,
    wanted: Callable[[Cell], bool] = everything,
) -> Outcome:
    """Run the trials that a scale lacks, and record them.

    A trial that has a result in any study under the same folder is not run again. A cell that fails
    is recorded as such, leaves the other cells running, and is tried again by the next run.

    Args:
        run: The study, its scale and the folder of the results.
        run_cell: Called with a cell and the folder of pretrained stacks, in the executor. Returns
            for each trial, in order, a dict of `status`, metrics, `curves` and `provenance`.
        executor: Where cells run. The death of a process is a `BrokenExecutor`.
        workers: Number of cells that run at the same time.
        wanted: Says of each cell that could be run whether this run is to make it.

    Returns:
        What was done.

    Raises:
        JournalError: If the results cannot be read or written. Recorded trials stay recorded.
    """
    with Journal(run.folder, run.study.kind.check_record) as records:
        if is_custom(run.scale_name):
            save_custom(run.scale, run.folder)
        driver = _Driver(run, run_cell, executor, workers, records, wanted)
        with driver.bar:
            driver.loop()
        records.sort()
    return Outcome(driver.cells, driver.failures)


def results_elsewhere(run: Run) -> dict[str, dict]:
    """Read the results, by key, of all other studies and scales under the same folder.

    A journal that cannot be read is left out, and the terminal says so. So is a record that is no
    sound record of the kind of the run: records of other kinds are none.
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
        results |= {r["key"]: r for r in records if _is_reusable(r, run.study.kind)}
    return results


def _is_reusable(record: dict, kind: Any) -> bool:
    with suppress(ValueError):
        kind.check_record(record)
        return record["status"] in journal.FINAL
    return False


@dataclass(frozen=True)
class _Failure:
    """Why a cell has no results, as text: not every exception can be pickled."""

    status: str
    error: str
    traceback: str = ""


def _attempt(run_cell: RunCell, cell: Cell, cache: Path) -> list[dict] | _Failure:
    """Run a cell, in a worker's process."""
    try:
        check_code(cell)
        results = run_cell(cell, cache)
        _check(cell, results)
    except KeyboardInterrupt:
        # Only a driver that runs cells itself meets Ctrl-C here.
        raise
    # SystemExit, too: the future would raise it again and so end the driver.
    except BaseException as error:
        return _failure(error, traceback.format_exc(limit=-3))
    return results


def _check(cell: Cell, results: list[dict]) -> None:
    """Raise if these are no results of the cell: what is in the journal stays there."""
    needed = cell.kind.judge(cell.trials[0].role).name
    sound = [r["status"] == "diverged" or r["status"] == "done" and needed in r for r in results]
    if sound != [True] * len(cell.trials):
        raise ValueError(
            f"Expected {len(cell.trials)} results, each of status diverged, or of status done with "
            f"a {needed}. Received: {len(results)} results, of which {sum(sound)} are sound"
        )
    for trial, result in zip(cell.trials, results, strict=True):
        cell.kind.check_record({**result, **asdict(trial), "key": trial.key})


def _failure(error: BaseException, trace: str = "") -> _Failure:
    advice = " (out of memory: try fewer workers)" if isinstance(error, MemoryError) else ""
    return _Failure("error", f"{type(error).__name__}: {error}{advice}", trace)


def _answer(future: Future) -> list[dict] | _Failure:
    try:
        return future.result()
    except BrokenExecutor as death:
        return _Failure("killed", str(death))
    # The executor raises this one itself, for a result that cannot be pickled, say.
    except Exception as error:
        return _failure(error)


class _Driver:
    """The state of a run."""

    def __init__(
        self,
        run: Run,
        run_cell: RunCell,
        executor: Executor,
        workers: int,
        records: Journal,
        wanted: Callable[[Cell], bool],
    ):
        self.cells = 0
        self.failures: dict[str, str] = {}
        self._run, self._run_cell, self._executor = run, run_cell, executor
        self._workers, self._journal, self._wanted = workers, records, wanted
        self._trouble = ""
        self._attempted: set[str] = set()
        self._running: dict[Future, Cell] = {}
        self._elsewhere: dict[str, dict] | None = None
        # Before the first cell: the source may be edited during the run.
        self._code = {arm.name: code(arm, run.scale.kind) for arm in run.scale.arms}
        self.bar = _bar(run, records)

    def loop(self) -> None:
        self._hand_out()
        while self._running:
            ended, _ = wait(self._running, _PATIENCE_SECONDS, FIRST_COMPLETED)
            for future in ended:
                self._collect(self._running.pop(future), _answer(future))
            if ended:
                self._hand_out()
            self._watch()
            self.bar.refresh()

    def _watch(self) -> None:
        """Say, once, what the executor knows to keep cells from ending."""
        trouble = getattr(self._executor, "trouble", str)()
        if trouble and trouble != self._trouble:
            self._say(trouble)
        self._trouble = trouble

    def _hand_out(self) -> None:
        while len(self._running) < self._workers and (cell := self._next()):
            if not self._reuse(cell):
                self._attempted |= {trial.key for trial in cell.trials}
                cell = replace(cell, code=self._code[cell.arm.name])
                future = self._executor.submit(_attempt, self._run_cell, cell, self._run.cache)
                self._running[future] = cell
                if not self.cells:
                    # The first result may take minutes.
                    self._say(f"{cell}: started")

    def _next(self) -> Cell | None:
        ready = plan(self._run.scale, self._journal.records)
        left = (c for c in ready if not self._attempted & {t.key for t in c.trials})
        return next(filter(self._wanted, left), None)

    def _reuse(self, cell: Cell) -> bool:
        """Take over the records that other studies have of the cell; say whether there are any."""
        if self._elsewhere is None:
            self._elsewhere = results_elsewhere(self._run)
        known = tuple(t for t in cell.trials if t.key in self._elsewhere)
        if known:
            # Known results take no time, and must not make the remaining cells look as fast.
            self.bar.total -= flops(self._run.scale, cell.arm, known)
            for trial in known:
                self._copy_arrays(trial)
            self._record(replace(cell, trials=known), [self._elsewhere[t.key] for t in known])
        return bool(known)

    def _copy_arrays(self, trial: Trial) -> None:
        """Copy the arrays of a trial whole, so that a kill leaves no half of them."""
        for path in self._run.results.glob(f"*/*/{journal.arrays_name(trial.key)}"):
            # A run that was killed before it wrote the record has copied them already.
            if path.parent != self._run.folder:
                with replacing(self._run.folder / path.name) as file:
                    file.write(path.read_bytes())

    def _collect(self, cell: Cell, answer: list[dict] | _Failure) -> None:
        if isinstance(answer, _Failure):
            self.failures[str(cell)] = answer.error
            self._append(cell, [asdict(answer)] * len(cell.trials))
            self._say(f"{cell}: {answer.status}: {answer.error}")
        else:
            self._record(cell, answer)
            self.bar.update(flops(self._run.scale, cell.arm, cell.trials))

    def _record(self, cell: Cell, results: list[dict]) -> None:
        records = self._append(cell, results)
        self.cells += 1
        self._say(f"{cell}: {_summary(records, self._run.scale)}")

    def _append(self, cell: Cell, results: list[dict]) -> list[dict]:
        # Arrays are saved first, since a record is never without its arrays.
        for trial, result in zip(cell.trials, results, strict=True):
            if "arrays" in result:
                journal.save_arrays(self._run.folder, trial.key, result.pop("arrays"))
        pairs = zip(cell.trials, results, strict=True)
        records = [_record(self._run.study.name, cell, trial, result) for trial, result in pairs]
        self._journal.append(records)
        return records

    def _say(self, line: str) -> None:
        done = progress(self._run.scale, self._journal.records)
        tqdm.write(f"[{done.cells_done}/{done.cells}] {line}")


def _bar(run: Run, records: Journal) -> tqdm:
    done = progress(run.scale, records.records)
    return tqdm(
        desc=f"{run.study.name} {run.scale_name}",
        total=done.flops,
        initial=done.flops_done,
        unit="FLOP",
        unit_scale=True,
        # Cells end rarely and differ in size: only the average speed says when all will be done.
        smoothing=0,
        # With None, tqdm shows the bar at a terminal only.
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
    # Identity comes again at the end: a record of another study names that study and its cell.
    return {**identity, **result, **identity}


def _summary(records: list[dict], scale: Scale) -> str:
    """Say in a few words what came out of a cell: the mean score at the best rate."""
    metric = scale.kind.judge(records[0]["role"])
    means = mean_by_rate(records, scale)
    rate = min(means, key=means.get)
    value = metric.text(means[rate] if metric.lower_is_better else -means[rate])
    where = f" at rate {rate:g}" if len(means) > 1 else ""
    count = sum(record["status"] == "diverged" for record in records)
    note = f", {count} diverged" if count else ""
    return f"{metric.label} {value}{where}{note}"
