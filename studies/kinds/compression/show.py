"""How results of codecs are shown: error against bit rate, on every kind of images."""

from collections.abc import Callable
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from studies.engine.scale import Scale
from studies.kinds.compression import IMAGES, RATES
from studies.kinds.compression.codecs import psnr
from studies.report import figures
from studies.report.figures import figure, told
from studies.report.frame import reported
from studies.report.show import Show

_TITLES = {name: name.replace("_", "-") for name in IMAGES}
_BPP = "bits per pixel"


def _trained_on(scale: Scale) -> dict[str, dict[str, Any]]:
    """The combinations of axis values, by the images of each in words, and any other axis."""
    found = {}
    for values in scale.combinations:
        others = {axis: value for axis, value in values.items() if axis != "dataset"}
        where = figures.combination_label(others, scale)
        words = [_TITLES[values.get("dataset", scale.dataset)], where]
        found[", ".join(filter(None, words))] = {"dataset": scale.dataset} | values
    return found


def _of(frame: pd.DataFrame, arm: str, values: dict[str, Any]) -> pd.DataFrame:
    return figures.at(reported(frame), {"arm": arm, "status": "done"} | values)


def _psnr_of(curves: list[dict], dataset: str) -> list[float]:
    return [psnr(mse) for mse in _mean(curves, f"mse_{dataset}")]


def _ssim_of(curves: list[dict], dataset: str) -> np.ndarray:
    """It was measured on images of the kind that a codec is trained on."""
    return _mean(curves, "ssim")


def _mean(curves: list[dict], name: str) -> np.ndarray:
    return np.mean([np.array(each[name], float) for each in curves], axis=0)


_COLUMNS = "A column is a kind of images, on which codecs are trained (if they are) and tested."
_MARKERS = (
    "A marker is a quality, the mean over seeds. Higher and further left is better. Codecs are "
    "compared at the dotted lines."
)


@figure(
    "Peak signal-to-noise ratio against bit rate",
    f"{_COLUMNS} Upper row: bits that code the images. Lower row: bits of whole files; a trained "
    f"codec counts its decoder, shared by all test images. {_MARKERS}",
    metric="psnr_middle",
)
def rate_distortion(frame: pd.DataFrame, scale: Scale) -> Drawing:
    rows = {"images only\nPSNR (dB)": "bits", "whole files\nPSNR (dB)": "file_bits"}
    return _against_rate(frame, scale, rows, _psnr_of)


@figure(
    "Structural similarity against bit rate",
    f"{_COLUMNS} Bits are those that code the images; the similarity (SSIM) is that of 200 images, "
    f"1 for equal images. {_MARKERS}",
    metric="ssim_middle",
)
def similarity(frame: pd.DataFrame, scale: Scale) -> Drawing:
    return _against_rate(frame, scale, {"images only\nSSIM": "bits"}, _ssim_of)


def _against_rate(
    frame: pd.DataFrame, scale: Scale, rows: dict[str, str], measure: Callable
) -> Drawing:
    """A panel for each row, which is the bits that it counts, and each kind of images."""
    columns, styles = _trained_on(scale), figures.looks(scale)
    size = 3 * len(columns) + 0.5, 2.6 * len(rows) + 1.6
    drawing = Drawing(figsize=size, layout="constrained")
    panels = drawing.subplots(len(rows), len(columns), sharex=True, sharey="col", squeeze=False)
    for row, (label, bits) in zip(panels, rows.items(), strict=True):
        for ax, values in zip(row, columns.values(), strict=True):
            for arm in scale.arm_names:
                runs = _of(frame, arm, values)
                _curve(ax, styles[arm], runs, bits, values["dataset"], measure)
            for rate in RATES.values():
                ax.axvline(rate, color="gray", linewidth=1, linestyle=":")
            ax.set_xscale("log")
            figures.ticks(ax.xaxis, [0.03, 0.1, 0.3, 1, 3, 10])
        row[0].set_ylabel(label)
    for ax, title in zip(panels[0], columns, strict=True):
        ax.set_title(title)
    for ax in panels[-1]:
        ax.set_xlabel(_BPP)
    handles = [Line2D([], [], **styles[arm]) for arm in scale.arm_names]
    drawing.legend(handles=handles, loc="outside lower center", ncols=2)
    return drawing


