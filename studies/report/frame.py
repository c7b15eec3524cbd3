"""The results of a scale as a DataFrame, ready for tables and figures."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from studies.engine import plan
from studies.engine.journal import FINAL, load_arrays
from studies.engine.scale import Place, Scale
from studies.engine.trial import UNHASHED
from studies.kinds.kind import Metric


def frame(records: list[dict], scale: Scale, folder: Path | None = None) -> pd.DataFrame:
    """Make the DataFrame that tables and figures are drawn from: a row per trial with a result.

    It has a column per field and metric; a diverged run has what its metrics count it as. Trials of
    selection from which a pretraining rate was chosen, and which have another than the chosen, have
    the role `"search"`. A trial that two places share has a row for each. Column `chosen` says
    whether the trial's learning rate was chosen for its place; `arrays` holds a trial's arrays by
    name, read from `folder`, or `None`. Trials that failed or that the scale does
    not ask for are left out: a journal keeps the records of an earlier version of the study.
    Without any row, it raises `ValueError`.
    """
    groups = plan.groups(scale, records)
    held = {r["key"]: r for r in records if r["status"] in FINAL}
    wanted = dict.fromkeys(trial for group in groups for trial in group.trials)
    # A record may be older than a field of its trial, and belong to a place of another rule.
    results = [
        asdict(trial) | held[trial.key] | {name: getattr(trial, name) for name in UNHASHED}
        for trial in wanted
        if trial.key in held
    ]
    # Sums depend on the order of their terms, but a report must not depend on the records' order.
    order = ("role", "arm", *scale.axes, "learning_rate", "seed", "key")
    results.sort(key=lambda r: [r[field] for field in order])
    if not results:
        raise ValueError(
            "Expected at least one finished trial of the scale. "
            f"Received: {len(records)} records of other trials, or of trials that failed"
        )
    table = pd.DataFrame(results)
    for metric in scale.kind.metrics:
        table[metric.name] = _values(metric, results, scale)
    arrays = load_arrays(folder) if folder else {}
    rates = _rates(groups, scale)
    unknown = _Rates(math.nan, math.nan)
    chosen = [rates.get(_place(r, scale), unknown) for r in results]
    others = [
        r["role"] == "selection" and r["pretraining_rate"] != rate.pretraining_rate
        for r, rate in zip(results, chosen, strict=True)
    ]
    table = table.assign(
        role=table["role"].mask(others, "search"),
        chosen=[
            r["role"] in ("selection", "report") and not other and r["learning_rate"] == rate.rate
            for r, other, rate in zip(results, others, chosen, strict=True)
        ],
        arrays=[arrays.get(r["key"]) for r in results],
    )
    return scale.kind.derive(table, scale)


def reported(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of report trials."""
    return table[table["role"] == "report"]


def at_place(table: pd.DataFrame, place: Place, scale: Scale) -> pd.DataFrame:
    """The rows of a place."""
    columns = zip(("arm", *scale.axes), place, strict=True)
    return table[np.logical_and.reduce([table[name] == value for name, value in columns])]


def failed(runs: pd.DataFrame, metric: Metric, scale: Scale) -> pd.Series:
    """Which runs have learned nothing: they diverged, or end at the chance of their dataset."""
    diverged = runs["status"] == "diverged"
    if metric.at_chance is None:
        return diverged
    chance = {d: metric.at_chance(scale.chance(d)) for d in runs["dataset"].unique()}
    return diverged | (runs[metric.name] > runs["dataset"].map(chance).astype(float))


def origins(table: pd.DataFrame) -> dict[str, list[str]]:
    """Where and when the results were made: versions, commits, processors, data and days.

    Of one name there should be one value, wherever the results are made.
    """
    found: dict[str, set[str]] = {}
    days: set[str] = set()
    for _, record in table.iterrows():
        held = record.get("provenance")
        if not isinstance(held, dict):
            continue
        days |= {held["date"]} if "date" in held else set()
        for name, value in _alike(held, record["dataset"]):
            found.setdefault(name, set()).add(str(value))
    if days:
        found["date"] = {" to ".join(dict.fromkeys([min(days), max(days)]))}
    return {name: sorted(values) for name, values in sorted(found.items())}


def _alike(provenance: dict, dataset: str) -> Iterator[tuple[str, object]]:
    if commit := provenance.get("commit"):
        # The worker marks a commit whose files were changed; there is no commit of such a name.
        clean, changed, _ = commit.partition("-dirty")
        yield "commit", clean + " with changes that were not committed" * bool(changed)
    if processor := provenance.get("processor"):
        accelerator = provenance.get("accelerator")
        yield "processor", f"{processor} with {accelerator}" if accelerator else processor
    if digest := provenance.get("data"):
        yield f"test set of {dataset}", digest
    yield from (provenance.get("versions") or {}).items()


def by_place(table: pd.DataFrame, scale: Scale) -> dict[tuple, pd.DataFrame]:
    """The rows of every place of a scale, in order; a place without rows has an empty table."""
    found = dict(list(table.groupby(["arm", *scale.axes], sort=False)))
    return {place: found.get(place, table[:0]) for place in scale.places}


def _values(metric, results: list[dict], scale: Scale) -> pd.Series:
    """A metric of every trial; NaN where the metric says nothing."""
    values = []
    for record in results:
        value = record.get(metric.name)
        if record["status"] == "diverged" and record["role"] in metric.roles:
            counted = metric.diverged(record, scale)
            value = value if counted is None else counted
        values.append(math.nan if value is None else value)
    return pd.Series(values, dtype=float)


class _Rates(NamedTuple):
    """The rates that are chosen for a place; NaN for a rate that is yet to be chosen."""

    rate: float
    pretraining_rate: float


def _place(values: dict, scale: Scale) -> tuple:
    return values["arm"], *(values[axis] for axis in scale.axes)


def _rates(groups: list[plan.Group], scale: Scale) -> dict[tuple, _Rates]:
    reports = [group.trials[0] for group in groups if group.trials[0].role == "report"]
    return {_place(vars(t), scale): _Rates(t.learning_rate, t.pretraining_rate) for t in reports}
