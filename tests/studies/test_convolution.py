"""Convolutional nets, images without labels, and shifted images, as axes of classification."""

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from studies_synthetic import STUDIES
from studies_synthetic import records as synthetic

from pretrain.datasets import from_arrays
from studies.arms import ARMS
from studies.engine.plan import groups
from studies.engine.scale import Scale
from studies.engine.trial import Cell
from studies.kinds import classification
from studies.kinds.classification import ClassificationTrial, finetuning_flops, layer_flops
from studies.kinds.classification import train as train_module
from studies.kinds.classification.prediction import UNLABELED, prediction, with_pseudo_labels
from studies.report.frame import frame

RANDOM = np.random.RandomState(0)
SIDE, CLASSES = 8, 3
DATA = from_arrays(
    RANDOM.uniform(size=(60, SIDE, SIDE, 1)).astype("float32"),
    np.arange(60) % CLASSES,
    train_size=30,
    validation_size=10,
)
CONVOLUTIONAL = ClassificationTrial(
    network="convolutional", filters=2, depth=4, train_size=30, batch_size=10, epochs=2
)


def convolutional(arm, **fields):
    return replace(CONVOLUTIONAL, arm=arm, **fields)


def counted(model):
    """Forward FLOPs of each layer with a kernel, from the shapes that Keras knows."""
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    return [
        2 * math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1]) for layer in layers
    ]


