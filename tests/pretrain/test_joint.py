"""Joint training of all stages: instead of greedy pretraining, and after it."""

import keras
import numpy as np
import pytest
from keras import layers
from pretrain_helpers import array, gaussian, sequential, sigmoid, uniform, values

from pretrain import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    Masking,
    Population,
    RestrictedBoltzmannMachine,
    SparseAutoencoder,
    SupervisedGreedy,
    VariationalAutoencoder,
    datasets,
    greedy_pretrain,
    joint_pretrain,
    networks,
    unroll,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

X = uniform(48, 6)
LOSS = "binary_crossentropy"
GREEDY = {"epochs": 1, "pretrain": greedy_pretrain}
# A rate at which no weight of single precision moves: what is reported is of the initial weights.
STILL = keras.optimizers.SGD(1e-30)
# Penalties weigh enough to be seen.
STACKS = {
    "plain": [Autoencoder()] * 3,
    "tied": [Autoencoder(tied=True)] * 3,
    "denoising": [DenoisingAutoencoder(Masking(0.3), alpha=2.0), *[DenoisingAutoencoder()] * 2],
    "sparse": [SparseAutoencoder(weight=1.0)] * 3,
    "contractive": [ContractiveAutoencoder(weight=1.0)] * 3,
    "mixed": [
        ContractiveAutoencoder(reduction="sum"),
        DenoisingAutoencoder(),
        SparseAutoencoder(norm="l1"),
    ],
    "variational": [Autoencoder(reduction="sum")] * 2 + [VariationalAutoencoder(latent=2)],
}


def model_of(seed=0):
    return networks.mlp((6,), 3, depth=3, units=5, activation="sigmoid", seed=seed)


def trained(model, *objectives, x=X, pretrain=joint_pretrain, **options):
    options = {"epochs": 2, "batch_size": 16, "optimizer": keras.optimizers.SGD(0.5)} | options
    return pretrain(model, x, list(objectives) or None, **options)


def weights(models):
    return [array(variable) for model in models for variable in model.variables]


