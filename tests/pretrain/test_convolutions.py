"""Convolutions as matrix products, against Keras's own."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, gaussian

from pretrain import backend
from pretrain.convolutions import as_products

X1, X2, X3 = gaussian(3, 11, 10), gaussian(3, 11, 9, 10), gaussian(2, 7, 5, 6, 10)
# Fewer than eight channels, or filters, are laid out in other ways than more.
CASES = {
    "1d many filters": (layers.Conv1D(9, 3, dilation_rate=2), X1),
    "2d many filters": (layers.Conv2D(9, (3, 2), padding="same"), X2),
    "2d many filters, strides": (layers.Conv2D(9, 3, strides=(1, 2), padding="same"), X2),
    "2d many filters, few channels": (layers.Conv2D(9, 3), X2[..., :3]),
    "3d many filters": (layers.Conv3D(9, (2, 3, 3), dilation_rate=(2, 1, 1)), X3),
    "1d": (layers.Conv1D(4, 3), X1),
    "1d causal": (layers.Conv1D(4, 3, padding="causal", dilation_rate=2), X1),
    "1d strides": (layers.Conv1D(4, 4, strides=3, padding="same"), X1),
    "2d": (layers.Conv2D(4, (3, 2)), X2),
    "2d one row": (layers.Conv2D(4, (1, 3)), X2),
    "2d same": (layers.Conv2D(4, (4, 3), padding="same"), X2),
    "2d few channels": (layers.Conv2D(4, (4, 3), padding="same"), X2[..., :3]),
    "2d strides": (layers.Conv2D(4, 3, strides=2, padding="same"), X2),
    "2d strides in one axis": (layers.Conv2D(4, 3, strides=(1, 2)), X2),
    "2d dilation": (layers.Conv2D(4, 3, dilation_rate=(2, 3), padding="same"), X2),
    "2d dilation valid": (layers.Conv2D(4, (3, 2), dilation_rate=2), X2),
    "2d groups": (layers.Conv2D(4, 3, groups=2), X2),
    "3d": (layers.Conv3D(4, 3, padding="same"), X3),
    "depthwise": (layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), X2),
    "depthwise 1d": (layers.DepthwiseConv1D(3, strides=2), X1),
    "separable": (layers.SeparableConv2D(4, 3, padding="same"), X2),
    "transposed": (layers.Conv2DTranspose(4, 3, strides=2), X2),
    "transposed same": (layers.Conv2DTranspose(4, 3, strides=2, padding="same"), X2),
    "transposed small kernel": (layers.Conv2DTranspose(4, 1, strides=3), X2),
    "transposed 1d": (layers.Conv1DTranspose(4, 3), X1),
    "transposed with padding": (
        layers.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1),
        X2,
    ),
    "pool": (layers.MaxPooling2D(), X2),
    "pool of ties": (layers.MaxPooling2D((2, 3)), np.rint(X2)),
    "pool same": (layers.MaxPooling2D((3, 4), padding="same"), X2),
    "pool 1d": (layers.MaxPooling1D(3), X1),
    "pool 3d": (layers.MaxPooling3D(2), X3),
    "pool that overlaps": (layers.MaxPooling2D(3, strides=2), X2),
}


def both(layer, x):
    """Outputs of a layer, and the gradients of a weighted sum of them by inputs and weights."""
    if not layer.built:
        layer.build(x.shape)
    start = [array(v) for v in layer.variables]
    weights = None

    def loss(variables):
        nonlocal weights
        outputs, _ = layer.stateless_call(variables[1:], [], variables[0])
        weights = gaussian(*outputs.shape, seed=2) if weights is None else weights
        return ops.sum(outputs * weights), outputs

    def run(*variables):
        return backend.value_and_gradients(loss, list(variables))[1:]

    outputs, gradients = backend.Compiled(run)(*map(ops.convert_to_tensor, [x, *start]))
    return [array(outputs), *map(array, gradients)]


@pytest.mark.parametrize("name", CASES)
def test_products_equal_the_convolutions_of_keras(name):
    layer, x = CASES[name]
    expected = both(layer, x)
    with as_products():
        found = both(layer, x)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_directional_derivative_passes_through_products():
    model = keras.Sequential(
        [keras.Input((6, 6, 10)), layers.Conv2D(4, 3, padding="same"), layers.MaxPooling2D()]
    )
    x, direction, step = gaussian(2, 6, 6, 10), gaussian(2, 6, 6, 10, seed=2), 1e-3
    with as_products():
        _, slope = backend.directional_derivative(model, x, direction)
    ahead, behind = (array(model(x + s * step * direction)) for s in (1, -1))
    np.testing.assert_allclose(array(slope), (ahead - behind) / (2 * step), rtol=1e-2, atol=1e-2)


def test_what_has_diverged_is_no_number_in_a_maximum():
    x = gaussian(1, 4, 4, 2)
    x[0, :2, 2:, 1] = np.nan
    with as_products():
        outputs, _ = both(layers.MaxPooling2D(), x)
    np.testing.assert_array_equal(np.argwhere(np.isnan(outputs)), [[0, 0, 1, 1]])


def test_the_functions_of_keras_are_put_back():
    before = dict(vars(keras.src.backend.nn))
    with pytest.raises(RuntimeError), as_products():
        raise RuntimeError
    assert dict(vars(keras.src.backend.nn)) == before
