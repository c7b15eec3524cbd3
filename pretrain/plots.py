"""Pictures of what a network has learned: one call each, which returns matplotlib axes."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pretrain import graph
from pretrain.checks import positive
from pretrain.stages import split_stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pretrain.report import Report
    from pretrain.unrolling import DeepAutoencoder

# Not as many as there are colors: the eleventh class repeats a color, but has another marker.
_MARKERS = "osD^vPX*<"
_QUANTITIES = {
    "saturated": "saturated outputs\n(part of all)",
    "dead": "dead units\n(part of all)",
    "backpropagated": "variance of the gradient\nby the layer's output",
    "weights": "variance of the gradient\nby the layer's weights",
    "largest": "largest singular value\nof the Jacobian",
    "mean": "mean singular value\nof the Jacobian",
    "smallest": "smallest singular value\nof the Jacobian",
    "train_error": "training error\nof a linear probe (part of all)",
    "test_error": "test error\nof a linear probe (part of all)",
}
_SHARES = ("saturated", "dead")
# Quantities that differ by powers of ten from layer to layer.
_LOGARITHMIC = ("backpropagated", "weights", "largest", "mean", "smallest")


def plot_report(report: "Report") -> np.ndarray:
    """Draws the loss of every stage over the epochs, against its baseline.

    A stage of an objective with a penalty is drawn with its reconstruction's loss, with which the
    baseline can be compared. Every member of a population has a line.

    Example:

    >>> import numpy as np
    >>> from pretrain import greedy_pretrain, networks, plots
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=2, units=4)
    >>> report = greedy_pretrain(model, x, epochs=5, batch_size=32, verbose=0)
    >>> axes = plots.plot_report(report)  # or report.plot()
    >>> len(axes)
    2

    Args:
        report: The report of a pretraining.

    Returns:
        The axes, one for each stage, shape (stages,); one for all after joint pretraining.
    """
    stages = report.stages[:1] if report.joint else report.stages
    axes = _panels(len(stages), len(stages))
    for ax, stage, name in zip(axes, stages, report.history["stage"].unique(), strict=True):
        score = "reconstruction" if "reconstruction" in stage.history else "loss"
        _draw_losses(ax, stage.history, score, stage.baseline)
        label = stage.loss.replace("_", " ") if score == "loss" else "loss of the reconstruction"
        ax.set(title=name, xlabel="epoch", ylabel=label)
    _legend(axes[-1])
    return axes


def plot_filters(
    model: keras.Model,
    layer: str | None = None,
    *,
    count: int = 64,
    image_shape: Sequence[int] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws the weights of a layer's units as images, side by side.

    A dense layer's unit has a weight for each input, which are arranged as the inputs are. A
    filter of a convolution is drawn as the mean over its input channels; a filter of three
    channels is drawn in color, from the filter's least to its greatest weight.

    Example:

    >>> from pretrain import networks, plots
    >>> model = networks.mlp((8, 8, 1), depth=1, units=16)
    >>> axes = plots.plot_filters(model)
    >>> len(axes.images)
    1

    Args:
        model: A built Keras model.
        layer: Name of a dense layer or a two-dimensional convolution; `None` is the first layer
            with a weight matrix.
        count: Number of units, the first ones, at least 1.
        image_shape: Shape (height, width) or (height, width, channels) of a dense layer's inputs;
            `None` is the shape of the model's input.
        ax: Axes to draw on; `None` makes new ones.

    Returns:
        The axes.

    Raises:
        ValueError: If the weights are no images, or `count` is out of range.
    """
    found = _layer(model, layer)
    images = _filters(found, image_shape or model.input_shape[1:])[: positive("count", count)]
    columns = math.ceil(math.sqrt(len(images)))
    if images.shape[-1] == 3:
        images = np.stack([_rescaled(image) for image in images])
        ax, _ = _draw_images(images, columns, ax, "gray")
    else:
        images = _drawable(images)
        ax, drawn = _draw_images(images, columns, ax, "RdBu_r", np.abs(images).max())
        ax.figure.colorbar(drawn, ax=ax, label="weight", shrink=0.8)
    ax.set_title(f"{len(images)} units of {found.name}")
    return ax


