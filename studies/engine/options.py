"""The settings of a scale as options of the command line."""

import argparse
from dataclasses import replace
from typing import Any

from studies.engine.scale import Scale
from studies.engine.study import Study

_GRIDS = {
    "arms": str,
    "learning_rates": float,
    "pretraining_rates": float,
}
_NUMBERS = {
    "selection_train_size": int,
    "selection_seeds": int,
    "report_seeds": int,
    "pretraining_epochs": int,
}
_FLAGS = {"report_seeds": "--seeds"}
# The dataset has an option of its own, which looks the data up.
_ELSEWHERE = ("dataset",)


def add_axes(parser: argparse.ArgumentParser, kind: Any) -> None:
    """Add an option for every field of a kind's trials that can be an axis, and for every grid.

    Args:
        parser: The parser.
        kind: The kind, a `studies.kinds.kind.Kind`.
    """
    group = parser.add_argument_group(
        "axes",
        "Other values for what the scale varies, or several values for what it keeps fixed; the "
        "results go to the scale 'custom'.",
    )
    for name, kind_of_value in (_axes(kind) | _GRIDS | _NUMBERS).items():
        many = name not in _NUMBERS
        group.add_argument(
            _FLAGS.get(name, f"--{name.replace('_', '-')}"),
            dest=name,
            nargs="+" if many else None,
            type=kind_of_value,
            metavar="X" if many else "N",
        )


def overridden(args: argparse.Namespace, study: Study, scale: Scale) -> Scale:
    """Apply the options of `add_axes` to a scale.

    Args:
        args: Arguments, parsed by a parser with the options.
        study: The study.
        scale: Its scale.

    Returns:
        The scale itself if nothing is changed; or a demonstration with the new values, in which no
        arm has more seeds for a headline claim.

    Raises:
        ValueError: If a value makes no sense.
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
    return {name: type_ for name, type_ in kind.axes.items() if name not in _ELSEWHERE}
