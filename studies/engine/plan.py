"""What to run next, at which rates, and how long it takes: pure functions of a scale and records.

A *group* is what the scale wants of one arm, role and combination of axis values: selection seeds
times rates, or report seeds at the chosen rate. A group holds only a part of the seeds if all
seeds would take too much memory or time. The trials of a group that have no result yet are a cell.
How many groups and trials there are does not depend on the chosen rates, so that the total is
known from the start.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest
from statistics import fmean
from typing import Any

from studies.arms import Arm
from studies.engine.journal import FINAL
from studies.engine.scale import Scale
from studies.engine.trial import Cell, Trial

Trials = tuple[Trial, ...]
Record = Mapping[str, Any]

# Bytes. Every seed has a split of the data of its own, of which training holds copies. (A cell of
# 4 GiB of data was measured to peak at 11.7 GB, a cell of 2 GB at 4.9 GB.)
_DATA_OF_A_CELL = 2**30
_COPIES = 3
# Bytes that a worker takes beside the data: TensorFlow and the programs that it compiles.
_MEMORY_OF_A_WORKER = 2**30
# FLOPs, some ten minutes of a core. An interruption may cost as much.
_WORK_OF_A_CELL = 3e13
# FLOPs per second of one core of a machine of today, where no speed has been measured.
ASSUMED_SPEED = 20e9


@dataclass(frozen=True)
class Group:
    """The trials that a scale wants of one arm, role and combination of axis values.

    Args:
        label: The trials in a few words, for messages.
        arm: Their arm.
        trials: All trials, whether they have a result or not.
        stacks: The groups that hold the pretrained stacks of the trials, as `Cell` takes them.
        ready: Whether all trials that the group depends on have a result. Until then, rates may be
            NaN.
    """

    label: str
    arm: Arm
    trials: Trials
    stacks: tuple[Trials, ...] = ()
    ready: bool = True


@dataclass(frozen=True)
class Progress:
    """How many cells, trials and FLOPs a scale has, and how many of them are done."""

    cells: int
    cells_done: int
    trials: int
    trials_done: int
    flops: int
    flops_done: int


def plan(scale: Scale, records: Iterable[dict]) -> list[Cell]:
    """Compose the cells that can be run now, the most urgent first.

    A trial that has a result among the scale's records is never planned again.
    """
    final = _final(records)
    cells, planned = [], set()
    for group in groups(scale, final.values()):
        # Two places may want the same trial, where two rules choose the same pretraining rate.
        left = tuple(t for t in group.trials if t.key not in final and t.key not in planned)
        if group.ready and left:
            planned |= {trial.key for trial in left}
            shape = scale.shape(left[0].dataset)
            cells.append(Cell(left, group.arm, scale.kind, group.label, group.stacks, shape))
    return _by_urgency(cells)


def groups(scale: Scale, records: Iterable[dict]) -> list[Group]:
    """Compose all groups of a scale, arm by arm, groups that are not ready included."""
    # Where an axis says nothing of a role (the test size, of selection), places share a group.
    whole = {group.trials: group for group in scale.kind.groups(scale, _final(records))}
    return [part for group in whole.values() for part in _parts(group, scale)]


def progress(scale: Scale, records: Iterable[dict]) -> Progress:
    """Count the cells, trials and FLOPs of a scale, in total and done."""
    final = _final(records)
    wanted = groups(scale, final.values())
    done = [[t for t in group.trials if t.key in final] for group in wanted]
    pairs = list(zip(done, wanted, strict=True))
    return Progress(
        cells=len(wanted),
        cells_done=sum(len(d) == len(group.trials) for d, group in pairs),
        trials=sum(len(group.trials) for group in wanted),
        trials_done=sum(map(len, done)),
        flops=sum(flops(scale, group.arm, group.trials) for group in wanted),
        flops_done=sum(flops(scale, group.arm, d) for d, group in pairs),
    )


def tally(scale: Scale, records: Collection[dict]) -> Counter:
    """Count the trials of a scale by status; a trial without a record is `"missing"`."""
    status = {record["key"]: record["status"] for record in records}
    wanted = groups(scale, records)
    return Counter(status.get(t.key, "missing") for group in wanted for t in group.trials)


def flops(scale: Scale, arm: Arm, trials: Sequence[Trial]) -> int:
    """FLOPs of running trials that differ only in seed and rate, without their stacks."""
    return len(trials) * scale.kind.flops(trials[0], arm, scale) if trials else 0


# Cached: planning composes the same groups after every cell.
@lru_cache(maxsize=4096)
def spread(trial: Trial, seeds: range, rates: tuple[float, ...]) -> Trials:
    """The trial at every seed and rate."""
    return tuple(replace(trial, seed=s, learning_rate=rate) for s in seeds for rate in rates)


def _parts(group: Group, scale: Scale) -> list[Group]:
    """Cut a group between seeds, so that a part fits in a worker's memory and takes minutes."""
    first = group.trials[0]
    of_a_seed = [trial for trial in group.trials if trial.seed == first.seed]
    fit = _DATA_OF_A_CELL // _data_of_a_seed(first, scale)
    work = flops(scale, group.arm, of_a_seed)
    seeds = max(1, min(fit, int(_WORK_OF_A_CELL / max(work, 1))))
    step = seeds * len(of_a_seed)
    starts = range(0, len(group.trials), step)
    return [replace(group, trials=group.trials[start : start + step]) for start in starts]


