"""The hidden layers of a net: their sizes, and what a forward pass through each costs."""

import math

from studies.engine.trial import Trial

DENSE, CONVOLUTIONAL = "dense", "convolutional"
# Height and width of a convolution's kernel in pixels.
KERNEL = 3
# A max pooling of 2 x 2 pixels stands behind these convolutions. It does so at every depth, so that
# the first layers of a deep net are the layers of a shallow net.
POOLED = (1, 2)


def is_convolutional(trial: Trial) -> bool:
    """Whether the hidden layers are convolutions; a trial of another kind has dense layers."""
    return getattr(trial, "network", DENSE) == CONVOLUTIONAL


def widths(trial: Trial) -> list[int]:
    """Units of each dense layer; a trial of another kind has none of its own in the last layer."""
    return [trial.width] * (trial.depth - 1) + [getattr(trial, "top_width", 0) or trial.width]


def image(features: int) -> tuple[int, int] | None:
    """Height and channels of a square image of so many numbers, gray or in color, if it is one."""
    for channels in (1, 3):
        side = math.isqrt(features // channels)
        if channels * side**2 == features:
            return side, channels
    return None


def code_sizes(trial: Trial, features: int) -> list[int]:
    """How many numbers each hidden layer puts out for an example of so many features."""
    if not is_convolutional(trial):
        return widths(trial)
    return [trial.filters * side**2 for side in _sides(trial, features)[1:]]


def projections(trial: Trial, features: int) -> list[int]:
    """Forward FLOPs per example of each hidden layer, 2 per multiply-add."""
    if not is_convolutional(trial):
        units = [features, *widths(trial)]
        return [2 * n * m for n, m in zip(units, units[1:], strict=False)]
    _, channels = image(features)
    inputs = [channels, *[trial.filters] * (trial.depth - 1)]
    per_pixel = [2 * KERNEL**2 * n * trial.filters for n in inputs]
    return [n * side**2 for n, side in zip(per_pixel, _sides(trial, features), strict=False)]


def _sides(trial: Trial, features: int) -> list[int]:
    """Height of the image that goes into each convolution, and of the last one's output."""
    side, _ = image(features)
    halvings = [sum(layer <= done for layer in POOLED) for done in range(trial.depth + 1)]
    return [side // 2**n for n in halvings]
