import keras
import numpy as np
import pytest

from pretrain import initializers


def draw(initializer, shape=(100, 400)):
    return keras.ops.convert_to_numpy(initializer(shape))


@pytest.mark.parametrize(
    "shape, fan_in", [((784, 300), 784), ((25, 2000), 25), ((3, 3, 16, 200), 3 * 3 * 16)]
)
def test_historical_is_uniform_within_one_over_root_fan_in(shape, fan_in):
    weights = draw(initializers.historical(0), shape)
    bound = 1 / np.sqrt(fan_in)
    assert np.abs(weights).max() <= bound * (1 + 1e-6)
    # Quantiles of the uniform distribution, within five standard errors.
    quantiles = np.linspace(0.05, 0.95, 19)
    error = np.quantile(weights, quantiles) / bound - (2 * quantiles - 1)
    assert np.abs(error).max() < 5 / np.sqrt(weights.size)


def test_historical_is_known_by_name():
    expected = draw(initializers.historical(5))
    np.testing.assert_array_equal(draw(initializers.get("historical", 5)), expected)


@pytest.mark.parametrize(
    "identifier",
    [
        "he_normal",
        "GlorotUniform",
        keras.initializers.HeNormal(seed=1),
        keras.initializers.serialize(keras.initializers.Orthogonal(gain=2.0, seed=1)),
        {"class_name": "RandomUniform", "config": {"minval": -3.0, "maxval": 3.0, "seed": 1}},
        "historical",
    ],
)
def test_the_seed_alone_decides(identifier):
    one, same = (draw(initializers.get(identifier, 11)) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, draw(initializers.get(identifier, 12)))
    assert not np.array_equal(one, draw(initializers.get(identifier)))


def test_equals_keras_with_the_same_seed():
    expected = draw(keras.initializers.HeNormal(seed=9))
    np.testing.assert_array_equal(draw(initializers.get("he_normal", 9)), expected)


def test_replaces_only_the_seed():
    original = keras.initializers.VarianceScaling(0.5, "fan_out", "normal", seed=1)
    config = initializers.get(original, 2).get_config()
    assert config == {**original.get_config(), "seed": 2}
    assert original.get_config()["seed"] == 1


def test_without_a_seed_each_is_fresh():
    seeded = keras.initializers.HeNormal(seed=1)
    one, other = (draw(initializers.get(seeded)) for _ in range(2))
    assert not np.array_equal(one, other)


def test_what_has_no_seed_is_returned_as_it_is():
    constant = keras.initializers.Constant(0.5)
    assert initializers.get(constant, 3) is constant
    assert not draw(initializers.get("zeros", 3)).any()


@pytest.mark.parametrize(
    "identifier",
    ["he_normall", "get", "", 3, None, np.mean, np.ones(3), {"a": 1}, {"class_name": "Foo"}],
)
def test_unknown_ones_are_answered_with_what_is_known(identifier):
    with pytest.raises(ValueError, match=r"historical, .*he_normal, .*Received: identifier="):
        initializers.get(identifier, 0)
