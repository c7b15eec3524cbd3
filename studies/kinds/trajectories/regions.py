"""Whether groups of nets lie in regions of their own in the space of functions.

A net is a point: its outputs on the same images, as one vector. The distance between two nets is
the root of the mean squared difference of their outputs.
"""

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist, squareform

# Penalty of the linear probe, as a share of the mean squared length of the points.
_RIDGE = 1e-3


def metrics(frame: pd.DataFrame, alike: list[str], controls: dict[str, str]) -> pd.DataFrame:
    """The metrics of all nets whose outputs are kept; there are no columns if none are.

    Args:
        frame: Trials in rows, with columns `arm`, `seed`, `arrays` and `curves`.
        alike: Columns in which nets must be alike to be compared.
        controls: The arm that an arm is compared with, for each arm that has one.
    """
    known = frame[has_outputs(frame)]
    parts = [_of_groups(runs, controls) for _, runs in known.groupby(alike, sort=False)]
    return pd.concat(parts).reindex(frame.index) if parts else pd.DataFrame(index=frame.index)


def has_outputs(frame: pd.DataFrame) -> np.ndarray:
    """Which trials have outputs that are kept, of shape `(trials,)`."""
    return np.array([isinstance(arrays, dict) for arrays in frame["arrays"]], dtype=bool)


def last(runs: pd.DataFrame) -> np.ndarray:
    """The outputs of nets after the last epoch, of shape `(nets, outputs)`."""
    return np.stack([_flat(arrays["outputs"][-1]) for arrays in runs["arrays"]])


def at_equal_training(runs: pd.DataFrame) -> np.ndarray:
    """The outputs of nets when all are trained equally well.

    Each net is taken after the first epoch whose training NLL is at most the lowest that every net
    reaches.
    """
    paths = [np.array(curves["train_nll"], float) for curves in runs["curves"]]
    level = max(path.min() for path in paths)
    epochs = [int(np.argmax(path <= level)) for path in paths]
    kept = zip(runs["arrays"], epochs, strict=True)
    return np.stack([_flat(arrays["outputs"][epoch]) for arrays, epoch in kept])


def distances(points: np.ndarray) -> np.ndarray:
    """Distances between all points, of shape `(n, n)`."""
    return squareform(pdist(points)) / np.sqrt(points.shape[1])


def silhouettes(between: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Silhouette of each point, from -1 to 1 (Rousseeuw 1987); NaN if there is only one group.

    With a, the mean distance to the other points of its group, and b, the mean distance to the
    points of the nearest other group, it is (b - a) / max(a, b).

    Args:
        between: Distances between all points, of shape `(n, n)`.
        groups: Group of each point, of shape `(n,)`.
    """
    names = np.unique(groups)
    if len(names) < 2:
        return np.full(len(groups), np.nan)
    own = within(between, groups)
    means = np.array([between[:, groups == name].mean(axis=1) for name in names])
    means[groups == names[:, None]] = np.inf
    nearest = means.min(axis=0)
    larger = np.maximum(nearest, own)
    # By convention, the silhouette of a point that is alone in its group is 0.
    return np.divide(nearest - own, larger, out=np.zeros(len(own)), where=larger > 0)


def within(between: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean distance of each point to the other points of its group; NaN if there are none."""
    same = groups == groups[:, None]
    others = same.sum(axis=1) - 1
    return np.where(others > 0, (between * same).sum(axis=1) / np.maximum(others, 1), np.nan)


def told(points: np.ndarray, groups: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Whether a linear classifier names the group of each point; NaN if there is only one group.

    The classifier is the ridge regression of the groups' indicators on the points of all other
    folds.

    Args:
        points: Points, of shape `(n, features)`.
        groups: Group of each point, of shape `(n,)`.
        folds: Fold of each point, of shape `(n,)`. If a fold has one point of each group, the
            points that are left have no group that is larger than the others.
    """
    names = np.unique(groups)
    found = np.full(len(groups), np.nan)
    if len(names) < 2 or len(np.unique(folds)) < 2:
        return found
    for fold in np.unique(folds):
        known, asked = folds != fold, folds == fold
        scores = _ridge(points[known], groups[known, None] == names, points[asked])
        found[asked] = names[scores.argmax(axis=1)] == groups[asked]
    return found


def principal(points: np.ndarray) -> np.ndarray:
    """The first two principal components of points, of shape `(n, 2)`."""
    centered = points - points.mean(axis=0)
    left, sizes, axes = np.linalg.svd(centered, full_matrices=False)
    k = min(2, len(sizes))
    # The direction of an axis is free: its largest part is positive.
    signs = np.sign(axes[np.arange(k), np.abs(axes[:k]).argmax(axis=1)])
    return np.pad(left[:, :k] * sizes[:k] * signs, ((0, 0), (0, 2 - k)))


def _of_groups(runs: pd.DataFrame, controls: dict[str, str]) -> pd.DataFrame:
    """The metrics of nets that are alike but for their arms and seeds."""
    ends, equal = last(runs), at_equal_training(runs)
    arms, seeds = runs["arm"].to_numpy(), runs["seed"].to_numpy()
    parts = []
    for arm in pd.unique(arms):
        own, both = arms == arm, np.isin(arms, [arm, controls.get(arm)])
        found = {
            "distance": within(distances(ends[own]), arms[own]),
            "equal_distance": within(distances(equal[own]), arms[own]),
            **_of_halves(ends[own], seeds[own]),
        }
        pairs = _of_pairs(ends[both], equal[both], arms[both], seeds[both])
        parts.append(
            pd.DataFrame(found, runs.index[own]).assign(**pairs.loc[seeds[own]].to_dict("list"))
        )
    return pd.concat(parts)


def _of_pairs(
    ends: np.ndarray, equal: np.ndarray, arms: np.ndarray, seeds: np.ndarray
) -> pd.DataFrame:
    """How far an arm and its control are apart, a row per seed: the means of the seed's nets."""
    found = {
        "silhouette": silhouettes(distances(ends), arms),
        "flat_silhouette": silhouettes(distances(principal(ends)), arms),
        "equal_silhouette": silhouettes(distances(equal), arms),
        "told": told(ends, arms, seeds),
        "equal_told": told(equal, arms, seeds),
    }
    return pd.DataFrame(found).groupby(seeds).mean()


def _of_halves(points: np.ndarray, seeds: np.ndarray) -> dict[str, np.ndarray]:
    """The same of the two halves of a group, between which there is no difference."""
    rank = seeds.argsort().argsort()
    half, pair = rank % 2, rank // 2
    return {
        "split_silhouette": silhouettes(distances(points), half),
        "split_told": told(points, half, pair),
    }


def _ridge(points: np.ndarray, targets: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Predictions of a ridge regression, in its dual form: there are fewer points than features."""
    center, mean = points.mean(axis=0), targets.mean(axis=0)
    points, asked = points - center, asked - center
    products = points @ points.T
    # Points that are all alike have products of 0.
    penalty = _RIDGE * (np.trace(products) / len(products) or 1)
    weights = np.linalg.solve(products + penalty * np.eye(len(products)), targets - mean)
    return asked @ points.T @ weights + mean


def _flat(outputs: np.ndarray) -> np.ndarray:
    return outputs.astype("float64").ravel()
