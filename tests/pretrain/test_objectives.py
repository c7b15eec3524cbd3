import dataclasses
import json
import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from pretrain_helpers import array, gaussian, sequential, sigmoid, uniform, values
from scipy.special import logit

from pretrain import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    Gaussian,
    Masking,
    RestrictedBoltzmannMachine,
    SaltAndPepper,
    SparseAutoencoder,
    SupervisedGreedy,
    VariationalAutoencoder,
    backend,
    greedy_pretrain,
    objectives,
    split_stages,
)
from pretrain.objectives.objective import Moments

AUTOENCODERS = [
    Autoencoder(),
    Autoencoder(reduction="sum"),
    Autoencoder(tied=True),
    Autoencoder(loss="mean_squared_error"),
    DenoisingAutoencoder(Masking(0.25)),
    DenoisingAutoencoder(Gaussian(0.2)),
    DenoisingAutoencoder(SaltAndPepper(0.2)),
    DenoisingAutoencoder(Masking(0.25), tied=True, reduction="sum"),
    DenoisingAutoencoder(SaltAndPepper(0.5), alpha=1.0, beta=0.5),
    SparseAutoencoder(),
    SparseAutoencoder(norm="l1", weight=0.1, reduction="sum"),
    ContractiveAutoencoder(tied=True),
    ContractiveAutoencoder(samples=1),
]
OBJECTIVES = [
    *AUTOENCODERS,
    VariationalAutoencoder(latent=3),
    RestrictedBoltzmannMachine(),
    RestrictedBoltzmannMachine(k=2, persistent=True, chains=10),
    SupervisedGreedy(3),
    SupervisedGreedy(3, k=2),
]
KEY = np.array([1, 2], "int32")


def dense(units=4, activation="sigmoid", **options):
    return layers.Dense(units, activation=activation, **options)


def conv(filters=4, size=3, **options):
    return layers.Conv2D(filters, size, **{"activation": "sigmoid", **options})


def residual_model():
    x = keras.Input((7, 7, 2))
    inside = conv(3, padding="same", strides=2, name="inside")(x)
    inside = layers.BatchNormalization()(inside)
    shortcut = conv(3, 1, padding="same", strides=2, activation=None)(x)
    h = layers.ReLU()(layers.Add()([inside, shortcut]))
    h = layers.GlobalAveragePooling2D()(h)
    return keras.Model(x, layers.Dense(2)(h))


def model_of(input_shape, stack):
    return lambda: sequential(input_shape, *stack(), layers.Flatten(), layers.Dense(2))


