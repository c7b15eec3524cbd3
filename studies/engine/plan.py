"""What to run next, and how much there is: pure functions of a scale and its records.

A *group* is what the scale wants of one arm, role and combination of axis values: selection seeds
times rates, or report seeds at the chosen rate; only a part of the seeds if all would take too much
memory or time. The trials of a group that have no result yet are a cell. How many groups and trials
there are does not depend on the rates chosen, so the total is known from the start.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest

from studies.arms import Arm
from studies.engine.journal import FINAL
from studies.engine.scale import Scale
from studies.engine.trial import Cell, Trial

Trials = tuple[Trial, ...]

# Bytes: every seed has a split of the data of its own.
_DATA_OF_A_CELL = 4 * 2**30
# FLOPs, some ten minutes of a core: what an interruption may cost.
_WORK_OF_A_CELL = 3e13


@dataclass(frozen=True)
class Group:
    """The trials that a scale wants of one arm, role and combination of axis values.

    Args:
        label: What they are, for messages.
        arm: Their arm.
        trials: All of them, whether they have a result or not.
        stacks: The groups that hold their pretrained stacks, as `Cell` takes them.
        ready: Whether all that they depend on has a result. Their rates may be NaN until then.
    """

    label: str
    arm: Arm
    trials: Trials
    stacks: tuple[Trials, ...] = ()
    ready: bool = True


@dataclass(frozen=True)
class Progress:
    """How much of a scale has a result, of how much in total."""

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
    cells = []
    for group in groups(scale, final.values()):
        left = tuple(trial for trial in group.trials if trial.key not in final)
        if group.ready and left:
            cells.append(Cell(left, group.arm, scale.kind, group.label, group.stacks))
    return _by_urgency(cells)


def groups(scale: Scale, records: Iterable[dict]) -> list[Group]:
    """Compose all groups of a scale, arm by arm, also the groups that are not ready."""
    # Where an axis says nothing of a role (the test size, of selection), places share a group.
    whole = {group.trials: group for group in scale.kind.groups(scale, _final(records))}
    return [part for group in whole.values() for part in _parts(group, scale)]


def progress(scale: Scale, records: Iterable[dict]) -> Progress:
    """Count what is done and what there is to do, in cells, trials and FLOPs."""
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
    """Count the trials of a scale by status; `"missing"` is one of them."""
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
    """Cut a group between seeds, so that each part fits in a worker's memory, and in minutes."""
    first = group.trials[0]
    of_a_seed = [trial for trial in group.trials if trial.seed == first.seed]
    examples = first.train_size + first.validation_size + scale.test_size
    fit = _DATA_OF_A_CELL // (4 * scale.shape(first.dataset)[0] * examples)
    work = flops(scale, group.arm, of_a_seed)
    seeds = max(1, min(fit, int(_WORK_OF_A_CELL / max(work, 1))))
    step = seeds * len(of_a_seed)
    starts = range(0, len(group.trials), step)
    return [replace(group, trials=group.trials[start : start + step]) for start in starts]


def _final(records: Iterable[dict]) -> dict[str, dict]:
    return {record["key"]: record for record in records if record["status"] in FINAL}


def _by_urgency(cells: list[Cell]) -> list[Cell]:
    """Put reports first, then all other roles by turns.

    So the first result comes within minutes, and no role that others wait for is last.
    """
    roles: dict[str, list[Cell]] = {"report": [], "selection": []}
    for cell in cells:
        roles.setdefault(cell.trials[0].role, []).append(cell)
    reports = roles.pop("report")
    return reports + [cell for turn in zip_longest(*roles.values()) for cell in turn if cell]
