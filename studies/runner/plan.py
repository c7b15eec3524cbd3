"""What to run next, and how much there is: pure functions of a scale and its records.

A *group* is what the scale wants of one arm, role and depth: selection seeds times rates, or report
seeds at the chosen rate; only a part of the seeds if all would take too much memory or time.
Those of its trials that have no result yet are a cell. How many groups and trials there are does
not depend on the rates chosen, so the total is known from the start.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest

from studies.arms import ARMS, Arm
from studies.runner.cost import equal_cost_epochs, trial_flops
from studies.runner.journal import FINAL
from studies.runner.scale import FIRST_SELECTION_SEED, Scale
from studies.runner.selection import choose_pretraining_rate, choose_rate
from studies.runner.trial import Cell, Trial

Trials = tuple[Trial, ...]

# A rate that is yet to be chosen: no record has such a trial's key.
_UNKNOWN = math.nan
# Bytes: every seed has a split of the data of its own.
_DATA_OF_A_CELL = 4 * 2**30
# FLOPs, some ten minutes of a core: what an interruption may cost.
_WORK_OF_A_CELL = 3e13


@dataclass(frozen=True)
class Group:
    """The trials that a scale wants of one arm, role and depth.

    Args:
        trials: All of them, whether they have a result or not.
        stacks: The groups that hold their pretrained stacks, as `Cell` takes them.
        ready: Whether all that they depend on has a result. Their rates may be NaN until then.
    """

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
    """Compose the cells that can be run now.

    Args:
        scale: The scale.
        records: Its records so far. A trial with a result is never planned again.

    Returns:
        A list of cells, the most urgent first.
    """
    final = _final(records)
    ready = [group for group in groups(scale, final.values()) if group.ready]
    cells = [Cell(missing, g.stacks) for g in ready if (missing := _missing(g.trials, final))]
    return _by_urgency(cells)


def groups(scale: Scale, records: Iterable[dict]) -> list[Group]:
    """Compose all groups of a scale, those too that are not ready.

    Args:
        scale: The scale.
        records: Its records so far.

    Returns:
        A list of groups, arm by arm.
    """
    final = _final(records)
    whole = (group for arm in scale.arms for group in _arm_groups(scale, ARMS[arm], final))
    return [part for group in whole for part in _parts(group, scale)]


def progress(scale: Scale, records: Iterable[dict]) -> Progress:
    """Count what is done and what there is to do, in cells, trials and FLOPs.

    Args:
        scale: The scale.
        records: Its records so far.

    Returns:
        The counts.
    """
    final = _final(records)
    wanted = [group.trials for group in groups(scale, final.values())]
    done = [[t for t in trials if t.key in final] for trials in wanted]
    return Progress(
        cells=len(wanted),
        cells_done=sum(len(d) == len(w) for d, w in zip(done, wanted, strict=True)),
        trials=sum(map(len, wanted)),
        trials_done=sum(map(len, done)),
        flops=sum(flops(scale, trials) for trials in wanted),
        flops_done=sum(flops(scale, trials) for trials in done),
    )


def tally(scale: Scale, records: Collection[dict]) -> Counter:
    """Count the trials of a scale by status, `"missing"` among them.

    Args:
        scale: The scale.
        records: Its records so far.

    Returns:
        A count for each status that occurs.
    """
    status = {record["key"]: record["status"] for record in records}
    wanted = groups(scale, records)
    return Counter(status.get(t.key, "missing") for group in wanted for t in group.trials)


def flops(scale: Scale, trials: Sequence[Trial]) -> int:
    """FLOPs of running trials that differ only in seed and rate, without their stacks."""
    return len(trials) * trial_flops(trials[0], scale.features, scale.classes) if trials else 0


def _arm_groups(scale: Scale, arm: Arm, final: dict[str, dict]) -> Iterator[Group]:
    tuned = stacks = ()
    rate = 0.0
    if arm.pretrained:
        stack = _pretraining(scale, arm)
        smaller = replace(stack, train_size=_selection_train_size(scale))
        tuned = _spread(smaller, _selection_seeds(scale), scale.pretraining_rates)
        rate = _chosen(tuned, final, lambda rs: choose_pretraining_rate(rs, arm.name))
        stacks = _spread(stack, _stack_seeds(scale, arm), (rate,))
        yield Group(tuned)
        yield Group(stacks, ready=not _missing(tuned, final))
    for depth in scale.depths:
        select = _selection(scale, arm, depth, rate)
        chosen = _chosen(
            select, final, lambda rs, depth=depth: choose_rate(rs, arm.name, depth, scale.classes)
        )
        report = _report(scale, arm, select[0], chosen)
        yield Group(select, _stacks(tuned), ready=not _missing(tuned, final))
        yield Group(report, _stacks(stacks), ready=not _missing(stacks + select, final))


def _parts(group: Group, scale: Scale) -> list[Group]:
    """Cut a group between seeds, so that each part fits in a worker's memory, and in minutes."""
    examples = scale.train_size + scale.validation_size + scale.test_size
    of_a_seed = [trial for trial in group.trials if trial.seed == group.trials[0].seed]
    fit = _DATA_OF_A_CELL // (4 * scale.features * examples)
    seeds = max(1, min(fit, int(_WORK_OF_A_CELL / flops(scale, of_a_seed))))
    step = seeds * len(of_a_seed)
    starts = range(0, len(group.trials), step)
    return [replace(group, trials=group.trials[start : start + step]) for start in starts]


