"""Stand-ins for a worker's `run_cell` that train nothing, and a small scale to run them on.

Run as a script, it is a driver that a test can kill: `python fake_cells.py RESULTS FUNCTION ROOM`.
ROOM is the size in bytes that its files may have; without it, any.
"""

import os
import random
import resource
import signal
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

from tqdm import tqdm

from studies.engine import journal
from studies.engine.execute import Run, execute
from studies.engine.executors import LocalExecutor
from studies.engine.scale import Scale
from studies.engine.study import load
from studies.kinds.classification import KIND

STUDY = load("depth")
SCALE = Scale(
    arms=("random", "denoising"),
    axes={"depth": (1, 2)},
    train_size=100,
    validation_size=50,
    test_size=50,
    epochs=3,
    learning_rates=(0.1, 0.3),
    pretraining_epochs=2,
    pretraining_rates=(0.01, 0.03),
    rule="worst_stage",
    selection_seeds=2,
    report_seeds=3,
    kind=KIND,
)

# Enough cells to kill for a while.
STORM = replace(SCALE, axes={"depth": tuple(range(1, 9))})


def wait_until(condition, seconds=60):
    """Wait for what other processes do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def hear_ctrl_c():
    """Where tests run in the background, Ctrl-C is ignored, and processes inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(cell, cache, **_):
    """Results that depend on the trial alone."""
    _log(cell, cache)
    return [result(trial, cell.kind) for trial in cell.trials]


def result(trial, kind=KIND):
    value = int(trial.key, 16) / 2**64
    metrics = {kind.judge(trial.role).name: value}
    curves = {"loss": [value, value / 3]}
    return {"status": "done", **metrics, "curves": curves, "provenance": {"backend": "none"}}


def slow(cell, cache, **_):
    # Training has a bar, which takes a lock.
    tqdm([], disable=True)
    time.sleep(0.15)
    return run(cell, cache)


def storm(cell, cache, **_):
    """Takes as long as it likes."""
    time.sleep(random.uniform(0, 0.3))
    return [result(trial) for trial in cell.trials]


def stuck(cell, cache, **_):
    _log(cell, cache)
    time.sleep(60)


def raises(cell, cache, **_):
    """Fails for one arm's selection."""
    if _is_selection_of(cell, "denoising"):
        raise _Unpicklable("no such", "thing")
    return run(cell, cache)


def runs_out_of_memory(cell, cache, **_):
    if _is_selection_of(cell, "random"):
        raise MemoryError
    return run(cell, cache)


def exits(cell, cache, **_):
    sys.exit("leave it")


def answers_too_little(cell, cache, **_):
    return run(cell, cache)[1:]


def answers_nothing(cell, cache, **_):
    return None


def answers_without_score(cell, cache, **_):
    return [{"status": "done"}] * len(cell.trials)


def dies_once(cell, cache, log=None, **_):
    """Dies at the first attempt of one cell, in the middle of it."""
    done = run(cell, log or cache)
    if _is_selection_of(cell, "random") and len(calls(log or cache, cell.key)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return done


def dies(cell, cache, log=None, **_):
    done = run(cell, log or cache)
    if _is_selection_of(cell, "random"):
        os.kill(os.getpid(), signal.SIGKILL)
    return done


def dies_in(marker):
    """Dies the first time."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def environment(cell, cache, **_):
    print("chatter")
    names = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "XLA_FLAGS")
    found = {name: os.environ[name] for name in names} | {"cache": str(cache)}
    return [{**result(trial), "provenance": found} for trial in cell.trials]


def sources(cell, cache, dataset, data_folder):
    provenance = {"dataset": dataset, "data_folder": data_folder}
    return [{**result(trial), "provenance": provenance} for trial in cell.trials]


def calls(cache, key=None):
    """Return the process id and cell of each call so far, or those of one cell."""
    log = Path(cache) / "calls"
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(int(pid), cell) for pid, cell in lines if key in (None, cell)]


def write(folder):
    """Appends cells to a journal and sorts it, until killed."""
    with journal.Journal(Path(folder)) as records:
        for number in count(len(records.records)):
            records.append(_cell(number))
            if number % 7 == 0:
                records.sort()


def _cell(number):
    identity = {"format": journal.FORMAT, "cell": f"cell {number:06}", "members": 3}
    trial = {"role": "report", "arm": "he", "depth": 1, "learning_rate": 0.1}
    result = {"status": "done", "curves": {"loss": [0.1] * 200}}
    # In the order of a record: how many members, what the trial is, then what came out.
    return [
        {"key": f"{number:06} {seed}", **identity, **trial, "seed": seed, **result}
        for seed in range(3)
    ]


def _log(cell, cache):
    Path(cache).mkdir(parents=True, exist_ok=True)
    with (Path(cache) / "calls").open("a") as log:
        log.write(f"{os.getpid()} {cell.key}\n")


def _is_selection_of(cell, arm):
    first = cell.trials[0]
    return (first.role, first.arm, first.depth) == ("selection", arm, 1)


class _Unpicklable(Exception):
    """Pickles, but fails to unpickle, as exceptions with arguments of their own do."""

    def __init__(self, what, which):
        super().__init__(f"{what} {which}")


def _main(results, function, room=None):
    if room:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), int(room)))
    scale = STORM if function == "storm" else SCALE
    run = Run(STUDY, "quick", scale, Path(results))
    with LocalExecutor(2, run.logs) as executor:
        outcome = execute(run, globals()[function], executor, workers=2)
    heavy = {"keras", "tensorflow", "numpy", "pandas", "matplotlib"} & set(sys.modules)
    if heavy:
        raise SystemExit(f"the driver imported {heavy}")
    sys.exit(1 if outcome.failures else 0)


if __name__ == "__main__":
    # Workers know the functions by the module's own name.
    import fake_cells

    fake_cells._main(*sys.argv[1:])
