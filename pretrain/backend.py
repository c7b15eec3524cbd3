"""What differs between TensorFlow and JAX: compiling, differentiating, looping, random numbers.

Everything else in the package is written in `keras.ops`.
"""

import contextlib
import itertools
import math
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from numbers import Integral
from typing import Any

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
elif keras.backend.backend() == "jax":
    import jax
else:
    raise ImportError(
        "pretrain runs on the TensorFlow and JAX backends of Keras. "
        f"Received: keras.backend.backend()={keras.backend.backend()!r}"
    )

# A tensor of TensorFlow or JAX; Keras has no name for its type.
Tensor = Any

_TENSORFLOW = keras.backend.backend() == "tensorflow"


class Compiled:
    """A function of nested lists of arrays, compiled for the shapes it is called with.

    Args:
        function: The function; on TensorFlow it is run as a plain graph where XLA cannot
            compile it.
    """

    def __init__(self, function: Callable) -> None:
        self._function = function
        self._compiled = _compile(function)
        self._vectorized: dict[tuple, Callable] = {}

    def __call__(self, *arguments: Any) -> Any:
        if not _TENSORFLOW:
            return jax.block_until_ready(self._compiled(*arguments))
        try:
            return self._compiled(*arguments)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            warnings.warn(
                f"This architecture runs without XLA, which cannot compile it: {error}",
                stacklevel=2,
            )
            self._compiled = tf.function(partial(self._function), autograph=False)
            return self._compiled(*arguments)

    def each(self, members: list[tuple], shared: tuple) -> list:
        """Calls `function(*member, *shared)` for every member.

        On a processor the calls run one by one, on as many threads as there are cores (compiled
        code releases the GIL): the weights of a member then stay in the cache, which is faster
        than to vectorize. On an accelerator they are one vectorized call.

        Args:
            members: The leading arguments of each call.
            shared: The arguments that the calls have in common.

        Returns:
            The results, one for each member.
        """
        # A member alone may have no variable to vectorize.
        if accelerated() and len(members) > 1:
            return self._each_vectorized(members, shared)
        with ThreadPoolExecutor(min(len(members), concurrency())) as pool:
            return list(pool.map(lambda member: self(*member, *shared), members))

    def _each_vectorized(self, members: list[tuple], shared: tuple) -> list:
        axes = (0,) * len(members[0]) + (None,) * len(shared)

        def vectorized(members, shared):
            stacked = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *members)
            results = jax.vmap(self._function, in_axes=axes)(*stacked, *shared)
            return [jax.tree.map(lambda leaf, i=i: leaf[i], results) for i in range(len(members))]

        # To stack members outside of the program would take a call for every weight of every one.
        program = self._vectorized.setdefault(axes, jax.jit(vectorized))
        return jax.block_until_ready(program(members, shared))


def _compile(function: Callable) -> Callable:
    if _TENSORFLOW:
        # TensorFlow counts traces by code: it would take the programs of several architectures for
        # one that is traced over and over, and warn. A partial function has no code of its own.
        return tf.function(partial(function), jit_compile=True, autograph=False)
    return jax.jit(function)


def on_processor() -> bool:
    """Whether programs run on a processor: there is no accelerator."""
    if _TENSORFLOW:
        return not tf.config.list_logical_devices("GPU")
    return jax.default_backend() == "cpu"


def accelerated() -> bool:
    """Whether members are vectorized: on JAX, where the device is not a processor."""
    return not (_TENSORFLOW or on_processor())


def accelerator() -> str | None:
    """Name of the device that programs run on; `None` for the processor."""
    if on_processor():
        return None
    if not _TENSORFLOW:
        return jax.devices()[0].device_kind
    (device, *_) = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(device).get("device_name", "GPU")


def value_and_gradients(function: Callable, variables: list) -> tuple:
    """Value, auxiliary output and gradients of a scalar function.

    Args:
        function: Maps `variables` to `(scalar, auxiliary)`.
        variables: Arrays to differentiate by.

    Returns:
        `(scalar, auxiliary, gradients)`; a variable that has no influence has gradient 0.
    """
    if not _TENSORFLOW:
        (value, auxiliary), gradients = jax.value_and_grad(function, has_aux=True)(variables)
        return value, auxiliary, gradients
    with tf.GradientTape() as tape:
        tape.watch(variables)
        value, auxiliary = function(variables)
    gradients = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return value, auxiliary, [tf.convert_to_tensor(g) for g in gradients]