def _pretraining(scale: Scale, arm: Arm) -> Trial:
    # The greatest depth serves all others: layers 1..d of a deep stack are a stack of depth d.
    return replace(
        _common(scale, arm),
        role="pretraining",
        depth=max(scale.depths),
        epochs=scale.pretraining_epochs,
    )


def _selection(scale: Scale, arm: Arm, depth: int, pretraining_rate: float) -> Trials:
    trial = replace(
        _common(scale, arm),
        role="selection",
        train_size=_selection_train_size(scale),
        depth=depth,
        epochs=scale.epochs,
        pretraining_epochs=scale.pretraining_epochs if arm.pretrained else 0,
        pretraining_rate=pretraining_rate,
    )
    return _spread(trial, _selection_seeds(scale), scale.learning_rates)


def _report(scale: Scale, arm: Arm, selection: Trial, rate: float) -> Trials:
    sizes = {"train_size": scale.train_size, "test_size": scale.test_size}
    trial = replace(selection, role="report", **sizes)
    trial = replace(trial, extra_epochs=_extra_epochs(scale, arm, trial))
    return _spread(trial, scale.seeds(arm.name, trial.depth), (rate,))


def _common(scale: Scale, arm: Arm) -> Trial:
    """Return what all trials of an arm share.

    The test size stays at its default except in reports: nothing else sees the test set.
    """
    return Trial(
        dataset=scale.dataset,
        train_size=scale.train_size,
        validation_size=scale.validation_size,
        arm=arm.name,
        width=scale.width,
        batch_size=scale.batch_size,
    )


def _extra_epochs(scale: Scale, arm: Arm, trial: Trial) -> int:
    if arm.pretrained_neighbor not in scale.arms:
        return 0
    neighbor = ARMS[arm.pretrained_neighbor]
    return equal_cost_epochs(
        trial, neighbor, scale.pretraining_epochs, scale.features, scale.classes
    )


# Cached: planning composes the same groups after every cell.
@lru_cache(maxsize=4096)
def _spread(trial: Trial, seeds: range, rates: tuple[float, ...]) -> Trials:
    return tuple(replace(trial, seed=s, learning_rate=rate) for s in seeds for rate in rates)


def _selection_train_size(scale: Scale) -> int:
    return scale.selection_train_size or scale.train_size


def _selection_seeds(scale: Scale) -> range:
    return range(FIRST_SELECTION_SEED, FIRST_SELECTION_SEED + scale.selection_seeds)


def _stack_seeds(scale: Scale, arm: Arm) -> range:
    return max((scale.seeds(arm.name, depth) for depth in scale.depths), key=len)


def _chosen(trials: Trials, final: dict[str, dict], choose: Callable[[list[dict]], float]) -> float:
    """Choose on the records of a whole group, and on nothing else that a journal may hold."""
    if _missing(trials, final):
        return _UNKNOWN
    return choose([final[trial.key] for trial in trials])


def _stacks(trials: Trials) -> tuple[Trials, ...]:
    return (trials,) if trials else ()


def _final(records: Iterable[dict]) -> dict[str, dict]:
    return {record["key"]: record for record in records if record["status"] in FINAL}


def _missing(trials: Trials, final: dict[str, dict]) -> Trials:
    return tuple(trial for trial in trials if trial.key not in final)


def _by_urgency(cells: list[Cell]) -> list[Cell]:
    """Put reports first, then selection and pretraining by turns.

    So the first result comes within minutes, and pretraining, which most of a study waits for, is
    never last.
    """
    roles = {role: [c for c in cells if c.trials[0].role == role] for role in _ROLES}
    turns = zip_longest(roles["selection"], roles["pretraining"])
    return roles["report"] + [cell for turn in turns for cell in turn if cell]


_ROLES = ("report", "selection", "pretraining")