def _curve(
    ax: Axes, look: dict, runs: pd.DataFrame, bits: str, dataset: str, measure: Callable
) -> None:
    # A record without its curves has nothing to draw.
    held = [c for c in runs.get("curves", ()) if c and f"mse_{dataset}" in c]
    if held:
        x, y = _mean(held, f"{bits}_{dataset}"), measure(held, dataset)
        ax.plot(x, y, **look | {"markersize": 4, "linewidth": 1.2})


@figure(
    "Codecs on images that they were not trained on",
    f"Peak signal-to-noise ratio at {RATES['middle']:g} bits per pixel, in dB, mean over seeds. A "
    "row is what a codec was trained on, and a column what it was tested on. A codec without "
    "training, such as JPEG, differs between rows only in the mean image.",
    metric="psnr_middle",
)
def matrix(frame: pd.DataFrame, scale: Scale) -> Drawing:
    trained, arms = _trained_on(scale), scale.arms
    columns = min(3, len(arms))
    rows = -(-len(arms) // columns)
    size = (3.1 * columns + 0.6, (0.75 + 0.5 * len(trained)) * rows + 0.8)
    drawing = Drawing(figsize=size, layout="constrained")
    axes = drawing.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    values = {arm.name: _tested(frame, arm.name, list(trained.values())) for arm in arms}
    known = np.concatenate([each[np.isfinite(each)] for each in values.values()])
    limits = {"vmin": known.min(), "vmax": known.max()} if len(known) else {}
    for ax, arm in zip(axes.flat, arms, strict=False):
        _heat(ax, values[arm.name], limits)
        ax.set_title(fill(arm.label, 30))
        ax.set_xticks(range(len(IMAGES)), [n.replace("-", "-\n") for n in _TITLES.values()])
        ax.tick_params(axis="x", labelsize="small")
        ax.set_yticks(range(len(trained)), list(trained))
    for ax in axes.flat[len(arms) :]:
        ax.set_visible(False)
    drawing.supxlabel("tested on", fontsize="medium")
    drawing.supylabel("trained on", fontsize="medium")
    return drawing


def _tested(frame: pd.DataFrame, arm: str, trained: list[dict]) -> np.ndarray:
    rows = [_of(frame, arm, values) for values in trained]
    return np.array([[runs[f"psnr_on_{name}"].mean() for name in IMAGES] for runs in rows])


def _heat(ax: Axes, values: np.ndarray, limits: dict) -> None:
    ax.imshow(values, cmap="cividis", aspect="auto", **limits)
    middle = np.mean(list(limits.values())) if limits else 0
    for (i, j), value in np.ndenumerate(values):
        color = "black" if value > middle else "white"
        text = f"{value:.1f}" if np.isfinite(value) else "X"
        ax.text(j, i, text, ha="center", va="center", color=color, fontsize="small")
    ax.grid(visible=False)


@figure(
    "Images at equal rates",
    "The first test images, and what each codec makes of them at the quality whose rate is "
    f"nearest to {RATES['middle']:g} bits per pixel; the rate stands beside the codec. Of the "
    "first seed.",
    seeds=1,
)
def pictures(frame: pd.DataFrame, scale: Scale) -> Drawing:
    trained = _trained_on(scale)
    size = 9.5, (0.36 * len(scale.arms) + 0.8) * len(trained) + 0.5
    drawing = Drawing(figsize=size, layout="constrained")
    panels = drawing.subplots(len(trained), 1, squeeze=False)[:, 0]
    for ax, (title, values) in zip(panels, trained.items(), strict=True):
        found = {arm.label: _pictures(_of(frame, arm.name, values)) for arm in scale.arms}
        held = {label: run for label, run in found.items() if run}
        originals = [run.arrays["pictures"][0] for run in list(held.values())[:1]]
        decoded = {
            f"{n}, {run.shown_bits:.2f}": run.arrays["pictures"][1] for n, run in held.items()
        }
        labels = [fill(label, 40) for label in decoded]
        _strip(ax, [*originals, *decoded.values()], ["original"] * len(originals) + labels)
        ax.set_title(title)
    return drawing


def _pictures(runs: pd.DataFrame) -> Any:
    """The first run that holds pictures, if any does."""
    return next((r for r in runs.itertuples() if r.arrays and "pictures" in r.arrays), None)


def _strip(ax: Axes, shown: list[np.ndarray], labels: list[str]) -> None:
    if shown:
        figures.mosaic(ax, np.stack(shown), "gray")
        side = shown[0].shape[1]
        ax.set_yticks([side * (i + 0.5) for i in range(len(labels))], labels)


class CompressionShow(Show):
    """Signal-to-noise ratios at three rates, on the images that a codec was trained on."""

    title = f"Signal-to-noise ratio (PSNR) at {RATES['middle']:g} bits per pixel (dB)"
    metrics = (
        *(f"psnr_{name}" for name in ("middle", "low", "high", "files")),
        *("ssim_middle", "squared_error", "decoder"),
    )
    summarized = ("psnr_middle", "psnr_low", "psnr_high", "psnr_files")
    columns = (
        "*PSNR*: the peak signal-to-noise ratio of the mean squared error over all test images; "
        "*bpp*: bits per pixel. At a rate between two of its qualities, a codec codes some images "
        "at one and some at the other; an image that is not sent is the mean training image.",
        "*files and decoder counted*: bits of whole files, with their headers, and of the decoder "
        "of a trained codec, in half precision, shared by all test images.",
        f"*SSIM*: structural similarity at {RATES['middle']:g} bits per pixel, of 200 images.",
        "*squared error, not quantized*: summed over the pixels of an image, before codes are "
        "quantized; of as many principal components as the code of an autoencoder has units.",
        *Show.columns,
    )

    @property
    def figures(self):
        *_, rates = super().figures
        return (rate_distortion, similarity, matrix, pictures, rates)

    def training(self, scale: Scale) -> str:
        code = self.kind.trial.code
        pretraining = (
            f" Pretrained encoders: {scale.pretraining_epochs} epochs per layer before, at the "
            "same learning rate."
            if scale.pretraining_epochs
            else ""
        )
        return (
            f"Autoencoders: layers of {told(scale, 'width')} units, a half and a quarter of these, "
            f"and a linear code of {code} units, with a decoder of the same sizes. Training: "
            f"{told(scale, 'epochs')} epochs, batches of {told(scale, 'batch_size')}, squared "
            f"error.{pretraining} Codes are quantized in steps of the standard deviation of a unit "
            "and coded by zlib, all test images in one stream."
        )

    def caveats(self, table: pd.DataFrame, scale: Scale) -> list[str]:
        return [
            "Images have 28 x 28 pixels, which is small for JPEG: a file has some 300 bytes of "
            "headers. So the bits of an image alone, without headers, are compared first.",
            "JPEG codes an image of 28 x 28 pixels as one of 32 x 32, since its blocks have 8 x 8.",
            "Codes of all test images are coded in one stream; JPEG, WebP and PNG code each image "
            "by itself.",
            "The code of an autoencoder has so few units that the autoencoder cannot use more than "
            "some 0.25 bits per pixel: at higher rates, its error falls no further. Principal "
            "components are as many as serve a rate.",
            "Intervals are over seeds: initial weights, batch order and split. A codec that is not "
            "trained differs between seeds only in the mean image of the training set.",
            "Costs are counted, not measured. A codec without training counts one operation per "
            "pixel.",
        ]
