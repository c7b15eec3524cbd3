"""How classifiers are trained whose outputs are kept: as all classifiers are, and watched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from pretrain import Population
from studies.engine.trial import Cell, Trial
from studies.kinds.classification import train as classification


def train(cell: Cell, cache: Path, load: Callable[[Trial], Any]) -> list[dict]:
    """Train the trials of a cell: see `studies.kinds.kind.Kind.train`.

    The array `outputs` of a reported trial holds the probabilities of the classes after each epoch,
    of shape `(epochs, images, classes)`.
    """
    first, kept = cell.trials[0], []
    if not first.watched:
        return classification.train(cell, cache, load)
    # All seeds have the same test set.
    images = load(first).test[0][: first.watched]

    def watch(population: Population, epoch: int) -> dict:
        # There is no training NLL before the first epoch.
        if epoch > 0:
            kept.append(_stored(softmax(population.predict(images), axis=-1)))
        return {}

    results = classification.train(cell, cache, load, watch)
    for result, outputs in zip(results, np.stack(kept, axis=1), strict=True):
        if result["status"] == "done":
            result["arrays"] = {"outputs": outputs}
    return results


def _stored(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities to three decimals, which half precision has, and which take little space."""
    return np.round(probabilities, 3).astype("float16")
