import subprocess
import sys

import numpy as np
import pytest

from pretrain.seeds import derive


def test_values_are_pinned():
    # Released values never change: they decide every split and every initial weight.
    assert derive("split", "mnist", 0) == 886052496
    assert derive("init", 3, 1, "gate") == 602127184


def test_lies_in_31_bits_and_uses_them():
    seeds = [derive("order", seed) for seed in range(2000)]
    assert min(seeds) >= 0
    assert 2**30 < max(seeds) < 2**31
    assert len(set(seeds)) == 2000


@pytest.mark.parametrize(
    "one, other",
    [
        (("init", 1, 2), ("init", 2, 1)),
        (("init", 1), ("init", "1")),
        (("init", 12), ("init", 1, 2)),
        (("split", 0), ("order", 0)),
        (("ab", "c"), ("a", "bc")),
        ((-1,), (1,)),
    ],
)
def test_different_parts_give_different_seeds(one, other):
    assert derive(*one) != derive(*other)


@pytest.mark.parametrize("integer", [np.int64(7), np.int32(7), np.uint8(7)])
def test_numpy_integers_count_as_integers(integer):
    assert derive("init", integer) == derive("init", 7)


def test_any_text_has_a_seed():
    assert derive("données 数据") == derive("données 数据") != derive("donnees")


@pytest.mark.parametrize("part", [1.0, None, True, np.float32(1), ("init", 1), b"init"])
def test_refuses_other_parts(part):
    with pytest.raises(TypeError, match="strings and integers.*Received: name="):
        derive("init", part)


def test_imports_nothing_heavy():
    # Loaded by path: the package itself may well import Keras.
    script = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); "
        "print({'numpy', 'keras', 'tensorflow', 'jax'} & set(sys.modules))"
    )
    path = sys.modules["pretrain.seeds"].__file__
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