def plot_reconstructions(
    deep: "DeepAutoencoder | keras.Model",
    x: ArrayLike,
    *,
    count: int = 10,
    image_shape: Sequence[int] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws inputs, and their reconstructions below them.

    Inputs and reconstructions have a scale of gray each, from the least to the greatest value.

    Example:

    >>> import numpy as np
    >>> from pretrain import greedy_pretrain, networks, plots, unroll
    >>> x = np.random.RandomState(0).random((64, 8, 8, 1)).astype("float32")
    >>> model = networks.mlp((8, 8, 1), depth=1, units=16)
    >>> deep = unroll(model, greedy_pretrain(model, x, epochs=2, batch_size=32, verbose=0))
    >>> axes = plots.plot_reconstructions(deep, x)
    >>> len(axes.images)
    1

    Args:
        deep: The deep autoencoder that `unroll` returned, or another model from inputs to
            reconstructions.
        x: Inputs (n, ...).
        count: Number of inputs, the first ones, at least 1.
        image_shape: Shape (height, width) or (height, width, channels) of an input; `None` is the
            input's own.
        ax: Axes to draw on; `None` makes new ones.

    Returns:
        The axes.

    Raises:
        ValueError: If the inputs are no images, or `count` is out of range.
    """
    x = np.asarray(x)[: positive("count", count)]
    reconstructions = keras.ops.convert_to_numpy(deep(x, training=False))
    shape = image_shape or x.shape[1:]
    rows = [_rescaled(_drawable(_as_images(images, shape))) for images in (x, reconstructions)]
    ax, _ = _draw_images(np.concatenate(rows), len(x), ax, "gray")
    bottom, top = ax.get_ylim()
    ax.set_yticks([0.75 * top + 0.25 * bottom, 0.25 * top + 0.75 * bottom])
    ax.set_yticklabels(["input", "reconstruction"])
    return ax


def plot_codes(codes: ArrayLike, y: ArrayLike | None = None, *, ax: "Axes | None" = None) -> "Axes":
    """Draws codes in two dimensions, by class.

    Codes of more than two dimensions are projected on their first two principal components.

    Example:

    >>> import numpy as np
    >>> from pretrain import plots
    >>> codes, y = np.random.RandomState(0).normal(size=(30, 5)), np.arange(30) % 3
    >>> axes = plots.plot_codes(codes, y)
    >>> len(axes.get_legend().get_texts())
    3

    Args:
        codes: Codes (n, ...), of at least two dimensions, as `DeepAutoencoder.encode` returns them.
        y: Labels (n,) of any type; `None` draws all points alike.
        ax: Axes to draw on; `None` makes new ones.

    Returns:
        The axes.

    Raises:
        ValueError: If codes and labels do not fit.
    """
    codes = np.asarray(codes)
    labels = np.zeros(len(codes)) if y is None else np.ravel(y)
    if codes.ndim < 2 or math.prod(codes.shape[1:]) < 2 or len(labels) != len(codes):
        raise ValueError(
            "`codes` must have at least two dimensions, and `y` a label for each code. "
            f"Received: codes.shape={codes.shape}, y of shape {np.shape(y)}"
        )
    points, names = _plane(codes.reshape(len(codes), -1).astype("float64"))
    ax = ax or _panels(1, 1)[0]
    classes = np.unique(labels)
    looks = zip(classes, _colors(len(classes)), itertools.cycle(_MARKERS))
    for label, color, marker in looks:
        chosen = points[labels == label].T
        ax.scatter(*chosen, s=18, color=color, marker=marker, alpha=0.7, lw=0, label=str(label))
    ax.set(xlabel=names[0], ylabel=names[1])
    if y is not None:
        _legend(ax, "class")
    return ax


def plot_diagnosis(table: pd.DataFrame) -> np.ndarray:
    """Draws a table of `pretrain.diagnostics`: a panel for each quantity.

    Example:

    >>> import numpy as np
    >>> from pretrain import diagnostics, networks, plots
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> table = diagnostics.activations(networks.mlp((6,), classes=3, depth=2, units=4), x)
    >>> axes = plots.plot_diagnosis(table)

    Args:
        table: A table that a diagnosis returned, which is drawn over the layers; or a table of
            `follow` or `Watch`, which is drawn over the epochs, with a line for each layer. The
            members of a population are averaged.

    Returns:
        The axes, one for each quantity that is not missing everywhere, shape (quantities,).
    """
    by_epoch = "epoch" in table
    keys = ["epoch", "layer"] if by_epoch else ["layer"]
    means = table.drop(columns=["member", "seed"], errors="ignore").groupby(keys, sort=False).mean()
    means = means.dropna(axis="columns", how="all")
    axes = _panels(len(means.columns), 3)
    for ax, quantity in zip(axes, means, strict=True):
        values = means[quantity].unstack("layer", sort=False) if by_epoch else means[[quantity]]
        _draw_quantity(ax, values, by_epoch)
        ax.set(xlabel="epoch" if by_epoch else "", ylabel=_label(quantity))
        if quantity in _SHARES:
            ax.set_ylim(-0.03, 1.03)
        if quantity in _LOGARITHMIC and (values.to_numpy() > 0).any():
            ax.set_yscale("log")
    if by_epoch:
        _legend(axes[min(len(axes), 3) - 1], "layer")
    return axes


def _panels(count: int, columns: int) -> np.ndarray:
    """Axes of a new figure, shape (count,), in rows of `columns`."""
    from matplotlib import pyplot as plt

    columns = min(count, columns)
    rows = math.ceil(count / columns)
    size = (3.6 * columns + 1.2, 3.2 * rows) if count > 1 else (6, 4.2)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[count:]:
        ax.remove()
    return axes.flat[:count]


def _colors(count: int) -> list:
    """Colors that also the color-blind tell apart."""
    import seaborn

    return seaborn.color_palette("colorblind", count)


def _legend(ax: "Axes", title: str | None = None) -> None:
    """A legend on the right of the axes, outside of the data."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, title=title)


def _draw_losses(ax: "Axes", history: pd.DataFrame, score: str, baseline: np.ndarray) -> None:
    colors = _colors(3)
    kinds = {score: ("training", "-", colors[0]), f"val_{score}": ("validation", "--", colors[1])}
    for column, (name, style, color) in kinds.items():
        for i, member in history.groupby("member") if column in history else ():
            label = None if i else name
            ax.plot(member["epoch"], member[column], style, marker=".", color=color, label=label)
    for i, height in enumerate(np.unique(baseline)):
        ax.axhline(height, ls=":", color="black", label=None if i else "baseline")
    ax.xaxis.get_major_locator().set_params(integer=True)


def _draw_quantity(ax: "Axes", values: pd.DataFrame, by_epoch: bool) -> None:
    """Lines over the epochs by layer, or points over the layers."""
    looks = zip(values, _colors(len(values.columns)), itertools.cycle(_MARKERS))
    for name, color, marker in looks:
        ax.plot(values.index, values[name], marker=marker, ms=4, color=color, label=name)
    if by_epoch:
        ax.xaxis.get_major_locator().set_params(integer=True)
    else:
        ax.tick_params(axis="x", rotation=45)


def _label(quantity: str) -> str:
    known = quantity.startswith("p") and quantity[1:].replace(".", "").isdigit()
    return f"outputs, percentile {quantity[1:]}" if known else _QUANTITIES.get(quantity, quantity)


def _layer(model: keras.Model, name: str | None) -> keras.Layer:
    if name is not None:
        return model.get_layer(name)
    return split_stages(model, head=0)[0].projection.operation


def _filters(layer: keras.Layer, image_shape: Sequence[int]) -> np.ndarray:
    """A layer's weights as images, shape (units, height, width, channels)."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None or len(kernel.shape) not in (2, 4):
        raise ValueError(
            "Expected a dense layer or a two-dimensional convolution. "
            f"Received: layer {layer.name!r} of type {type(layer).__name__}"
        )
    by_unit = np.moveaxis(keras.ops.convert_to_numpy(kernel), -1, 0)
    return by_unit if graph.is_convolution(layer) else _as_images(by_unit, image_shape)


def _as_images(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Values (n, ...) as images (n, height, width, channels)."""
    shape = tuple(shape) if len(shape) == 3 else (*shape, 1)
    if len(shape) != 3 or math.prod(shape) != math.prod(values.shape[1:]):
        raise ValueError(
            "Expected values that are images: give their shape, `image_shape=(height, width)`. "
            f"Received: values of shape {values.shape}, image_shape={shape}"
        )
    return values.reshape(-1, *shape)


def _drawable(images: np.ndarray) -> np.ndarray:
    """Images of three channels as they are, and of others as the mean over the channels."""
    return images if images.shape[-1] == 3 else images.mean(axis=-1, keepdims=True)


def _rescaled(images: np.ndarray) -> np.ndarray:
    """Images from 0 to 1."""
    low, high = images.min(), images.max()
    return (images - low) / max(high - low, 1e-12)


def _draw_images(
    images: np.ndarray, columns: int, ax: "Axes | None", cmap: str, limit: float | None = None
) -> tuple["Axes", Any]:
    """Draws images (n, height, width, 1 or 3) in rows of `columns`; returns the axes and picture.

    Values of one channel go from `-limit` to `limit`, or from 0 to 1.
    """
    canvas = _mosaic(images, columns)
    ax = ax or _image_axes(canvas)
    low, high = (-limit, limit) if limit else (0, 1)
    drawn = ax.imshow(canvas.squeeze(), cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax, drawn


def _mosaic(images: np.ndarray, columns: int) -> np.ndarray:
    """Images (n, height, width, 1 or 3) as one, with lines of one pixel between them."""
    larger = max(1, 20 // images.shape[1])  # Beside small images, a pixel is not a thin line.
    images = images.repeat(larger, axis=1).repeat(larger, axis=2)
    n, height, width, channels = images.shape
    rows = math.ceil(n / columns)
    # White in color; what is not a number is not drawn, so that the background is seen.
    line = 1.0 if channels == 3 else np.nan
    canvas = np.full((rows * columns, height + 1, width + 1, channels), line)
    canvas[:n, :height, :width] = images
    canvas = canvas.reshape(rows, columns, *canvas.shape[1:]).swapaxes(1, 2)
    return canvas.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]


def _image_axes(canvas: np.ndarray) -> "Axes":
    """Axes of a new figure of the shape of an image."""
    from matplotlib import pyplot as plt

    height, width, _ = canvas.shape
    scale = 5 / max(height, width)
    size = (width * scale + 1.5, height * scale + 0.6)
    return plt.subplots(figsize=size, layout="constrained")[1]


def _plane(codes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Codes (n, 2), and names of the two axes."""
    if codes.shape[1] == 2:
        return codes, ["code unit 1", "code unit 2"]
    centered = codes - codes.mean(axis=0)
    left, singular, _ = np.linalg.svd(centered, full_matrices=False)
    parts = singular**2 / max((singular**2).sum(), 1e-300)
    names = [f"principal component {i + 1}\n({parts[i]:.0%} of the variance)" for i in range(2)]
    return left[:, :2] * singular[:2], names
