"""Does layer-by-layer pretraining make deep convolutional nets trainable, and do today's need it?

Question: convolutional nets of 2 to 8 convolutions start from the historical random weights, from
random weights of the right scale or as stacked convolutional denoising autoencoders, with
rectifiers and He's start, with batch normalization or with residual connections, each with
pretraining and without. Which of them train at which depth, and to which test error, at equal
epochs and at equal cost?

Expected: pretraining lowers the error at every depth (Masci et al. 2011), and trains deep
convolutional nets that do not train from the historical start. With He's start, batch normalization
or residual connections, deep nets train without pretraining, and pretraining adds nothing.

Refuted if: nets of 8 convolutions train from the historical start or do not train if they are
pretrained, or if pretraining still lowers the error of today's nets at equal cost.

What would change the answer: more filters and more images than the small budget of this study
allows, or unlabeled images beyond the training images.

What was tried

In the first run, pretrained rectifiers chose the lowest rate of pretraining, and rectifiers that
are trained longer the lowest learning rate. So both grids got two lower rates. Pretrained
rectifiers choose the lowest rate of pretraining still, 0.00001 with Adam, so that claims on these
nets stay undecided.
"""

from dataclasses import replace

from studies.arms import ARMS, Arm, longer
from studies.engine.scale import Scale
from studies.kinds import classification
from studies.kinds.classification.layers import CONVOLUTIONAL, POOLED
from studies.report.claims import (
    AtChance,
    Claim,
    Condition,
    InShort,
    difference,
    equivalent,
    growth,
    sample,
)

KIND = classification.KIND


def _stacked(name: str, depth: int) -> Arm:
    """Stacked convolutional autoencoders, for nets of at most so many convolutions."""
    plain = ARMS["denoising"].objective
    # Masci et al. keep only the maxima, each in its place; what has no pooling has no places.
    switched = plain | {"unpooling": "switches"}
    return replace(
        ARMS["denoising"],
        name=name,
        title="sigmoid, pretrained by convolutional autoencoders",
        paper="Masci et al. 2011",
        objective=tuple(switched if i in POOLED else plain for i in range(1, depth + 1)),
    )


# These arms have panels of their own.
_NORMALIZED = [
    replace(ARMS[name], family="batch_norm")
    for name in (
        *("batch_norm", "batch_norm_longer", "batch_norm_denoising"),
        *("residual_batch_norm", "residual_longer", "residual_denoising"),
    )
]
_DEPTHS = (2, 4, 6, 8)

_STANDARD = Scale(
    arms=(
        *("random", longer(ARMS["random"], "stacked", "X"), _stacked("stacked", max(_DEPTHS))),
        *("glorot", longer(ARMS["glorot"], "stacked", "P")),
        *("he", "he_longer", "he_denoising"),
        *_NORMALIZED,
    ),
    axes={"network": (CONVOLUTIONAL,), "depth": _DEPTHS},
    only_at={
        **dict.fromkeys(("random_longer", "glorot_longer"), {"depth": (4, 8)}),
        **dict.fromkeys(("he_longer", "batch_norm_longer"), {"depth": (4, 8)}),
        **dict.fromkeys(("he", "he_denoising"), {"depth": (4, 8)}),
        **dict.fromkeys(("batch_norm", "batch_norm_denoising"), {"depth": (2, 4, 8)}),
        **dict.fromkeys(
            ("residual_batch_norm", "residual_longer", "residual_denoising"), {"depth": (8,)}
        ),
    },
    train_size=2_000,
    validation_size=1_000,
    test_size=10_000,
    epochs=10,
    learning_rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    pretraining_epochs=8,
    pretraining_rates={
        "sgd": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
        "adam": (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03),
    },
    reference={"depth": 4},
    selection_seeds=1,
    report_seeds=10,
)

SCALES = {
    "quick": replace(
        _STANDARD,
        arms=("random", _stacked("stacked_4", 4), _NORMALIZED[0]),
        axes={"network": (CONVOLUTIONAL,), "depth": (2, 4)},
        only_at={},
        train_size=1_000,
        validation_size=500,
        test_size=2_000,
        epochs=12,
        learning_rates=(0.1, 1.0, 3.0),
        pretraining_epochs=8,
        pretraining_rates=(0.01,),
        reference={},
        report_seeds=3,
        demonstration=True,
    ),
    "standard": _STANDARD,
    "fashion": replace(_STANDARD, dataset="fashion_mnist"),
}

_MARGIN = 0.5
_REASON = (
    "With 2,000 training images, nets err on some 5 % of 10,000 test images, which has a standard "
    "error of 0.22 points. Half a point is what two papers could hardly agree on."
)


def _at_chance(arm: str, **bounds: float) -> Condition:
    return Condition(AtChance(sample(arm, depth=8)), **bounds)


def _nothing(name: str, arm: str, control: str, with_: str, paper: str, *depths: int) -> Claim:
    return Claim(
        f"pretraining-adds-nothing-to-{name}",
        f"Pretraining adds nothing to convolutional nets with {with_}, at equal cost.",
        f"folklore after {paper}",
        f"{arm} and {control} differ by less than 0.5 points at {' and '.join(map(str, depths))} "
        "convolutions.",
        tuple(
            equivalent(difference(arm, control, depth=depth), _MARGIN, _REASON) for depth in depths
        ),
    )


