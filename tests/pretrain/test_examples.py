import functools
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from keras import layers
from pretrain_helpers import array, gaussian, uniform, values

from pretrain import Autoencoder, Population, SupervisedGreedy, greedy_pretrain, networks

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

N, BATCH = 50, 16
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SETTINGS = {"loss": LOSS, "epochs": 2, "batch_size": BATCH}


def net(seed):
    initializer = keras.initializers.GlorotUniform(seed=seed)
    dense = layers.Dense(3, kernel_initializer=initializer)
    return keras.Sequential([keras.Input((6,)), dense])


@pytest.fixture
def data():
    return gaussian(N, 6), np.arange(N) % 3, uniform(N)


class Batches(keras.utils.PyDataset):
    """Batches of arrays; counts the passes over it."""

    def __init__(self, *arrays, size=10):
        super().__init__()
        self.arrays, self.size, self.passes = arrays, size, 0

    def __len__(self):
        return -(-len(self.arrays[0]) // self.size)

    def __getitem__(self, i):
        return tuple(array[i * self.size : (i + 1) * self.size] for array in self.arrays)

    def on_epoch_end(self):
        self.passes += 1


class Growing(Batches):
    """Batches of sequences, of which each is a step longer than the one before."""

    def __getitem__(self, i):
        x, *rest = super().__getitem__(i)
        return np.repeat(x[:, None], 4 + i, axis=1), *rest


class Iterable:
    """What yields batches anew each time it is asked to, as a data loader of PyTorch does."""

    def __init__(self, *arrays, size=10):
        self.batches = Batches(*arrays, size=size)

    def __iter__(self):
        return (self.batches[i] for i in range(len(self.batches)))


def tf_data(*arrays, size=10):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


DATASETS = {"PyDataset": Batches, "tf.data": tf_data, "iterable": Iterable}


@pytest.fixture(params=DATASETS)
def dataset(request):
    return DATASETS[request.param]


def same(one, other):
    for i in range(len(one)):
        for a, b in zip(values(one.member(i)), values(other.member(i)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [1, 10, 16, 50, 70])
def test_a_dataset_that_fits_in_memory_is_an_array(data, size):
    one, other = Population(net, [3, 5]), Population(net, [3, 5])
    expected = one.fit(*data[:2], **SETTINGS)
    history = other.fit(Batches(*data[:2], size=size), **SETTINGS)
    same(one, other)
    pd.testing.assert_frame_equal(history, expected, check_exact=True)


def test_any_dataset_can_be_trained_on(dataset, data):
    one, other = Population(net, [3]), Population(net, [3])
    x, y, weight = data
    settings = {**SETTINGS, "metrics": ["accuracy"]}
    expected = one.fit(x, y, sample_weight=weight, validation_data=data, **settings)
    history = other.fit(dataset(*data), validation_data=dataset(*data), **settings)
    same(one, other)
    pd.testing.assert_frame_equal(history, expected, check_exact=True)


def test_any_dataset_can_be_evaluated(dataset, data):
    population = Population(net, [3, 5])
    x, y, weight = data
    expected = population.evaluate(x, y, sample_weight=weight, loss=LOSS)
    scores = population.evaluate(dataset(*data), loss=LOSS)
    pd.testing.assert_frame_equal(scores, expected, check_exact=True)
    np.testing.assert_array_equal(population.predict(dataset(*data)), population.predict(x))


def test_inputs_alone_can_be_predicted(dataset, data):
    population = Population(net, [3, 5])
    x = data[0]
    np.testing.assert_array_equal(population.predict(dataset(x)), population.predict(x))


def test_a_dataset_is_read_anew_in_every_epoch(data):
    # What augments must be asked again; a PyDataset is told of the end of each pass.
    batches = Batches(*data)
    Population(net, [3]).fit(batches, **{**SETTINGS, "epochs": 4})
    assert batches.passes == 4


@pytest.mark.parametrize("rows", [1, 20, 40])
def test_every_example_is_seen_once_whatever_the_memory(rows):
    # The sum of the gradients of all examples tells which were seen, and how often.
    n, batch_size = 48, 16

    def build(seed):
        stack = [layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
        return keras.Sequential([keras.Input((n,)), *stack])

    population = Population(build, [3])
    x, y = np.eye(n, dtype="float32"), np.zeros((n, 1), "float32")
    population.fit(
        Batches(x, y, size=5),
        loss=lambda y, outputs: -batch_size * outputs,
        learning_rate=1.0,
        batch_size=batch_size,
        max_memory=rows * x[0].nbytes,
    )
    np.testing.assert_allclose(array(population.member(0).weights[0]), 1, rtol=1e-6)


def test_the_order_within_blocks_is_the_seeds(data):
    small = {**SETTINGS, "max_memory": 8 * 40 * data[0][0].nbytes}
    one, again, other = (Population(lambda _: net(0), [seed]) for seed in (3, 3, 4))
    for population in (one, again, other):
        population.fit(Batches(*data[:2]), **small)
    same(one, again)
    kernels = [array(p.member(0).weights[0]) for p in (one, other)]
    assert (kernels[0] != kernels[1]).any()


def test_a_dataset_larger_than_memory_is_learned_from(data):
    x, y, _ = data
    x = x + 3 * np.eye(3, 6, dtype="float32")[y]
    population = Population(net, [3, 5])
    settings = {**SETTINGS, "epochs": 20, "learning_rate": 0.1, "max_memory": 1}
    history = population.fit(Batches(x, y), **settings)
    losses = history.pivot(index="epoch", columns="member", values="loss")
    assert (losses.iloc[-1] < losses.iloc[0]).all()


def test_the_last_batch_may_be_smaller(data):
    x, y, _ = data
    scores = Population(net, [3]).evaluate(Batches(x, y, size=33), loss=LOSS)
    expected = Population(net, [3]).evaluate(x, y, loss=LOSS)
    assert scores["loss"][0] == expected["loss"][0]


@pytest.mark.parametrize(
    "kind",
    [
        pd.DataFrame,
        keras.ops.convert_to_tensor,
        lambda x: x.astype("float64"),
        lambda x: x.astype("float16").astype("float32"),
        np.asfortranarray,
        lambda x: x[:, ::-1][:, ::-1],
    ],
)
def test_whatever_is_an_array_is_taken(kind, data):
    x, y, _ = data
    x = x.astype("float16").astype("float32")
    one, other = Population(net, [3]), Population(net, [3])
    one.fit(x, y, **SETTINGS)
    other.fit(kind(x), y, **SETTINGS)
    same(one, other)


def test_targets_may_be_a_series(data):
    x, y, _ = data
    one, other = Population(net, [3]), Population(net, [3])
    one.fit(x, y, **SETTINGS)
    other.fit(x, pd.Series(y, index=range(100, 100 + N)), **SETTINGS)
    same(one, other)


def test_data_is_not_changed(data):
    copies = [part.copy() for part in data]
    x, y, weight = data
    Population(net, [3]).fit(x, y, sample_weight=weight, **SETTINGS)
    for part, copy in zip(data, copies, strict=True):
        np.testing.assert_array_equal(part, copy)


def unequal(x, y):
    class Unequal(Batches):
        def __getitem__(self, i):
            batch = super().__getitem__(i)
            return batch if i else batch[:1]

    return Unequal(x, y)


def four(x, y):
    return Batches(x, y, y, y)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda x, y: tf_data(x, y).repeat(), "finite dataset.*Received: .*infinite"),
        (lambda x, y: iter(Batches(x, y)), "generator cannot.*Received: x of type"),
        (lambda x, y: (batch for batch in [(x, y)]), "generator cannot.*Received: .*generator"),
        (lambda x, y: Batches(x[:0], y[:0]), "at least one example.*Received"),
        (lambda x, y: Iterable(x[:0], y[:0]), "at least one example.*Received"),
        (four, r"x, \(x, y\) or \(x, y, sample_weight\).*Received: .* of 4"),
        (unequal, "targets|structure.*Received"),
        (lambda x, y: Batches(x * np.nan, y), "finite.*Received: .*NaN"),
        (lambda x, y: Batches(x, y[:-1]), "as many examples.*Received: x.shape"),
        (lambda x, y: Batches(x), "Expected targets.*Received: y=None"),
        (lambda x, y: Batches(x, y + 1), "from 0 to 2.*Received: y of .* from 1 to 3"),
        (lambda x, y: Batches(x[:, :5], y), r"shape \('n', 6\).*Received: x.shape=\(10, 5\)"),
        (lambda x, y: {"x": x, "y": y}, "must be one array.*Received: x of type dict"),
        (lambda x, y: (x, y), "must be one array.*Received: x of type tuple"),
        (lambda x, y: "x", "must be one array.*Received: x of type str"),
        (lambda x, y: 5, "must be one array.*Received: x of type int"),
        (lambda x, y: None, "must be one array.*Received: x of type NoneType"),
    ],
)
def test_datasets_that_cannot_be_trained_on_are_refused(data, build, message):
    x, y, _ = data
    population = Population(net, [3])
    before = values(population.member(0))
    with pytest.raises(ValueError, match=message):
        population.fit(build(x, y), **SETTINGS)
    for one, other in zip(values(population.member(0)), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("extra", ["y", "sample_weight"])
def test_a_dataset_brings_its_own_targets(data, extra):
    x, y, _ = data
    with pytest.raises(ValueError, match="brings its own.*Received: x of type Batches"):
        Population(net, [3]).fit(Batches(x, y), **{extra: y}, **SETTINGS)


@pytest.mark.parametrize("wrong", ["labels", "nan", "shape"])
def test_what_is_wrong_in_a_later_batch_is_found_too(data, wrong):
    x, y, _ = (part.copy() for part in data)
    if wrong == "labels":
        y[-1] = 3
    if wrong == "nan":
        x[-1, 0] = np.nan

    class Later(Batches):
        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            return (x[:, :5], y) if wrong == "shape" and i == 4 else (x, y)

    with pytest.raises(ValueError, match="Received: "):
        Population(net, [3]).fit(Later(x, y), **SETTINGS)


# Kinds of data


KINDS = {
    "nested lists": lambda x: x.tolist(),
    "bool and nullable columns": lambda x: pd.DataFrame(x).convert_dtypes().assign(**{"0": True}),
    "compressed rows": scipy.sparse.csr_array,
    "coordinates": scipy.sparse.coo_matrix,
    "the model's input by name": lambda x: {"values": x},
}


def named(seed=0):
    dense = layers.Dense(4, "tanh", kernel_initializer=keras.initializers.GlorotUniform(seed=seed))
    head = layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=seed))
    return keras.Sequential([keras.Input((6,), name="values"), dense, head])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_is_taken_everywhere(kind):
    x, y = np.rint(2 * gaussian(20, 6)), np.arange(20) % 3
    x[:, 0] = 1
    given = KINDS[kind](x)
    if isinstance(given, pd.DataFrame):
        given = given.drop(columns=[0])[["0", *range(1, 6)]]
    results = []
    # A list may stand for a tuple, unless it could be one of rows.
    pair = tuple if isinstance(given, list) else list
    for data, held_out in ((x, (x, y)), (given, pair([given, y.tolist()]))):
        model, population = named(), Population(named, [1, 2])
        report = greedy_pretrain(model, data, Autoencoder(), epochs=1, batch_size=8)
        settings = {"epochs": 1, "batch_size": 8, "loss": LOSS}
        history = population.fit(data, y.tolist(), validation_data=held_out, **settings)
        results.append([report.history["loss"], history["val_loss"], population.predict(data)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_examples_of_a_dataset_need_not_be_in_batches(data):
    tf = pytest.importorskip("tensorflow")
    one, other = Population(net, [3]), Population(net, [3])
    one.fit(*data[:2], **SETTINGS)
    other.fit(tf.data.Dataset.from_tensor_slices(data[:2]), **SETTINGS)
    same(one, other)


def test_a_dataset_may_name_its_inputs(data):
    one, other = Population(named, [3]), Population(named, [3])
    x, y, _ = data
    one.fit(x, y, **SETTINGS)
    other.fit(tf_data({"values": x}, y), **SETTINGS)
    same(one, other)
    with pytest.raises(ValueError, match=r"dataset\.map.*Received: a dict with keys \['image'\]"):
        other.fit(tf_data({"image": x}, y), **SETTINGS)


def test_the_batches_of_a_dataset_are_those_that_it_comes_in(data):
    population = Population(net, [3])
    history = population.fit(tf_data(*data[:2], size=20), loss=LOSS, epochs=2)
    assert history["updates"].tolist() == [3, 6]


@pytest.mark.parametrize(
    "labels", [lambda y: y[:, None], lambda y: np.eye(3)[y], np.ndarray.tolist]
)
def test_labels_of_greedy_training_stand_in_a_row_a_column_or_one_hot(data, labels):
    x, y, _ = data
    one, other = named(), named()
    settings = {"epochs": 1, "batch_size": BATCH}
    greedy_pretrain(one, x, SupervisedGreedy(3), y=y, **settings)
    greedy_pretrain(other, x, SupervisedGreedy(3), y=labels(y), **settings)
    for a, b in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_examples_without_weight_teach_nothing(data):
    x, y, _ = data
    weight = (np.arange(N) < 20).astype("float32")
    spoiled = np.where(weight[:, None] == 0, 9, x)
    results = []
    for inputs in (x, spoiled):
        for objective, options in ((Autoencoder(), {}), (SupervisedGreedy(3), {"y": y})):
            model = named()
            settings = {"sample_weight": weight, "epochs": 2, "batch_size": N, **options}
            report = greedy_pretrain(model, inputs, objective, **settings)
            results.append([*values(model), report.to_frame()["baseline"].to_numpy()])
    for one, other in zip(results[:2], results[2:], strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_settings_may_differ_from_stage_to_stage(data):
    build = functools.partial(networks.mlp, (6,), 3, depth=2, units=4, activation="tanh", seed=0)
    together, apart = build(), build()
    settings = {"epochs": [1, 2], "batch_size": [8, 10], "learning_rate": [0.1, 0.01]}
    report = greedy_pretrain(
        together, data[0], "autoencoder", optimizer=["sgd", "adam"], **settings
    )
    assert report.to_frame()["updates"].tolist() == [7, 10]
    greedy_pretrain(
        apart,
        data[0],
        Autoencoder(),
        epochs=1,
        batch_size=8,
        optimizer="sgd",
        learning_rate=0.1,
        stages=1,
    )
    for a, b in zip(together.layers[1].weights, apart.layers[1].weights, strict=True):
        np.testing.assert_array_equal(array(a), array(b))
    with pytest.raises(ValueError, match=r"each of 2 stages. Received: epochs=\[1, 2, 3\]"):
        greedy_pretrain(apart, data[0], epochs=[1, 2, 3])


def test_the_users_data_is_in_no_message(data):
    x, y, _ = data
    model = named()
    for wrong in (
        lambda: greedy_pretrain(model, x, y),
        lambda: greedy_pretrain(model, x, epochs=y),
        lambda: greedy_pretrain(model, x, stages=y.tolist()),
        lambda: greedy_pretrain(model, x, learning_rate=-x),
        lambda: greedy_pretrain(model, (x, y)),
        lambda: Population(net, x),
        lambda: Population(net, [3]).fit(x, y, loss=x),
    ):
        with pytest.raises(ValueError, match="Received") as error:
            wrong()
        assert len(str(error.value)) < 400, str(error.value)


def test_columns_without_numbers_are_named(data):
    frame = pd.DataFrame(data[0]).assign(color="red")
    with pytest.raises(ValueError, match="get_dummies.*Received: .*column 'color'"):
        greedy_pretrain(named(), frame)
    holes = pd.DataFrame(data[0]).rename(columns={2: "age"})
    holes.loc[4, "age"] = None
    with pytest.raises(ValueError, match=r"Received: x with 1 NaN .*columns \['age'\]"):
        greedy_pretrain(named(), holes)


@pytest.mark.parametrize("max_memory", [1, 10**9])
def test_a_stream_has_examples_of_one_shape(data, max_memory):
    stack = [layers.Conv1D(3, 3), layers.GlobalAveragePooling1D(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((None, 6)), *stack])
    growing, options = Growing(*data[:2]), {"max_memory": max_memory, "verbose": 0}
    with pytest.raises(ValueError, match=r"pad sequences to one length.*\(4, 6\).*\(5, 6\)"):
        greedy_pretrain(model, growing, **options)
    with pytest.raises(ValueError, match=r"pad sequences to one length.*\(4, 6\).*\(5, 6\)"):
        Population.from_models([model]).fit(growing, loss=LOSS, **options)


# The job is first run on few examples, which takes what the backend needs to compile.
MEMORY = """
import resource, sys
import keras, numpy as np
from pretrain import Autoencoder, Population, greedy_pretrain, joint_pretrain, networks

limit = 64 * 2**20
options = {"epochs": 1, "batch_size": 64, "max_memory": limit, "verbose": 0}

class Batches(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return len(self.x) // 64

    def __getitem__(self, i):
        return self.x[64 * i : 64 * (i + 1)], np.arange(64) % 3

def tf_data(x):
    import tensorflow as tf
    batches = lambda: (x[i : i + 64] for i in range(0, len(x), 64))
    return tf.data.Dataset.from_generator(batches, output_signature=tf.TensorSpec((None, 1024)))

def build(seed):
    return networks.mlp((1024,), 3, depth=2, units=64, activation="sigmoid", seed=seed)

def fit(x):
    loss = "sparse_categorical_crossentropy"
    Population(build, [0, 1, 2]).fit(Batches(x), loss=loss, **options)

jobs = {
    "greedy": lambda x: greedy_pretrain(build(0), x, **options),
    "tf.data": lambda x: greedy_pretrain(build(0), tf_data(x), **options),
    "joint": lambda x: joint_pretrain(build(0), Batches(x), Autoencoder(), **options),
    "members": lambda x: greedy_pretrain(Population(build, [0, 1]), [x, x[::-1]], **options),
    "fit": fit,
}

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

# More than twice the limit, and no memory of its own.
x = np.broadcast_to(np.ones(1024, "float32"), (40_000, 1024))
job = jobs[sys.argv[1]]
job(x[:2048])
before = peak()
job(x)
print((peak() - before) / limit)
"""


@pytest.mark.slow
@pytest.mark.parametrize("job", ["greedy", "tf.data", "joint", "members", "fit"])
def test_no_more_than_twice_the_limit_is_held(job):
    command = [sys.executable, "-c", MEMORY, job]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 2
