"""Convolutions as matrix products, which XLA is fast at on a processor.

XLA's own convolutions are slow there, in a loop some fifty times. Here the pixels that a kernel
meets at a place are laid side by side in a row, and the kernel is a matrix.
"""

import functools
import inspect
import itertools
import math
import operator
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from keras import ops

from pretrain import backend, internals

_FEW = 8


def as_products() -> AbstractContextManager:
    """Lets Keras's layers compute by this module's functions, unless there is an accelerator."""
    if not backend.on_processor():
        return nullcontext()
    functions = (conv, conv_transpose, depthwise_conv, separable_conv, max_pool)
    return internals.replaced(
        {f.__name__: lambda theirs, ours=f: _in_place_of(theirs, ours) for f in functions}
    )


def _in_place_of(theirs: Callable, ours: Callable) -> Callable:
    """A function called as Keras's is, with our result, or Keras's where ours is `None`."""
    signature = inspect.signature(theirs)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options = dict(bound.arguments)
        x = ops.convert_to_tensor(options.pop("inputs"))
        for name in {"strides", "dilation_rate", "pool_size"} & set(options):
            if isinstance(options[name], int):
                options[name] = (options[name],) * (len(x.shape) - 2)
        options["padding"] = options["padding"].lower()
        data_format = options.pop("data_format") or keras.config.image_data_format()
        if data_format == "channels_last":
            result = ours(x, **options)
        else:
            result = ours(ops.moveaxis(x, 1, -1), **options)
            result = None if result is None else ops.moveaxis(result, -1, 1)
        return theirs(*args, **kwargs) if result is None else result

    return call


def conv(x: Any, kernel: Any, strides: tuple, padding: str, dilation_rate: tuple) -> Any:
    """A convolution of any rank, channels last, in groups if the kernel has fewer inputs than x."""
    groups = x.shape[-1] // kernel.shape[-2]
    if groups > 1:
        pairs = zip(ops.split(x, groups, -1), ops.split(kernel, groups, -1), strict=True)
        parts = [conv(*pair, strides, padding, dilation_rate) for pair in pairs]
        return ops.concatenate(parts, axis=-1)
    size, filters = kernel.shape[:-2], kernel.shape[-1]
    outer = _outer_axes(x.shape[-1], filters, strides)
    margins = _margins(x, size, strides, padding, dilation_rate)
    inner = [(0, 0) if axis <= outer else margin for axis, margin in enumerate(margins)]
    taps = _taps(ops.pad(x, inner), (1,) * outer + size[outer:], strides, dilation_rate)
    pixels = ops.concatenate(taps, axis=-1)
    axes = [*range(outer, len(size) + 1), *range(outer), len(size) + 1]
    matrix = ops.reshape(ops.transpose(kernel, axes), (-1, math.prod(size[:outer]) * filters))
    product = ops.matmul(ops.reshape(pixels, (-1, matrix.shape[0])), matrix)
    product = ops.reshape(product, (*pixels.shape[:-1], matrix.shape[1]))
    product = ops.pad(
        product, [m if 0 < axis <= outer else (0, 0) for axis, m in enumerate(margins)]
    )
    taps = _taps(
        product, size[:outer] + (1,) * (len(size) - outer), (1,) * len(size), dilation_rate
    )
    columns = [slice(i * filters, (i + 1) * filters) for i in range(len(taps))]
    return functools.reduce(
        operator.add, [tap[..., own] for tap, own in zip(taps, columns, strict=True)]
    )


def _outer_axes(channels: int, filters: int, strides: tuple) -> int:
    """How many of a kernel's axes are added up behind the product, not laid out in front of it.

    What is laid out takes memory, nine times the image for 3 x 3 pixels; what is added up, as many
    times the output. A matrix should not be narrow on either side.
    """
    if max(strides) == 1 and filters < _FEW:
        return len(strides)
    return int(strides[0] == 1 and channels >= _FEW)