@pytest.mark.parametrize("name", ["random", "batch_norm", "residual_batch_norm"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_convolutional_net_costs_what_its_layers_cost(name, depth):
    trial = convolutional(name, depth=depth)
    *hidden, head = counted(train_module.build(trial, ARMS[name], DATA))
    assert layer_flops(trial, ARMS[name], SIDE**2) == hidden
    cost = finetuning_flops(trial, ARMS[name], 5, SIDE**2, CLASSES)
    assert cost == 3 * (sum(hidden) + head) * 30 * 5


def test_color_images_have_three_channels_and_tables_are_no_images():
    assert classification.image(3072) == (32, 3)
    assert classification.image(784) == (28, 1)
    assert classification.image(54) is None


def test_a_deep_stack_holds_the_layers_of_shallow_nets():
    deep, shallow = (
        train_module.build(convolutional("he", depth=depth), ARMS["he"], DATA) for depth in (4, 2)
    )
    stack = {name: value + 1 for name, value in train_module._weights(deep).items()}
    train_module._fill(shallow, stack)
    for name in ("hidden_1", "hidden_2"):
        found = keras.ops.convert_to_numpy(shallow.get_layer(name).kernel)
        np.testing.assert_array_equal(found, stack[f"{name}/kernel"])


@pytest.mark.parametrize("name", ["he", "he_denoising"])
def test_the_first_seed_of_a_report_keeps_the_filters(name, tmp_path):
    kept = {}
    for role in ("report", "selection"):
        trials = tuple(
            convolutional(name, role=role, seed=seed, pretraining_rate=0.01, pretraining_epochs=1)
            for seed in (0, 1)
        )
        stack = tuple(replace(trial, role="pretraining", learning_rate=0.01) for trial in trials)
        stacks = (stack,) if ARMS[name].pretrained else ()
        cell = Cell(trials, ARMS[name], classification.KIND, stacks=stacks)
        found = train_module.train(cell, tmp_path, lambda trial: DATA)
        assert {each["status"] for each in found} == {"done"}
        kept[role] = [each.get("arrays", {}) for each in found]
    assert kept["selection"] == [{}, {}]
    assert kept["report"][1] == {}
    assert kept["report"][0]["filters"].shape == (2, 3, 3, 1)


# Images without labels


def test_an_epoch_repeats_few_labeled_images_and_pretraining_sees_all():
    few = ClassificationTrial(labeled=7, train_size=30, batch_size=10)
    x, y = train_module._seen_with_labels(few, ARMS["he"], DATA)
    assert len(x) == len(y) >= classification.LEAST_EPOCH > len(x) - 7
    np.testing.assert_array_equal(x[7 * 13 : 7 * 14], DATA.train[0][:7])
    np.testing.assert_array_equal(y[:7], y[7:14])
    all_labeled = replace(few, labeled=0)
    assert train_module._seen_with_labels(all_labeled, ARMS["he"], DATA) is DATA.train


def test_training_with_few_labels_costs_its_epochs_and_pretraining_costs_all_images():
    few, arm = ClassificationTrial(labeled=7, train_size=30, batch_size=10), ARMS["denoising"]
    per_example = finetuning_flops(replace(few, labeled=0), arm, 1, 5, CLASSES) / 30
    assert finetuning_flops(few, arm, 1, 5, CLASSES) == 2_000 * per_example
    pretraining = [
        classification.pretraining_flops(replace(few, labeled=labeled), arm, 3, 5)
        for labeled in (0, 7, 30)
    ]
    assert len(set(pretraining)) == 1


def test_one_stack_serves_all_numbers_of_labels():
    scale = STUDIES["labels"].scales["quick"]
    kind, arm = scale.kind, scale.arm("he_denoising")
    stacks = {
        kind.stack(scale, arm, kind.base(scale, arm, values))
        for values in scale.combinations_of(arm.name)
    }
    assert {stack.network for stack in stacks} == {"dense", "convolutional"}
    assert len(stacks) == 2
    trained = [group.trials[0] for group in groups(scale, []) if group.trials[0].role == "report"]
    assert {trial.labeled for trial in trained} == {100, 2_000}


# Labels that the net itself gives

PSEUDO_LABELS = replace(ARMS["he"], name="pseudo", pseudo_labels=True)
LABELED = ClassificationTrial(
    arm="pseudo", labeled=7, train_size=30, batch_size=10, depth=1, width=9, epochs=3
)


@pytest.mark.parametrize("logits", [True, False])
def test_only_labels_that_a_net_is_sure_of_count(logits):
    head = keras.layers.Dense(CLASSES, activation=None if logits else "softmax")
    found = with_pseudo_labels(prediction(keras.Sequential([keras.Input((2,)), head]), CLASSES))
    scores = np.array([[0, 1, 2], [9, 0, 0], [1, 0, 0], [0, 5, 0]], dtype="float32")
    outputs = scores if logits else softmax(scores, axis=1)
    # Of the three without labels, the second is sure by 67 %.
    targets = np.array([1, UNLABELED, UNLABELED, UNLABELED])
    losses = keras.ops.convert_to_numpy(found.judged["loss"](targets, outputs))
    expected = -log_softmax(scores, axis=1)[[0, 1, 2, 3], [1, 0, 0, 1]] * [1, 1, 0, 1]
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    scored = {}
    for metric in found.judged["metrics"]:
        metric.update_state(np.array([[2], [UNLABELED], [1], [1]]), outputs)
        scored[metric.name] = float(metric.result())
    nll = -log_softmax(scores, axis=1)[[0, 2, 3], [2, 1, 1]].mean()
    assert scored == pytest.approx({"accuracy": 2 / 3, "nll": nll}, rel=1e-5)


def test_a_net_that_names_no_classes_has_no_pseudo_labels():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="an output for each class"):
        with_pseudo_labels(prediction(model, 2))


def test_an_epoch_of_pseudo_labels_shows_all_images_and_costs_so():
    x, y = train_module._seen_with_labels(LABELED, PSEUDO_LABELS, DATA)
    np.testing.assert_array_equal(x[-23:], DATA.train[0][7:])
    assert (y[-23:] == UNLABELED).all() and (y[:-23] >= 0).all()
    costs = [
        finetuning_flops(LABELED, arm, 1, SIDE**2, CLASSES) for arm in (PSEUDO_LABELS, ARMS["he"])
    ]
    # The last batch is left out where it is not full.
    assert costs[0] / costs[1] == len(x) // 10 / (2_002 // 10)


def test_pseudo_labels_train_for_the_cost_of_pretraining():
    scale = STUDIES["labels"].scales["standard"]
    kind, pretrained = scale.kind, scale.arm("he_denoising")
    for values in scale.combinations_of("he_pseudo_labels"):
        trial = kind.base(scale, scale.arm("he_pseudo_labels"), values)
        one, cost = (
            finetuning_flops(trial, scale.arm("he_pseudo_labels"), epochs, 784, 10)
            for epochs in (1, trial.epochs)
        )
        twin = kind.base(scale, pretrained, values)
        total = finetuning_flops(twin, pretrained, twin.epochs, 784, 10)
        total += classification.pretraining_flops(twin, pretrained, scale.pretraining_epochs, 784)
        assert 0 <= cost - total < one


def test_images_without_labels_change_what_is_learned():
    found = {
        arm.name: train_module.train(
            Cell((replace(LABELED, arm=arm.name, learning_rate=0.3),), arm, classification.KIND),
            None,
            lambda trial: DATA,
        )[0]
        for arm in (PSEUDO_LABELS, ARMS["he"])
    }
    nlls = {name: result["curves"]["train_nll"] for name, result in found.items()}
    assert all(result["status"] == "done" for result in found.values())
    assert nlls["pseudo"] != pytest.approx(nlls["he"], rel=1e-3)
    # The few images with labels are learned by heart all the same.
    assert nlls["pseudo"][-1] < 0.1


TINY = Scale(
    arms=("he",),
    train_size=20,
    validation_size=10,
    test_size=10,
    epochs=1,
    report_seeds=1,
    learning_rates=(0.1,),
    selection_seeds=1,
    kind=classification.KIND,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {"labeled": (10, 21)}}, "at most 20 images with labels.*Received: labeled=21"),
        (
            {
                "axes": {"labeled": (10,)},
                "arms": (replace(ARMS["he"], objective={"name": "X", "classes": 10}),),
            },
            "without labels.*labeled=10 and the arm 'he'",
        ),
        ({"arms": (PSEUDO_LABELS,)}, "'pseudo' labels images itself.*axis `labeled`"),
        (
            {"arms": (PSEUDO_LABELS,), "axes": {"labeled": (10, 20)}},
            "'pseudo' labels images itself.*leave images without labels",
        ),
        ({"axes": {"network": ("recurrent",)}}, r"Expected network among dense.*\['recurrent'\]"),
        ({"axes": {"network": ("convolutional",)}, "dataset": "covertype"}, "square images"),
        ({"axes": {"noise": ("shifts",)}, "dataset": "covertype"}, "square images"),
        ({"arms": (replace(ARMS["he"], noise="shifts"),), "dataset": "covertype"}, "square images"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


# Shifted images


def test_images_are_shifted_by_whole_pixels_in_training_and_zeros_fill_the_margin():
    images = RANDOM.uniform(0.1, 1, size=(400, 6, 5, 2)).astype("float32")
    layer = train_module._Shifts(seed=0)
    shifted = keras.ops.convert_to_numpy(layer(images, training=True))
    padded = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])
    places = []
    for image, around in zip(shifted, padded, strict=True):
        fits = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.array_equal(around[i : i + 6, j : j + 5], image)
        ]
        assert len(fits) == 1
        places += fits
    # Each of the 25 places is as likely: 16 of 400 images on average.
    counts = [places.count((i, j)) for i in range(5) for j in range(5)]
    assert 2 < min(counts) < max(counts) < 40
    again = keras.ops.convert_to_numpy(layer(images, training=True))
    assert not np.array_equal(again, shifted)
    np.testing.assert_array_equal(layer(images), images)