def _data_of_a_seed(trial: Trial, scale: Scale) -> int:
    """Bytes of the inputs of a seed, in single precision."""
    examples = trial.train_size + trial.validation_size + scale.test_size
    return 4 * scale.shape(trial.dataset)[0] * examples


def memory(scale: Scale) -> int:
    """Bytes of memory that a worker takes for the largest cell of a scale."""
    data = [
        len({trial.seed for trial in group.trials}) * _data_of_a_seed(group.trials[0], scale)
        for group in groups(scale, [])
    ]
    return _MEMORY_OF_A_WORKER + _COPIES * max(data)


def _final(records: Iterable[dict]) -> dict[str, dict]:
    return {record["key"]: record for record in records if record["status"] in FINAL}


def _by_urgency(cells: list[Cell]) -> list[Cell]:
    """Put reports first, then the other roles by turns.

    So the first result comes within minutes, and no role that other trials depend on comes last.
    """
    roles: dict[str, list[Cell]] = {"report": [], "selection": []}
    for cell in cells:
        roles.setdefault(cell.trials[0].role, []).append(cell)
    reports = roles.pop("report")
    return reports + [cell for turn in zip_longest(*roles.values()) for cell in turn if cell]


def choose_rate(records: Iterable[Record], scale: Scale, metric: str = "") -> float:
    """Choose the learning rate of the best mean score; of a tie, the smaller rate.

    The records are finished trials of one role, arm and combination of axis values, as a journal
    holds them, or as rows of a DataFrame (`frame.to_dict("records")`). By default, the score is
    the metric that trials of their role are judged by.
    """
    means = mean_by_rate(records, scale, metric)
    if not means:
        raise ValueError("Expected at least one finished trial to choose a rate by. Received: none")
    return min(means, key=lambda rate: (means[rate], rate))


def choose_pretraining_rate(records: Iterable[Record], scale: Scale) -> float:
    """Choose the pretraining rate whose nets have the best mean score, at their best learning rate.

    The records are finished trials of selection at one place, at several pretraining rates.
    """
    searched = defaultdict(list)
    for record in records:
        searched[record["pretraining_rate"]].append(record)
    best = {rate: min(mean_by_rate(held, scale).values()) for rate, held in searched.items()}
    return min(best, key=lambda rate: (best[rate], rate))


