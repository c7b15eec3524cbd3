import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import ops
from pretrain_helpers import array, gaussian, uniform

from pretrain import Gaussian, Masking, SaltAndPepper, objectives

PROCESSES = [
    Masking(0.3),
    Gaussian(0.5),
    SaltAndPepper(0.3),
    SaltAndPepper(0.3, low=-1.0, high=2.0),
]
N = 40_000


def compiled(function):
    """A function compiled by the backend, as `pretrain` compiles it."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def seed_array(*seed):
    return ops.convert_to_tensor(seed, "int32")


def within_binomial_bounds(count, n, rate):
    """Five standard deviations: one false alarm in a million."""
    return abs(count - n * rate) < 5 * np.sqrt(n * rate * (1 - rate))


@pytest.fixture(params=PROCESSES, ids=str)
def process(request):
    return request.param


@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 4, 4, 2)])
def test_keeps_shape_and_type(process, shape):
    corrupted = process(ops.convert_to_tensor(uniform(*shape)), 1)
    assert tuple(corrupted.shape) == shape
    assert keras.backend.standardize_dtype(corrupted.dtype) == "float32"


@pytest.mark.parametrize("seed", [3, np.int64(3), (3, 4)])
def test_is_a_function_of_batch_and_seed(process, seed):
    x = uniform(50, 4)
    seed = seed_array(*seed) if isinstance(seed, tuple) else seed
    once, again = array(process(x, seed)), array(process(x, seed))
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(x, uniform(50, 4))


@pytest.mark.parametrize("one, other", [(1, 2), ((1, 2), (1, 3)), ((1, 2), (2, 2))])
def test_another_seed_corrupts_differently(process, one, other):
    x = uniform(50, 4)
    seeds = [s if isinstance(s, int) else seed_array(*s) for s in (one, other)]
    first, second = (array(process(x, seed)) for seed in seeds)
    assert (first != second).any()


def test_does_not_touch_the_generators_of_others(process):
    keras.utils.set_random_seed(1)
    expected = array(keras.random.normal((3,)))
    keras.utils.set_random_seed(1)
    process(uniform(4, 4), 0)
    np.testing.assert_array_equal(array(keras.random.normal((3,))), expected)


def test_is_a_function_of_batch_and_seed_in_a_compiled_program_too(process):
    clean = uniform(N)
    x = ops.convert_to_tensor(clean)
    run = compiled(lambda x, seed: process(x, seed))
    once, again, other = (array(run(x, seed_array(*seed))) for seed in [(5, 6), (5, 6), (5, 7)])
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    # TensorFlow draws other numbers inside XLA, of the same distribution.
    eager = array(process(x, seed_array(5, 6)))
    if keras.backend.backend() == "jax":
        np.testing.assert_allclose(once, eager, rtol=1e-6, atol=1e-6)
    assert abs((once != clean).mean() - (eager != clean).mean()) < 10 * np.sqrt(0.25 / N)
    assert abs(once.mean() - eager.mean()) < 10 / np.sqrt(N)


def test_examples_are_corrupted_independently(process):
    one, other = array(process(np.full((2, N), 0.5, "float32"), 0)) - 0.5
    assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(N)


def test_is_hashable_comparable_and_plain(process):
    config = json.loads(json.dumps(objectives.to_config(process)))
    again = objectives.from_config(config)
    assert again == process
    assert hash(again) == hash(process)
    assert len({again, process}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        process.rate = 0.1


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.9])
def test_masking_only_writes_zeros(rate):
    x = uniform(N) + 1
    masked = array(Masking(rate)(x, 0))
    changed = masked != x
    assert (masked[changed] == 0).all()
    assert within_binomial_bounds(changed.sum(), N, rate)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.9])
def test_salt_and_pepper_come_at_even_odds(rate):
    x = uniform(N) / 2 + 0.25
    noisy = array(SaltAndPepper(rate, low=-1.0, high=2.0)(x, 0))
    changed = noisy != x
    assert set(np.unique(noisy[changed])) == {-1.0, 2.0}
    assert within_binomial_bounds((noisy == -1).sum(), N, rate / 2)
    assert within_binomial_bounds((noisy == 2).sum(), N, rate / 2)


def test_gaussian_noise_has_its_moments():
    x = gaussian(N)
    noise = array(Gaussian(0.5)(x, 0)) - x
    assert abs(noise.mean()) < 5 * 0.5 / np.sqrt(N)
    assert abs(noise.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * N)
    kurtosis = ((noise - noise.mean()) ** 4).mean() / noise.std() ** 4
    assert abs(kurtosis - 3) < 5 * np.sqrt(24 / N)
    assert abs(np.corrcoef(noise, x)[0, 1]) < 5 / np.sqrt(N)


@pytest.mark.parametrize("process", [Masking(0.0), Gaussian(0.0), SaltAndPepper(0.0)], ids=str)
def test_no_noise_changes_nothing(process):
    np.testing.assert_array_equal(array(process(gaussian(50, 4), 1)), gaussian(50, 4))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Masking(1.5), r"`rate` must be in \[0, 1\).*Received: rate=1.5"),
        (lambda: Masking(1), "Received: rate=1"),
        (lambda: Masking(-0.1), "Received: rate=-0.1"),
        (lambda: Masking(float("nan")), "Received: rate=nan"),
        (lambda: Masking("0.25"), "Received: rate='0.25'"),
        (lambda: Masking(None), "Received: rate=None"),
        (lambda: SaltAndPepper(1.0), "Received: rate=1.0"),
        (lambda: SaltAndPepper(0.1, low=1, high=0), "less than.*Received: low=1, high=0"),
        (lambda: SaltAndPepper(0.1, low="a"), "Received: low='a'"),
        (lambda: Gaussian(-1.0), "at least 0.*Received: stddev=-1.0"),
        (lambda: Gaussian(float("nan")), "Received: stddev=nan"),
        (lambda: Gaussian(float("inf")), "Received: stddev=inf"),
        (lambda: Gaussian("0.1"), "Received: stddev='0.1'"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
