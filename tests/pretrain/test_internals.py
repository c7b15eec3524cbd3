"""Private parts of Keras: what the library asks of them, and that one module alone asks."""

import ast
import configparser
import random
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from pretrain_helpers import chain_model, sequential

from pretrain import internals

# The tests of the library were run on these versions; the first are the lower bounds in setup.cfg.
VERSIONS = [
    {"keras": "3.10.0", "tensorflow": "2.19.0", "jax": "0.5.0"},
    {"keras": "3.15.1", "tensorflow": "2.21.0", "jax": "0.10.2"},
]
ROOT = Path(__file__).parents[2]
# Of named tuples and of the operating system.
PUBLIC = {"_replace", "_asdict", "_fields", "_exit"}


def test_lower_bounds_are_versions_that_the_tests_were_run_on():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = config["options"]["install_requires"] + config["options.extras_require"]["jax"]
    bounds = dict(line.split(" >= ") for line in required.split("\n") if line)
    assert VERSIONS[0] == {name: bounds[name] for name in VERSIONS[0]}


def modules():
    paths = [path for folder in ("pretrain", "studies") for path in (ROOT / folder).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def private_names(tree):
    """Private attributes that a module reads or sets, by name or as strings of `getattr`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def defined_names(tree):
    """Names of functions, classes and variables, and attributes that objects set on themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_only_one_module_touches_private_parts_of_keras():
    trees = modules()
    assert trees.pop("pretrain/internals.py")
    own = PUBLIC.union(*map(defined_names, trees.values()))
    for path, tree in trees.items():
        names = {name for name in private_names(tree) if str(name).startswith("_")}
        foreign = {name for name in names - own if not name.endswith("__")}
        assert not foreign, f"{path} touches private attributes of others: {foreign}"
        assert "keras.src" not in ast.unparse(tree), f"{path} uses keras.src"


def test_nodes_are_the_calls_in_topological_order():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, name="hidden")(inputs)
    outputs = layers.Add(name="sum")([hidden, hidden * 2])
    model = keras.Model(inputs, outputs)
    nodes = list(internals.nodes(internals.functional(model)))
    assert [node.operation.name for node in nodes][::2] == ["hidden", "sum"]
    assert nodes[0].args == (inputs,)
    assert nodes[0].outputs == [hidden]
    assert nodes[-1].args[0][0] is hidden


def test_a_subclassed_model_has_no_functional_form():
    assert internals.functional(chain_model()) is None
    model = sequential((3,), layers.Dense(2))
    assert list(internals.nodes(internals.functional(model)))


def test_layers_are_found_at_any_depth():
    inner = sequential((3,), layers.Dense(2, name="inner"))
    model = sequential((3,), inner, layers.Dense(1, name="last"))
    found = internals.layers_of(model)
    assert found[0] is model
    assert {"inner", "last"} <= {layer.name for layer in found}


def test_weights_without_a_seed_are_of_the_random_seed_whatever_other_threads_draw():
    def drawn(between=lambda: None):
        with internals.random_seed(7):
            between()
            return layers.Dense(3).kernel_initializer((2, 3))

    alone = drawn()
    thread = threading.Thread(target=random.random)
    np.testing.assert_array_equal(alone, drawn(lambda: (thread.start(), thread.join())))
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(alone, layers.Dense(3).kernel_initializer((2, 3)))
    assert not np.array_equal(alone, layers.Dense(3).kernel_initializer((2, 3)))


def test_layers_in_inference_mode_are_put_back():
    dropout, x = layers.Dropout(0.9), np.ones((4, 50), "float32")
    attributes = set(vars(dropout))
    with pytest.raises(RuntimeError), internals.in_inference_mode([dropout]):
        np.testing.assert_array_equal(dropout(x, training=True), x)
        raise RuntimeError
    assert (keras.ops.convert_to_numpy(dropout(x, training=True)) == 0).any()
    assert set(vars(dropout)) == attributes


def test_targets_get_the_rank_of_outputs():
    y, outputs = internals.of_same_rank(np.zeros(4), np.zeros((4, 1)))
    assert (y.shape, outputs.shape) == ((4, 1), (4, 1))
    y, outputs = internals.of_same_rank(np.zeros(4), np.zeros((4, 3)))
    assert (y.shape, outputs.shape) == ((4,), (4, 3))


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop", "adamw"])
def test_a_functional_optimizer_updates_as_the_optimizer_does(name):
    variable = keras.Variable(np.array([1.0, -2.0], "float32"))
    gradients = [keras.ops.convert_to_tensor(np.array([0.5, -0.25], "float32"))]
    functional = internals.functional_optimizer(keras.optimizers.get(name))
    functional.build([variable])
    state = [keras.ops.copy(v) for v in functional.variables]
    (updated,), _ = functional.stateless_apply(state, gradients, [keras.ops.copy(variable)])
    optimizer = keras.optimizers.get(name)
    optimizer.apply(gradients, [variable])
    expected, updated = map(keras.ops.convert_to_numpy, (variable, updated))
    np.testing.assert_allclose(updated, expected, rtol=1e-6)
    assert not np.array_equal(updated, [1, -2])


def test_a_schedule_is_told_from_a_rate():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 5)
    assert internals.has_schedule(keras.optimizers.SGD(schedule))
    assert not internals.has_schedule(keras.optimizers.SGD(0.1))
