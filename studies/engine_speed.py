"""What the engine itself costs, with cells that train nothing: `python -m studies.engine_speed`."""

import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from studies.arms import ARMS
from studies.depth import SCALES
from studies.engine import cost, journal
from studies.engine.execute import Run, execute
from studies.engine.scale import CUSTOM
from studies.engine.trial import Cell, Trial

_SCALE = "standard"
_HEADER = """\
| what | seconds | goal |
| :--- | ------: | ---: |
"""
_CURVES = ("train_nll", "validation_nll", "validation_error")
_SCORES = ("validation_error", "validation_nll", "test_error", "test_nll")


def main() -> None:
    """Runs the benchmark and prints it."""
    print(_HEADER, end="")
    _show("`list`", _seconds(lambda: _studies("list")), 0.5)
    with tempfile.TemporaryDirectory() as folder:
        run = _run(Path(folder), report_seeds=20)
        cells, seconds = _filled(run)
        _show(f"the driver, per cell, of {cells} cells", seconds / cells)
        again = ["run", "depth", "--scale", _SCALE, "--seeds", "20"]
        # The first time, it writes the report.
        _studies(*again, "--results", folder)
        resume = _seconds(lambda: _studies(*again, "--results", folder))
        _show(f"`run` of a finished study of {_trials(run)} trials", resume, 2)
    with tempfile.TemporaryDirectory() as folder:
        run = _run(Path(folder), report_seeds=145)
        _filled(run)
        report = _seconds(lambda: _studies("report", "depth", "--results", folder), repeats=1)
        size = run.journal.stat().st_size / 1e6
        _show(f"`report` of {_trials(run)} trials with curves ({size:.0f} MB)", report, 5)


def _show(what: str, seconds: float, goal: float | None = None) -> None:
    print(f"| {what} | {seconds:.3f} | {goal or ''} |", flush=True)


def _seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """The time of the best of a few calls: others may be using the machine."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _studies(*arguments: str) -> None:
    command = [sys.executable, "-m", "studies", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _run(results: Path, report_seeds: int) -> Run:
    scale = replace(SCALES[_SCALE], report_seeds=report_seeds, demonstration=True)
    return Run("depth", CUSTOM, scale, results)


def _filled(run: Run) -> tuple[int, float]:
    """Run a scale on cells that take no time; returns their number and the driver's seconds."""
    start = time.perf_counter()
    with ThreadPoolExecutor(1) as executor, contextlib.redirect_stdout(io.StringIO()):
        outcome = execute(run, _nothing, executor, workers=1)
    return outcome.cells, time.perf_counter() - start


def _trials(run: Run) -> int:
    return len(journal.read(run.journal))


def _nothing(cell: Cell, cache: Path) -> list[dict]:
    return [_result(trial) for trial in cell.trials]


def _result(trial: Trial) -> dict:
    """A result with all that a real one has, that depends on the trial alone."""
    value = int(trial.key, 16) / 2**64
    epochs = trial.epochs + trial.extra_epochs
    curve = [value / epoch for epoch in range(1, epochs + 1)]
    common = {"status": "done", "flops": cost.trial_flops(trial, 784, 10), "seconds": 1.0}
    if trial.role == "pretraining":
        losses = [curve] * trial.depth
        curves = {"loss": losses, "validation_loss": losses, "baseline": [1.0] * trial.depth}
        return common | {"validation_ratio": value, "curves": curves}
    names = _SCORES if trial.role == "report" else _SCORES[:2]
    scores = {f"{when}{name}": value for when in ("", "final_", "equal_cost_") for name in names}
    training = {
        "train_nll": value,
        "best_epoch": epochs,
        "equal_cost_flops": common["flops"],
        "pretraining_flops": common["flops"] if ARMS[trial.arm].pretrained else 0,
    }
    return common | scores | training | {"curves": dict.fromkeys(_CURVES, curve)}


if __name__ == "__main__":
    main()