def mean_by_rate(records: Iterable[Record], scale: Scale, metric: str = "") -> dict[float, float]:
    """Return the mean score at each learning rate; lower is better."""
    scores = defaultdict(list)
    for record in records:
        scores[record["learning_rate"]].append(_score(record, scale, metric))
    return {rate: fmean(values) for rate, values in scores.items()}


def _score(record: Record, scale: Scale, name: str) -> float:
    """Return what a finished trial is judged by; lower is better.

    A trial that diverged is a result: its metric says what the trial counts as.
    """
    metric = scale.kind.metric(name) if name else scale.kind.judge(record["role"])
    value = record.get(metric.name) if record["status"] == "done" else None
    if value is None or not math.isfinite(value):
        value = metric.diverged(record, scale)
    if value is None:
        return math.inf
    return value if metric.lower_is_better else -value


@dataclass(frozen=True)
class Estimate:
    """How much is missing of a scale, and how long it takes.

    `measured` counts the trials that the speed was measured in; 0 says that the speed is assumed.
    """

    cells: int
    trials: int
    flops: int
    seconds: float
    workers: int
    measured: int

    def __str__(self) -> str:
        amount = f"{self.cells} cells, {self.trials} trials, {self.flops:.2g} FLOP"
        if not self.cells:
            return amount
        speed = self.flops / self.seconds / self.workers / 1e9
        origin = f"measured in {self.measured} trials" if self.measured else "assumed: no records"
        return (
            f"{amount}: about {_duration(self.seconds)} with {self.workers} workers, at "
            f"{speed:.0f} GFLOP/s each ({origin} of this machine)"
        )


def estimate(
    scale: Scale, records: Iterable[dict], history: Iterable[dict], workers: int
) -> Estimate:
    """Estimate how long the missing trials of a scale take.

    `records` are of trials that are not run again. Speed is measured in `history`, records that
    were made where the scale is to be run.
    """
    final, history = _final(records), [r for r in history if _is_measured(r)]
    speed, work, cells, trials = speeds(history, scale), Counter(), 0, 0
    for group in groups(scale, final.values()):
        left = [trial for trial in group.trials if trial.key not in final]
        cells, trials = cells + bool(left), trials + len(left)
        work[group.trials[0].role] += flops(scale, group.arm, left)
    return Estimate(
        cells=cells,
        trials=trials,
        flops=work.total(),
        seconds=sum(n / speed[role] for role, n in work.items()) / workers,
        workers=workers,
        measured=len(history),
    )


def speeds(history: Iterable[dict], scale: Scale) -> dict[str, float]:
    """Measure the FLOPs per second of a worker by role, compilation and evaluation included.

    A role that was never run has the speed of all roles together.
    """
    work, seconds = Counter(), Counter()
    for record in history:
        work[record["role"]] += scale.kind.computed(record)
        seconds[record["role"]] += record["seconds"] / record["members"]
    overall = work.total() / seconds.total() if seconds else ASSUMED_SPEED
    return defaultdict(lambda: overall, {role: work[role] / seconds[role] for role in work})


def spent(scale: Scale, records: Iterable[dict]) -> str:
    """Say how many minutes workers took, by role; empty if no record holds a time."""
    records = list(records)
    wanted = {trial.key for group in groups(scale, records) for trial in group.trials}
    seconds, trials = Counter(), Counter()
    for record in records:
        if record["key"] in wanted and _is_measured(record):
            seconds[record["role"]] += record["seconds"] / record["members"]
            trials[record["role"]] += 1
    parts = [f"{role} {s / 60:.1f} ({trials[role]} trials)" for role, s in seconds.items()]
    return f"Minutes of a worker: {', '.join(parts)}." if parts else ""


def _is_measured(record: dict) -> bool:
    return record["status"] in FINAL and bool(record.get("seconds")) and bool(record.get("flops"))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return "a minute"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"
