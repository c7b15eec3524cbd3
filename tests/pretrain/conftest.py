import keras
import pytest


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