# Words and figures


def test_the_protocol_tells_the_networks_and_the_labels():
    for name, words in (
        (
            "labels",
            ("3 hidden layers of 200 units, or 3 convolutions of 8 filters of 3 x 3 pixels",),
        ),
        ("labels", ("100 or 2,000 have labels", "until an epoch has at least 2,000 examples")),
        ("convolution", ("Networks: 2 or 4 convolutions of 8 filters",)),
    ):
        scale = STUDIES[name].scales["quick"]
        protocol = scale.kind.show.protocol(scale)
        assert all(word in protocol for word in words)
    assert "labels" not in scale.kind.show.protocol(scale)


def test_the_filters_of_every_convolutional_place_are_drawn():
    scale = STUDIES["labels"].scales["quick"]
    (figure,) = [each for each in scale.kind.show.offered(scale) if each.name == "filters"]
    rows = frame(synthetic(scale), scale)
    rows["arrays"] = [
        {"filters": RANDOM.normal(size=(5, 3, 3, 1))} if network == "convolutional" else None
        for network in rows["network"]
    ]
    drawing = figure.draw(rows, scale)
    drawing.draw_without_rendering()
    drawn = [image.get_array() for ax in drawing.axes for image in ax.images]
    places = [place for place in scale.places if scale.values(place)["network"] != "dense"]
    # Two rows of three filters of 3 x 3 pixels, each with a margin of one pixel.
    assert [image.shape for image in drawn] == [(10, 15)] * len(places)
