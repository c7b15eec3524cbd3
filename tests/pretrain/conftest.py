import keras
import pytest


@pytest.fixture(autouse=True)
def reproducible():
    """The same initial weights whatever runs before, and no setting that outlives a test."""
    keras.utils.set_random_seed(0)
    floatx = keras.config.floatx()
    yield
    keras.config.set_floatx(floatx)