def directional_derivative(function: Callable, x: Any, direction: Any) -> tuple[Any, Any]:
    """A function's value at `x` and its derivative there along a direction.

    It can be differentiated in turn.

    Args:
        function: Maps an array to an array.
        x: Where to take the derivative.
        direction: Array of the shape of x.

    Returns:
        `(function(x), J direction)`, J the function's Jacobian at x.
    """
    if not _TENSORFLOW:
        return jax.jvp(function, (x,), (direction,))
    x = tf.convert_to_tensor(x)
    with tf.autodiff.ForwardAccumulator(x, tf.convert_to_tensor(direction)) as accumulator:
        value = function(x)
    derivative = accumulator.jvp(value, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return value, derivative


def _register_second_derivative() -> None:
    """Gives TensorFlow what it lacks: XLA's derivative of a slice can be differentiated in turn."""

    def gradients(op: Any, slope: Any) -> tuple:
        _, update, start = op.inputs
        start, size = tf.cast(start, "int32"), tf.shape(update)
        margins = tf.stack([start, tf.shape(slope) - start - size], axis=1)
        outside = tf.pad(tf.zeros_like(update), margins, constant_values=1)
        return slope * outside, tf.slice(slope, start, size), None

    # Another version of TensorFlow may have it.
    with contextlib.suppress(KeyError):
        tf.RegisterGradient("XlaDynamicUpdateSlice")(gradients)


if _TENSORFLOW:
    _register_second_derivative()


def maxima(x: Any, axes: tuple[int, ...]) -> Any:
    """Maxima of an array along axes; the derivative is that of the first of equal elements."""
    ops, sizes = keras.ops, [x.shape[axis] if axis in axes else 1 for axis in range(len(x.shape))]
    numbers = ops.reshape(ops.arange(math.prod(sizes), dtype="int32"), sizes)
    places = list(enumerate(itertools.product(*map(range, sizes))))

    def first(x: Any, highest: Any) -> Any:
        equal = (x == highest) | ops.isnan(x)
        # Of integers alone, Keras would take the size from its default precision of floats.
        found = ops.convert_to_tensor(places[-1][0], "int32")
        for number, place in reversed(places[:-1]):
            window = [
                slice(i, i + 1) if n > 1 else slice(None) for i, n in zip(place, sizes, strict=True)
            ]
            found = ops.where(equal[*window], number, found)
        return numbers == found

    def highest_of(x: Any) -> Any:
        highest = ops.max(x, axis=axes, keepdims=True)
        # XLA has no maximum of windows that hold no number: these shall stay what they are.
        corner = x[*(slice(0, 1) if axis in axes else slice(None) for axis in range(len(sizes)))]
        return ops.where(highest == -math.inf, corner, highest)

    if _TENSORFLOW:

        @tf.custom_gradient
        def maximum(x):
            highest = highest_of(x)
            return highest, lambda slope: tf.where(first(x, highest), slope, tf.zeros_like(slope))

        return tf.squeeze(maximum(x), axes)

    maximum = jax.custom_jvp(lambda x: jax.numpy.squeeze(highest_of(x), axes))

    @maximum.defjvp
    def derivative(primals, tangents):
        (x,), (slope,) = primals, tangents
        slopes = jax.numpy.where(first(x, highest_of(x)), slope, 0)
        return maximum(x), jax.numpy.sum(slopes, axes)

    return maximum(x)


def as_floats(values: Any) -> Any:
    """Values in Keras's default precision, in which objectives compute whatever the layers' is."""
    return keras.ops.cast(values, keras.config.floatx())


def repeat(steps: int, body: Callable, state: Any) -> Any:
    """`for i in range(steps): state = body(i, state)`, as one loop of the program."""
    if not _TENSORFLOW:
        return jax.lax.fori_loop(0, steps, body, state)

    def advance(i, state):
        return i + 1, body(i, state)

    return tf.while_loop(
        lambda i, _: i < steps, advance, (tf.constant(0), state), parallel_iterations=1
    )[1]


def uniform(shape: tuple, seed: Any) -> Any:
    """Uniform numbers in [0, 1), a pure function of the seed.

    Args:
        shape: Shape of the result.
        seed: An integer, or an integer array of shape (2,), possibly computed in a program.
    """
    return _drawn("uniform", shape, seed)


def normal(shape: tuple, seed: Any) -> Any:
    """Standard normal numbers; shape and seed are as in `uniform`."""
    return _drawn("normal", shape, seed)


def subkey(key: Any, number: int) -> Any:
    """A key of its own for one of several draws of a step.

    Args:
        key: Integer array of shape (2,).
        number: Number of the draw, from 0.
    """
    return key + keras.ops.cast([number + 1, 0], key.dtype)


def _drawn(distribution: str, shape: tuple, seed: Any) -> Any:
    pair = [int(seed), 0] if isinstance(seed, Integral) else seed
    if not _TENSORFLOW:
        return getattr(jax.random, distribution)(keras.ops.cast(pair, "uint32"), shape)
    draw = getattr(tf.random, f"stateless_{distribution}")
    return _threefry(draw, tuple(shape))(keras.ops.cast(pair, "int32"))


@cache
def _threefry(draw: Callable, shape: tuple) -> Callable:
    """A draw by the algorithm that XLA is fast at: its own choice is 16 times slower in a loop.

    Only XLA has it, so that a draw outside of a program is a program of its own.
    """
    return tf.function(partial(draw, shape, alg="threefry"), jit_compile=True, autograph=False)


def concurrency() -> int:
    """How many members to run at once: `OMP_NUM_THREADS`, else the processor's cores."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return int(threads) if threads.isdigit() and int(threads) > 0 else os.cpu_count() or 1
