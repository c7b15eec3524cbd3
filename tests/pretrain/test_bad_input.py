"""What is wrong is answered by what was expected and what was received, and nothing has moved."""

import itertools
import re

import keras
import numpy as np
import pytest
from keras import layers
from pretrain_helpers import chain_model, digest, gaussian, uniform

from pretrain import (
    Autoencoder,
    DenoisingAutoencoder,
    Masking,
    Population,
    datasets,
    greedy_pretrain,
    initializers,
    networks,
    split_stages,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

N = 32
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Subject:
    """A model, a population of models, and data that fit them."""

    def __init__(self):
        self.model = small()
        self.models = [small(), small()]
        self.population = Population.from_models(self.models)
        self.x, self.y = uniform(N, 8), np.arange(N) % 3

    def pretrain(self, x=None, model=None, **options):
        x = self.x if x is None else x
        model = self.model if model is None else model
        return greedy_pretrain(model, x, **{"epochs": 1, "batch_size": 8, **options})

    def fit(self, x=None, y=None, **options):
        x, y = self.x if x is None else x, self.y if y is None else y
        return self.population.fit(x, y, **{"loss": LOSS, "batch_size": 8, **options})

    def digest(self):
        members = [self.population.member(i) for i in range(2)]
        return [digest(model.variables) for model in (self.model, *members)]


def small(**options):
    options = {"depth": 2, "units": 5, "activation": "sigmoid", **options}
    return networks.mlp((8,), 3, seed=0, **options)


def spoiled(x, value):
    x = x.copy()
    x[3, 4] = value
    return x


def ragged(x):
    return np.array([row[: i % 3 + 1] for i, row in enumerate(x)], dtype=object)


def tensorflow_ragged(x):
    tf = pytest.importorskip("tensorflow")
    return tf.RaggedTensor.from_tensor(x)


def infinite(x):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(x).batch(8).repeat()


def multi_input():
    inputs = [keras.Input((8,)), keras.Input((8,))]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(inputs)))


def without_projection():
    return keras.Sequential([keras.Input((8,)), layers.BatchNormalization(), layers.ReLU()])


def with_embedding():
    stack = [layers.Embedding(9, 3), layers.Flatten(), layers.Dense(5), layers.Dense(3)]
    return keras.Sequential([keras.Input((8,)), *stack])


def frozen():
    model = small()
    model.trainable = False
    return model


NOT_AN_ARRAY = r"must be one array.*Received: x of type"
NUMBERS = r"`{}` must be one array of numbers.*Received: {} of type"
NUMBERS_X, NUMBERS_Y = NUMBERS.format("x", "x"), NUMBERS.format("y", "y")
SHAPE = r"Expected x of shape \('n', 8\).*Received: x.shape="
STAGES = r"`stages` must be a list with a list of layer names.*Received: stages="
INTEGER = r"must be an integer of at least 1\. Received: {}={}"
RATES = r"`learning_rate` must be a positive number.*Received: learning_rate="
SEEDS = r"`seeds` must be integers.*Received: seeds="
BUILT = r"Expected a built Keras model.*Received: "

