"""The arms that studies compare: plain data, one entry each, with its paper.

An arm differs from its control in one thing, so that a difference between them has one cause. To
add an arm, add an entry to `ARMS` and name the arm in the `SCALES` of a study, or put an `Arm` of
your own into these `SCALES`.
"""

import dataclasses
import hashlib
import importlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Arm:
    """What is compared: a way to make a network trainable, or a model of the inputs' density.

    A kind of experiment refuses an arm that sets a field which this kind does not use. A kind that
    needs more fields has a subclass.

    Args:
        name: Unique name, as it stands in records, in `.csv` files and in the checks of claims.
        title: Name in plain words, as it stands in tables and figures; by default, the name.
        family: Arms of one family share a panel of a figure: `"sigmoid"`, `"relu"`, ...
        paper: The paper that the arm comes from.
        control: Name of the arm that this arm is compared with, if there is one.
        total_cost_of: For an arm without pretraining, the pretrained arm whose total cost this arm
            is trained to: from the first epoch on, it has as many more epochs as the pretraining
            costs. So the two arms can be compared at equal cost.
        activation: Activation of the hidden layers, by its Keras name.
        initializer: What `pretrain.initializers.get` takes, by name or as plain data.
        head_initializer: Initializer of the output layer, if that has another.
        normalization: `None`, `"batch"` or `"layer"`.
        shortcut: `None`, `"residual"`, `"highway"`, `"skip_init"` or `"pre_activation"`.
        objective: Config of the objective that trains the hidden layers without labels (see
            `pretrain.objectives.from_config`), or a config for each layer; `None` if nothing does.
        pretraining_optimizer: Optimizer of the pretraining, which the pretraining rates are for.
        stack_of: A pretrained arm, whose pretrained layers this arm starts from, instead of an
            objective of its own. The arm must be compared at the same scale, where it chooses the
            pretraining rate.
        pretrained_layers: How many layers, from the input on, start from the pretrained layers; by
            default, all hidden layers.
        histogram: Whether the layers start from random draws from the values of the pretrained
            weights, layer by layer, instead of the pretrained weights (Erhan et al. 2010, table 1).
        regularizer: Config of a Keras regularizer of all kernels, in training with labels.
        noise: What training with labels does to the net, unless an axis of the scale says so:
            `"none"`, `"masking"` or `"dropout"`, as a trial of classification has them.
        pseudo_labels: Whether training with labels sees the images without labels, too. Their
            labels are what the net names at that time, if it is sure enough (Lee 2013).
        optimizer: Optimizer that the learning rates are for: Keras's name, or `"momentum"`, which
            is SGD with a momentum of 0.9.
        build: `"module:function"`, a function that builds the network instead of the fields above:
            of the seed, `seed -> keras.Model`, or `(input_shape, classes, trial) -> keras.Model`.
            In a study of your own, the module is the name of the study's file. The function itself
            does, too, for an arm that no other process trains.
        flops: Forward FLOPs per example of such a network: those of each of the layers that are
            pretrained, and last those of the output. By default, they are counted as if the network
            were the MLP of the trial's depth and width.
        start: `"module:function"`, or the function: it is given the network that was built, and
            changes it in place or returns another one of the same architecture. Its cost is not
            counted.
        error: What the net is judged by, if not by the error that its kind knows: the name of a
            loss of Keras, `"module:function"` or the function, from targets and outputs to an error
            for each example, of which the mean counts.
        rates: Whether the arm has a learning rate, which is chosen on selection seeds.
        look: Color and marker of the arm in every figure, as matplotlib has them; by default, a
            color and a marker that are free.
        version: A number to raise when the meaning of the arm changes, so that its records are
            made anew. Text says all of the meaning: then nothing else of the arm counts.
    """

    name: str
    title: str = ""
    family: str = ""
    paper: str = ""
    control: str | None = None
    total_cost_of: str | None = None
    activation: str | None = None
    initializer: str | dict | None = None
    head_initializer: str | dict | None = None
    normalization: str | None = None
    shortcut: str | None = None
    objective: dict | tuple[dict, ...] | None = None
    pretraining_optimizer: str = "sgd"
    stack_of: "Arm | None" = None
    pretrained_layers: int | None = None
    histogram: bool = False
    regularizer: dict | None = None
    optimizer: str = "sgd"
    build: str | Callable | None = None
    flops: tuple[int, ...] = ()
    start: str | Callable | None = None
    noise: str = "none"
    pseudo_labels: bool = False
    error: str | Callable | None = None
    rates: bool = True
    look: tuple[str, str] | None = None
    version: int | str = 1

    @property
    def label(self) -> str:
        """What figures and pages call the arm."""
        return self.title or self.name

    @property
    def source(self) -> "Arm":
        """The arm that pretrains the layers this arm starts from: by default, this arm."""
        return self.stack_of or self

    @property
    def pretrained(self) -> bool:
        """Whether the arm starts from pretrained layers."""
        return self.source.objective is not None


