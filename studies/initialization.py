"""Is a good initialization worth more than layer-wise pretraining?

Question: from which initial weights do nets with 1 to 30 hidden layers train at all, how well do
they end, and what does pretraining give beyond that, at equal epochs and at equal cost?

Expected: "a good initialization strategy is much more effective than laborious layer-by-layer
pretraining". Weights at the right scale train nets that are deeper than any pretrained net, and end
at a lower error at equal cost. What pretraining gives is more than the distribution of its weights
(Erhan et al. 2010), but less than what the right scale gives.

Refuted if: pretrained nets end at a lower error than nets with a good initialization that are
trained to the same total cost, or train at depths where no initialization does.

What would change the answer: a start that nobody has tried yet for deep sigmoid nets, more epochs,
since the deepest nets are still learning, or wider layers.

What was tried

The grid of Adam's pretraining rates went from 0.00003 to 0.01 at first. Tanh nets and rectifiers
chose 0.01, so that nothing could be said of their pretraining. When all other nets had been run,
the two lowest rates gave way to 0.03 and 0.1.
"""

from dataclasses import replace

from studies.arms import ARMS, Arm, longer
from studies.engine.scale import Scale
from studies.kinds import trainability
from studies.kinds.trainability.claims import stalls, trains
from studies.report.claims import (
    Claim,
    Condition,
    Difference,
    InShort,
    difference,
    equivalent,
    sample,
)

KIND = trainability.KIND

# The colors of the initializations; the activations have the markers.
_COLORS = {
    "historical": "#d55e00",
    "glorot": "#661100",
    "orthogonal": "#117733",
    "lsuv": "#cc79a7",
    "denoising": "#0072b2",
}
_MARKERS = {"sigmoid": "o", "tanh": "v", "relu": "<"}
_UNITS = {"sigmoid": "sigmoid", "tanh": "tanh", "relu": "ReLU"}
_DENOISING = ARMS["denoising"].objective


def _arm(family: str, start: str, words: str, paper: str, control: str, **fields) -> Arm:
    """An arm that differs from its control in where its weights start."""
    return Arm(
        f"{family}_{start}",
        f"{_UNITS[family]}, {words}",
        family=family,
        paper=paper,
        control=control or None,
        activation=family,
        look=(_COLORS[start], _MARKERS[family]),
        **fields,
    )


def _historical(family: str) -> Arm:
    words, paper = "random start", "Bengio et al. 2007; Erhan et al. 2010"
    return _arm(family, "historical", words, paper, "", initializer="historical")


def _glorot(family: str) -> Arm:
    words, paper, control = "Glorot start", "Glorot and Bengio 2010", f"{family}_historical"
    return _arm(family, "glorot", words, paper, control, initializer="glorot_uniform")


def _orthogonal(family: str, gain: float, control: str) -> Arm:
    """An arm with orthogonal weights, whose gain keeps the variance from layer to layer."""
    start = {"class_name": "Orthogonal", "config": {"gain": gain}}
    words, paper = "orthogonal start", "Saxe et al. 2014"
    return _arm(family, "orthogonal", words, paper, control, initializer=start)


def _lsuv(family: str) -> Arm:
    words, paper, control = "LSUV start", "Mishkin and Matas 2015", f"{family}_historical"
    return _arm(family, "lsuv", words, paper, control, initializer="lsuv")


def _pretrained(family: str) -> Arm:
    return _arm(
        family,
        "denoising",
        "pretrained by denoising",
        "Vincent et al. 2010",
        f"{family}_historical",
        initializer="historical",
        objective=_DENOISING,
        pretraining_optimizer="adam",
    )


