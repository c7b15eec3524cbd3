"""How trajectories are shown: maps of the space of functions, and how far apart groups are."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from studies.engine.scale import Scale
from studies.kinds.classification import figures as draw
from studies.kinds.classification.show import ClassificationShow
from studies.kinds.trajectories import WATCHED
from studies.kinds.trajectories.regions import distances, has_outputs, principal, within
from studies.report import figures
from studies.report.figures import figure
from studies.report.frame import reported
from studies.report.show import Show
from studies.report.statistics import mean_interval

# Epochs whose outputs are drawn, of which there are more at first: t-SNE takes long.
_EPOCHS = 10
# Neighbors that Isomap connects, and that t-SNE keeps near.
_NEIGHBORS = 10
_PERPLEXITY = 30
_SILHOUETTES = {
    "silhouette": "last epoch",
    "flat_silhouette": "last epoch,\ntwo dimensions",
    "equal_silhouette": "equal\ntraining NLL",
    "split_silhouette": "halves of\nthe group",
}


def _tsne(points: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    return _placed(TSNE(init="pca", perplexity=perplexity, random_state=0), points)


def _isomap(points: np.ndarray) -> np.ndarray:
    from sklearn.manifold import Isomap

    neighbors = min(_NEIGHBORS, len(points) - 1)
    return _placed(Isomap(n_neighbors=neighbors, eigen_solver="dense"), points)


def _placed(estimator: Any, points: np.ndarray) -> np.ndarray:
    """Points in two dimensions by an estimator of scikit-learn, the same in every drawing."""
    # This package comes with scikit-learn.
    from threadpoolctl import threadpool_limits

    # The order in which threads add numbers up would differ from drawing to drawing.
    with threadpool_limits(1), warnings.catch_warnings():
        # Isomap connects groups that are far apart, and says so.
        warnings.simplefilter("ignore")
        return estimator.fit_transform(points)


_MAPS = {"PCA": principal, "t-SNE": _tsne, "Isomap": _isomap}


@figure(
    "Paths of nets in the space of functions",
    f"A net is a point: its outputs on {WATCHED} test images, which are drawn in two dimensions by "
    "principal components, by t-SNE and by Isomap of scikit-learn. Above, a line runs from the "
    "outputs after the first epoch to the outputs after the last epoch (marker). Below, the maps "
    "are of the last epoch alone. Distances between groups mean little in a map of t-SNE, whose "
    "details also depend on the version of scikit-learn. No claim rests on t-SNE or Isomap.",
)
def paths(frame: pd.DataFrame, scale: Scale) -> Drawing:
    combinations, runs = scale.combinations, _watched(frame)
    rows = [(values, *drawn) for values in combinations for drawn in _DRAWN.items()]
    size = (9.5, 3 * len(rows) + 0.5 + 0.17 * len(scale.arms))
    drawing = Drawing(figsize=size, layout="constrained")
    panels = drawing.subplots(len(rows), len(_MAPS), squeeze=False)
    for row, (values, words, epochs) in zip(panels, rows, strict=True):
        here = figures.at(runs, values)
        for ax, (name, place) in zip(row, _MAPS.items(), strict=True):
            ax.set(title=name, xticks=[], yticks=[])
            _map(ax, here, scale, place, epochs)
        where = figures.combination_label(values, scale)
        row[0].set_ylabel("\n".join(filter(None, [where, words])))
    _legend(drawing, scale)
    return drawing


@figure(
    "Silhouettes of nets in the space of functions",
    "The silhouette of a net is near 1 if the net is far nearer to the nets of its group than to "
    "the group of the control, 0 between the groups, and negative if it is nearer to the control's "
    "group. A dot is the mean of a net and of the control's net of the same seed; a large "
    "marker is the mean of all nets of both groups. The last column is what chance gives: each "
    "group is split into two halves.",
)
def separation(frame: pd.DataFrame, scale: Scale) -> Drawing:
    combinations, looks = scale.combinations, figures.looks(scale)
    size = (max(4 * len(combinations), 6.4), 3.6 + 0.17 * len(scale.arms))
    drawing = Drawing(figsize=size, layout="constrained")
    (panels,) = drawing.subplots(1, len(combinations), sharey=True, squeeze=False)
    for ax, values in zip(panels, combinations, strict=True):
        here = figures.at(reported(frame), values)
        for i, arm in enumerate(scale.arms):
            shift = (i + 0.5) / len(scale.arms) - 0.5
            _column(ax, here[here["arm"] == arm.name], looks[arm.name], 0.7 * shift)
        ax.axhline(0, color="black", linewidth=1)
        ax.set_xticks(range(len(_SILHOUETTES)), _SILHOUETTES.values())
        ax.set_title(figures.combination_label(values, scale))
    panels[0].set_ylabel("silhouette")
    _legend(drawing, scale, linestyle="")
    return drawing


@figure(
    "Distance between nets of a group against epoch",
    "The distance between two nets is the root of the mean squared difference of their outputs, "
    "which are probabilities, in percent. A line is the mean over all pairs of nets of a group: "
    "how large a region the group takes.",
)
def volume(frame: pd.DataFrame, scale: Scale) -> Drawing:
    drawing, panels = figures.grid(scale, "epoch", "mean distance (%)")
    for place, runs in figures.filled(_watched(frame), scale):
        if len(runs) > 1:
            path = 100 * _spread(runs)
            look = figures.looks(scale)[place[0]]
            epochs = np.arange(1, len(path) + 1)
            panels[place].plot(epochs, path, markevery=[len(path) - 1], **look)
    figures.shared(panels).xaxis.set_major_locator(MaxNLocator(integer=True))
    return drawing


class TrajectoriesShow(Show):
    """Maps, silhouettes, distances and the linear probe, with the test error beside them."""

    metrics = (
        *("test_error", "silhouette", "flat_silhouette", "equal_silhouette", "split_silhouette"),
        *("told", "equal_told", "split_told", "distance", "equal_distance"),
    )
    summarized = ("test_error", "silhouette", "flat_silhouette", "told", "distance")
    columns = (
        *Show.columns,
        "*silhouette*: near 1 if the nets of an arm and of its control are far nearer to their own "
        "group than to the other group; in two dimensions, of two principal components.",
        "*at equal training NLL*: each net after the first epoch whose training NLL is at most the "
        "lowest that every net reaches.",
        "*halves of a group*: what chance gives, between nets with even and with odd seeds.",
        "*linear probe*: tells the nets of an arm from the nets of its control by their outputs, "
        "trained on the nets of all other seeds; guessing gives 50 %.",
        "A – stands where an arm has no control.",
    )
    training = ClassificationShow.training
    figures = (
        paths,
        separation,
        volume,
        draw.error_over_seeds,
        draw.nll_trajectories,
        draw.rate_sensitivity,
    )

    def caveats(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        return [
            *super().caveats(table, scale),
            "The silhouettes of two nets of a group depend on the same other nets, so that their "
            "intervals are too narrow. The silhouettes of halves of a group say how far chance "
            "goes.",
            "Groups differ in their learning rate, too, which is chosen for each arm.",
            f"A net is known by its outputs on {WATCHED} test images, which no rate is chosen on.",
        ]


def _watched(frame: pd.DataFrame) -> pd.DataFrame:
    """The reported runs whose outputs are kept."""
    runs = reported(frame)
    return runs[has_outputs(runs)]


def _map(ax: Axes, runs: pd.DataFrame, scale: Scale, place: Callable, epochs: Callable) -> None:
    """The paths of nets in two dimensions, or why there are none."""
    if len(runs) < 3:
        return
    drawn = [arrays["outputs"][epochs(len(arrays["outputs"]))] for arrays in runs["arrays"]]
    points = [each.reshape(len(each), -1) for each in drawn]
    try:
        placed = place(np.concatenate(points).astype("float64"))
    except ImportError:
        text = "This map needs scikit-learn:\npip install scikit-learn,\nthen report again."
        ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
        return
    looks, ends = figures.looks(scale), np.cumsum([len(each) for each in points])
    for arm, path in zip(runs["arm"], np.split(placed, ends[:-1]), strict=True):
        look = looks[arm]
        ax.plot(*path.T, color=look["color"], linewidth=0.6, alpha=0.5)
        end = {name: look[name] for name in ("color", "marker", "markerfacecolor")}
        ax.plot(*path[-1], **end, markersize=4, zorder=3)


def _epochs(n: int) -> np.ndarray:
    """The indices of some of n epochs, the first and the last among them, more of them early."""
    return np.unique(np.rint(np.geomspace(1, n, min(n, _EPOCHS))).astype(int)) - 1


def _last_epoch(n: int) -> np.ndarray:
    return np.array([n - 1])


_DRAWN = {"paths from the first epoch": _epochs, "last epoch": _last_epoch}


def _column(ax: Axes, runs: pd.DataFrame, look: dict, shift: float) -> None:
    for x, name in enumerate(_SILHOUETTES):
        values = runs[name].dropna()
        jitter = np.linspace(-0.06, 0.06, len(values))
        ax.plot(x + shift + jitter, values, ".", color=look["color"], alpha=0.35, markersize=4)
        found = mean_interval(values)
        end = {name: look[name] for name in ("color", "marker", "markerfacecolor")}
        ax.plot(x + shift, found.estimate, **end, zorder=3)


def _spread(runs: pd.DataFrame) -> np.ndarray:
    """Mean distance between nets after each epoch."""
    outputs = np.stack([arrays["outputs"] for arrays in runs["arrays"]]).astype("float64")
    group = np.zeros(len(outputs))
    by_epoch = outputs.reshape(*outputs.shape[:2], -1).swapaxes(0, 1)
    return np.array([within(distances(points), group).mean() for points in by_epoch])


def _legend(drawing: Drawing, scale: Scale, **look) -> None:
    handles = [Line2D([], [], **each | look) for each in figures.looks(scale).values()]
    drawing.legend(handles=handles, loc="outside lower center")
