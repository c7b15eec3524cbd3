"""The axes of a scale as options of the command line, made from its fields."""

import argparse
import dataclasses
from typing import get_args, get_origin

from studies.runner.scale import Scale

# These follow from the dataset, or from the run.
_FIXED = ("dataset", "features", "classes", "demonstration")
# With other axes no claim is judged, so that none needs more seeds than the others.
_HEADLINE = ("headline_arms", "headline_depths", "headline_seeds")
_FLAGS = {"report_seeds": "--seeds"}
_AXES = [field for field in dataclasses.fields(Scale) if field.name not in _FIXED + _HEADLINE]


def add_axes(parser: argparse.ArgumentParser) -> None:
    """Add an option for every axis of a scale."""
    group = parser.add_argument_group(
        "axes", "Other values for axes of the scale; the results go to the scale 'custom'."
    )
    for axis in _AXES:
        kinds = get_args(axis.type)
        many = get_origin(axis.type) is tuple
        group.add_argument(
            _FLAGS.get(axis.name, f"--{axis.name.replace('_', '-')}"),
            dest=axis.name,
            nargs="+" if many else None,
            type=kinds[0] if kinds else axis.type,
            metavar="X" if many else "N",
        )


def overrides(args: argparse.Namespace, scale: Scale) -> dict[str, object]:
    """Find the axes that the command line gives other values.

    Args:
        args: Arguments, parsed by a parser with the options of `add_axes`.
        scale: The scale.

    Returns:
        The new values by the axis's name, the headline's seeds taken away if there are any.
    """
    given = {axis.name: getattr(args, axis.name) for axis in _AXES}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None}
    changed = {name: value for name, value in given.items() if value != getattr(scale, name)}
    return changed | ({"headline_arms": ()} if changed and scale.headline_arms else {})