# These fields say nothing of how an arm is trained.
_ABOUT = ("title", "family", "paper", "control", "look")


def version_of(arm: Arm) -> int | str:
    """Tell what an arm means, so that a trial's key changes with its meaning.

    It is the version of an arm of `ARMS`. For any other arm, it is the version with a hash of the
    arm and of the source of its functions.
    """
    if isinstance(arm.version, str):
        return arm.version
    known = ARMS.get(arm.name)
    meaning = _meaning(arm)
    if known and type(known) is type(arm) and _meaning(known) == meaning:
        return arm.version
    for name, function in functions(arm).items():
        meaning[name] = inspect.getsource(function)
    text = json.dumps(meaning, sort_keys=True, default=_plain)
    return f"{arm.version}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _meaning(arm: Arm) -> dict:
    """The fields that say how an arm is trained and that differ from their defaults."""
    fields = [f for f in dataclasses.fields(arm) if f.name not in _ABOUT]
    return {f.name: v for f in fields if (v := getattr(arm, f.name)) != f.default}


def _plain(value: object) -> object:
    return _meaning(value) if isinstance(value, Arm) else repr(value)


def functions(arm: Arm) -> dict[str, Callable]:
    """The functions of an arm, by the name of the field; `ValueError` if there is no such one."""
    named = {name: getattr(arm, name) for name in ("build", "start", "error")}
    if isinstance(arm.error, str) and ":" not in arm.error:
        # Keras knows it by its name.
        del named["error"]
    return {name: _found(arm, name, value) for name, value in named.items() if value}


def _found(arm: Arm, field: str, named: str | Callable) -> Callable:
    if callable(named):
        return named
    module, _, name = named.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"The {field} function of the arm {arm.name!r} cannot be found: {error}. Expected "
            f"'module:function'. Received: {field}={named!r}"
        ) from error
    if not inspect.isfunction(found):
        raise ValueError(
            f"The arm {arm.name!r} must name a function, whose source tells what the arm means. "
            f"Received: {field}={named!r}, a {type(found).__name__}"
        )
    return found


# The literature's loss of a stage is summed over the features, not averaged.
_AUTOENCODER = {"name": "Autoencoder", "reduction": "sum"}
_DENOISING = {
    "name": "DenoisingAutoencoder",
    "corruption": {"name": "Masking", "rate": 0.25},
    "reduction": "sum",
}

# Four times Glorot's, which the tutorial gives to sigmoid layers.
_GLOROT_SIGMOID = {
    "class_name": "VarianceScaling",
    "config": {"scale": 16.0, "mode": "fan_avg", "distribution": "uniform"},
}
_SIGMOID = {"family": "sigmoid", "activation": "sigmoid", "initializer": "historical"}
_RELU = {"family": "relu", "activation": "relu", "initializer": "he_normal"}
_BATCH_NORM = _RELU | {"normalization": "batch"}
_RESIDUAL = _BATCH_NORM | {"shortcut": "residual"}