def assert_equal(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def losses(probabilities, x=X):
    return -(x * np.log(probabilities) + (1 - x) * np.log(1 - probabilities))


# For every objective


@pytest.mark.parametrize(
    "objective",
    [
        Autoencoder(tied=True),
        DenoisingAutoencoder(alpha=2.0),
        SparseAutoencoder(),
        ContractiveAutoencoder(),
        VariationalAutoencoder(latent=2),
    ],
)
def test_one_stage_is_trained_as_greedily(objective):
    options = {"stages": 1, "validation_data": (uniform(20, 6, seed=2),)}
    one, other = model_of(), model_of()
    joint = trained(one, objective, **options)
    greedy = trained(other, objective, pretrain=greedy_pretrain, **options)
    assert_equal(values(one), values(other))
    assert_equal(weights(joint.stages[0].decoders), weights(greedy.stages[0].decoders))
    for column in greedy.history.columns:
        assert joint.history[column].tolist() == greedy.history[column].tolist()


@pytest.mark.parametrize("objectives", STACKS.values(), ids=STACKS)
def test_the_loss_falls_and_every_stage_learns(objectives):
    model = model_of()
    head = values(model.layers[-1])
    optimizer = keras.optimizers.Adam(0.03)
    report = trained(model, *objectives, optimizer=optimizer, epochs=20, x=np.round(X))
    history = report.history["loss"]
    assert history.iloc[-3:].mean() < history.iloc[:3].mean()
    assert (report.to_frame()["movement"] > 0.01).all()
    assert_equal(values(model.layers[-1]), head)


@pytest.mark.parametrize("objectives", STACKS.values(), ids=STACKS)
def test_a_member_is_what_it_is_alone(objectives):
    population = Population(model_of, seeds=(3, 4))
    together = trained(population, *objectives, learning_rate=[0.5, 0.1])
    alone = Population(model_of, seeds=(4,))
    single = trained(alone, *objectives, learning_rate=[0.1])
    assert_equal(values(population.member(1)), values(alone.member(0)))
    second = together.history.query("member == 1")["loss"]
    assert second.tolist() == single.history["loss"].tolist()
    for both, one in zip(together.stages, single.stages, strict=True):
        assert_equal(weights(both.decoders[1:]), weights(one.decoders))


# What is minimized


def test_penalties_of_all_stages_are_added_to_the_loss_of_the_reconstruction():
    objectives = [
        SparseAutoencoder(norm="l1", weight=0.3, reduction="sum"),
        SparseAutoencoder(weight=0.7, target=0.2),
    ]
    model = sequential((6,), dense(5), dense(4), layers.Dense(3))
    report = trained(model, *objectives, optimizer=STILL, batch_size=len(X), epochs=1)
    first = array(model.layers[0](X))
    second = array(model.layers[1](first))
    down = sigmoid(array(report.stages[1].decoders[0](second)))
    reconstruction = losses(sigmoid(array(report.stages[0].decoders[0](down)))).sum(axis=1).mean()
    mean = second.mean(axis=0)
    divergence = 0.2 * np.log(0.2 / mean) + 0.8 * np.log(0.8 / (1 - mean))
    expected = reconstruction + 0.3 * np.abs(first).sum(axis=1).mean() + 0.7 * divergence.sum()
    row = report.history.iloc[0]
    np.testing.assert_allclose(
        [row["loss"], row["reconstruction"]], [expected, reconstruction], 1e-5
    )


def test_the_mean_over_features_divides_penalties_too():
    rows = []
    for reduction in ("sum", "mean"):
        objectives = [Autoencoder(reduction=reduction), ContractiveAutoencoder(weight=2.0)]
        report = trained(model_of(), *objectives, stages=2, optimizer=STILL, epochs=1)
        rows.append(report.history.iloc[0][["loss", "reconstruction"]].to_numpy(float))
    np.testing.assert_allclose(rows[0], 6 * rows[1], rtol=1e-5)
    assert rows[0][0] > rows[0][1] * 1.01


def test_a_variational_last_stage_gives_the_evidence_lower_bound():
    objectives = [Autoencoder(reduction="sum"), VariationalAutoencoder(latent=2, beta=3.0)]
    model = sequential((6,), dense(5), dense(4), layers.Dense(3))
    report = trained(model, *objectives, optimizer=STILL, batch_size=len(X), epochs=1)
    moments = array(report.stages[1].heads[0](model.layers[1](model.layers[0](X))))
    mean, log_variance = moments[:, 0], moments[:, 1]
    kl = ((mean**2 + np.exp(log_variance) - 1 - log_variance) / 2).sum(axis=1).mean()
    row = report.history.iloc[0]
    np.testing.assert_allclose(row["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(row["loss"], row["reconstruction"] + 3 * kl, rtol=1e-5)
    # The mean over draws of z, through both decoders.
    noise = np.random.default_rng(0).standard_normal((2000, *mean.shape)).astype("float32")
    z = (mean + np.exp(log_variance / 2) * noise).reshape(-1, 2)
    down = sigmoid(array(report.stages[1].decoders[0](z)))
    probabilities = sigmoid(array(report.stages[0].decoders[0](down)))
    drawn = losses(probabilities, np.tile(X, (2000, 1))).sum(axis=1).mean()
    np.testing.assert_allclose(row["reconstruction"], drawn, rtol=0.02)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_it_is_what_keras_makes_of_the_unrolled_stack(kind, tied):
    """Plain autoencoders: the same steps as `fit` of the deep autoencoder, layer by layer."""
    if kind == "dense":
        model, x = sequential((6,), dense(5), dense(4), layers.Dense(3)), X
    else:
        stack = layers.Conv2D(3, 3, activation="sigmoid"), layers.Flatten(), dense(4)
        model, x = sequential((5, 5, 2), *stack, layers.Dense(3)), uniform(48, 5, 5, 2)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    pair = [Autoencoder(tied=tied)] * 2
    reports = [trained(m, *pair, x=x, pretrain=greedy_pretrain) for m in (model, copy)]
    rate = keras.optimizers.SGD(0.3)
    # Batches of all: their order is of no account.
    report = joint_pretrain(model, x, report=reports[0], epochs=3, batch_size=48, optimizer=rate)
    deep = unroll(copy, reports[1])
    deep.compile(keras.optimizers.SGD(0.3), "binary_crossentropy")
    history = deep.fit(x, x, epochs=3, batch_size=48, verbose=0).history
    np.testing.assert_allclose(report.history["loss"], history["loss"], rtol=1e-4)
    for one, other in zip(values(model), values(copy), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    ours = unroll(model, report).reconstruct(x)
    np.testing.assert_allclose(ours, deep.reconstruct(x), atol=1e-5)


def test_what_is_corrupted_is_each_stage_s_input_and_not_what_is_reconstructed():
    # All inputs of the second stage are masked, but one in 10^9: its code is of zeros.
    model = sequential((6,), dense(5), dense(4), layers.Dense(3))
    objectives = [Autoencoder(), DenoisingAutoencoder(Masking(1 - 1e-9))]
    report = trained(model, *objectives, optimizer=STILL, epochs=1)
    code = array(model.layers[1](np.zeros((1, 5), "float32")))
    down = sigmoid(array(report.stages[1].decoders[0](code)))
    expected = losses(sigmoid(array(report.stages[0].decoders[0](down)))).mean()
    np.testing.assert_allclose(report.history["loss"].iloc[0], expected, rtol=1e-5)


def test_values_that_are_no_probabilities_are_decoded_without_a_sigmoid():
    x = gaussian(48, 6)
    model = sequential((6,), dense(5, "tanh"), dense(4, "tanh"), layers.Dense(3))
    report = trained(model, Autoencoder(), Autoencoder(), x=x, optimizer=STILL, epochs=1)
    assert report.stages[0].loss == "mean_squared_error"
    code = model.layers[1](model.layers[0](x))
    for stage in reversed(report.stages):
        code = stage.decoders[0](code)
    expected = np.square(x - array(code)).mean()
    np.testing.assert_allclose(report.history["loss"].iloc[0], expected, rtol=1e-5)


@pytest.mark.parametrize("as_layer", [False, True])
def test_codes_of_rectifiers_are_decoded_by_a_rectifier(as_layer):
    x = gaussian(48, 6)
    first = [dense(5, None), layers.ReLU()] if as_layer else [dense(5, "relu")]
    model = sequential((6,), *first, dense(4, "relu"), layers.Dense(3))
    report = trained(model, Autoencoder(), Autoencoder(), x=x, optimizer=STILL, epochs=1)
    codes = keras.Sequential(model.layers[:-1])(x)
    down = np.maximum(array(report.stages[1].decoders[0](codes)), 0)
    expected = array(report.stages[0].decoders[0](down))
    np.testing.assert_allclose(unroll(model, report).reconstruct(x), expected, atol=1e-5)
    loss = np.square(x - expected).mean()
    np.testing.assert_allclose(report.history["loss"].iloc[0], loss, rtol=1e-5)


def test_leaky_rectifiers_bound_nothing():
    x = gaussian(48, 6)
    leaky = layers.LeakyReLU(negative_slope=0.2)
    model = sequential((6,), dense(5, None), leaky, dense(4, "relu"), layers.Dense(3))
    report = trained(model, Autoencoder(), Autoencoder(), x=x, optimizer=STILL, epochs=1)
    code = keras.Sequential(model.layers[:-1])(x)
    for stage in reversed(report.stages):
        code = stage.decoders[0](code)
    np.testing.assert_allclose(unroll(model, report).reconstruct(x), array(code), atol=1e-5)


def test_a_deep_autoencoder_of_rectifiers_is_better_than_a_principal_component():
    angle = np.random.default_rng(0).uniform(-2, 2, (512, 1))
    x = np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype("float32")
    x -= x.mean(axis=0)
    model = sequential((2,), dense(32, "relu"), dense(1, None), layers.Dense(3))
    report = joint_pretrain(
        model, x, Autoencoder(), epochs=150, batch_size=32, learning_rate=0.01, verbose=0
    )
    component = np.linalg.svd(x, full_matrices=False)[2][:1]
    best_line = np.square(x - x @ component.T @ component).mean()
    assert report.history["loss"].iloc[-1] < best_line / 4


# After greedy pretraining


def test_it_goes_on_from_a_report_and_leaves_it():
    model = model_of()
    greedy = trained(model, *[DenoisingAutoencoder()] * 3, pretrain=greedy_pretrain)
    before = [weights(stage.decoders) for stage in greedy.stages]
    still = joint_pretrain(model, X, report=greedy, optimizer=STILL, epochs=1, batch_size=16)
    for stage, decoders in zip(still.stages, before, strict=True):
        assert_equal(weights(stage.decoders), decoders)
    moved = joint_pretrain(model, X, report=still, epochs=1, batch_size=16)
    assert [stage.objective for stage in moved.stages] == [DenoisingAutoencoder(loss=LOSS)] * 3
    for stage, other, decoders in zip(greedy.stages, moved.stages, before, strict=True):
        assert_equal(weights(stage.decoders), decoders)
        assert (weights(other.decoders)[0] != decoders[0]).any()


def test_it_goes_on_from_machines_with_tied_decoders():
    """Deep autoencoders of Hinton and Salakhutdinov (2006)."""
    population = Population(model_of, seeds=(0, 1))
    machines = trained(population, *[RestrictedBoltzmannMachine()] * 3, **GREEDY)
    expected = [
        losses(unroll(population.member(i), machines, member=i).reconstruct(X)).mean()
        for i in range(2)
    ]
    report = trained(
        population, *[Autoencoder(tied=True)] * 3, report=machines, optimizer=STILL, epochs=1
    )
    np.testing.assert_allclose(report.history["loss"], expected, rtol=1e-5)
    assert expected[0] != expected[1]


def test_it_lowers_the_reconstruction_error_that_greedy_pretraining_leaves_on_mnist():
    x = datasets.load("mnist", train_size=3000).train[0].reshape(-1, 784)
    x, held_out = x[:2000], x[2000:]
    model = networks.mlp((784,), 10, depth=2, units=[64, 16], activation="sigmoid", seed=0)
    options = {"epochs": 5, "batch_size": 20, "optimizer": keras.optimizers.Adam(0.003)}
    greedy = greedy_pretrain(model, x, Autoencoder(), **options)

    def error(report):
        return np.square(unroll(model, report).reconstruct(held_out) - held_out).mean()

    before = error(greedy)
    assert error(joint_pretrain(model, x, report=greedy, **options)) < 0.9 * before


# The report


def test_the_report_is_of_the_whole():
    report = trained(model_of(), *STACKS["sparse"], epochs=4)
    assert report.joint
    names = [stage.name for stage in report.stages]
    assert report.history["stage"].tolist() == [" + ".join(names)] * 4
    frame = report.to_frame()
    assert frame["stage"].tolist() == names
    assert (frame["loss"] == report.history["loss"].iloc[-1]).all()
    # 3 x (encoder + decoder) x 2 FLOPs for a multiply-add x 48 examples x 4 epochs.
    assert frame["flops"].tolist() == [3 * 2 * 2 * n * 5 * 48 * 4 for n in (6, 5, 5)]
    assert names[2] in str(report)


def test_early_stopping_keeps_the_best_epoch_of_all_stages():
    options = {"validation_data": (uniform(40, 6, seed=2),), "batch_size": 8}
    options |= {"optimizer": keras.optimizers.Adam(0.1), "x": X[:8]}
    model = model_of()
    history = trained(model, *STACKS["plain"], patience=3, epochs=80, **options).history
    best = int(history["val_loss"].argmin()) + 1
    assert len(history) == best + 3 < 80
    other = model_of()
    trained(other, *STACKS["plain"], epochs=best, **options)
    assert_equal(values(model), values(other))


def test_a_callback_sees_one_training():
    seen = []

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(sorted(logs))
            self.model.stop_training = epoch == 1

    report = trained(model_of(), *STACKS["plain"], epochs=9, callbacks=[Stop()])
    assert seen == [["loss", "reconstruction", "stage"]] * 2
    assert len(report.history) == 2


# Bad input


def dense(units, activation="sigmoid"):
    return layers.Dense(units, activation)


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ([RestrictedBoltzmannMachine()] * 3, "autoencoders.*Autoencoder\\(tied=True\\)"),
        ([Autoencoder(), Autoencoder(), SupervisedGreedy(3)], "autoencoders.*SupervisedGreedy"),
        ([VariationalAutoencoder()] * 3, "Only the last stage can be variational"),
        ([DenoisingAutoencoder(alpha=2.0)] * 3, "only the first stage's objective"),
        ([Autoencoder()] * 2, "one for each of 3 stages"),
    ],
)
def test_objectives_that_cannot_be_joined_are_refused(objectives, message):
    model = model_of()
    before = values(model)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        trained(model, *objectives)
    assert_equal(values(model), before)


def test_reports_of_something_else_are_refused():
    model = model_of()
    report = trained(model, *[Autoencoder()] * 3, **GREEDY)
    with pytest.raises(ValueError, match="Expected stages=None"):
        joint_pretrain(model, X, report=report, stages=2)
    with pytest.raises(ValueError, match="`report` must be a report"):
        joint_pretrain(model, X, report=model)
    with pytest.raises(ValueError, match="decoders must fit `objective`"):
        joint_pretrain(model, X, Autoencoder(tied=True), report=report)
    other = networks.mlp((6,), 3, depth=3, units=4, activation="sigmoid", seed=0)
    with pytest.raises(ValueError, match="must be of this model"):
        joint_pretrain(other, X, report=report)
    with pytest.raises(ValueError, match="2 members. Received: a report of 1 members"):
        joint_pretrain(Population(model_of, (0, 1)), X, report=report)


def test_what_stands_between_stages_must_be_undone():
    stack = layers.Conv2D(3, 3, activation="sigmoid", name="c"), layers.MaxPooling2D(name="p")
    model = sequential((6, 6, 2), *stack, layers.Flatten(), dense(4), layers.Dense(3))
    names = [["c"], [model.layers[3].name]]
    with pytest.raises(ValueError, match="can be undone between stages.*'p'"):
        trained(model, *[Autoencoder()] * 2, x=uniform(48, 6, 6, 2), stages=names)
