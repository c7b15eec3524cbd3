"""What a comparison can do in its time: sizes are chosen by speed, before there are results."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from studies.engine.plan import flops, groups
from studies.engine.scale import Grid, Scale
from studies.report.statistics import MIN_PAIRS, MIN_VALUES

# Rates of a grid; a grid that is too narrow takes the next of them.
_RATES = tuple(float(f"{digit}e{power}") for power in range(-7, 3) for digit in (1, 3))
# How often a grid is widened at an end, at most: a rate that is farther off trains nothing.
WIDENINGS = 2
_FEWEST_EXAMPLES, _FEWEST_EPOCHS = 1_000, 5
# A share of the time is kept for what a measurement in seconds does not see.
_RESERVE = 0.25
# What may be reduced, in words.
_WORDS = {
    "epochs": "epochs",
    "pretraining_epochs": "epochs of pretraining",
    "train_size": "training examples",
    "selection_seeds": "selection seeds",
    "report_seeds": "seeds",
}


@dataclass(frozen=True)
class Speed:
    """The speed of a worker, in seconds.

    Args:
        flop: Time of a FLOP of training, by the noise of the arm: random numbers take time, too.
        cell: Time of a cell, however small it is.
        program: Time to compile a program, which a worker does once for each layer and each noise.
    """

    flop: dict[str, float]
    cell: float
    program: float = 0.0


def minutes(scale: Scale, speed: Speed, workers: int) -> float:
    """Minutes that a scale takes if each of its grids is widened once."""
    wide = replace(scale, **{name: widened(grid, {max(grid)}) for name, grid in grids(scale)})
    wanted = groups(wide, [])
    work = sum(flops(wide, g.arm, g.trials) * speed.flop[g.arm.noise] for g in wanted)
    layers = sum(len(arm.flops) for arm in scale.arms if arm.objective)
    compiling = (len(speed.flop) + layers) * speed.program
    # Every worker compiles its own programs.
    seconds = (len(wanted) * speed.cell + work) / workers + compiling
    return seconds / (1 - _RESERVE) / 60


def fitted(scale: Scale, speed: Speed, limit: float, workers: int) -> Scale:
    """The largest scale that takes at most `limit` minutes, with remarks on what was reduced."""
    smaller = scale
    for smaller in _reductions(scale):
        if minutes(smaller, speed, workers) <= limit:
            break
    changed = [name for name in _WORDS if getattr(smaller, name) != getattr(scale, name)]
    if not changed:
        return smaller
    listed = ", ".join(
        f"{getattr(smaller, name):,} {_WORDS[name]} instead of {getattr(scale, name):,}"
        for name in changed
    )
    remark = f"To take no more than {limit:g} minutes, the comparison has {listed}."
    if (needed := minutes(smaller, speed, workers)) > limit:
        remark += f" At the speed of this machine, even this takes {needed:.0f} minutes."
    return replace(smaller, remarks=(*scale.remarks, remark))


def shortened(scale: Scale, records: Iterable[dict], limit: float, workers: int) -> Scale:
    """The scale with as many seeds as the time allows that tuning has left of `limit` minutes.

    A wider grid, or other work of the machine, may have made tuning longer than was expected. The
    speed is that of tuning, which has compiled programs, too.
    """
    tuning = [r for r in records if r["role"] != "report" and r.get("seconds")]
    spent = sum(r["seconds"] / r["members"] for r in tuning) / workers
    work = sum(scale.kind.computed(r) for r in tuning if r.get("flops"))
    wanted = [g for g in groups(scale, tuning) if g.trials[0].role == "report"]
    needed = sum(flops(scale, g.arm, g.trials) for g in wanted) * spent / max(work, 1)
    left = 60 * limit - spent
    least = min(MIN_VALUES, scale.report_seeds)
    seeds = max(least, int(scale.report_seeds * left / needed)) if needed > left else math.inf
    if seeds >= scale.report_seeds:
        return scale
    remark = (
        f"Tuning took longer than expected, so that there are {seeds} seeds instead of "
        f"{scale.report_seeds}."
    )
    return replace(scale, report_seeds=seeds, remarks=(*scale.remarks, remark))


def _reductions(scale: Scale) -> Iterator[Scale]:
    """Ever smaller scales: what costs the least certainty is reduced first."""
    yield scale
    while scale.epochs > 2 * _FEWEST_EPOCHS:
        yield (scale := _shorter(scale, 2 * _FEWEST_EPOCHS))
    if scale.selection_seeds > 1:
        yield (scale := replace(scale, selection_seeds=1))
    while scale.train_size >= 2 * _FEWEST_EXAMPLES:
        yield (scale := replace(scale, train_size=scale.train_size // 2))
    while scale.epochs > _FEWEST_EPOCHS:
        yield (scale := _shorter(scale, _FEWEST_EPOCHS))
    for seeds in (MIN_PAIRS, MIN_VALUES):
        if scale.report_seeds > seeds:
            yield (scale := replace(scale, report_seeds=seeds))


def _shorter(scale: Scale, least: int) -> Scale:
    fewer = {
        name: max(least // 2 if name.startswith("pre") else least, 2 * n // 3)
        for name in ("epochs", "pretraining_epochs")
        if (n := getattr(scale, name))
    }
    return replace(scale, **fewer)


def grids(scale: Scale) -> list[tuple[str, tuple[float, ...]]]:
    """The grids of a scale that hold rates, by the name of the field."""
    named = ((name, getattr(scale, name)) for name in ("learning_rates", "pretraining_rates"))
    return [(name, grid) for name, grid in named if grid]


def widened(grid: tuple[float, ...], chosen: set[float]) -> tuple[float, ...]:
    """A grid with one more rate at each end at which a rate was chosen."""
    below = [rate for rate in _RATES if rate < min(grid) * 0.99][-1:]
    above = [rate for rate in _RATES if rate > max(grid) * 1.01][:1]
    return (
        *(below if min(grid) in chosen else []),
        *sorted(grid),
        *(above if max(grid) in chosen else []),
    )


def wider(scale: Scale, records: list[dict], first: Scale) -> Scale:
    """The scale with wider grids, for all arms alike, where the best rate of any lies at an end.

    Args:
        scale: The scale.
        records: Its records, all of selection among them.
        first: The scale as it was at first: a grid is widened twice at each end, at most.
    """
    trials = [g.trials[0] for g in groups(scale, records) if g.trials[0].role == "report"]
    fields = {"learning_rates": "learning_rate", "pretraining_rates": "pretraining_rate"}
    found: dict[str, Grid] = {}
    for name, grid in grids(scale):
        own = sorted(getattr(first, name))
        ends = {
            end
            for end, added in (
                (min(grid), sum(rate < own[0] for rate in grid)),
                (max(grid), sum(rate > own[-1] for rate in grid)),
            )
            if added < WIDENINGS and len(grid) > 1
        }
        found[name] = widened(grid, ends & {getattr(t, fields[name]) for t in trials})
    return replace(scale, **found)
