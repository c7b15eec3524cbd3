"""The rules of a fair comparison, checked on the results that a report is made of.

The plan composes trials by these rules. Here the rules are checked on the results themselves, since
a journal can be edited, merged, or written by another version.
"""

import pandas as pd

from studies.engine.journal import JournalError
from studies.engine.plan import choose_rate
from studies.engine.scale import Place, Scale
from studies.report.frame import at_place, by_place, reported


class UnfairError(JournalError):
    """The results do not compare arms alike, so that no report is made of them."""


def check(frame: pd.DataFrame, scale: Scale) -> None:
    """Raise `UnfairError` for results (from `frame.frame`) that do not compare arms alike.

    No selection trial sees the test set, and no reported seed is a selection seed. A reported place
    is tuned on the rates and seeds of the scale, and reported at the rate that selection chooses.
    An arm that has no rate needs no selection.
    """
    selection, report = frame[frame["role"] == "selection"], reported(frame)
    _check_test_set_is_unseen(frame[frame["role"] != "report"], scale)
    _check_seeds_are_apart(selection, report)
    tuning = by_place(selection, scale)
    for place, runs in by_place(report, scale).items():
        if len(runs) and scale.arm(place[0]).rates:
            _check_grid(tuning[place], scale, place)
            _check_rate(tuning[place], runs, scale, _text_of(place, scale))


def edges(frame: pd.DataFrame, scale: Scale, place: Place) -> dict[str, str]:
    """The chosen rates of a place that lie at an end of their grid.

    Beyond the end, there may be a better rate, so that no claim rests on such a place. A place that
    trains at no rate has no better rate, and no edge.

    Returns:
        `"lowest"` or `"highest"`, by the field of the reported trials: `"learning_rate"`,
        `"pretraining_rate"`.
    """
    rows = at_place(frame, place, scale)
    runs = reported(rows)
    if runs.empty or trains(rows[rows["role"] == "selection"], scale) is False:
        return {}
    found = {
        name: end_of_grid(runs[name].iloc[0], grid) for name, grid in grids(scale, place).items()
    }
    return {name: end for name, end in found.items() if end}


def grids(scale: Scale, place: Place) -> dict[str, tuple[float, ...]]:
    """The rates that the rates of a place are chosen from, by the field of a trial."""
    found = {"learning_rate": scale.rates(place)}
    if scale.pretraining_rates:
        arm = scale.arm(place[0])
        found["pretraining_rate"] = scale.stack_rates(arm.source) if arm.pretrained else ()
    return found


def end_of_grid(rate: float, grid: tuple[float, ...]) -> str:
    """At which end of its grid a rate lies: `"lowest"`, `"highest"` or empty."""
    ends = {min(grid): "lowest", max(grid): "highest"} if len(grid) > 1 else {}
    return ends.get(rate, "")


def trains(selection: pd.DataFrame, scale: Scale) -> bool | None:
    """Whether any rate beats chance in the selection trials of a place; `None` if unknown."""
    metric = scale.kind.judge("selection") if len(selection) else None
    if metric is None or metric.at_chance is None:
        return None
    # Trials at a rate are a whole, of which a single lucky seed is no training.
    errors = selection.groupby("learning_rate")[metric.name].mean()
    chance = metric.at_chance(scale.chance(selection["dataset"].iloc[0]))
    return bool((errors < chance).any())


def _check_test_set_is_unseen(frame: pd.DataFrame, scale: Scale) -> None:
    metrics = {metric.name for metric in scale.kind.metrics if metric.on_test}
    seen = {name for name in metrics if frame[name].notna().any()}
    curves = frame.get("curves", [])
    seen |= {name for c in curves if isinstance(c, dict) for name in c if name in metrics}
    if seen:
        raise UnfairError(
            "A trial that rates are chosen on saw the test set. Expected no test metric in "
            f"selection and pretraining trials. Received: {', '.join(sorted(seen))}"
        )


def _check_seeds_are_apart(selection: pd.DataFrame, report: pd.DataFrame) -> None:
    if both := sorted(set(selection["seed"]) & set(report["seed"])):
        raise UnfairError(
            "Rates were chosen on a seed that is reported. Expected fresh seeds. "
            f"Received: {', '.join(map(str, both))}"
        )


def _check_grid(tuned: pd.DataFrame, scale: Scale, place: Place) -> None:
    where, grid = _text_of(place, scale), scale.rates(place)
    rates = tuned.groupby("seed")["learning_rate"].agg(lambda rates: tuple(sorted(rates)))
    if len(rates) != scale.selection_seeds or set(rates) != {tuple(sorted(grid))}:
        raise UnfairError(
            f"The learning rate of {where} was not chosen on the grid of the scale. "
            f"Expected {scale.selection_seeds} seeds at each of {_listed(grid)}. "
            f"Received: {'; '.join(f'seed {s}: {_listed(r)}' for s, r in rates.items()) or 'none'}"
        )


def _check_rate(tuned: pd.DataFrame, runs: pd.DataFrame, scale: Scale, where: str) -> None:
    chosen = choose_rate(tuned.to_dict("records"), scale)
    if set(runs["learning_rate"]) != {chosen}:
        raise UnfairError(
            f"The reported learning rate of {where} is not the rate that selection chooses. "
            f"Expected {chosen:g}. Received: {_listed(sorted(set(runs['learning_rate'])))}"
        )


def _text_of(place: Place, scale: Scale) -> str:
    values = [f"{axis} {value}" for axis, value in zip(scale.axes, place[1:], strict=True)]
    return " at ".join([place[0], ", ".join(values)]) if values else place[0]


def _listed(rates) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)
