"""Corruption processes: pure functions of a batch and a seed.

The same `(x, seed)` always gives the same result on one backend, so a run can be repeated, and the
target of a denoising autoencoder stays the clean batch.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

from keras import ops

from pretrain.backend import normal, uniform


@dataclass(frozen=True)
class Masking:
    """Sets a random fraction of the elements to 0 (Vincent et al. 2008).

    Args:
        rate: Expected fraction of elements that are masked, in [0, 1).
    """

    rate: float = 0.25

    def __post_init__(self) -> None:
        _check_rate(self.rate)

    def __call__(self, x: Any, seed: Any) -> Any:
        """Corrupts a batch.

        Args:
            x: Array of any shape.
            seed: An integer, or an integer array of shape (2,).
        """
        return ops.where(uniform(x.shape, seed) < self.rate, ops.zeros_like(x), x)


@dataclass(frozen=True)
class Gaussian:
    """Adds Gaussian noise to every element (Vincent et al. 2010).

    Args:
        stddev: Standard deviation of the noise, in units of x, at least 0.
    """

    stddev: float = 0.15

    def __post_init__(self) -> None:
        if not _is_number(self.stddev) or self.stddev < 0:
            raise ValueError(
                f"`stddev` must be a number of at least 0. Received: stddev={self.stddev!r}"
            )

    def __call__(self, x: Any, seed: Any) -> Any:
        """Corrupts a batch.

        Args:
            x: Floating-point array of any shape.
            seed: An integer, or an integer array of shape (2,).
        """
        noise = ops.cast(normal(x.shape, seed), x.dtype)
        return x + self.stddev * noise


@dataclass(frozen=True)
class SaltAndPepper:
    """Sets a random fraction of the elements to `low` or `high`, at even odds (Vincent 2010).

    Args:
        rate: Expected fraction of elements that are replaced, in [0, 1).
        low: The smallest value of x.
        high: The largest value of x.
    """

    rate: float = 0.25
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if not (_is_number(self.low) and _is_number(self.high) and self.low < self.high):
            raise ValueError(
                "`low` must be a number less than `high`. "
                f"Received: low={self.low!r}, high={self.high!r}"
            )

    def __call__(self, x: Any, seed: Any) -> Any:
        """Corrupts a batch.

        Args:
            x: Floating-point array of any shape.
            seed: An integer, or an integer array of shape (2,).
        """
        draw = uniform(x.shape, seed)
        replaced = ops.where(draw < self.rate / 2, self.low, self.high)
        return ops.where(draw < self.rate, ops.cast(replaced, x.dtype), x)


def _check_rate(rate: Any) -> None:
    if not _is_number(rate) or not 0 <= rate < 1:
        raise ValueError(f"`rate` must be in [0, 1). Received: rate={rate!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
