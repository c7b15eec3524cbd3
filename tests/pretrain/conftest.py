from collections import OrderedDict
from functools import partial

import keras
import pytest

from pretrain import backend, members

# Programs of one kind are not taken for programs of the other kind.
_PLAIN = OrderedDict()


@pytest.fixture
def plain_graphs(monkeypatch):
    """On TensorFlow, programs are graphs that XLA does not compile.

    For tests of what is computed, which would wait for XLA most of the time. What XLA makes of the
    programs is shown by the tests of populations, objectives, architectures and precision.
    """
    monkeypatch.setattr(members, "_programs", _PLAIN)
    if keras.backend.backend() == "tensorflow":
        from tensorflow import function as graph

        monkeypatch.setattr(backend, "_compile", lambda f: graph(partial(f), autograph=False))


@pytest.fixture(autouse=True)
def reproducible():
    """The same initial weights whatever runs before."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def float64(monkeypatch):
    """Models and data in double precision, for finite differences."""
    jax = keras.backend.backend() == "jax"
    if jax:
        from jax import config

        config.update("jax_enable_x64", True)
        # On JAX, Keras takes means in single precision, whatever the precision asked for.
        dtypes = keras.src.backend.common.dtypes
        monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    if jax:
        config.update("jax_enable_x64", False)
