"""How much there is to do and how long it takes: pure functions of a scale and of records."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from studies.engine.journal import FINAL
from studies.engine.plan import flops, groups
from studies.engine.scale import Scale

# FLOPs per second of a worker, where nothing has been measured: one core of a machine of today.
ASSUMED_SPEED = 20e9


@dataclass(frozen=True)
class Estimate:
    """What there is to do.

    Args:
        cells: Number of cells.
        trials: Number of trials.
        flops: What they compute.
        seconds: How long that takes.
        workers: Number of cells that run at the same time.
        measured: Number of trials that speed was measured in; 0 if it is assumed.
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
    """Estimate what is missing of a scale.

    Args:
        scale: The scale.
        records: Records of trials that are not run again.
        history: Records to measure speed in, made where the scale is to be run.
        workers: Number of cells that run at the same time.

    Returns:
        The estimate.
    """
    records, history = list(records), [r for r in history if _is_measured(r)]
    speed = speeds(history, scale)
    final = {r["key"] for r in records if r["status"] in FINAL}
    missing = [
        (group.arm, left)
        for group in groups(scale, records)
        if (left := [t for t in group.trials if t.key not in final])
    ]
    work = Counter()
    for arm, trials in missing:
        work[trials[0].role] += flops(scale, arm, trials)
    return Estimate(
        cells=len(missing),
        trials=sum(len(trials) for _, trials in missing),
        flops=work.total(),
        seconds=sum(n / speed[role] for role, n in work.items()) / workers,
        workers=workers,
        measured=len(history),
    )


def speeds(history: Iterable[dict], scale: Scale) -> dict[str, float]:
    """Measure the FLOPs per second of a worker, compilation and evaluation included.

    Args:
        history: Records of trials that were measured.
        scale: The scale, whose kind says what a trial computed.

    Returns:
        The speed by role; a role that was never run has the speed of all roles together.
    """
    work, seconds = Counter(), Counter()
    for record in history:
        work[record["role"]] += scale.kind.computed(record)
        seconds[record["role"]] += record["seconds"] / record["members"]
    overall = work.total() / seconds.total() if seconds else ASSUMED_SPEED
    return defaultdict(lambda: overall, {role: work[role] / seconds[role] for role in work})


def spent(scale: Scale, records: Iterable[dict]) -> str:
    """Say how long workers took for what a scale has results of.

    Args:
        scale: The scale.
        records: Its records.

    Returns:
        Minutes and trials by role, as text; empty if nothing was measured.
    """
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