_HISTOGRAM = replace(
    ARMS["random"],
    name="histogram",
    title="sigmoid, weights drawn from pretrained weights",
    paper="Erhan et al. 2010, table 1",
    control="random",
    stack_of=ARMS["denoising"],
    histogram=True,
    look=("#332288", "h"),
)
_BOLTZMANN = replace(
    ARMS["random"],
    name="boltzmann",
    title="sigmoid, pretrained by RBMs",
    paper="Hinton et al. 2006",
    control="random",
    objective={"name": "RestrictedBoltzmannMachine"},
    look=("#3a93c9", "D"),
)
_SIGMOID = (
    *(ARMS[name] for name in ("random", "glorot", "glorot_longer")),
    _orthogonal("sigmoid", 4.0, "random"),
    *(ARMS["lsuv"], ARMS["denoising"], _HISTOGRAM, _BOLTZMANN),
)
_TANH = (
    *(_historical("tanh"), _glorot("tanh"), longer(_glorot("tanh"), "tanh_denoising", "^")),
    *(_orthogonal("tanh", 1.0, "tanh_historical"), _lsuv("tanh"), _pretrained("tanh")),
)
_RELU = (
    *(_historical("relu"), _glorot("relu"), replace(ARMS["he"], control="relu_historical")),
    longer(ARMS["he"], "relu_denoising", "s"),
    *(_orthogonal("relu", 2**0.5, "relu_historical"), _lsuv("relu"), _pretrained("relu")),
)

_DEEP = {"depth": (3, 10, 30)}
_DEEPER = {"depth": (3, 10, 20, 30)}
_SHALLOW = {"depth": (3, 10)}
_STANDARD = Scale(
    arms=(*_SIGMOID, *_TANH, *_RELU),
    axes={"depth": (1, 2, 3, 10, 20, 30)},
    only_at={
        **{arm.name: _DEEP for arm in (*_SIGMOID, *_TANH, *_RELU)},
        **dict.fromkeys(("glorot", "sigmoid_orthogonal", "lsuv"), _DEEPER),
        **dict.fromkeys(("tanh_lsuv", "relu_glorot", "he", "relu_lsuv"), _DEEPER),
        "random": {"depth": (1, 2, 3, 10)},
        "denoising": {"depth": (1, 2, 3, 10, 30)},
        "histogram": {"depth": (1, 2, 3, 10)},
        **dict.fromkeys(("boltzmann", "tanh_historical", "relu_historical"), _SHALLOW),
        **dict.fromkeys(("glorot_longer", "tanh_glorot_longer", "he_longer"), _SHALLOW),
    },
    width=100,
    train_size=5_000,
    validation_size=2_000,
    test_size=10_000,
    epochs=10,
    learning_rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    pretraining_epochs=10,
    pretraining_rates={
        "sgd": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        "adam": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    },
    reference={"depth": 3},
    selection_seeds=2,
    report_seeds=10,
    # The claims of equivalence rest on these.
    headline_arms=("relu_glorot", "he"),
    headline_axes={"depth": (3,)},
)

# On a further data set, with half as many images: rectifiers.
_FURTHER = replace(
    _STANDARD,
    arms=_RELU[1:],
    axes={"depth": (3, 10, 20, 30)},
    only_at={arm.name: _STANDARD.only_at[arm.name] for arm in _RELU[1:]},
    train_size=2_500,
)

SCALES = {
    "quick": replace(
        _STANDARD,
        arms=("random", "glorot", "denoising", _glorot("relu"), replace(ARMS["he"], control=None)),
        axes={"depth": (3, 10, 20)},
        only_at={},
        train_size=2_000,
        validation_size=1_000,
        learning_rates=(0.03, 0.3, 3.0),
        pretraining_rates={"sgd": (0.1, 0.3)},
        selection_seeds=1,
        report_seeds=3,
        headline_arms=(),
        headline_axes={},
        demonstration=True,
    ),
    "standard": _STANDARD,
    "fashion": replace(_FURTHER, dataset="fashion_mnist"),
}

# The claims were fixed before the run. "Trains" means that the training NLL at the last epoch is
# below half the NLL of guessing; "most" means more than half of the runs.


def _alone(arm: str, metric: str, depth: int) -> Difference:
    return Difference((sample(arm, metric, depth=depth),), ())


