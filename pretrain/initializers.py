"""Initializers by name, among them two that Keras lacks, and initializations of whole models."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from pretrain import graph
from pretrain.backend import Tensor
from pretrain.checks import check_model, checked_seeds, is_number, positive
from pretrain.examples import Examples
from pretrain.graph import Call, Graph
from pretrain.seeds import derive
from pretrain.stages import split_stages


def historical(seed: int | None = None) -> keras.Initializer:
    """Return the initializer U[-1/sqrt(fan_in), 1/sqrt(fan_in)].

    Glorot & Bengio (2010) call this "the standard initialization". The literature on pretraining
    compares with it (Bengio et al., 2007), after LeCun et al., "Efficient BackProp" (1998). The
    variance is 1 / (3 fan_in), a third of the variance that would keep the outputs of linear layers
    at the same variance from layer to layer.

    Example:

    >>> import numpy as np
    >>> from pretrain import initializers
    >>> kernel = np.asarray(initializers.historical(seed=0)((400, 10)))  # in 1 / sqrt(400)
    >>> bool(np.abs(kernel).max() <= 0.05)
    True

    Args:
        seed: Non-negative integer; `None` draws a fresh seed.

    Returns:
        A `keras.initializers.VarianceScaling`.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed)


@keras.saving.register_keras_serializable("pretrain")
class DeltaOrthogonal(keras.initializers.Orthogonal):
    """Convolution kernels of zeros, but for an orthogonal matrix of channels at the center.

    A convolution with such a kernel, strides of 1 and `padding="same"` applies the matrix at each
    position, and so multiplies the norm of its input by `gain`. The center of an even extent k is
    tap (k - 1) // 2, which the padding puts on the output's own position. A kernel of rank 2
    (Dense) has no positions and is drawn by Keras's `Orthogonal`. Import `pretrain` before you load
    a saved model with this initializer.

    Example:

    >>> import numpy as np
    >>> from pretrain import initializers
    >>> kernel = np.asarray(initializers.DeltaOrthogonal(seed=0)((3, 3, 4, 4)))
    >>> np.allclose(kernel[1, 1] @ kernel[1, 1].T, np.eye(4), atol=1e-5)
    True
    >>> float(np.abs(kernel[0]).max())
    0.0

    Args:
        gain: Factor of the matrix: 1 for linear units and tanh, sqrt(2) for ReLU.
        seed: Non-negative integer; `None` draws a fresh seed.

    Raises:
        ValueError: When called with a shape `(*positions, channels_in, channels_out)` with fewer
            channels out than in, between which no matrix keeps norms.

    Reference:
        [Xiao et al., 2018](https://arxiv.org/abs/1806.05393)
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        if len(shape) < 3:
            return super().__call__(shape, dtype)
        *positions, channels_in, channels_out = shape
        if channels_out < channels_in:
            raise ValueError(
                "A delta-orthogonal kernel needs at least as many channels out as in. "
                f"Received: shape={tuple(shape)}, {channels_in} channels in, {channels_out} out"
            )
        matrix = super().__call__((channels_in, channels_out), dtype)
        center = ops.reshape(matrix, (1,) * len(positions) + (channels_in, channels_out))
        return ops.pad(center, [((k - 1) // 2, k // 2) for k in positions] + [(0, 0)] * 2)


_OWN = {"historical": historical, "delta_orthogonal": DeltaOrthogonal}


def get(
    identifier: str | dict[str, Any] | keras.Initializer, seed: int | None = None
) -> keras.Initializer:
    """Return an initializer that carries a seed.

    An initializer with an integer seed gives identical matrices to layers of equal shape. Call this
    function once per layer, with a different seed for each layer.

    Example:

    >>> from pretrain import initializers
    >>> type(initializers.get("delta_orthogonal", seed=0)).__name__
    'DeltaOrthogonal'

    Args:
        identifier: `"historical"`, `"delta_orthogonal"`, a name that Keras knows (`"he_normal"`),
            an initializer's serialized config, or an initializer, whose own seed is replaced.
            Orthogonal matrices (Saxe et al., 2013) with the gain for ReLU are
            `keras.initializers.Orthogonal(gain=2**0.5)`.
        seed: Non-negative integer; `None` draws a fresh seed.

    Returns:
        A new initializer with the seed. An initializer without randomness (`"zeros"`) is returned
        as it is.

    Raises:
        ValueError: If no initializer has this identifier.
    """
    if isinstance(identifier, str) and identifier in _OWN:
        return _OWN[identifier](seed=seed)
    try:
        initializer = keras.initializers.get(identifier)
    except (TypeError, ValueError):
        initializer = None
    # Keras also takes arrays and bare functions, which have no seed to replace.
    if not isinstance(initializer, keras.Initializer):
        exported = vars(keras.initializers).items()
        aliases = [name for name, value in exported if name.islower() and isinstance(value, type)]
        raise ValueError(
            "Unknown initializer. Expected an initializer, its serialized config or one of "
            f"{', '.join([*_OWN, *sorted(aliases)])}. Received: identifier={identifier!r}"
        )
    config = initializer.get_config()
    if "seed" not in config:
        return initializer
    return type(initializer).from_config({**config, "seed": seed})


def lsuv(
    model: keras.Model, x: Any, *, tol: float = 0.02, max_iterations: int = 20, seed: int = 0
) -> None:
    """Initializes a model in place so that pre-activations have unit variance, layer by layer.

    The kernel of every dense and convolution layer becomes orthonormal. Then, from input to output,
    each kernel is divided by the standard deviation of the layer's pre-activations, which are
    computed from `x` in inference mode. The variance is taken over examples, positions and units
    together, as in the paper. In a deep network of sigmoid units, most of this variance is between
    units and little is between examples.

    Biases (zero in the paper), frozen layers and layers of other kinds stay as they are. A layer
    that is called several times is scaled for its first call. For a `Population`, initialize the
    models that the population is made of.

    Example:

    >>> import numpy as np
    >>> from pretrain import lsuv, networks
    >>> x = np.random.RandomState(0).normal(size=(256, 6)).astype("float32")
    >>> model = networks.mlp((6,), classes=3, depth=1, units=40, activation="linear")
    >>> table = lsuv(model, x)
    >>> hidden = np.asarray(model.layers[1](x))
    >>> round(float(hidden.var()), 1)
    1.0

    Args:
        model: A built Sequential or functional model with one input and one output.
        x: Inputs (n, ...), or a finite dataset of them, all of which are run at once: a thousand
            are enough.
        tol: Largest distance of a variance from 1, in (0, 1). The defaults of `tol` and
            `max_iterations` are taken from the authors' code.
        max_iterations: Most divisions of a kernel, at least 1. A single division is enough if the
            biases are zero.
        seed: Seed of the orthonormal kernels, an integer.

    Raises:
        ValueError: If an argument is out of range, the model has no dense or convolution layer,
            all examples are equal, or a variance is zero, not finite or cannot be made 1. After an
            error the model is as it was before.

    Reference:
        [Mishkin & Matas, 2015](https://arxiv.org/abs/1511.06422)
    """
    check_model(model, model)
    flat = graph.flatten(model)
    by_layer = _kernels_by_layer(flat)
    kernels = [kernel for own in by_layer.values() for kernel in own]
    if not is_number(tol) or not 0 < tol < 1:
        raise ValueError(f"`tol` must be a number in (0, 1). Received: tol={tol!r}")
    positive("max_iterations", max_iterations)
    (seed,) = checked_seeds([seed])
    x = ops.convert_to_tensor(_distinct_examples(model, x), model.inputs[0].dtype)
    # The scope only notes what is assigned, so that the model does not move if there is an error.
    with keras.StatelessScope() as scope:
        for i, kernel in enumerate(kernels):
            orthonormal = keras.initializers.Orthogonal(seed=derive("lsuv", seed, i))
            # The decomposition of a matrix needs single precision.
            kernel.assign(orthonormal(kernel.shape, "float32"))
        for call, tensors in _steps(flat, x):
            for kernel in by_layer.pop(call.operation, [])[-1:]:
                _scale_to_unit_variance(call, kernel, tensors, tol, max_iterations)
    for kernel in kernels:
        kernel.assign(scope.get_current_value(kernel))


def histogram(model: keras.Model, pretrained: keras.Model, *, seed: int = 0) -> None:
    """Draws a model's weights, in place, from the distributions of a pretrained model's weights.

    This control tells whether pretraining finds more than a good scale. Every trainable weight
    array of the layers before the classifier is filled with independent draws, with replacement,
    from the values of the same array of the pretrained model. The classifier stays as it is.

    Example:

    >>> import numpy as np
    >>> from pretrain import initializers, networks
    >>> model, pretrained = (networks.mlp((6,), classes=3, depth=1, seed=seed) for seed in (0, 1))
    >>> initializers.histogram(model, pretrained)
    >>> drawn, source = (np.asarray(net.layers[1].kernel).ravel() for net in (model, pretrained))
    >>> bool(np.isin(drawn, source).all())
    True

    Args:
        model: A built model with a classifier as its last stage (see `pretrain.split_stages`).
        pretrained: A model of the same architecture; it does not change.
        seed: Seed of the draws, an integer.

    Raises:
        ValueError: If the models are not of one architecture or have no stage before a classifier.

    Reference:
        [Erhan et al., 2010](https://www.jmlr.org/papers/v11/erhan10a.html), Table 1
    """
    check_model(pretrained, pretrained)
    check_model(model, pretrained)
    (seed,) = checked_seeds([seed])
    # A single stream in the order of layers gives a shallower model the same first layers.
    random = np.random.RandomState(derive("histogram", seed))
    for stage, source in zip(split_stages(model), split_stages(pretrained), strict=True):
        pairs = zip(stage.trainable_variables, source.trainable_variables, strict=True)
        for variable, values in pairs:
            values = ops.convert_to_numpy(values).ravel()
            variable.assign(random.choice(values, tuple(variable.shape)))


def _kernels_by_layer(flat: Graph) -> dict[keras.Operation, list[keras.Variable]]:
    """The kernels to initialize, by layer."""
    kernels = {call.operation: _kernels(call.operation) for call in flat.calls}
    kernels = {operation: own for operation, own in kernels.items() if own}
    if not kernels:
        raise ValueError(
            "Expected a model with a dense or convolution layer that is not frozen. "
            f"Received: a model of {[call.operation.name for call in flat.calls]}"
        )
    return kernels


def _kernels(operation: keras.Operation) -> list[keras.Variable]:
    """The trainable kernels of a dense or convolution layer, in the order of their application."""
    dense = isinstance(operation, kl.Dense | kl.EinsumDense)
    if not dense and not graph.is_convolution(operation):
        return []
    names = ("kernel", "depthwise_kernel", "pointwise_kernel")
    kernels = [getattr(operation, name) for name in names if hasattr(operation, name)]
    return [kernel for kernel in kernels if kernel.trainable]


def _steps(flat: Graph, x: Tensor) -> Iterator[tuple[Call, dict[int, Tensor]]]:
    """Runs a graph on `x` and yields, before each call, the tensors that are still needed."""
    last = {number: call for call in flat.calls for number in call.inputs.values()}
    tensors = {flat.input: x}
    for call in flat.calls:
        yield call, tensors
        call.run(tensors, training=False)
        for number in set(call.inputs.values()):
            if last[number] is call:
                del tensors[number]


def _scale_to_unit_variance(
    call: Call, kernel: keras.Variable, tensors: dict[int, Tensor], tol: float, max_iterations: int
) -> None:
    """Divides the last kernel of a layer until the pre-activations have unit variance."""
    layer = call.operation
    linear = type(layer).from_config({**layer.get_config(), "activation": None})
    linear.build(call.input_shape)
    for _ in range(max_iterations + 1):
        variance = _variance(call, linear, tensors)
        if abs(variance - 1) <= tol:
            return
        if not 0 < variance < np.inf:
            raise ValueError(
                "Expected pre-activations that are finite and not all equal. "
                f"Received: layer {layer.name!r}, whose variance is {variance}"
            )
        kernel.assign(kernel / variance**0.5)
    raise ValueError(
        f"Expected a variance within tol={tol} of 1 after max_iterations={max_iterations}, which "
        f"large biases can prevent. Received: layer {layer.name!r}, whose variance is {variance}"
    )


def _variance(call: Call, linear: keras.Layer, tensors: dict[int, Tensor]) -> float:
    """Variance of a layer's pre-activations, which a copy without activation computes."""
    # If the activation is a layer itself, its weights follow the weights of the projection.
    weights = zip(linear.weights, call.operation.weights, strict=False)
    outputs = dict(tensors)
    with keras.StatelessScope(weights):
        replace(call, operation=linear).run(outputs, training=False)
    return float(ops.convert_to_numpy(outputs[call.outputs[0]]).astype("float64").var())


def _distinct_examples(model: keras.Model, x: Any) -> np.ndarray:
    examples = Examples(x, model=model)
    x = next(examples.blocks())[0].x
    if (x == x[:1]).all():
        raise ValueError(
            "`x` must have examples that are not all equal, since their variance is needed. "
            f"Received: {len(x)} equal examples"
        )
    return x
