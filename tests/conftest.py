"""What tests of all parts have in common: compiling takes most of their time."""

import os
from collections import OrderedDict
from functools import partial

import pytest

# XLA compiles small programs in three quarters of the time if it does not optimize machine code.
_LESS = "--xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_LESS}".strip()

# Programs of one kind are not taken for programs of the other kind.
_PLAIN = OrderedDict()


@pytest.fixture
def plain_graphs(monkeypatch):
    """On TensorFlow, programs are graphs that XLA does not compile.

    For tests of what is computed, which would wait for XLA most of the time. What XLA makes of the
    programs is shown by the tests of populations, objectives, architectures and precision.
    """
    # Most tests of the studies do without Keras.
    import keras

    from pretrain import backend, members

    monkeypatch.setattr(members, "_programs", _PLAIN)
    if keras.backend.backend() == "tensorflow":
        from tensorflow import function as graph

        monkeypatch.setattr(backend, "_compile", lambda f: graph(partial(f), autograph=False))
