import keras
import numpy as np
import pytest
from keras import layers
from pretrain_helpers import array, digest, sequential, uniform

from pretrain import (
    DenoisingAutoencoder,
    Population,
    SupervisedGreedy,
    greedy_pretrain,
    split_stages,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")


def blobs(n=96, shape=(6,), seed=0):
    """Three classes, each brighter in features of its own."""
    y = np.arange(n) % 3
    x = 0.5 * uniform(n, *shape, seed=seed)
    x.reshape(n, -1)[np.arange(n), y] += 0.5
    return x, y


def model_of(shape=(6,), *stack):
    stack = stack or (layers.Dense(8, activation="relu"), layers.Dense(5, activation="relu"))
    return sequential(shape, *stack, layers.Flatten(), layers.Dense(3))


def pretrained(model, x, y, objective=None, **options):
    options = {"epochs": 20, "batch_size": 16, "optimizer": keras.optimizers.Adam(0.02)} | options
    return greedy_pretrain(model, x, objective or SupervisedGreedy(3), y=y, **options)


def test_the_head_learns_the_classes_stage_by_stage():
    x, y = blobs()
    report = pretrained(model_of(), x, y, validation_data=(x[:30], y[:30]))
    for stage in report.stages:
        assert stage.history["accuracy"].iloc[-1] > 0.9
        assert stage.history["val_accuracy"].iloc[-1] > 0.9
        assert stage.history["loss"].iloc[-1] < stage.baseline[0]
        assert stage.decoders == [None]


def test_the_reported_loss_is_that_of_the_head():
    x, y = blobs()
    model = model_of()
    optimizer = keras.optimizers.SGD(1e-30)
    report = pretrained(model, x, y, epochs=1, batch_size=96, optimizer=optimizer)
    code = array(split_stages(model)[0](x)).astype("float64")
    w, b = map(array, report.stages[0].heads[0].layers[-1].weights)
    logits = code @ w + b
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    history = report.stages[0].history
    assert history["loss"][0] == pytest.approx(-log_p[np.arange(96), y].mean(), rel=1e-5)
    assert history["accuracy"][0] == pytest.approx((logits.argmax(1) == y).mean(), rel=1e-5)


def test_the_baseline_is_the_entropy_of_the_classes():
    x, y = blobs(60)
    y = np.where(y == 2, 0, y)
    report = pretrained(model_of(), x, y, epochs=1)
    expected = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    assert report.stages[0].baseline[0] == pytest.approx(expected)


def test_only_the_stage_moves():
    x, y = blobs()
    model = model_of()
    first, second = (stage.trainable_variables for stage in split_stages(model))
    before = digest(second + model.layers[-1].weights)
    pretrained(model, x, y, stages=1, epochs=1)
    assert digest(second + model.layers[-1].weights) == before


@pytest.mark.parametrize(
    "k, kinds",
    [
        (1, ["GlobalAveragePooling2D", "Dense"]),
        (3, ["Conv2D", "Conv2D", "GlobalAveragePooling2D", "Dense"]),
    ],
)
def test_the_head_of_images_is_that_of_the_paper(k, kinds):
    x, y = blobs(48, (6, 6, 1))
    model = model_of((6, 6, 1), layers.Conv2D(4, 3, activation="relu"))
    report = pretrained(model, x, y, SupervisedGreedy(3, k=k), epochs=1)
    head = report.stages[0].heads[0]
    assert [type(layer).__name__ for layer in head.layers] == kinds
    assert {layer.filters for layer in head.layers if isinstance(layer, layers.Conv2D)} <= {4}


def test_the_head_of_dense_stages_has_layers_of_their_width():
    x, y = blobs()
    report = pretrained(model_of(), x, y, SupervisedGreedy(3, k=2), epochs=1)
    assert [[layer.units for layer in s.heads[0].layers] for s in report.stages] == [[8, 3], [5, 3]]


def test_members_of_a_population_have_targets_of_their_own():
    (x, y), (x2, y2) = blobs(), blobs(seed=1)
    y2 = (y2 + 1) % 3

    def build(seed):
        keras.utils.set_random_seed(seed)
        return model_of()

    both = pretrained(Population(build, [0, 1]), [x, x2], [y, y2], epochs=2)
    alone = pretrained(Population(build, [1]), x2, y2, epochs=2)
    of_both = both.history[both.history["seed"] == 1]
    assert of_both["loss"].tolist() == alone.history["loss"].tolist()
    assert of_both["accuracy"].tolist() == alone.history["accuracy"].tolist()


def test_targets_come_with_a_dataset_too():
    x, y = blobs()

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return x[16 * i : 16 * i + 16], y[16 * i : 16 * i + 16]

    from_batches, whole = model_of(), model_of()
    whole.set_weights(from_batches.get_weights())
    one = pretrained(from_batches, Batches(), None, epochs=2)
    other = pretrained(whole, x, y, epochs=2)
    assert one.history["loss"].tolist() == other.history["loss"].tolist()


def test_stages_may_mix_objectives_with_and_without_targets():
    x, y = blobs()
    objectives = [DenoisingAutoencoder(), SupervisedGreedy(3)]
    report = pretrained(model_of(), x, y, objectives, epochs=2)
    assert "accuracy" not in report.stages[0].history
    assert "accuracy" in report.stages[1].history


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda y: None, "needs targets in `y`: .*Received: targets None"),
        (lambda y: y + 1, "labels from 0 to 2 in `y`. Received: labels from 1 to 3"),
        (lambda y: y - 1, "Received: labels from -1 to 1"),
        (lambda y: y + 0.5, "integers of shape \\(n,\\).*Received: targets float32"),
        (lambda y: np.eye(4)[y], "Received: targets float32 of shape \\(96, 4\\)"),
        (lambda y: y[:-1], "as many examples in y"),
    ],
)
def test_bad_targets_are_refused_before_anything_moves(change, message):
    x, y = blobs()
    model = model_of()
    before = digest(model.weights)
    with pytest.raises(ValueError, match=message):
        pretrained(model, x, change(y))
    assert digest(model.weights) == before


def test_validation_needs_targets_too():
    x, y = blobs()
    with pytest.raises(ValueError, match="in `validation_data`: .*Received: targets None"):
        pretrained(model_of(), x, y, validation_data=(x,))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: SupervisedGreedy(0), "`classes` must be an integer.*classes=0"),
        (lambda: SupervisedGreedy(3, k=0), "`k` must be an integer.*k=0"),
    ],
)
def test_bad_parameters_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
