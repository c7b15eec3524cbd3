"""The gap between training and validation bound where two models are trained equally well.

A model with more latent variables may still be learning at its last epoch, so that a gap at the
last epoch compares a model that is done with a model that is not.
"""

import numpy as np
import pandas as pd

from studies.engine.scale import Scale
from studies.report.frame import reported
from studies.report.statistics import Interval, mean_interval


def gaps_at_equal_bound(frame: pd.DataFrame, scale: Scale, arm: str) -> dict[int, Interval]:
    """How much wider the gap of the largest model is than the gap of each smaller model.

    The two models of a seed are compared at the lower of their two last training bounds, each at
    the epoch in which it reached that bound; between two epochs, curves are lines. The gap is the
    training bound minus the validation bound, in nats.

    Args:
        frame: The results, from `studies.report.frame.frame`.
        scale: The scale, whose axis `latent` has several values.
        arm: Name of the arm.

    Returns:
        The mean difference over seeds with its interval, by the latent variables of the smaller.
    """
    runs = reported(frame)
    runs = runs[(runs["arm"] == arm) & (runs["status"] == "done")]
    curves = {
        latent: each.set_index("seed")["curves"].to_dict()
        for latent, each in runs.groupby("latent")
    }
    if not curves:
        return {}
    *smaller, largest = sorted(curves)
    return {
        latent: mean_interval(
            [
                _wider(curves[largest][seed], curves[latent][seed])
                for seed in sorted(set(curves[largest]) & set(curves[latent]))
            ]
        )
        for latent in smaller
    }


def _wider(large: dict, small: dict) -> float:
    bound = min(np.max(curves["train_bound"]) for curves in (large, small))
    return _gap(large, bound) - _gap(small, bound)


def _gap(curves: dict, bound: float) -> float:
    """The gap at the first time that the training bound is reached."""
    training, validation = (np.array(curves[f"{name}_bound"]) for name in ("train", "validation"))
    reached = np.maximum.accumulate(training)
    epoch = np.interp(bound, reached, np.arange(len(reached)))
    return bound - np.interp(epoch, np.arange(len(validation)), validation)
