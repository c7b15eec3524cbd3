"""What the paths of training NLL and validation NLL, epoch by epoch, say of a run.

Two nets differ in how well they are trained and in how well they generalize at that. So their
validation NLLs are compared at one training NLL (Erhan et al. 2010, figure 7).
"""

import math

import numpy as np
import pandas as pd

from studies.kinds.classification import LEVELS, at_training_nll


def metrics(frame: pd.DataFrame) -> pd.DataFrame:
    """Metrics of the paths of all runs, by name; NaN for a run without paths."""
    paths = [_paths(curves) for curves in frame.get("curves", [None] * len(frame))]
    found = {"final_train_nll": [training[-1] for training, _ in paths]}
    found |= {at_training_nll(level): [_at(level, *path) for path in paths] for level in LEVELS}
    return pd.DataFrame(found, index=frame.index, dtype=float)


def _paths(curves: dict | None) -> tuple[np.ndarray, np.ndarray]:
    """Training NLL and validation NLL by epoch; NaN if a record holds no such curves."""
    known = curves if isinstance(curves, dict) and "train_nll" in curves else {}
    names = ("train_nll", "validation_nll")
    return tuple(np.array(known.get(name, [math.nan]), dtype=float) for name in names)


def _at(level: float, training: np.ndarray, validation: np.ndarray) -> float:
    """Validation NLL where the training NLL first falls to a level; NaN if it never does.

    A training NLL is the mean over the updates of an epoch. Beside it stands the mean of the
    validation NLLs before and after the epoch, so that a net that learns fast has no advantage.
    The first epoch has none before. Between two epochs, the path is a line against the logarithm
    of the training NLL.
    """
    training, validation = training[1:], (validation[1:] + validation[:-1]) / 2
    reached = np.flatnonzero(training <= level)
    if not len(reached) or not reached[0]:
        return math.nan
    # From the lower training NLL to the higher, which is that of the epoch before.
    step = [reached[0], reached[0] - 1]
    # The training NLL of a net that knows its images by heart rounds to 0.
    logarithms = np.log(np.maximum(training[step], np.finfo(float).tiny))
    return float(np.interp(math.log(level), logarithms, validation[step]))