_EXACT = "The variance is known at the start, up to what 100 units per layer leave to chance."
_WORKING = "1.5 points is the margin that the notes on the paper set before there were any records."
_SAME = (
    "Two standard errors of an error of 5 % on the test set are half a point, so that a paper that "
    "reports one net would hardly see a smaller difference."
)

CLAIMS = (
    Claim(
        "he-trains-where-glorot-stalls",
        "Deep rectifier nets train from He's initialization where they stall from Glorot's.",
        "He et al. 2015, figure 3",
        "Most runs of he train at 30 layers, and most runs of relu_glorot do not train at 20 and "
        "30 layers: the greatest depth is at least one and a half times as great.",
        (trains("he", depth=30), stalls("relu_glorot", depth=20), stalls("relu_glorot", depth=30)),
    ),
    Claim(
        "he-keeps-the-variance",
        "He's initialization keeps the variance from layer to layer of rectifiers, and Glorot's "
        "halves the variance.",
        "He et al. 2015, section 2.2",
        "Over 10 layers, the mean ratio of the variances of neighboring layers is between 0.85 and "
        "1.15 from he, and between 0.4 and 0.6 from relu_glorot.",
        (
            Condition(_alone("he", "variance_ratio", 10), above=0.85, below=1.15, reason=_EXACT),
            Condition(
                _alone("relu_glorot", "variance_ratio", 10), above=0.4, below=0.6, reason=_EXACT
            ),
        ),
    ),
    Claim(
        "he-is-no-better-where-both-train",
        "Where both initializations train, He's ends at no other error than Glorot's.",
        "He et al. 2015, table 2",
        "At 3 layers, he and relu_glorot differ by less than 0.5 points.",
        (equivalent(difference("he", "relu_glorot", depth=3), 0.5, _SAME),),
    ),
    Claim(
        "lsuv-has-unit-variance",
        "After LSUV, the inputs of the units of every layer have a variance of 1.",
        "Mishkin and Matas 2015, algorithm 1",
        "At 30 layers, on images that LSUV has not seen, the variance of every layer is between "
        "0.9 and 1.1 for each activation.",
        tuple(
            Condition(_alone(arm, f"{end}_variance", 30), above=0.9, below=1.1, reason=_EXACT)
            for arm in ("lsuv", "tanh_lsuv", "relu_lsuv")
            for end in ("lowest", "highest")
        ),
    ),
    Claim(
        "lsuv-trains-where-any-start-trains",
        "LSUV trains tanh and rectifier nets at every depth.",
        "Mishkin and Matas 2015, table 3",
        "Most runs of tanh_lsuv and of relu_lsuv train at 20 and 30 layers.",
        tuple(trains(arm, depth=depth) for arm in ("tanh_lsuv", "relu_lsuv") for depth in (20, 30)),
    ),
    Claim(
        "deep-sigmoid-nets-fail-from-any-start",
        "Deep sigmoid nets train from no initialization.",
        "Mishkin and Matas 2015, table 3",
        "At 20 layers, most runs of glorot, sigmoid_orthogonal and lsuv do not train.",
        tuple(stalls(arm, depth=20) for arm in ("glorot", "sigmoid_orthogonal", "lsuv")),
    ),
    Claim(
        "working-starts-end-alike",
        "Initializations that train end at about the same error.",
        "Mishkin and Matas 2015, table 3",
        "At 10 layers, orthogonal starts and LSUV end within 1.5 points of he, for rectifiers, and "
        "of tanh_glorot, for tanh.",
        tuple(
            equivalent(difference(f"{family}_{start}", control, depth=10), 1.5, _WORKING)
            for family, control in (("relu", "he"), ("tanh", "tanh_glorot"))
            for start in ("orthogonal", "lsuv")
        ),
    ),
    Claim(
        "pretraining-is-more-than-its-marginals",
        "Weights that are drawn from the distribution of pretrained weights give less than half of "
        "what pretraining gives.",
        "Erhan et al. 2010, table 1",
        "At 1 and 2 layers, denoising is below random, and histogram is closer to random than to "
        "denoising.",
        tuple(
            condition
            for depth in (1, 2)
            for condition in (
                Condition(difference("denoising", "random", depth=depth), below=0),
                Condition(
                    Difference(
                        (sample("histogram", depth=depth),) * 2,
                        (sample("random", depth=depth), sample("denoising", depth=depth)),
                    ),
                    above=0,
                ),
            )
        ),
    ),
    Claim(
        "pretraining-trains-where-random-stalls",
        "Layer-wise pretraining trains sigmoid nets that do not train from random weights.",
        "Erhan et al. 2010, figure 1",
        "At 10 layers, most runs of random do not train, and most runs of denoising do.",
        (stalls("random", depth=10), trains("denoising", depth=10)),
    ),
    Claim(
        "initialization-trains-deeper-than-pretraining",
        "A good initialization trains nets that are deeper than any that pretraining trains.",
        "folklore after Glorot and Bengio 2010 and He et al. 2015",
        "At 30 layers, most runs of he and of tanh_orthogonal train, and most runs of denoising, "
        "tanh_denoising and relu_denoising do not.",
        (
            *(trains(arm, depth=30) for arm in ("he", "tanh_orthogonal")),
            *(stalls(arm, depth=30) for arm in ("denoising", "tanh_denoising", "relu_denoising")),
        ),
    ),
    *(
        Claim(
            f"initialization-beats-pretraining-{family}",
            f"A good initialization is much more effective than laborious layer-by-layer "
            f"pretraining, with {_UNITS[family]} units.",
            "folklore after Glorot and Bengio 2010 and He et al. 2015",
            f"{control}, which is trained to the cost of {arm}, is below it at 3 and 10 layers.",
            tuple(
                Condition(difference(control, arm, "median", depth=depth), below=0)
                for depth in (3, 10)
            ),
        )
        for family, control, arm in (
            ("sigmoid", "glorot_longer", "denoising"),
            ("tanh", "tanh_glorot_longer", "tanh_denoising"),
            ("relu", "he_longer", "relu_denoising"),
        )
    ),
)

