"""How results of generative models are shown: numbers of samples, and the samples themselves."""

from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from studies.engine.scale import Scale
from studies.kinds.generative import COVERED
from studies.report import figures
from studies.report.figures import figure, told
from studies.report.frame import reported
from studies.report.show import Show


def _pictures(frame: pd.DataFrame, scale: Scale, *names: str) -> dict[tuple, list[np.ndarray]]:
    """Arrays of the first seed of every place that has all of them."""
    found = {}
    for place, rows in figures.filled(reported(frame), scale):
        held = [arrays for arrays in rows["arrays"] if arrays and set(names) <= set(arrays)]
        if held:
            found[place] = [held[0][name] for name in names]
    return found


def _mosaics(found: dict[tuple, np.ndarray], scale: Scale, columns: int, height: float) -> Drawing:
    rows = -(-max(1, len(found)) // columns)
    size = (7.5, (height + 0.5) * rows + 0.2)
    drawing = Drawing(figsize=size, layout="constrained")
    panels = drawing.subplots(rows, columns, squeeze=False).ravel()
    for ax, (place, images) in zip(panels, found.items(), strict=False):
        figures.mosaic(ax, images)
        # Some 90 letters fit beside each other.
        ax.set_title(fill(figures.place_label(place, scale), 90 // columns))
    for ax in panels[len(found) :]:
        ax.set_visible(False)
    return drawing


@figure(
    "Samples",
    "Images that the models make of random draws, of the first seed. The panel of training images "
    "shows images of the dataset.",
    seeds=1,
)
def samples(frame: pd.DataFrame, scale: Scale) -> Drawing:
    found = _pictures(frame, scale, "samples")
    shown = {place: each.reshape(10, 10, *each.shape[1:]) for place, (each,) in found.items()}
    return _mosaics(shown, scale, 4, 1.9)


@figure(
    "Samples and their nearest training images",
    "Upper rows: samples. Below each sample: the training image at the least distance. A model "
    "that remembers its training images makes pairs of equal images. Of the first seed.",
    seeds=1,
)
def neighbors(frame: pd.DataFrame, scale: Scale) -> Drawing:
    found = _pictures(frame, scale, "samples", "neighbors")
    shown = {place: np.stack([each[:12] for each in pair]) for place, pair in found.items()}
    return _mosaics(shown, scale, 2, 0.7)


@figure(
    "Interpolations",
    "Images of latent variables on the way from one random draw (left) to another (right), of the "
    "first seed.",
    seeds=1,
)
def interpolations(frame: pd.DataFrame, scale: Scale) -> Drawing:
    found = {p: each for p, (each,) in _pictures(frame, scale, "interpolations").items()}
    return _mosaics(found, scale, 2, 2.5)


@figure(
    "Precision and recall",
    "A marker is a seed. Precision is the share of samples in the region of test images, and "
    "recall the share of test images in the region of samples.",
    metric="recall",
)
def precision_recall(frame: pd.DataFrame, scale: Scale) -> Drawing:
    styles, panels, drawing = figures.looks(scale), *_panels(scale, 3.6)
    for ax, values in panels:
        for name, look in styles.items():
            runs = figures.at(reported(frame), {"arm": name} | values)
            points = look | {"linestyle": "", "alpha": 0.7}
            ax.plot(100 * runs["precision"], 100 * runs["recall"], **points)
        ax.set(xlabel="precision (%)", ylabel="recall (%)", xlim=(-3, 103), ylim=(-3, 103))
    handles = [Line2D([], [], **look | {"linestyle": ""}) for look in styles.values()]
    drawing.legend(handles=handles, loc="outside lower center", ncols=2)
    return drawing


@figure(
    "Frechet distance of every seed",
    "A marker is a seed, and the bar is the median. Lower is better.",
    column="frechet",
    metric="frechet",
)
def frechet_over_seeds(frame: pd.DataFrame, scale: Scale) -> Drawing:
    styles, panels, drawing = figures.looks(scale), *_panels(scale, 0.8 + 0.4 * len(scale.arms))
    for ax, values in panels:
        for y, (name, look) in enumerate(styles.items()):
            found = figures.at(reported(frame), {"arm": name} | values)["frechet"].dropna()
            shift = np.linspace(-0.25, 0.25, max(len(found), 1))[: len(found)]
            ax.plot(found, y + shift, **look | {"linestyle": "", "alpha": 0.6})
            ax.plot([found.median()] * 2, [y - 0.35, y + 0.35], color="black", linewidth=1)
        ax.set_yticks(range(len(styles)), [look["label"] for look in styles.values()])
        ax.set_ylim(len(styles) - 0.5, -0.5)
        ax.set_xlabel("Frechet distance")
        if reported(frame)["frechet"].notna().any():
            ax.set_xscale("log")
            figures.ticks(ax.xaxis, LogLocator(subs=(1, 3)))
    return drawing


def _panels(scale: Scale, height: float) -> tuple[list[tuple[Axes, dict[str, Any]]], Drawing]:
    """A panel for every combination of axis values, and the values of each."""
    combinations = scale.combinations
    drawing = Drawing(figsize=(3.6 * max(len(combinations), 2), height), layout="constrained")
    axes = drawing.subplots(1, len(combinations), sharex=True, sharey=True, squeeze=False)[0]
    for ax, values in zip(axes, combinations, strict=True):
        ax.set_title(figures.combination_label(values, scale))
    return list(zip(axes, combinations, strict=True)), drawing


class GenerativeShow(Show):
    """Distances of samples from real images, and how much of the images the samples cover."""

    title = "Samples compared with test images"
    metrics = ("frechet", "precision", "recall", "classes_covered", "novelty")
    columns = (
        "*Frechet distance*: between the normal densities of samples and of test images, in the "
        "features of a classifier that was trained here; training images have the distance that is "
        "left by sampling, and by what tells training images from test images.",
        "*precision*: the share of samples in the region of test images; *recall*: the share of "
        "test images in the region of samples.",
        f"*classes covered*: of how many classes at least {100 * COVERED:g} % of the samples are.",
        "*distance to training images*: the median distance of a sample to the nearest training "
        "image, over that of test images: below 1, samples are nearer to the training images than "
        "new images are.",
        *Show.columns,
    )

    @property
    def figures(self) -> tuple:
        *_, rates = super().figures
        return (
            *(samples, frechet_over_seeds, precision_recall),
            *(interpolations, neighbors, rates),
        )

    def training(self, scale: Scale) -> str:
        return (
            f"Each network has two hidden layers of {told(scale, 'width')} units. All models are "
            f"trained by Adam to the cost of {told(scale, 'epochs')} epochs of the variational "
            f"autoencoder, in batches of {told(scale, 'batch_size')}. Rates are chosen by the "
            "Frechet distance of samples from validation images."
        )

    def caveats(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        return [
            "Distances are in the features of a small classifier of the same dataset, which was "
            "trained on training images of seed 0. They cannot be compared with published "
            "distances, which are in features of another net.",
            "Models have about as many weights and cost as much; one rate is tuned for each. "
            "Published models are larger, convolutional, and tuned by hand.",
            "Images of a variational autoencoder and of an autoencoder are means of pixels, "
            "without the noise of pixels.",
            "Costs are counted, not measured. Sampling is not counted; a diffusion model runs its "
            "network 100 times for an image.",
        ]
