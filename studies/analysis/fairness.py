"""The rules of a fair comparison, checked on what a report is made of.

The plan composes trials by these rules; here they are checked on the results themselves, since a
journal can be edited, merged, or written by another version.
"""

import pandas as pd

from studies.runner.journal import JournalError
from studies.runner.scale import Scale
from studies.runner.selection import choose_rate, metric

_CHOSEN_BY = ["role", "status", "arm", "depth", "learning_rate"]


class UnfairError(JournalError):
    """The results do not compare arms alike, so that there is no report on them."""


def check(frame: pd.DataFrame, scale: Scale) -> None:
    """Refuse results that do not compare arms alike.

    Args:
        frame: Results, from `records.frame`.
        scale: The scale they belong to.

    Raises:
        UnfairError: If a selection trial saw the test set, a reported seed was a selection seed, a
            reported arm and depth was tuned on other rates or seeds than the scale's, or a reported
            rate is not the one that selection chooses.
    """
    selection, report = (frame[frame["role"] == role] for role in ("selection", "report"))
    _check_test_set_is_unseen(frame[frame["role"] != "report"])
    _check_seeds_are_apart(selection, report)
    tuning = dict(list(selection.groupby(["arm", "depth"])))
    for (arm, depth), runs in report.groupby(["arm", "depth"], sort=False):
        tuned = tuning.get((arm, depth), selection[:0])
        _check_grid(tuned, scale, f"{arm} at depth {depth}")
        _check_rate(tuned, runs, scale, arm, depth)


def _check_test_set_is_unseen(frame: pd.DataFrame) -> None:
    metrics = [name for name in frame if "test_" in name and name != "test_size"]
    seen = [name for name in metrics if frame[name].notna().any()]
    curves = frame.get("curves", [])
    seen += {name for c in curves if isinstance(c, dict) for name in c if name.startswith("test_")}
    if seen:
        raise UnfairError(
            "A trial that rates are chosen on saw the test set. Expected no test metric in "
            f"selection and pretraining trials. Received: {', '.join(sorted(set(seen)))}"
        )


def _check_seeds_are_apart(selection: pd.DataFrame, report: pd.DataFrame) -> None:
    if both := sorted(set(selection["seed"]) & set(report["seed"])):
        raise UnfairError(
            "A seed is reported that rates were chosen on. Expected fresh seeds. "
            f"Received: {', '.join(map(str, both))}"
        )


def _check_grid(tuned: pd.DataFrame, scale: Scale, where: str) -> None:
    rates = tuned.groupby("seed")["learning_rate"].agg(lambda rates: tuple(sorted(rates)))
    if len(rates) != scale.selection_seeds or set(rates) != {tuple(sorted(scale.learning_rates))}:
        raise UnfairError(
            f"The learning rate of {where} was chosen on another grid than that of the scale. "
            f"Expected {scale.selection_seeds} seeds at each of {_text(scale.learning_rates)}. "
            f"Received: {'; '.join(f'seed {s}: {_text(r)}' for s, r in rates.items()) or 'none'}"
        )


def _check_rate(
    tuned: pd.DataFrame, runs: pd.DataFrame, scale: Scale, arm: str, depth: int
) -> None:
    judged = tuned[[*_CHOSEN_BY, metric(arm, "selection")]].to_dict("records")
    chosen = choose_rate(judged, arm, depth, scale.classes)
    if set(runs["learning_rate"]) != {chosen}:
        raise UnfairError(
            f"The reported learning rate of {arm} at depth {depth} is not the one that selection "
            f"chooses. Expected {chosen:g}. "
            f"Received: {_text(sorted(set(runs['learning_rate'])))}"
        )


def _text(rates) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)
