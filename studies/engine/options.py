"""The settings of a scale as options of the command line."""

import argparse
from dataclasses import replace
from typing import Any

from studies.engine.scale import Scale
from studies.engine.study import Study

_GRIDS = {"arms": str, "learning_rates": float, "pretraining_rates": float}
_NUMBERS = ("selection_train_size", "selection_seeds", "report_seeds", "pretraining_epochs")


def add_axes(parser: argparse.ArgumentParser, kind: Any) -> None:
    """Add an option for every field of a kind's trials that can be an axis, and for every grid."""
    group = parser.add_argument_group(
        "axes",
        "Other values for what the scale varies, or several values for what the scale keeps fixed. "
        "The results go to the scale 'custom'.",
    )
    for name, type_ in (_axes(kind) | _GRIDS).items():
        group.add_argument(f"--{name.replace('_', '-')}", nargs="+", type=type_, metavar="X")
    for name in _NUMBERS:
        flag = "--seeds" if name == "report_seeds" else f"--{name.replace('_', '-')}"
        group.add_argument(flag, dest=name, type=int, metavar="N")


def overridden(args: argparse.Namespace, study: Study, scale: Scale) -> Scale:
    """Apply the options of `add_axes` to a scale, which is returned itself if nothing changes.

    A changed scale is a demonstration, in which no arm has more seeds for a headline claim. A value
    that makes no sense raises `ValueError`.
    """
    given = {n: getattr(args, n) for n in (*_GRIDS, *_NUMBERS) if getattr(args, n) is not None}
    changes = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
    if "arms" in changes:
        changes["arms"] = tuple(study.arms.get(name, name) for name in changes["arms"])
    axes = dict(scale.axes)
    for name in _axes(study.kind):
        values = tuple(getattr(args, name) or ())
        if name in axes or len(values) > 1 or values and not hasattr(scale, name):
            axes[name] = values or axes[name]
        elif values:
            changes[name] = values[0]
    changed = replace(scale, axes=axes, **changes)
    if changed == scale:
        return scale
    return replace(changed, demonstration=True, headline_arms=())


def _axes(kind: Any) -> dict[str, type]:
    # The dataset has an option of its own, which looks the data up.
    return {name: type_ for name, type_ in kind.axes.items() if name != "dataset"}
