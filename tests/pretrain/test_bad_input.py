"""Bad input is answered by what was expected and what was received, and changes nothing."""

import keras
import numpy as np
import pytest
from keras import layers
from pretrain_helpers import digest, uniform

import pretrain
from pretrain import Autoencoder, DenoisingAutoencoder, Population, greedy_pretrain, split_stages
from pretrain.corruption import Gaussian, Masking, SaltAndPepper
from pretrain.networks import convnet, mlp

X = uniform(12, 6)
Y = np.arange(12) % 3
TOKENS = np.arange(60).reshape(12, 5) % 7
RAGGED = np.array([np.zeros(2), np.zeros(3)], dtype=object)
LOSS = "sparse_categorical_crossentropy"


def model(depth=2):
    return mlp((6,), 3, depth=depth, units=4, activation="sigmoid", seed=0)


def with_value(value):
    x = X.copy()
    x[3, 2] = value
    return x


def fit(target, x=X, y=Y, **options):
    population = Population.from_models([target, target])
    return population.fit(x, y, **{"loss": LOSS, "batch_size": 4} | options)


def embedding():
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(7, 4),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def two_inputs():
    a, b = keras.Input((6,)), keras.Input((6,))
    return keras.Model([a, b], layers.Dense(3)(layers.Dense(4)(layers.Add()([a, b]))))


def residual():
    inputs = keras.Input((6,))
    inside = layers.Dense(6)(layers.Dense(4)(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.Add()([inputs, inside])))


def frozen():
    target = model()
    target.get_layer("hidden_2").trainable = False
    return target


def infinite():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(X).batch(4).repeat()


def no_batches():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(X).batch(4).take(0)


