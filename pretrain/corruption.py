"""Corruption processes: pure functions of a batch and a seed.

The same `(x, seed)` always gives the same result on one backend, so that a run can be repeated.
"""

import math
from dataclasses import dataclass

from keras import ops

from pretrain.backend import Tensor, normal, uniform
from pretrain.checks import check_number, is_count, is_number, positive


@dataclass(frozen=True)
class _Selecting:
    """Replaces a random fraction of the elements."""

    rate: float = 0.25

    def __post_init__(self) -> None:
        if not is_number(self.rate) or not 0 <= self.rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: rate={self.rate!r}")

    def selected(self, x: Tensor, seed: int | Tensor) -> Tensor:
        """Whether a call replaces an element, perhaps by the same value: booleans of x's shape."""
        return uniform(x.shape, seed) < self.rate


@dataclass(frozen=True)
class Masking(_Selecting):
    """Sets a random fraction of the elements to 0 (Vincent et al. 2008).

    Example:

    >>> import numpy as np
    >>> from pretrain import Masking
    >>> corrupted = np.asarray(Masking(0.25)(np.ones((100, 100), "float32"), seed=0))
    >>> bool(abs((corrupted == 0).mean() - 0.25) < 0.02)
    True

    Args:
        rate: Expected fraction of elements that are masked, in [0, 1).
    """

    def __call__(self, x: Tensor, seed: int | Tensor) -> Tensor:
        """Corrupts a batch.

        Args:
            x: Array of any shape.
            seed: An integer, or an integer array of shape (2,).
        """
        return ops.where(self.selected(x, seed), ops.zeros_like(x), x)


@dataclass(frozen=True)
class PatchMasking(Masking):
    """Sets a random fraction of the square patches of images to 0, in all channels.

    An image is divided into patches from its upper left corner on. The patches at the right and
    lower edges may be cut off.

    Example:

    >>> import numpy as np
    >>> from pretrain import PatchMasking
    >>> corrupted = np.asarray(PatchMasking(0.5, size=2)(np.ones((1, 4, 4, 1), "float32"), seed=0))
    >>> patch = corrupted[0, :2, :2, 0]  # is masked as a whole, or not at all
    >>> float(np.ptp(patch))
    0.0

    Args:
        rate: Expected fraction of patches that are masked, in [0, 1).
        size: Height and width of a patch in pixels, at least 1.
        image_shape: `(height, width, channels)` of images that come flattened, as behind a Flatten
            layer; `None` for images that are not flattened.

    Reference:
        [He et al., 2022](https://arxiv.org/abs/2111.06377)
    """

    size: int = 4
    image_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("size", self.size)
        if self.image_shape is not None:
            shape = self.image_shape
            listed = isinstance(shape, tuple | list) and len(shape) == 3
            if not listed or not all(map(is_count, shape)):
                raise ValueError(
                    "`image_shape` must be (height, width, channels), or None. "
                    f"Received: image_shape={shape!r}"
                )
            # JSON makes a list of a tuple.
            object.__setattr__(self, "image_shape", tuple(shape))

    def selected(self, x: Tensor, seed: int | Tensor) -> Tensor:
        """Whether a call masks an element: booleans of x's shape.

        Args:
            x: Images `(n, height, width, channels)`, or `(n, features)` with `image_shape`.
            seed: An integer, or an integer array of shape (2,).

        Raises:
            ValueError: If x has neither of these shapes.
        """
        n, height, width, channels = self._image_shape(x)
        grid = (n, -(-height // self.size), -(-width // self.size), 1)
        masked = uniform(grid, seed) < self.rate
        for axis in (1, 2):
            masked = ops.repeat(masked, self.size, axis=axis)
        masked = ops.repeat(masked[:, :height, :width], channels, axis=3)
        return ops.reshape(masked, x.shape)

    def _image_shape(self, x: Tensor) -> tuple:
        flat = self.image_shape is not None and len(x.shape) == 2
        shape = (x.shape[0], *self.image_shape) if flat else tuple(x.shape)
        if len(shape) != 4 or math.prod(shape) != math.prod(x.shape):
            raise ValueError(
                "PatchMasking needs images (n, height, width, channels), or `image_shape` for "
                f"flattened images. Received: x.shape={tuple(x.shape)}, "
                f"image_shape={self.image_shape}"
            )
        return shape


@dataclass(frozen=True)
class Gaussian:
    """Adds Gaussian noise to every element (Vincent et al. 2010).

    Example:

    >>> import numpy as np
    >>> from pretrain import Gaussian
    >>> corrupted = np.asarray(Gaussian(0.1)(np.zeros((100, 100), "float32"), seed=0))
    >>> round(float(corrupted.std()), 2)
    0.1

    Args:
        stddev: Standard deviation of the noise, in units of x, at least 0.
    """

    stddev: float = 0.15

    def __post_init__(self) -> None:
        check_number("stddev", self.stddev)

    def __call__(self, x: Tensor, seed: int | Tensor) -> Tensor:
        """Corrupts a batch x of floats, as `Masking` does."""
        noise = ops.cast(normal(x.shape, seed), x.dtype)
        return x + self.stddev * noise


@dataclass(frozen=True)
class SaltAndPepper(_Selecting):
    """Sets a random fraction of the elements to `low` or `high`, at even odds (Vincent 2010).

    Example:

    >>> import numpy as np
    >>> from pretrain import SaltAndPepper
    >>> corrupted = np.asarray(SaltAndPepper(0.5)(np.full((10, 10), 0.5, "float32"), seed=0))
    >>> sorted(set(corrupted.ravel().tolist()))
    [0.0, 0.5, 1.0]

    Args:
        rate: Expected fraction of elements that are replaced, in [0, 1).
        low: The smallest value of x.
        high: The largest value of x.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.low) and is_number(self.high) and self.low < self.high):
            raise ValueError(
                "`low` must be a number less than `high`. "
                f"Received: low={self.low!r}, high={self.high!r}"
            )

    def __call__(self, x: Tensor, seed: int | Tensor) -> Tensor:
        """Corrupts a batch x of floats, as `Masking` does."""
        draw = uniform(x.shape, seed)
        replaced = ops.where(draw < self.rate / 2, self.low, self.high)
        return ops.where(draw < self.rate, ops.cast(replaced, x.dtype), x)