STAGES = {
    "dense": model_of((6,), lambda: [dense()]),
    "dense, batch normalization": model_of(
        (6,), lambda: [dense(activation=None), layers.BatchNormalization(), layers.ReLU()]
    ),
    "dense of each step": model_of((5, 3), lambda: [dense()]),
    "valid convolution": model_of((6, 7, 2), lambda: [conv()]),
    "same convolution": model_of((6, 7, 2), lambda: [conv(padding="same")]),
    "even kernel": model_of((6, 7, 2), lambda: [conv(size=(2, 4))]),
    "stride": model_of((7, 6, 2), lambda: [conv(strides=2, padding="same")]),
    "dilation": model_of((9, 8, 2), lambda: [conv(dilation_rate=2)]),
    "pooling": model_of(
        (9, 8, 2),
        lambda: [conv(activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D()],
    ),
    "odd sizes": model_of((11, 5, 1), lambda: [conv(strides=(3, 2)), layers.AveragePooling2D(2)]),
    "sequence": model_of((9, 2), lambda: [layers.Conv1D(4, 4, strides=2, activation="tanh")]),
    "volume": model_of((4, 5, 4, 1), lambda: [layers.Conv3D(3, 2, activation="sigmoid")]),
    "residual block": residual_model,
    "recurrent": model_of((5, 3), lambda: [layers.LSTM(4)]),
}
NEVER_TIED = ("residual block", "recurrent")
SIGMOID = ("dense", "valid convolution", "same convolution", "even kernel", "stride", "dilation")


def fits(objective, kind):
    if isinstance(objective, RestrictedBoltzmannMachine):
        return kind == "dense"
    if getattr(objective, "norm", "") == "kl":
        return kind in SIGMOID
    return not (getattr(objective, "tied", False) and kind in NEVER_TIED)


COMBINATIONS = [
    pytest.param(objective, kind, id=f"{number}-{kind}")
    for number, objective in enumerate(OBJECTIVES)
    for kind in STAGES
    if fits(objective, kind)
]
# Each objective and each kind of stage, where a program is compiled for each.
SOME_COMBINATIONS = [
    parameters
    for parameters in COMBINATIONS
    if parameters.values[1] == "dense"
    or parameters.values[0] == AUTOENCODERS[0 if parameters.values[1] in NEVER_TIED else 7]
]


def examples(model, n=32, seed=1):
    """Examples with something to learn: three of them, brighter or darker."""
    pattern = uniform(3, *model.input_shape[1:], seed=seed)
    shade = uniform(n, *[1] * (pattern.ndim - 1), seed=seed + 1)
    return pattern[np.arange(n) % 3] * shade


def first_stage(model):
    return split_stages(model)[0]


def labels(objective, n=32):
    """Labels that go with the patterns of `examples`."""
    return np.arange(n) % 3 if objective.needs_targets else None


def called(learner, x):
    inputs = {"x": ops.convert_to_tensor(x), "key": ops.convert_to_tensor(KEY)}
    return learner(inputs)


def encoded(stage, x):
    return stage(ops.convert_to_tensor(x), training=False)


# Every objective, every kind of stage


@pytest.mark.parametrize("objective, kind", COMBINATIONS)
def test_decoders_give_what_the_stage_takes(objective, kind):
    model = STAGES[kind]()
    stage = first_stage(model)
    learner = objective.decided(True).build(stage, seed=0)
    x = examples(model, 3)
    if objective.needs_targets:
        logits = called(learner, x)["logits"]
        assert tuple(logits.shape) == (3, 3)
        np.testing.assert_array_equal(array(logits), array(learner.head(encoded(stage, x))))
        return
    reconstruction = called(learner, x)["reconstruction"]
    assert tuple(reconstruction.shape) == x.shape
    if isinstance(objective, VariationalAutoencoder):
        assert tuple(learner.head(encoded(stage, x)).shape) == (3, 2, 3)
        assert tuple(learner.decoder(np.zeros((3, 3), "float32")).shape) == x.shape
        return
    expected = array(learner.decoder(encoded(stage, x)))
    np.testing.assert_array_equal(array(reconstruction), expected)


@pytest.mark.parametrize("objective, kind", SOME_COMBINATIONS)
def test_the_loss_falls(objective, kind):
    model = STAGES[kind]()
    optimizer = keras.optimizers.Adam(0.02)
    report = greedy_pretrain(
        model,
        examples(model),
        objective,
        y=labels(objective),
        epochs=25,
        batch_size=8,
        optimizer=optimizer,
    )
    # What a Boltzmann machine minimizes tells nothing: its chains get better, too.
    boltzmann = isinstance(objective, RestrictedBoltzmannMachine)
    losses = report.history["reconstruction" if boltzmann else "loss"].to_numpy()
    assert np.isfinite(losses).all()
    assert losses[-5:].mean() < losses[:5].mean()


@pytest.mark.parametrize("objective, kind", SOME_COMBINATIONS)
def test_one_seed_gives_one_learner(objective, kind):
    model = STAGES[kind]()
    stage = first_stage(model)
    one, again, other = (
        [array(v) for v in objective.decided(True).build(stage, seed).own_variables]
        for seed in (1, 1, 2)
    )
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    if not getattr(objective, "tied", isinstance(objective, RestrictedBoltzmannMachine)):
        assert (one[0] != other[0]).any()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_an_objective_is_plain_data(objective):
    config = json.loads(json.dumps(objectives.to_config(objective)))
    again = objectives.from_config(config)
    assert again == objective
    assert hash(again) == hash(objective)
    assert type(again) is type(objective)
    assert sum(other == objective for other in OBJECTIVES) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        objective.loss = "auto"


def test_an_objective_is_written_as_in_its_documentation():
    objective = DenoisingAutoencoder(Masking(0.25))
    assert objective == DenoisingAutoencoder() == DenoisingAutoencoder(corruption=Masking(0.25))
    assert objective != Autoencoder()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"name": "Autoencode"},
        {"name": "Autoencoder", "ties": True},
        {"name": "DenoisingAutoencoder", "corruption": {"rate": 0.2}},
        {"name": "DenoisingAutoencoder", "corruption": {"name": "Mask", "rate": 0.2}},
    ],
)
def test_unknown_configurations_are_refused(config):
    with pytest.raises(ValueError, match="Expected a name and fields.*Autoencoder.*Received: con"):
        objectives.from_config(config)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Autoencoder(tied=1), "`tied` must be True or False.*Received: tied=1"),
        (lambda: Autoencoder(decoder_gain=0), "`decoder_gain` must be a number above 0.*=0"),
        (lambda: Autoencoder(decoder_gain=-1), "`decoder_gain` must be a number above 0.*=-1"),
        (lambda: Autoencoder(tied=True, decoder_gain=4), "Tied weights.*decoder_gain=4"),
        (lambda: Autoencoder(loss="mse"), "`loss` must be one of.*Received: loss='mse'"),
        (lambda: Autoencoder(loss=None), "Received: loss=None"),
        (lambda: Autoencoder(reduction="none"), "one of .*'mean', 'sum'.*reduction='none'"),
        (lambda: DenoisingAutoencoder("masking"), "`corruption` must be.*corruption='masking'"),
        (lambda: DenoisingAutoencoder(Masking), "`corruption` must be.*corruption=.*Masking"),
        (lambda: DenoisingAutoencoder(0.25), "`corruption` must be.*corruption=0.25"),
        (lambda: DenoisingAutoencoder(None), "`corruption` must be.*corruption=None"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# The loss


def cross_entropy(x, z):
    z = sigmoid(z.astype("float64"))
    return -(x * np.log(z) + (1 - x) * np.log(1 - z))


def squared_error(x, z):
    return (x.astype("float64") - z) ** 2


@pytest.mark.parametrize("shape", [(6,), (3, 4, 2)])
@pytest.mark.parametrize("binary, expected", [(True, cross_entropy), (False, squared_error)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_equal_numpy(shape, binary, expected, reduction):
    task = Autoencoder(reduction=reduction).decided(binary)
    x, outputs = uniform(5, *shape), gaussian(5, *shape)
    losses = expected(x, outputs).reshape(5, -1)
    losses = losses.sum(1) if reduction == "sum" else losses.mean(1)
    outputs = {"reconstruction": ops.convert_to_tensor(outputs)}
    (scores,) = task.scores(x, None, outputs)
    np.testing.assert_allclose(array(scores), losses, rtol=1e-5)
    loss = task.batch_loss(x, None, outputs, None)
    np.testing.assert_allclose(array(loss), losses.mean(), rtol=1e-5)


@pytest.mark.parametrize("loss", ["binary_crossentropy", "mean_squared_error"])
def test_the_sum_is_the_mean_times_the_features(loss):
    model = STAGES["valid convolution"]()
    mean, total = (Autoencoder(loss=loss, reduction=r) for r in ("mean", "sum"))
    x = uniform(5, *model.input_shape[1:])
    outputs = {"reconstruction": ops.convert_to_tensor(gaussian(*x.shape))}
    features = math.prod(x.shape[1:])
    (sums,), (means,) = (task.scores(x, None, outputs) for task in (total, mean))
    np.testing.assert_allclose(array(sums), features * array(means), rtol=1e-5)
    moments = Moments(x.mean(0, "float64"), (x**2).mean(0, "float64"))
    np.testing.assert_allclose(total.baseline(moments), features * mean.baseline(moments))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_baseline_is_the_loss_of_the_mean_input(binary, reduction):
    task = Autoencoder(reduction=reduction).decided(binary)
    x = uniform(50, 3, 4)
    mean = x.mean(0, "float64")
    outputs = np.broadcast_to(logit(mean) if binary else mean, x.shape).astype("float32")
    (scores,) = task.scores(x, None, {"reconstruction": ops.convert_to_tensor(outputs)})
    baseline = task.baseline(Moments(mean, (x**2).mean(0, "float64")))
    np.testing.assert_allclose(array(scores).mean(), baseline, rtol=1e-5)


def test_the_baseline_of_constant_features_is_zero():
    # Corner pixels are always 0 in MNIST: 0 log 0 is 0.
    x = np.array([[0, 1, 0.0], [0, 1, 1.0]])
    moments = Moments(x.mean(0), (x**2).mean(0))
    assert Autoencoder().decided(True).baseline(moments) == pytest.approx(np.log(2) / 3)
    assert Autoencoder().decided(False).baseline(moments) == pytest.approx(0.25 / 3)


CROSS_ENTROPY, SQUARED_ERROR = "binary_crossentropy", "mean_squared_error"


@pytest.mark.usefixtures("plain_graphs")
@pytest.mark.parametrize(
    "x, stack, expected",
    [
        (uniform(8, 6), [dense()], [CROSS_ENTROPY]),
        (uniform(8, 6) * 2, [dense()], [SQUARED_ERROR]),
        (gaussian(8, 6), [dense()], [SQUARED_ERROR]),
        (uniform(8, 6) - 0.5, [layers.Rescaling(1, 0.5), dense()], [CROSS_ENTROPY]),
        (uniform(8, 6), [layers.Rescaling(2), dense()], [SQUARED_ERROR]),
        (gaussian(8, 6), [dense(), dense()], [SQUARED_ERROR, CROSS_ENTROPY]),
        (uniform(8, 6), [dense(4, "relu"), dense()], [CROSS_ENTROPY, SQUARED_ERROR]),
        (uniform(8, 6), [dense(4, "tanh"), dense()], [CROSS_ENTROPY, SQUARED_ERROR]),
        # The values happen to lie in [0, 1], but what produces them does not promise it.
        (
            uniform(8, 6),
            [dense(4, "relu", kernel_initializer="zeros"), dense()],
            [CROSS_ENTROPY, SQUARED_ERROR],
        ),
        (
            uniform(8, 6),
            [dense(), layers.BatchNormalization(), dense()],
            [CROSS_ENTROPY, SQUARED_ERROR],
        ),
        (
            uniform(8, 6),
            [dense(4, None), layers.BatchNormalization(), layers.Activation("sigmoid"), dense()],
            [CROSS_ENTROPY, CROSS_ENTROPY],
        ),
        (uniform(8, 6), [dense(), layers.Dropout(0.5), dense()], [CROSS_ENTROPY, CROSS_ENTROPY]),
        (
            uniform(8, 6, 6, 1),
            [conv(), layers.MaxPooling2D(), layers.Flatten(), dense()],
            [CROSS_ENTROPY, CROSS_ENTROPY],
        ),
    ],
)
def test_the_loss_is_decided_by_what_produces_the_values(x, stack, expected):
    model = sequential(x.shape[1:], *stack, layers.Flatten(), layers.Dense(2))
    report = greedy_pretrain(model, x, Autoencoder(), epochs=1, batch_size=8)
    assert [stage.loss for stage in report.stages] == expected


@pytest.mark.usefixtures("plain_graphs")
def test_what_stands_between_named_stages_counts():
    middle = layers.BatchNormalization(name="norm")
    model = sequential((6,), dense(name="a"), middle, dense(name="b"), layers.Dense(2))
    stages = [["a"], ["b"]]
    report = greedy_pretrain(model, uniform(8, 6), epochs=1, batch_size=8, stages=stages)
    assert [stage.loss for stage in report.stages] == [CROSS_ENTROPY, SQUARED_ERROR]


@pytest.mark.usefixtures("plain_graphs")
@pytest.mark.parametrize("loss", [CROSS_ENTROPY, SQUARED_ERROR])
def test_the_caller_may_choose_the_loss(loss):
    model = sequential((6,), dense(4, "relu"), dense(), layers.Dense(2))
    report = greedy_pretrain(model, uniform(8, 6), Autoencoder(loss=loss), epochs=1, batch_size=8)
    assert [stage.loss for stage in report.stages] == [loss, loss]


# Corruption


@dataclasses.dataclass(frozen=True)
class Erase:
    """Leaves nothing of the input."""

    def __call__(self, x, seed):
        return ops.zeros_like(x)


@pytest.mark.usefixtures("plain_graphs")
def test_only_the_input_is_corrupted():
    model = STAGES["dense"]()
    x, optimizer = uniform(32, 6), keras.optimizers.SGD(1e-30)
    objective = DenoisingAutoencoder(Erase())
    report = greedy_pretrain(model, x, objective, epochs=1, batch_size=32, optimizer=optimizer)
    (stage,) = report.stages
    outputs = array(stage.decoders[0](encoded(first_stage(model), np.zeros_like(x))))
    expected = cross_entropy(x, outputs).mean()
    np.testing.assert_allclose(stage.history["loss"], expected, rtol=1e-5)


@pytest.mark.usefixtures("plain_graphs")
@pytest.mark.parametrize(
    "process, tied", [(Masking(0.0), False), (Gaussian(0.0), True), (SaltAndPepper(0.0), False)]
)
def test_denoising_without_noise_is_an_autoencoder(process, tied):
    trained, losses = [], []
    for objective in (Autoencoder(tied=tied), DenoisingAutoencoder(process, tied=tied)):
        keras.utils.set_random_seed(3)
        model = STAGES["dense"]()
        report = greedy_pretrain(model, examples(model), objective, epochs=2, batch_size=8)
        trained.append(values(model) + values(report.stages[0].decoders[0]))
        losses.append(report.history["loss"].tolist())
    assert losses[0] == losses[1]
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("plain_graphs")
def test_corruption_is_fresh_in_every_step_and_epoch():
    # Equal examples, a rate of nothing: only the corruption differs.
    model = STAGES["dense"]()
    x, optimizer = np.full((32, 6), 0.9, "float32"), keras.optimizers.SGD(1e-30)
    objective = DenoisingAutoencoder(Gaussian(1.0))
    losses = []
    for batch_size in (32, 8):
        report = greedy_pretrain(
            model, x, objective, epochs=4, batch_size=batch_size, optimizer=optimizer
        )
        losses += report.history["loss"].tolist()
    assert len(set(losses)) == 8


# Gradients, in double precision


def directions(variables, seed=5):
    generator = np.random.default_rng(seed)
    drawn = [generator.normal(size=v.shape) for v in variables]
    return [d / np.sqrt(sum((e**2).sum() for e in drawn)) for d in drawn]


GRADIENT_KINDS = (
    "dense",
    "dense, batch normalization",
    "dense of each step",
    "odd sizes",
    "sequence",
)
EACH_OBJECTIVE = ("dense", "dense, batch normalization", "odd sizes")
# The end of a chain is held constant, so that the loss is not what is differentiated.
DIFFERENTIABLE = [o for o in OBJECTIVES if not isinstance(o, RestrictedBoltzmannMachine)]


@pytest.mark.parametrize(
    "objective, kind",
    [
        (objective, kind)
        for objective in DIFFERENTIABLE
        for kind in GRADIENT_KINDS
        if fits(objective, kind) and (kind in EACH_OBJECTIVE or objective == AUTOENCODERS[7])
    ],
    ids=str,
)
def test_gradients_equal_finite_differences(float64, objective, kind):
    model = STAGES[kind]()
    task = objective.decided(binary=kind in GRADIENT_KINDS[:3])
    layer = task.build(first_stage(model), seed=0)
    x = ops.convert_to_tensor(examples(model, 4).astype("float64"))
    y = labels(objective, 4)
    corrupted = task.inputs(x, ops.convert_to_tensor(KEY))
    trained = [ops.convert_to_tensor(array(v)) for v in layer.trainable_variables]
    fixed = [ops.convert_to_tensor(array(v)) for v in layer.non_trainable_variables]

    def loss(variables):
        outputs, _ = layer.stateless_call(variables, fixed, corrupted, training=True)
        return task.batch_loss(x, y, outputs, None), None

    _, _, gradients = backend.value_and_gradients(loss, trained)
    for position, variable in enumerate(trained):
        (direction,) = directions([variable], seed=position)

        def along(step, position=position, direction=direction):
            moved = list(trained)
            moved[position] = trained[position] + step * direction
            return float(loss(moved)[0])

        numeric = (along(1e-6) - along(-1e-6)) / 2e-6
        analytic = (array(gradients[position]) * direction).sum()
        assert keras.backend.standardize_dtype(gradients[position].dtype) == "float64"
        np.testing.assert_allclose(analytic, numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("objective", [AUTOENCODERS[i] for i in (0, 5, 7)], ids=str)
def test_a_step_of_pretraining_goes_down_the_gradient_of_its_loss(float64, objective):
    model = STAGES["dense"]()
    x, weights = examples(model).astype("float64"), first_stage(model).trainable_variables
    start = [array(w).copy() for w in weights]

    def pretrain(step, rate):
        """Loss before, and weights after a step of gradient descent from a moved start."""
        for weight, value, direction in zip(weights, start, directions(weights), strict=True):
            weight.assign(value + step * direction)
        optimizer = keras.optimizers.SGD(rate)
        report = greedy_pretrain(model, x, objective, epochs=1, batch_size=32, optimizer=optimizer)
        return report.history["loss"][0], [array(w).copy() for w in weights]

    numeric = (pretrain(1e-5, 1e-30)[0] - pretrain(-1e-5, 1e-30)[0]) / 2e-5
    _, moved = pretrain(0.0, 1.0)
    gradient = [a - b for a, b in zip(start, moved, strict=True)]
    analytic = sum((g * d).sum() for g, d in zip(gradient, directions(weights), strict=True))
    np.testing.assert_allclose(analytic, numeric, rtol=1e-6)