# name: (call, what the error says)
CASES = {
    # Inputs
    "x of wrong rank": (lambda s: s.pretrain(s.x[:, :, None]), SHAPE),
    "x of one example": (lambda s: s.pretrain(s.x[0]), SHAPE),
    "x of wrong features": (lambda s: s.pretrain(s.x[:, :7]), SHAPE + r"\(32, 7\)"),
    "x of wrong features for fit": (lambda s: s.fit(s.x[:, :7]), SHAPE),
    "x of wrong features for predict": (lambda s: s.population.predict(s.x[:, :7]), SHAPE),
    "x with NaN": (lambda s: s.pretrain(spoiled(s.x, np.nan)), "finite.*Received: x with 1 NaN"),
    "x with infinity": (lambda s: s.fit(spoiled(s.x, np.inf)), "finite.*Received: x with 1 NaN or"),
    "x too large for its precision": (
        lambda s: s.pretrain(spoiled(s.x.astype("float64"), 1e300)),
        "finite.*Received: x with 1 NaN or infinite",
    ),
    "x without examples": (lambda s: s.pretrain(s.x[:0]), r"one example.*Received: x.shape=\(0, 8"),
    "x a number": (lambda s: s.pretrain(np.float32(3)), r"one example.*Received: x.shape=\(\)"),
    "x of strings": (lambda s: s.pretrain(s.x.astype(str)), NUMBERS_X + ".*dtype <U"),
    "x of objects": (lambda s: s.pretrain(s.x.astype(object)), NUMBERS_X + ".*dtype object"),
    "x of complex numbers": (lambda s: s.pretrain(s.x + 1j), NUMBERS_X + ".*dtype complex"),
    "x ragged": (lambda s: s.pretrain(ragged(s.x)), NUMBERS_X),
    "x a ragged tensor": (lambda s: s.pretrain(tensorflow_ragged(s.x)), "Received: x of type Ragg"),
    "x masked": (lambda s: s.pretrain(np.ma.masked_less(s.x, 0.5)), NUMBERS_X + " MaskedArray"),
    "x nested lists of unequal lengths": (
        lambda s: s.pretrain([row[: 3 + i % 2] for i, row in enumerate(s.x.tolist())]),
        NUMBERS_X + " list",
    ),
    "x a list of too many arrays": (
        lambda s: s.fit([s.x] * 3),
        "each of 2 members.*Received: x, a list of 3: ndarray",
    ),
    "x a list of unequal arrays": (
        lambda s: s.fit([s.x, s.x[:-1]], [s.y, s.y[:-1]]),
        r"as many examples for each member.*Received: x of shapes \[\(31, 8\), \(32, 8\)\]",
    ),
    "x None": (lambda s: greedy_pretrain(s.model, None), NOT_AN_ARRAY + " NoneType"),
    "x a dictionary": (lambda s: s.pretrain({"x": s.x}), NOT_AN_ARRAY + " dict"),
    "x a generator": (lambda s: s.pretrain(iter([s.x])), "generator cannot.*Received: x of type"),
    "x an infinite dataset": (
        lambda s: s.pretrain(infinite(s.x)),
        "finite dataset.*Received: .*inf",
    ),
    # Targets and weights
    "y for an objective without": (
        lambda s: s.pretrain(y=s.y),
        "leave `y` out.*Received: y of type ndarr",
    ),
    "y missing": (lambda s: s.population.fit(s.x, loss=LOSS), "Expected targets.*Received: y=None"),
    "y missing in evaluate": (
        lambda s: s.population.evaluate(s.x, loss=LOSS),
        "Expected targets.*Received: y=None",
    ),
    "y missing in validation": (
        lambda s: s.fit(validation_data=s.x),
        "Expected targets.*Received: y=None",
    ),
    "y shorter than x": (
        lambda s: s.fit(y=s.y[:-1]),
        r"as many examples in y as in x.*Received: x.shape=\(32, 8\), y.shape=\(31,\)",
    ),
    "y with NaN": (
        lambda s: s.fit(y=np.where(s.y == 0, np.nan, s.y)),
        "`y` must be finite.*Received: y with 11 NaN",
    ),
    "y of strings": (lambda s: s.fit(y=s.y.astype(str)), NUMBERS_Y),
    "labels too large": (lambda s: s.fit(y=s.y + 1), "from 0 to 2.*Received: y of .* from 1 to 3"),
    "labels negative": (lambda s: s.fit(y=s.y - 1), "from 0 to 2.*Received: y of .* from -1 to 1"),
    "labels too large, loss by name": (
        lambda s: s.fit(y=s.y + 1, loss="sparse_categorical_crossentropy"),
        "from 0 to 2.*Received: y of .* from 1 to 3",
    ),
    "labels too large in validation": (
        lambda s: s.fit(validation_data=(s.x, s.y + 1)),
        "from 0 to 2.*Received: y of .* from 1 to 3",
    ),
    "labels between classes": (
        lambda s: s.fit(y=s.y + 0.5),
        "labels that are integers.*Received: y of float32 from 0.5",
    ),
    "weights for each class": (
        lambda s: s.fit(sample_weight=uniform(N, 3)),
        r"`sample_weight` must have one weight for each example.*Received: .*\(32, 3\)",
    ),
    "weights too few": (
        lambda s: s.fit(sample_weight=uniform(N - 1)),
        r"as many examples in sample_weight as in x.*Received: .*\(31,\)",
    ),
    "validation data of four": (
        lambda s: s.fit(validation_data=(s.x, s.y, s.y, s.y)),
        "`validation_data` must be.*Received: a tuple of 4",
    ),
    "validation data of wrong shape": (lambda s: s.pretrain(validation_data=s.x[:, :7]), SHAPE),
    # Settings
    "objective unknown": (
        lambda s: s.pretrain(objective="denoisng"),
        "`objective` must be one of .*'denoising'.*Received: objective='denoisng'",
    ),
    "objective a class": (
        lambda s: s.pretrain(objective=Autoencoder),
        "`objective` must be.*Received: objective=<class",
    ),
    "objectives too few": (
        lambda s: s.pretrain(objective=[Autoencoder()]),
        r"one for each of 2 stages.*Received: objective=\[Autoencoder",
    ),
    "corruption unknown": (
        lambda s: DenoisingAutoencoder("masking"),
        "`corruption` must be.*Received: corruption='masking'",
    ),
    "corruption of everything": (lambda s: Masking(1.5), r"in \[0, 1\).*Received: rate=1.5"),
    "reconstruction loss unknown": (
        lambda s: Autoencoder(loss="hinge"),
        "`loss` must be one of.*'auto', 'binary_crossentropy'.*Received: loss='hinge'",
    ),
    "loss unknown": (lambda s: s.fit(loss="crossentropi"), "`loss` must.*Received: loss='crossent"),
    "loss None": (lambda s: s.fit(loss=None), "`loss` must be.*Received: loss=None"),
    "loss without mean": (
        lambda s: s.fit(loss=keras.losses.MeanSquaredError(reduction="sum")),
        "mean.*Received: .*reduction='sum'",
    ),
    "loss without reduction": (
        lambda s: s.fit(loss=keras.losses.MeanSquaredError(reduction=None)),
        "mean.*Received: .*reduction=None",
    ),
    "metric unknown": (lambda s: s.fit(metrics=["acuracy"]), "`metrics` must.*Received: 'acuracy'"),
    "metric of other targets": (
        lambda s: s.fit(metrics=[keras.metrics.AUC()]),
        r"AUC.* compares with the model's outputs.*Received: targets of shape \(7,\)",
    ),
    "metric of several values": (
        lambda s: s.fit(y=np.eye(3)[s.y], loss="mse", metrics=[keras.metrics.F1Score()]),
        "to a single number.*Received: targets of shape",
    ),
    "one-hot targets of a sparse loss": (
        lambda s: s.fit(y=np.eye(3)[s.y]),
        "one-hot targets need 'categorical_crossentropy'.*Received: targets of shape",
    ),
    "metrics a name": (
        lambda s: s.fit(metrics="accuracy"),
        "`metrics` must be a list.*Received: metrics='accuracy'",
    ),
    "metrics of one name": (
        lambda s: s.fit(metrics=["accuracy", "accuracy"]),
        r"names of their own.*Received: \['loss', 'accuracy', 'accuracy'\]",
    ),
    "optimizer unknown": (
        lambda s: s.pretrain(optimizer="adamm"),
        "`optimizer` must be.*Received: optimizer='adamm'",
    ),
    "optimizer not supported": (
        lambda s: s.pretrain(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())),
        "Expected an optimizer.*Received: optimizer=LossScaleOptimizer",
    ),
    "optimizer with averages": (
        lambda s: s.pretrain(optimizer=keras.optimizers.SGD(use_ema=True)),
        "`use_ema` are not supported.*Received: use_ema=True",
    ),
    "rate negative": (lambda s: s.fit(learning_rate=-0.1), RATES + "-0.1"),
    "rate zero": (lambda s: s.pretrain(learning_rate=0), RATES + "0"),
    "rate NaN": (lambda s: s.fit(learning_rate=[0.1, np.nan]), RATES + r"\[0.1, nan\]"),
    "rate of text": (lambda s: s.fit(learning_rate="fast"), RATES + "'?fast"),
    "rates too many": (
        lambda s: s.fit(learning_rate=[0.1] * 3),
        "each of 2 members.*Received: lea",
    ),
    "rate beside a schedule": (
        lambda s: s.fit(
            optimizer=keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 5)),
            learning_rate=0.1,
        ),
        "schedule.*expected learning_rate=None.*Received: learning_rate=0.1",
    ),
    "no epochs": (lambda s: s.pretrain(epochs=0), INTEGER.format("epochs", 0)),
    "half an epoch": (lambda s: s.fit(epochs=0.5), INTEGER.format("epochs", 0.5)),
    "empty batches": (lambda s: s.pretrain(batch_size=0), INTEGER.format("batch_size", 0)),
    "batches of truth": (lambda s: s.fit(batch_size=True), INTEGER.format("batch_size", "True")),
    "no full batch": (
        lambda s: s.pretrain(batch_size=33, drop_remainder=True),
        "at least one full batch.*Received: 32 examples, batch_size=33",
    ),
    "no full batch in fit": (
        lambda s: s.fit(batch_size=33, drop_remainder=True),
        "at least one full batch.*Received: 32 examples, batch_size=33",
    ),
    "no memory": (lambda s: s.pretrain(max_memory=0), INTEGER.format("max_memory", 0)),
    "no memory for fit": (lambda s: s.fit(max_memory=-1), INTEGER.format("max_memory", -1)),
    "seed not an integer": (lambda s: s.pretrain(seed=0.5), SEEDS + r"\[0.5\]"),
    "seed of truth": (lambda s: s.pretrain(seed=True), SEEDS + r"\[True\]"),
    "seed None": (lambda s: s.pretrain(seed=None), SEEDS + r"\[None\]"),
    # Models
    "model unbuilt": (
        lambda s: s.pretrain(model=keras.Sequential([layers.Dense(3)])),
        BUILT + ".*Sequential",
    ),
    "model a layer": (lambda s: s.pretrain(model=layers.Dense(3)), BUILT + ".*Dense"),
    "model a function": (lambda s: s.pretrain(model=small), BUILT + ".*function"),
    "model with two inputs": (
        lambda s: s.pretrain(model=multi_input()),
        "with one input.*model of each branch.*Received: .*2 inputs",
    ),
    "model without projection": (
        lambda s: s.pretrain(model=without_projection()),
        "more than head=.*Received: a model with 0 stages",
    ),
    "model with a head alone": (
        lambda s: s.pretrain(model=keras.Sequential([keras.Input((8,)), layers.Dense(3)])),
        "more than head=1 stages.*Received: a model with 1 stages",
    ),
    "model with an embedding": (
        lambda s: s.pretrain(model=with_embedding()),
        "cannot reconstruct integer inputs.*Received: .*embedding",
    ),
    "model without a graph": (
        lambda s: s.pretrain(model=chain_model(8)),
        "Sequential or functional.*Received: model=.*Chain",
    ),
    "model frozen": (
        lambda s: s.pretrain(model=frozen()),
        "trainable weights.*Received: stage 'hidden_1', which is frozen",
    ),
    "stage that cannot be tied": (
        lambda s: s.pretrain(model=small(shortcut="highway"), objective=Autoencoder(tied=True)),
        "Tied weights need.*Received: stage 'hidden_2'",
    ),
    # Stages
    "head too large": (
        lambda s: split_stages(s.model, head=3),
        "more than head=3 stages.*Received: a model with 3 stages",
    ),
    "head negative": (
        lambda s: split_stages(s.model, head=-1),
        "`head` must be an integer of at least 0.*Received: head=-1",
    ),
    "no stages": (lambda s: s.pretrain(stages=0), "from 1 to 2 stages.*Received: stages=0"),
    "stages too many": (lambda s: s.pretrain(stages=3), "from 1 to 2 stages.*Received: stages=3"),
    "stages of truth": (lambda s: s.pretrain(stages=True), STAGES + "True"),
    "stages one list": (lambda s: s.pretrain(stages=["hidden_1"]), STAGES + r"\['hidden_1'\]"),
    "stage unknown": (
        lambda s: s.pretrain(stages=[["hiden_1"]]),
        r"layers of the model.*Received: .*unknown names \['hiden_1'\]",
    ),
    "stage twice": (
        lambda s: s.pretrain(stages=[["hidden_1"], ["hidden_1"]]),
        "each at most once.*Received: stages=",
    ),
    "stages in the wrong order": (
        lambda s: s.pretrain(stages=[["hidden_2"], ["hidden_1"]]),
        r"in the order of the model.*Received: .*\['hidden_1'\] comes too late",
    ),
    # Populations
    "no members": (lambda s: Population(lambda seed: small(), []), SEEDS + r"\[\]"),
    "seeds a number": (lambda s: Population(lambda seed: small(), 3), SEEDS + "3"),
    "seeds of truth": (lambda s: Population(lambda seed: small(), [True]), SEEDS + r"\[True\]"),
    "seeds of text": (lambda s: Population(lambda seed: small(), "01"), SEEDS),
    "build returns nothing": (lambda s: Population(lambda seed: None, [0]), BUILT + "None"),
    "models of different sizes": (
        lambda s: Population.from_models([small(), small(units=6)]),
        "one architecture.*Received: variables of shapes",
    ),
    "models of different activations": (
        lambda s: Population.from_models([small(), small(activation="tanh")]),
        "one architecture.*Received: 'mlp' beside 'mlp'",
    ),
    "one model twice": (
        lambda s: Population.from_models([s.model, s.model]),
        "model of its own.*Received: ",
    ),
    "no models": (lambda s: Population.from_models([]), SEEDS + r"\[\]"),
    "models fewer than seeds": (
        lambda s: Population.from_models([small()], [0, 1]),
        r"a seed for each model.*Received: 1 models, seeds=\[0, 1\]",
    ),
    "member unknown": (lambda s: s.population.member(2), "Expected a member of 2.*Received: i=2"),
    "member far below": (
        lambda s: s.population.member(-3),
        "Expected a member of 2.*Received: i=-3",
    ),
    # Names
    "normalization unknown": (
        lambda s: networks.mlp((8,), normalization="group"),
        "`normalization` must be one of None, 'batch', 'layer'.*Received: normalization='group'",
    ),
    "shortcut unknown": (
        lambda s: networks.mlp((8,), shortcut="skip"),
        "`shortcut` must be one of None, 'residual', 'highway'.*Received: shortcut='skip'",
    ),
    "gate bias as text": (
        lambda s: networks.mlp((8,), shortcut="highway", gate_bias="-1"),
        "`gate_bias` must be a number. Received: gate_bias='-1'",
    ),
    "initializer unknown": (
        lambda s: initializers.get("xavier"),
        "Expected an initializer.*Received: identifier='xavier'",
    ),
    "dataset unknown": (lambda s: datasets.load("nmist"), "mnist.*Received: name='nmist'"),
}
EXCEPTIONS = {"member unknown": IndexError, "member far below": IndexError}


@pytest.fixture(scope="module")
def subject():
    return Subject()


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_answered(subject, name):
    call, message = CASES[name]
    before = subject.digest()
    with pytest.raises(EXCEPTIONS.get(name, ValueError)) as error:
        call(subject)
    assert re.search(message, str(error.value), re.DOTALL), str(error.value)
    assert "Received: " in str(error.value)
    assert subject.digest() == before


def test_good_input_is_not_refused(subject):
    subject.pretrain(model=small())
    population = Population.from_models([small(), small()])
    population.fit(subject.x, subject.y, loss=LOSS, batch_size=8)


def test_the_table_is_long():
    assert len(CASES) >= 30
    assert all("Received" in message for call, message in CASES.values())


def test_values_outside_of_the_range_of_a_sigmoid_are_no_error():
    # Squared error is chosen for them.
    report = greedy_pretrain(small(), gaussian(N, 8), epochs=1, batch_size=8)
    assert np.isfinite(report.history["loss"]).all()
    assert list(itertools.islice(report.to_frame()["loss_name"], 1)) == ["mean_squared_error"]