# What is called with a model, and a pattern of the answer.
CASES = {
    "rank": (
        lambda m: greedy_pretrain(m, uniform(12, 2, 3)),
        r"x of shape \('n', 6\).*\(12, 2, 3\)",
    ),
    "features": (lambda m: greedy_pretrain(m, uniform(12, 5)), r"\('n', 6\).*x.shape=\(12, 5\)"),
    "one example": (lambda m: greedy_pretrain(m, X[0]), r"\('n', 6\).*x.shape=\(6,\)"),
    "scalar": (lambda m: greedy_pretrain(m, np.float32(1)), r"at least one example.*x.shape=\(\)"),
    "empty": (lambda m: greedy_pretrain(m, X[:0]), r"at least one example.*\(0, 6\)"),
    "nan": (lambda m: greedy_pretrain(m, with_value(np.nan)), "finite.*1 NaN"),
    "infinity": (lambda m: fit(m, with_value(np.inf)), "finite.*1 NaN or infinite"),
    "text": (lambda m: greedy_pretrain(m, np.array([["a"] * 6] * 12)), "array of numbers.*<U1"),
    "ragged": (lambda m: greedy_pretrain(m, RAGGED), "array of numbers.*dtype object"),
    "masked": (lambda m: greedy_pretrain(m, np.ma.array(X, mask=X > 0.5)), "masked.*MaskedArray"),
    "dictionary": (lambda m: greedy_pretrain(m, {"x": X}), "one array.*dict"),
    "nothing": (lambda m: greedy_pretrain(m, None), "one array.*NoneType"),
    "file name": (lambda m: greedy_pretrain(m, "mnist"), "one array.*str"),
    "numbers": (lambda m: greedy_pretrain(m, [1.0, 2.0]), "each of 1 members.*list of 2: float"),
    "generator": (lambda m: greedy_pretrain(m, (x for x in [X])), "PyDataset.*generator"),
    "infinite stream": (lambda m: greedy_pretrain(m, infinite()), "finite stream.*infinite"),
    "empty stream": (
        lambda m: greedy_pretrain(m, no_batches()),
        "at least one example.*empty stream",
    ),
    "targets of a stream": (lambda m: fit(m, iter, Y), "one array|brings its own.*Received"),
    "arrays of members": (lambda m: fit(m, [X]), "each of 2 members.*list of 1"),
    "sizes of members": (
        lambda m: fit(m, [X, X[:8]], [Y, Y[:8]]),
        r"each member.*\(8, 6\).*\(12, 6\)",
    ),
    "lengths": (lambda m: fit(m, X, Y[:5]), r"as many examples in y.*y.shape=\(5,\)"),
    "weights": (lambda m: fit(m, sample_weight=np.ones(3)), r"in sample_weight.*shape=\(3,\)"),
    "no targets": (lambda m: fit(m, y=None), "Expected targets.*y=None"),
    "label too large": (lambda m: fit(m, y=Y + 1), "from 0 to 2.*from 1 to 3"),
    "negative label": (lambda m: fit(m, y=Y - 1), "from 0 to 2.*from -1 to 1"),
    "validation": (lambda m: fit(m, validation_data=(X[:, :2], Y)), r"\('n', 6\).*\(12, 2\)"),
    "validation tuple": (
        lambda m: fit(m, validation_data=(X, Y, Y, Y)),
        "sample_weight.*tuple of 4",
    ),
    "loss": (lambda m: fit(m, loss="surprise"), "`loss` must be.*'surprise'"),
    "metric": (lambda m: fit(m, metrics=["AUC"]), "means over examples.*'AUC'"),
    "unknown metric": (lambda m: fit(m, metrics=["elegance"]), "`metrics`.*'elegance'"),
    "metrics as text": (lambda m: fit(m, metrics="accuracy"), "must be a list.*'accuracy'"),
    "optimizer": (lambda m: greedy_pretrain(m, X, optimizer="luck"), "Keras optimizer.*'luck'"),
    "moving average": (
        lambda m: fit(m, optimizer=keras.optimizers.SGD(use_ema=True)),
        "use_ema.*use_ema=True",
    ),
    "Nadam": (lambda m: fit(m, optimizer="nadam"), "only defines `update_step`.*Nadam"),
    "negative rate": (lambda m: fit(m, learning_rate=-0.1), "positive number.*-0.1"),
    "rate of 0": (lambda m: greedy_pretrain(m, X, learning_rate=0), "positive number.*=0"),
    "rate of NaN": (lambda m: fit(m, learning_rate=np.nan), "positive number.*nan"),
    "rates": (lambda m: fit(m, learning_rate=[0.1] * 3), "each of 2 members.*0.1, 0.1, 0.1"),
    "no epochs": (lambda m: greedy_pretrain(m, X, epochs=0), "`epochs`.*at least 1.*epochs=0"),
    "half epochs": (lambda m: fit(m, epochs=1.5), "`epochs` must be an integer.*1.5"),
    "batch size": (lambda m: greedy_pretrain(m, X, batch_size=-1), "`batch_size`.*batch_size=-1"),
    "large batch": (lambda m: fit(m, batch_size=13), "full batch.*12 examples, batch_size=13"),
    "memory": (lambda m: greedy_pretrain(m, X, max_memory=0), "`max_memory`.*max_memory=0"),
    "objective": (lambda m: greedy_pretrain(m, X, "autoencoder"), "`objective`.*'autoencoder'"),
    "objectives": (lambda m: greedy_pretrain(m, X, [Autoencoder()]), "each of 2 stages.*Received"),
    "targets unused": (lambda m: greedy_pretrain(m, X, y=Y), "expected y=None.*ndarray"),
    "objective's loss": (lambda m: Autoencoder(loss="hinge"), "`loss` must be one of.*'hinge'"),
    "reduction": (lambda m: Autoencoder(reduction="max"), "`reduction` must be one of.*'max'"),
    "tied": (lambda m: Autoencoder(tied="yes"), "True or False.*'yes'"),
    "corruption": (lambda m: DenoisingAutoencoder(0.25), "Masking.*0.25"),
    "masking rate": (lambda m: Masking(1.5), r"in \[0, 1\).*1.5"),
    "noise": (lambda m: Gaussian(-1), "`stddev`.*-1"),
    "salt and pepper": (lambda m: SaltAndPepper(0.1, 1, 0), "`low`.*low=1, high=0"),
    "config": (lambda m: pretrain.objectives.from_config({"name": "GAN"}), "among.*GAN"),
    "tied block": (
        lambda m: greedy_pretrain(residual(), X, Autoencoder(tied=True)),
        "tied=False.*add",
    ),
    "frozen stage": (lambda m: greedy_pretrain(frozen(), X), "trainable weights.*'hidden_2'"),
    "head": (lambda m: split_stages(m, head=3), "head.*3 stages"),
    "negative head": (lambda m: split_stages(m, head=-1), "`head`.*head=-1"),
    "stage count": (lambda m: greedy_pretrain(m, X, stages=3), "from 1 to 2.*stages=3"),
    "stage name": (lambda m: split_stages(m, stages=[["hiden_1"]]), "hidden_1.*'hiden_1'"),
    "stage twice": (lambda m: split_stages(m, stages=[["hidden_1"]] * 2), "each once.*hidden_1"),
    "stage as text": (
        lambda m: split_stages(m, stages="hidden_1"),
        "list of layer names.*'hidden_1'",
    ),
    "stage order": (
        lambda m: split_stages(m, stages=[["hidden_2"], ["hidden_1"]]),
        "in the order.*hidden_1",
    ),
    "integers": (lambda m: greedy_pretrain(embedding(), TOKENS), "integer inputs.*embedding"),
    "two inputs": (lambda m: greedy_pretrain(two_inputs(), X), "one input.*2 inputs"),
    "only a head": (
        lambda m: greedy_pretrain(keras.Sequential([keras.Input((6,)), layers.Dense(3)]), X),
        "1 stages",
    ),
    "unbuilt": (
        lambda m: greedy_pretrain(keras.Sequential([layers.Dense(3)]), X),
        "built.*Sequential",
    ),
    "no model": (lambda m: greedy_pretrain("mlp", X), "Keras model.*'mlp' of type str"),
    "no seeds": (lambda m: Population(lambda seed: model(), []), r"at least one.*\[\]"),
    "seed": (lambda m: Population(lambda seed: model(), [0.5]), "integers.*0.5"),
    "architectures": (
        lambda m: Population(lambda seed: model(seed), [1, 2]),
        "one architecture.*Received",
    ),
    "seeds of models": (lambda m: Population.from_models([m], [1, 2]), r"each model.*\[1, 2\]"),
    "normalization": (lambda m: mlp((6,), normalization="instance"), "normalization.*'instance'"),
    "shortcut": (lambda m: convnet((8, 8, 1), shortcut="dense"), "shortcut.*'dense'"),
    "initializer": (lambda m: mlp((6,), initializer="lucky"), "initializer.*|lucky"),
    "dataset": (lambda m: pretrain.datasets.load("mnits"), "mnist.*'mnits'"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_and_changes_nothing(case):
    call, message = CASES[case]
    target = model()
    before = digest(target.variables)
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        call(target)
    assert "Received: " in str(error.value)
    assert digest(target.variables) == before


def test_a_member_that_is_not_there():
    population = Population(lambda seed: model(), [0, 1])
    with pytest.raises(IndexError, match="member of 2. Received: i=2"):
        population.member(2)


def test_the_backend():
    """Said at import, since nothing works on another one."""
    import subprocess
    import sys

    code = "import keras.backend; keras.backend.backend = lambda: 'torch'; import pretrain.backend"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "TensorFlow and JAX" in done.stderr
    assert "Received: keras.backend.backend()='torch'" in done.stderr