_ARMS = [
    Arm(
        "random",
        "sigmoid, random start",
        **_SIGMOID,
        paper="Bengio et al. 2007; Erhan et al. 2010",
        look=("#d55e00", "o"),
    ),
    Arm(
        "glorot",
        "sigmoid, Glorot start",
        **_SIGMOID | {"initializer": _GLOROT_SIGMOID},
        paper="Glorot and Bengio 2010, with the factor 4 of sigmoid units",
        control="random",
        look=("#661100", "s"),
        version=2,
    ),
    Arm(
        "lsuv",
        "sigmoid, LSUV start",
        **_SIGMOID | {"initializer": "lsuv"},
        paper="Mishkin and Matas 2015",
        control="random",
        look=("#cc79a7", "p"),
    ),
    Arm(
        "autoencoder",
        "sigmoid, pretrained by autoencoders",
        **_SIGMOID,
        paper="Bengio et al. 2007",
        control="random",
        objective=_AUTOENCODER,
        look=("#3a93c9", "D"),
    ),
    Arm(
        "denoising",
        "sigmoid, pretrained by denoising",
        **_SIGMOID,
        paper="Vincent et al. 2008, 2010",
        control="random",
        objective=_DENOISING,
        look=("#0072b2", "^"),
    ),
    Arm(
        "sigmoid_batch_norm",
        "sigmoid + batch norm",
        **_SIGMOID,
        paper="Ioffe and Szegedy 2015",
        control="random",
        normalization="batch",
        look=("#009e73", "v"),
    ),
    Arm("he", "ReLU, He start", **_RELU, paper="He et al. 2015", look=("#cc6677", "P")),
    Arm(
        "he_denoising",
        "ReLU, pretrained",
        **_RELU,
        paper="He et al. 2015; Vincent et al. 2010",
        control="he",
        objective=_DENOISING,
        pretraining_optimizer="adam",
        look=("#882255", "X"),
        version=2,
    ),
    Arm(
        "he_denoising_sgd",
        "ReLU, pretrained by SGD",
        **_RELU,
        paper="He et al. 2015; Vincent et al. 2010",
        control="he",
        objective=_DENOISING,
        look=("#882255", "d"),
    ),
    Arm(
        "batch_norm",
        "ReLU + batch norm",
        **_BATCH_NORM,
        paper="Ioffe and Szegedy 2015",
        control="he",
        look=("#999933", "<"),
    ),
    Arm(
        "batch_norm_denoising",
        "ReLU + batch norm, pretrained",
        **_BATCH_NORM,
        paper="Ioffe and Szegedy 2015; Vincent et al. 2010",
        control="batch_norm",
        objective=_DENOISING,
        pretraining_optimizer="adam",
        look=("#117733", ">"),
        version=2,
    ),
    Arm(
        "batch_norm_denoising_sgd",
        "ReLU + batch norm, pretrained by SGD",
        **_BATCH_NORM,
        paper="Ioffe and Szegedy 2015; Vincent et al. 2010",
        control="batch_norm",
        objective=_DENOISING,
        look=("#117733", "d"),
    ),
    Arm(
        "residual_batch_norm",
        "residual + batch norm",
        **_RESIDUAL,
        paper="He et al. 2016",
        control="batch_norm",
        look=("#000000", "p"),
    ),
    Arm(
        "residual_denoising",
        "residual + batch norm, pretrained",
        **_RESIDUAL,
        paper="He et al. 2016; Vincent et al. 2010",
        control="residual_batch_norm",
        objective=_DENOISING,
        pretraining_optimizer="adam",
        look=("#332288", "h"),
    ),
    Arm(
        "tutorial",
        "sigmoid, the tutorial's denoising",
        **_SIGMOID | {"initializer": _GLOROT_SIGMOID},
        paper="Deep Learning Tutorials, Stacked Denoising Autoencoders",
        head_initializer="zeros",
        control="tutorial_random",
        objective=tuple(
            {**_DENOISING, "corruption": {"name": "Masking", "rate": rate}, "tied": True}
            for rate in (0.1, 0.2, 0.3)
        ),
        look=("#d55e00", "d"),
        version=2,
    ),
    Arm(
        "tutorial_random",
        "sigmoid, the tutorial's net, not pretrained",
        **_SIGMOID | {"initializer": _GLOROT_SIGMOID},
        paper="Deep Learning Tutorials, Stacked Denoising Autoencoders",
        head_initializer="zeros",
        look=("#999933", "o"),
    ),
    Arm(
        "variational",
        "variational autoencoder",
        family="variational",
        paper="Kingma and Welling 2013",
        activation="tanh",
        initializer="glorot_uniform",
        objective={"name": "VariationalAutoencoder", "output": "bernoulli"},
        optimizer="adam",
        look=("#0072b2", "h"),
    ),
]


def longer(control: Arm, pretrained: str, marker: str, name: str = "") -> Arm:
    """The equal-cost twin of a control: the same net, trained to the cost of a pretrained arm."""
    color, _ = control.look
    return replace(
        control,
        name=f"{name or control.name}_longer",
        title=f"{control.title}, trained longer",
        control=control.name,
        total_cost_of=pretrained,
        look=(color, marker),
        version=1,
    )


ARMS = {arm.name: arm for arm in _ARMS}
_LONGER = (
    longer(ARMS["random"], "denoising", "X"),
    longer(ARMS["glorot"], "denoising", "P"),
    longer(ARMS["he"], "he_denoising", "s"),
    longer(ARMS["batch_norm"], "batch_norm_denoising", "s"),
    longer(ARMS["residual_batch_norm"], "residual_denoising", "s", name="residual"),
)
ARMS |= {arm.name: arm for arm in _LONGER}
