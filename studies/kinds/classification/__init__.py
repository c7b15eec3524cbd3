"""Classification: networks that name the class of an image, judged by their test error."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.engine.trial import Cell, Trial
from studies.kinds.classification.layers import CONVOLUTIONAL, DENSE, code_sizes, image, projections
from studies.kinds.kind import NETWORK_FIELDS, Kind, Metric

# The deepest plain network that was ever trained (Xiao et al. 2018).
_DEEPEST = 10_000
# The number of classes of data whose targets are numbers to predict.
NUMBERS = 1
# A net that names the same class for every image can be lucky, if that class is frequent: a run is
# at chance unless it beats chance by more than this margin, or a tenth of chance that rarely errs.
CHANCE_MARGIN = 0.05
# The noise that moves images.
SHIFTS = "shifts"
# Where few images have labels, an epoch of training repeats them until it has as many examples.
LEAST_EPOCH = 2_000

# Training NLLs in nats at which validation NLLs are compared: nets that learn pass by them slowly.
LEVELS = (0.1, 0.03)


def at_training_nll(level: float) -> str:
    """Name of the metric that is the validation NLL at a training NLL."""
    return f"validation_nll_at_{level:g}"


def _guessing(record: Mapping[str, Any], scale: Scale) -> float:
    return scale.chance(record["dataset"])


_error = partial(
    Metric,
    unit="%",
    difference="points",
    factor=100,
    diverged=_guessing,
    at_chance=lambda chance: chance - min(CHANCE_MARGIN, chance / 10),
)
_validation_error = partial(_error, roles=("selection", "report"))
_test_error = partial(_error, on_test=True, resolution=lambda scale: 1 / scale.test_size)
_stack = partial(Metric, roles=("pretraining",))


@dataclass(frozen=True)
class ClassificationTrial(Trial):
    """A trial of a classifier.

    Args:
        schedule: `"constant"` keeps the learning rate; `"cosine"` lets it fall from epoch to epoch
            along half a cosine, to nearly 0 in the last epoch (Loshchilov and Hutter 2016).
        noise: What training with labels does to the net: `"none"`; `"masking"` sets a quarter of
            the inputs to 0, as denoising pretraining does; `"dropout"` drops a quarter of the units
            of every hidden layer; `"shifts"` moves every image by up to 2 pixels, up or down and to
            the left or to the right.
        optimizer: The optimizer of training with labels; empty for that of the arm.
        top_width: Units of the last hidden layer; 0 for as many as in every hidden layer.
        network: `"dense"`; or `"convolutional"`, whose hidden layers are convolutions of 3 x 3
            pixels, with a max pooling of 2 x 2 pixels behind the first and behind the second.
        filters: Filters of every convolution.
        labeled: How many of the training images have labels, the first; 0 for all of them.
            Pretraining sees all training images. An epoch of training with labels repeats the
            labeled images until it has at least 2,000 examples.
    """

    schedule: str = "constant"
    noise: str = "none"
    optimizer: str = ""
    top_width: int = 0
    network: str = DENSE
    filters: int = 8
    labeled: int = 0


class Classification(Kind):
    """Supervised training of a dense or convolutional net, or of one that an arm builds.

    Attributes:
        choices: What the fields of a trial that are words can be.
    """

    name = "classification"
    trial = ClassificationTrial
    choices = {
        "schedule": ("constant", "cosine"),
        "noise": ("none", "masking", "dropout", SHIFTS),
        "network": (DENSE, CONVOLUTIONAL),
    }
    arm_fields = NETWORK_FIELDS
    labels = {
        "depth": "depth (hidden layers)",
        "width": "units per layer",
        "top_width": "units of the last layer",
        "filters": "filters per convolution",
        "labeled": "training images with labels",
        "sigmoid": "sigmoid units",
        "relu": "rectified linear units",
        "batch_norm": "batch normalization",
    }
    judged_by = {
        "pretraining": "validation_ratio",
        "selection": "validation_error",
        "report": "test_error",
    }
    rules = {
        "reconstruction": "mean_validation_ratio",
        "worst_stage": "validation_ratio",
        "probe": "probe_error",
    }
    metrics = (
        _stack("validation_ratio", "loss over baseline, worst stage"),
        _stack("mean_validation_ratio", "loss over baseline, mean of the stages"),
        _error("probe_error", "validation error of a linear probe", roles=("pretraining",)),
        _stack("dead", "dead units, worst stage", "%", "points", 100),
        _stack("saturated", "saturated units, worst stage", "%", "points", 100),
        _validation_error("validation_error", "validation error"),
        _validation_error("final_validation_error", "validation error, last epoch"),
        _test_error("test_error", "test error"),
        _test_error("final_test_error", "test error, last epoch"),
        Metric("train_nll", "training NLL", "nats"),
        Metric("final_train_nll", "training NLL, last epoch", "nats"),
        *(
            Metric(at_training_nll(level), f"validation NLL at a training NLL of {level:g}", "nats")
            for level in LEVELS
        ),
        Metric("test_nll", "test NLL", "nats", on_test=True),
        Metric("final_test_nll", "test NLL, last epoch", "nats", on_test=True),
        Metric("flops", "cost", "FLOP", roles=("pretraining", "selection", "report")),
    )

    def examples_of(self, scale: Scale) -> str:
        sets = scale.axes.get("dataset", (scale.dataset,))
        are_images = all(image(scale.shape(each)[0]) for each in sets)
        return self.examples if are_images else "examples"

    def flops(self, trial: Trial, arm: Arm, scale: Scale) -> int:
        features, classes = scale.shape(trial.dataset)
        if trial.role == "pretraining":
            return pretraining_flops(trial, arm, trial.epochs, features)
        return finetuning_flops(trial, arm, trial.epochs, features, classes)

    def derive(self, frame: Any, scale: Scale) -> Any:
        from studies.kinds.classification.paths import metrics

        return frame.assign(**metrics(frame))

    def computed(self, record: Mapping[str, Any]) -> float:
        return record["flops"] - record.get("pretraining_flops", 0)

    def optimizer(self, arm: Arm, values: dict[str, Any]) -> str:
        return values.get("optimizer", arm.optimizer)

    def base(self, scale: Scale, arm: Arm, values: dict[str, Any]) -> Trial:
        # A kind that is derived from this kind may have trials without noise.
        noise = {"noise": arm.noise} if arm.noise != "none" else {}
        trial = super().base(scale, arm, noise | values)
        if not arm.total_cost_of:
            return trial
        pretrained = scale.arm(arm.total_cost_of)
        shape = scale.shape(trial.dataset)
        extra = equal_cost_epochs(trial, arm, pretrained, scale.pretraining_epochs, *shape)
        return replace(trial, epochs=trial.epochs + extra)

    def train(self, cell: Cell, cache: Path, load: Callable[[Trial], Any]) -> list[dict]:
        from studies.kinds.classification.train import train

        return train(cell, cache, load)

    @cached_property
    def show(self) -> Any:
        from studies.kinds.classification.show import ClassificationShow

        return ClassificationShow(self)

    def check(self, scale: Scale) -> None:
        super().check(scale)
        depths = scale.axes.get("depth", (self.trial.depth,))
        if max(depths) > _DEEPEST:
            raise ValueError(
                f"Expected depths of at most {_DEEPEST} hidden layers. Received: depth={depths}"
            )
        for axis, choices in self.choices.items():
            if unknown := set(scale.axes.get(axis, choices)) - set(choices):
                raise ValueError(
                    f"Expected {axis} among {', '.join(choices)}. "
                    f"Received: {axis}={sorted(unknown)}"
                )
        self._check_examples(scale)
        self._check_pseudo_labels(scale)
        for arm in scale.arms:
            if arm.noise not in self.choices["noise"]:
                raise ValueError(
                    f"Expected a noise among {', '.join(self.choices['noise'])}. "
                    f"Received: noise={arm.noise!r} of the arm {arm.name!r}"
                )
            if arm.total_cost_of not in (None, *scale.arm_names):
                raise ValueError(
                    f"The arm {arm.name!r} is trained to the cost of {arm.total_cost_of!r}, which "
                    f"must be an arm of the scale, too. Received: {', '.join(scale.arm_names)}"
                )
            if arm.stack_of not in (None, *scale.arms):
                raise ValueError(
                    f"The arm {arm.name!r} starts from the layers of {arm.stack_of.name!r}, which "
                    f"must be an arm of the scale, too. Received: {', '.join(scale.arm_names)}"
                )
            if arm.objective and not (scale.pretraining_epochs and scale.pretraining_rates):
                raise ValueError(
                    f"The arm {arm.name!r} is pretrained. Expected `pretraining_epochs` and "
                    f"`pretraining_rates`. Received: {scale.pretraining_epochs}, "
                    f"{scale.pretraining_rates}"
                )
            if isinstance(arm.objective, tuple) and len(arm.objective) != max(depths):
                raise ValueError(
                    f"The arm {arm.name!r} says how each of {len(arm.objective)} hidden layers is "
                    f"pretrained. Expected a greatest depth of {len(arm.objective)}. "
                    f"Received: {depths}"
                )

    def _check_examples(self, scale: Scale) -> None:
        least = min(scale.axes.get("train_size", (scale.train_size,)))
        if (most := max(scale.axes.get("labeled", (0,)))) > least:
            raise ValueError(
                f"Expected at most {least} images with labels, which is the number of training "
                f"images. Received: labeled={most}"
            )
        taught = [a.name for a in scale.arms if _classes(a)]
        if most and taught:
            raise ValueError(
                "Pretraining sees all training images, so that it must do without labels where "
                f"only some of them have labels. Received: labeled={most} and the arm {taught[0]!r}"
            )
        sets = scale.axes.get("dataset", (scale.dataset,))
        flat = [each for each in sets if not image(scale.shape(each)[0])]
        noises = (*scale.axes.get("noise", ()), *(arm.noise for arm in scale.arms))
        if flat and (CONVOLUTIONAL in scale.axes.get("network", ()) or SHIFTS in noises):
            raise ValueError(
                "A convolutional network, or noise that shifts images, needs square images, gray "
                f"or in color. Received: dataset={flat[0]!r}"
            )

    def _check_pseudo_labels(self, scale: Scale) -> None:
        for arm in scale.arms:
            places = scale.combinations_of(arm.name) if arm.pseudo_labels else []
            if any(not 0 < each.get("labeled", 0) < scale.train_size for each in places):
                raise ValueError(
                    f"The arm {arm.name!r} labels images itself. Expected an axis `labeled`, and "
                    f"`only_at` values of it that leave images without labels. Received: {places}"
                )

    def stack(self, scale: Scale, arm: Arm, trial: Trial) -> Trial | None:
        if not arm.objective:
            return None
        depths = [values.get("depth", trial.depth) for values in scale.combinations_of(arm.name)]
        # The deepest stack serves every depth: its layers 1..d are a stack of depth d, unless the
        # last layer of each depth has a width of its own.
        depth = trial.depth if trial.top_width else max(depths)
        # What training with labels varies, pretraining does not know.
        names = ("schedule", "noise", "optimizer", "labeled")
        later = {name: getattr(self.trial, name) for name in names}
        epochs = scale.pretraining_epochs
        return replace(trial, role="pretraining", depth=depth, epochs=epochs, **later)


# Analytic cost: 2 FLOPs per multiply-add, training 3 times the forward pass.


def layer_flops(trial: Trial, arm: Arm, features: int) -> list[int]:
    """Forward FLOPs per example of each hidden layer's own projection, and of its gate (highway).

    `features` is the size of the flattened input.
    """
    if arm.flops:
        return list(arm.flops[:-1])
    gate = arm.shortcut == "highway"
    return [n * (2 if gate and i else 1) for i, n in enumerate(projections(trial, features))]


def finetuning_flops(trial: Trial, arm: Arm, epochs: int, features: int, classes: int) -> int:
    """FLOPs of `epochs` epochs of supervised training."""
    output = arm.flops[-1] if arm.flops else 2 * code_sizes(trial, features)[-1] * classes
    forward = sum(layer_flops(trial, arm, features)) + output
    labeled, times = labels_of(trial)
    seen = labeled * times + (trial.train_size - labeled if arm.pseudo_labels else 0)
    return 3 * forward * examples(replace(trial, train_size=seen)) * epochs


def pretraining_flops(trial: Trial, arm: Arm, epochs: int, features: int) -> int:
    """FLOPs of pretraining the trial's layers: encoder, decoder (or head), a pass for the codes.

    Every net is charged for its own layers in full, though deeper nets and other rates share the
    stack.
    """
    forward = layer_flops(trial, arm, features)[: arm.pretrained_layers]
    # A decoder mirrors its layer, and the head of a supervised stage reads the layer's output.
    classes = _classes(arm)
    heads = [2 * n * classes for n in code_sizes(trial, features)[: len(forward)]]
    companions = sum(heads if classes else forward)
    seen = replace(trial, train_size=trial.train_size + trial.unlabeled)
    codes = sum(forward) * seen.train_size
    return 3 * (sum(forward) + companions) * examples(seen) * epochs + codes


def _classes(arm: Arm) -> int:
    """How many classes the heads of an arm's stages name; 0 if pretraining does without labels."""
    objective = arm.source.objective
    return objective.get("classes", 0) if isinstance(objective, dict) else 0


def equal_cost_epochs(
    trial: Trial, arm: Arm, pretrained: Arm, epochs: int, features: int, classes: int
) -> int:
    """Epochs of `trial` that cost as much as `epochs` epochs of pretraining an arm's layers.

    If an epoch costs more than an epoch of the pretrained arm, what all epochs of `trial` cost more
    is taken off; the number can be below 0.
    """
    pretraining = pretraining_flops(trial, pretrained, epochs, features)
    own, other = (finetuning_flops(trial, a, 1, features, classes) for a in (arm, pretrained))
    return math.ceil((pretraining - trial.epochs * (own - other)) / own)


def labels_of(trial: Trial) -> tuple[int, int]:
    """How many training images have labels, and how often an epoch shows each of them."""
    labeled = getattr(trial, "labeled", 0)
    times = math.ceil(LEAST_EPOCH / labeled) if labeled else 1
    return labeled or trial.train_size, times


def examples(trial: Trial) -> int:
    """Examples per epoch: the last partial batch is dropped."""
    return trial.train_size // trial.batch_size * trial.batch_size


KIND = Classification()
