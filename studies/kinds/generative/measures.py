"""How samples compare with real images, by the features of a classifier."""

import numpy as np
from scipy.spatial.distance import cdist

# Neighbors that the region of a set of images is made of (Kynkaanniemi et al. 2019).
_NEIGHBORS = 3
# Images of each set for what takes the distances of all pairs.
_PAIRS = 2_000


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance of the normal densities of two sets of features (Heusel et al. 2017).

    Args:
        a, b: Features, of shape (n, features).
    """
    mean = a.mean(axis=0) - b.mean(axis=0)
    first, second = (np.cov(each.T) for each in (a, b))
    values, axes = np.linalg.eigh(first)
    root = axes * np.sqrt(np.maximum(values, 0))
    # The roots of these eigenvalues add up to the trace of the root of the product.
    common = np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ second @ root), 0)).sum()
    return float(mean @ mean + np.trace(first) + np.trace(second) - 2 * common)


def inside(of: np.ndarray, region: np.ndarray) -> float:
    """The share of features that lie in the region of others.

    The region is a ball around each feature that reaches to its third neighbor. Of samples in the
    region of real images, the share is the precision; of real images in the region of samples, the
    recall.
    """
    of, region = of[:_PAIRS], region[:_PAIRS]
    reach = np.sort(cdist(region, region), axis=1)[:, _NEIGHBORS]
    return float((cdist(of, region) <= reach).any(axis=1).mean())


def covered(predicted: np.ndarray, classes: int, share: float) -> int:
    """The number of classes that at least a share of the samples is of."""
    return int((np.bincount(predicted, minlength=classes) >= share * len(predicted)).sum())


def nearest(of: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the nearest of other images, and which images these are."""
    distances = cdist(of, among)
    return distances.min(axis=1), distances.argmin(axis=1)