def depthwise_conv(x: Any, kernel: Any, strides: tuple, padding: str, dilation_rate: tuple) -> Any:
    """A convolution of each channel by itself."""
    size, rates = kernel.shape[:-2], dilation_rate or (1,) * len(strides)
    taps = _taps(ops.pad(x, _margins(x, size, strides, padding, rates)), size, strides, rates)
    weights = ops.reshape(kernel, (-1, *kernel.shape[-2:]))
    total = sum(tap[..., None] * weights[i] for i, tap in enumerate(taps))
    return ops.reshape(total, (*total.shape[:-2], -1))


def separable_conv(
    x: Any, depthwise_kernel: Any, pointwise_kernel: Any, strides: tuple, padding: str, **rate: Any
) -> Any:
    """A convolution of each channel by itself, and one of all channels at each place."""
    x = depthwise_conv(x, depthwise_kernel, strides, padding, **rate)
    once = (1,) * len(strides)
    return conv(x, pointwise_kernel, once, "valid", once)


def conv_transpose(
    x: Any, kernel: Any, strides: tuple, padding: str, output_padding: Any, dilation_rate: tuple
) -> Any:
    """The transpose of a convolution, which is its gradient."""
    if output_padding is not None:
        return None
    extents = [(k - 1) * d + 1 for k, d in zip(kernel.shape, dilation_rate, strict=False)]
    reach = strides if padding == "same" else map(max, extents, strides)
    size = [(n - 1) * s + r for n, s, r in zip(x.shape[1:-1], strides, reach, strict=True)]

    def product(z: list) -> tuple:
        return ops.sum(conv(z[0], kernel, strides, padding, dilation_rate) * x), None

    zeros = ops.zeros((x.shape[0], *size, kernel.shape[-2]), x.dtype)
    return backend.value_and_gradients(product, [zeros])[2][0]


def max_pool(x: Any, pool_size: tuple, strides: tuple | None, padding: str) -> Any:
    """Maxima of windows that do not overlap; the gradient goes to the first of equal ones."""
    if strides is not None and tuple(strides) != tuple(pool_size):
        return None
    sizes = x.shape[1:-1]
    if padding == "same":
        counts = [-(-n // size) for n, size in zip(sizes, pool_size, strict=True)]
        excess = [c * s - n for c, s, n in zip(counts, pool_size, sizes, strict=True)]
        margins = [(0, 0), *((e // 2, e - e // 2) for e in excess), (0, 0)]
        x = ops.pad(x, margins, constant_values=-math.inf) if any(excess) else x
    else:
        counts = [n // size for n, size in zip(sizes, pool_size, strict=True)]
        ends = [slice(c * s) for c, s in zip(counts, pool_size, strict=True)]
        x = x[:, *ends]
    pairs = itertools.chain(*zip(counts, pool_size, strict=True))
    windows = ops.reshape(x, (-1, *pairs, x.shape[-1]))
    axes = tuple(range(2, len(windows.shape) - 1, 2))
    return backend.maxima(windows, axes)


def max_unpool(values: Any, image: Any, pool_size: tuple, padding: str) -> Any:
    """The transpose of the pooling of an image, which is its gradient: values where maxima were."""

    def product(z: list) -> tuple:
        return ops.sum(max_pool(z[0], pool_size, None, padding) * values), None

    return backend.value_and_gradients(product, [image])[2][0]


def _margins(x: Any, size: tuple, strides: tuple, padding: str, rates: tuple) -> list[tuple]:
    """What is to be padded at both ends of each axis of x."""
    margins = [(0, 0)] * len(x.shape)
    if padding == "same":
        pairs = zip(x.shape[1:-1], size, strides, rates, strict=True)
        for axis, (n, k, s, d) in enumerate(pairs, start=1):
            total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            margins[axis] = total // 2, total - total // 2
    return margins


def _taps(x: Any, size: tuple, strides: tuple, rates: tuple) -> list:
    """What each place of a kernel meets: arrays of the size of the output."""
    lengths = [
        (n - 1 - (k - 1) * d) // s * s + 1
        for n, k, s, d in zip(x.shape[1:-1], size, strides, rates, strict=True)
    ]
    axes = list(zip(rates, lengths, strides, strict=True))
    return [
        x[:, *(slice(i * d, i * d + n, s) for i, (d, n, s) in zip(place, axes, strict=True))]
        for place in itertools.product(*map(range, size))
    ]