# The claims were fixed before the run, and both on the right scale before the run of their arms,
# which are a later control. Some runs of plain sigmoid nets may stay at chance, so that
# comparisons with these nets are of medians.
CLAIMS = (
    Claim(
        "pretraining-lowers-the-error",
        "Convolutional nets that are pretrained as stacked autoencoders have a lower test error.",
        "Masci et al. 2011, tables 1 and 2, of nets with 3 convolutions",
        "stacked is below random at 2, 4, 6 and 8 convolutions, in the median.",
        tuple(
            Condition(difference("stacked", "random", "median", depth=depth), below=0)
            for depth in _DEPTHS
        ),
    ),
    Claim(
        "pretraining-pays-for-itself",
        "Pretraining lowers the test error of convolutional nets even if the control trains on to "
        "the same total cost.",
        "asked of Masci et al. 2011, who compare at equal epochs",
        "stacked is below random_longer at 4 and 8 convolutions, in the median.",
        tuple(
            Condition(difference("stacked", "random_longer", "median", depth=depth), below=0)
            for depth in (4, 8)
        ),
    ),
    Claim(
        "pretraining-trains-deep-convolutional-nets",
        "Layer-by-layer pretraining trains deep convolutional nets that do not train without it.",
        "folklore of 2012, after Masci et al. 2011",
        "With 8 convolutions, most runs of random_longer end at chance, and most of stacked do "
        "not.",
        (_at_chance("random_longer", above=0.5), _at_chance("stacked", below=0.5)),
    ),
    Claim(
        "the-right-scale-trains-deep-sigmoid-convolutional-nets",
        "Random weights of the right scale train deep convolutional nets of sigmoid units, without "
        "pretraining.",
        "asked of the folklore of 2012, after Glorot and Bengio 2010",
        "With 8 convolutions, most runs of glorot_longer do not end at chance.",
        (_at_chance("glorot_longer", below=0.5),),
    ),
    Claim(
        "pretraining-beats-the-right-scale",
        "Pretrained convolutional nets have a lower test error than nets of the same units which "
        "start from random weights of the right scale and train on to the same total cost.",
        "asked of Masci et al. 2011, after Glorot and Bengio 2010",
        "stacked is below glorot_longer at 4 and 8 convolutions, in the median.",
        tuple(
            Condition(difference("stacked", "glorot_longer", "median", depth=depth), below=0)
            for depth in (4, 8)
        ),
    ),
    Claim(
        "depth-does-not-hurt-pretrained-nets",
        "With pretraining, the error of convolutional nets does not grow with depth.",
        "Erhan et al. 2010, figure 1, of dense nets",
        "The error of stacked with 8 convolutions is less than 0.5 points above that with 2.",
        (Condition(growth("stacked", "depth", 2, 8, "median"), below=_MARGIN, reason=_REASON),),
    ),
    Claim(
        "deep-nets-of-today-train-without-pretraining",
        "Rectifiers with He's start, batch normalization or residual connections train deep "
        "convolutional nets without pretraining.",
        "He et al. 2015; Ioffe and Szegedy 2015; He et al. 2016",
        "With 8 convolutions, most runs of he, batch_norm and residual_batch_norm do not end at "
        "chance.",
        tuple(_at_chance(arm, below=0.5) for arm in ("he", "batch_norm", "residual_batch_norm")),
    ),
    _nothing("he", "he_denoising", "he_longer", "He's start", "He et al. 2015", 4, 8),
    _nothing(
        "batch-norm",
        "batch_norm_denoising",
        "batch_norm_longer",
        "batch normalization",
        "Ioffe and Szegedy 2015",
        4,
        8,
    ),
    _nothing(
        "residual",
        "residual_denoising",
        "residual_longer",
        "residual connections",
        "He et al. 2016",
        8,
    ),
)

FIGURES = (
    "error_against_{axis}",
    "filters",
    "error_over_seeds",
    "nll_trajectories",
    "rate_sensitivity",
)

DEVIATIONS = (
    "Masci et al. train nets of 3 convolutions with 100 to 200 filters of 5 x 5 and 3 x 3 pixels "
    "and a hidden layer of 300 units, on up to 50,000 images. Nets here have 8 filters of 3 x 3 "
    "pixels in every convolution and no dense hidden layer, and see 2,000 images: a processor "
    "makes few convolutions.",
    "Units of the historical nets are sigmoid units, not scaled tanh units, and the inputs of "
    "their autoencoders are masked.",
    "Decoders of the historical arm put each maximum where the pooling has found it. Those of the "
    "other pretrained arms fill the whole window of a pooling with its maximum.",
    "Max pooling stands behind the first two convolutions at every depth. So the pretrained layers "
    "of the deepest net serve all depths, and a deeper net has more convolutions of 7 x 7 pixels.",
)

IN_SHORT = InShort(
    "**Convolution**, 8 layers of rectifiers with batch normalization: compared at equal cost with "
    "nets that are not pretrained, pretrained nets are {}.",
    {
        "convolutional, ReLU + batch norm, 8 layers": difference(
            "batch_norm_denoising", "batch_norm_longer", depth=8
        )
    },
)


def answer(found):
    at_8 = ", ".join(
        f"{words} {found.number(arm, depth=8)}"
        for words, arm in (
            ("sigmoid nets from the historical start", "random"),
            ("from the right scale", "glorot"),
            ("and after pretraining", "stacked"),
            ("rectifiers from He's start", "he"),
            ("with batch normalization", "batch_norm"),
            ("and with residual connections", "residual_batch_norm"),
        )
    )
    return (
        f"Nets of 8 convolutions end at these test errors: {at_8}. At equal cost, pretrained nets "
        "with batch normalization are "
        f"{found.comparison('batch_norm_denoising', 'batch_norm_longer', depth=8)}."
    )