FIGURES = (
    "trained_against_{axis}",
    "error_against_{axis}",
    "train_nll_against_{axis}",
    "variance_by_layer",
    "gradient_by_layer",
    "useless_by_layer",
    "error_against_cost",
    "rate_sensitivity",
)

DEVIATIONS = (
    "Nets are narrow (100 units), see 5,000 images and train for 10 epochs: whether nets train is "
    "asked, and not how low an error can be. He et al. and Mishkin and Matas train convolutional "
    "nets on color images.",
    "Glorot's initialization of sigmoid units has the factor 4 of the Deep Learning Tutorials, and "
    "orthogonal weights have the gain 4, 1 or the root of 2 for sigmoid, tanh and ReLU.",
    "A pretrained arm starts from the historical weights. The rate of its pretraining is chosen at "
    "3 layers. Noise in training, which gives much of what denoising gives, is asked in `modern`.",
)

IN_SHORT = InShort(
    "**Depth**, 10 narrow layers of rectifiers: compared at equal cost with nets that start from "
    "He's initialization, pretrained nets are {}.",
    {"ReLU, 10 narrow layers": difference("relu_denoising", "he_longer", depth=10)},
)


def answer(found):
    sigmoid, relu = (
        found.comparison(arm, control, depth=10)
        for control, arm in (("glorot_longer", "denoising"), ("he_longer", "relu_denoising"))
    )
    rectifiers = (
        "Pretrained rectifier nets with 10 layers are, compared at equal cost with nets that start "
        f"from He's initialization, {relu}."
    )
    # Further data sets have rectifiers only.
    if "glorot_longer" not in found.scale.arm_names:
        return rectifiers
    return (
        "Pretrained sigmoid nets with 10 layers are, compared at equal cost with nets that start "
        f"from Glorot's initialization, {sigmoid}. {rectifiers} The claim that a good "
        "initialization trains deeper nets than pretraining: "
        f"{found.verdict('initialization-trains-deeper-than-pretraining')}."
    )
