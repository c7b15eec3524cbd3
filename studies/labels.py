"""How few labels make pretraining pay, and how much?

Question: of 5,000 training images, 100 to 5,000 have labels, and pretraining sees all images. What
does pretraining take from the test error of dense and of convolutional nets, at each number of
labels? Do better initial weights, batch normalization, noise in training or shifted images do the
same, or labels that the net itself gives to the images without labels?

Expected: the gain of pretraining is large with few labels and shrinks as labels grow; with labels
for all images, it is gone, and shifted images gain more (Masci et al. 2011; Paine et al. 2014).
With He's start, some of the gain remains with few labels.

Refuted if: the gain does not depend on the number of labels, or nets with 100 labels gain nothing
at equal cost.

What would change the answer: many more unlabeled images, other ways to use them, such as
contrastive learning, or shifts and masks in all arms at once.

What was tried

In the first runs, pretrained convolutional nets chose the lowest rate of pretraining, so that the
grids got lower rates, twice. These nets choose the lowest rate still, 0.000003 with Adam, which
hardly changes their weights. So claims on these nets stay undecided.
"""

from dataclasses import replace

from studies.arms import ARMS
from studies.engine.scale import Scale
from studies.kinds import classification
from studies.kinds.classification.layers import CONVOLUTIONAL, DENSE
from studies.report.claims import (
    MARGIN,
    MARGIN_REASON,
    Claim,
    Condition,
    InShort,
    difference,
    growth_of_gain,
)

KIND = classification.KIND


# He's nets with noise in training, at the total cost of the pretrained nets.
_MASKED = replace(
    ARMS["he_longer"],
    name="he_masked",
    title="ReLU, inputs masked, trained longer",
    paper="Vincent et al. 2010, figure 12",
    control="he_longer",
    noise="masking",
    look=("#cc79a7", "p"),
)
_SHIFTED = replace(
    _MASKED,
    name="he_shifted",
    title="ReLU, images shifted, trained longer",
    paper="Paine et al. 2014",
    noise="shifts",
    look=("#3a93c9", "D"),
)

# Images without labels train He's nets, too, by the labels that the nets give them.
_PSEUDO_LABELS = replace(
    _MASKED,
    name="he_pseudo_labels",
    title="ReLU, pseudo-labels",
    paper="Lee 2013",
    noise="none",
    pseudo_labels=True,
    look=("#999933", "X"),
)
_BATCH_NORM = [
    replace(ARMS[name], family="batch_norm")
    for name in ("batch_norm", "batch_norm_longer", "batch_norm_denoising")
]

_LABELS = (100, 300, 1_000, 5_000)
_FEWEST, _ALL = _LABELS[0], _LABELS[-1]
_NETWORKS = (DENSE, CONVOLUTIONAL)
_ENDS = {"labeled": (_FEWEST, _ALL)}
_DENSE = {"network": (DENSE,)}

_STANDARD = Scale(
    arms=(
        *("random", "denoising"),
        *("he", "he_longer", _MASKED, _SHIFTED, _PSEUDO_LABELS, "he_denoising"),
        *_BATCH_NORM,
    ),
    axes={"labeled": _LABELS, "network": _NETWORKS, "depth": (3,)},
    only_at={
        **dict.fromkeys(("random", "denoising"), _DENSE),
        **dict.fromkeys(("he_longer", "he_shifted", "batch_norm_longer"), _ENDS),
        "he_masked": _ENDS | _DENSE,
        "he_pseudo_labels": {"labeled": _LABELS[:-1]},
    },
    train_size=5_000,
    validation_size=1_000,
    test_size=10_000,
    epochs=10,
    learning_rates=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    pretraining_epochs=6,
    pretraining_rates={
        "sgd": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        "adam": (0.000003, 0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03),
    },
    reference={"labeled": 1_000},
    selection_seeds=1,
    report_seeds=10,
)

SCALES = {
    "quick": replace(
        _STANDARD,
        arms=("he", "he_denoising"),
        axes={"labeled": (100, 2_000), "network": _NETWORKS, "depth": (3,)},
        only_at={},
        train_size=2_000,
        validation_size=500,
        test_size=2_000,
        epochs=5,
        learning_rates=(0.01, 0.03, 0.1, 0.3),
        pretraining_epochs=6,
        pretraining_rates=(0.003,),
        reference={},
        report_seeds=3,
        demonstration=True,
    ),
    "standard": _STANDARD,
    "fashion": replace(_STANDARD, dataset="fashion_mnist"),
}

_NO_GAIN = "What gains less than a quarter of a point pays for nobody."


def _by(arm: str, control: str, network: str, labeled: int, **bounds) -> Condition:
    """A difference of test errors at a number of labels; by default, it is below 0."""
    effect = difference(arm, control, network=network, labeled=labeled)
    return Condition(effect, **(bounds or {"below": 0}))


def _growth(network: str, first: int, last: int) -> Condition:
    """The gain of pretraining, with He's start, is less with more labels."""
    place = {"network": network}
    return Condition(growth_of_gain("he_denoising", "he", "labeled", first, last, **place), below=0)


# The claims were fixed before the run; that on pseudo-labels and that on batch normalization at
# equal cost, before the runs of their arms.
CLAIMS = (
    *(
        Claim(
            f"gain-shrinks-with-labels-{network}",
            f"Pretraining helps {network} nets with few labels; its gain shrinks as labels grow, "
            "and is gone if all images have labels.",
            "Paine et al. 2014, of convolutional nets",
            "he_denoising is below he with 100 labels; its gain on he is less with 5,000 labels "
            "than with 100, and less than 0.25 points with 5,000.",
            (
                _by("he_denoising", "he", network, _FEWEST),
                _growth(network, _FEWEST, _ALL),
                _by("he_denoising", "he", network, _ALL, above=-MARGIN, reason=_NO_GAIN),
            ),
        )
        for network in _NETWORKS
    ),
    Claim(
        "pretraining-helps-at-all-numbers-of-labels",
        "Pretrained convolutional nets have a lower error at every number of labels.",
        "Masci et al. 2011, tables 1 and 2",
        "he_denoising is below he with 100, 300, 1,000 and 5,000 labels.",
        tuple(_by("he_denoising", "he", CONVOLUTIONAL, each) for each in _LABELS),
    ),
    Claim(
        "gain-is-largest-with-fewest-labels",
        "The fewer labels there are, the more convolutional nets gain from pretraining.",
        "Masci et al. 2011, table 2, of color images with 1,000 labels or more",
        "What he_denoising gains on he is less with 300 labels than with 100, less with 1,000 than "
        "with 300, and less with 5,000 than with 1,000.",
        tuple(
            _growth(CONVOLUTIONAL, first, last)
            for first, last in zip(_LABELS, _LABELS[1:], strict=False)
        ),
    ),
    Claim(
        "few-labels-pay-at-equal-cost",
        "With 100 labels, pretraining lowers the error of nets with He's start, even if the "
        "control trains on to the same total cost.",
        "an open question of Paine et al. 2014, whose nets start below He's scale",
        "he_denoising is below he_longer with 100 labels, for dense and for convolutional nets.",
        tuple(_by("he_denoising", "he_longer", network, _FEWEST) for network in _NETWORKS),
    ),
    Claim(
        "few-labels-pay-with-batch-norm",
        "With 100 labels, pretraining lowers the error of nets with batch normalization.",
        "asked of Paine et al. 2014",
        "batch_norm_denoising is below batch_norm with 100 labels, for dense and for convolutional "
        "nets.",
        tuple(_by("batch_norm_denoising", "batch_norm", network, _FEWEST) for network in _NETWORKS),
    ),
    Claim(
        "few-labels-pay-with-batch-norm-at-equal-cost",
        "With 100 labels, pretraining lowers the error of nets with batch normalization, even if "
        "the control trains on to the same total cost.",
        "asked here",
        "batch_norm_denoising is below batch_norm_longer with 100 labels, for dense and for "
        "convolutional nets.",
        tuple(
            _by("batch_norm_denoising", "batch_norm_longer", network, _FEWEST)
            for network in _NETWORKS
        ),
    ),
    Claim(
        "few-labels-pay-with-the-historical-start",
        "Pretraining lowers the error of sigmoid nets at every number of labels.",
        "Erhan et al. 2010, of all labels",
        "denoising is below random with 100, 300, 1,000 and 5,000 labels.",
        tuple(_by("denoising", "random", DENSE, each) for each in _LABELS),
    ),
    Claim(
        "shifts-beat-pretraining-with-all-labels",
        "With labels for all images, shifted images gain more than pretraining.",
        "Paine et al. 2014",
        "At equal cost and with 5,000 labels, he_shifted is below he_denoising, for dense and for "
        "convolutional nets.",
        tuple(_by("he_shifted", "he_denoising", network, _ALL) for network in _NETWORKS),
    ),
    Claim(
        "pretraining-beats-shifts-with-few-labels",
        "With 100 labels, pretraining gains more than shifted images.",
        "asked of Paine et al. 2014",
        "At equal cost and with 100 labels, he_denoising is below he_shifted, for dense and for "
        "convolutional nets.",
        tuple(_by("he_denoising", "he_shifted", network, _FEWEST) for network in _NETWORKS),
    ),
    Claim(
        "noise-gives-what-pretraining-gives",
        "With 100 labels, masked inputs in training give what denoising pretraining gives.",
        "asked after the re-analysis of the first run of depth",
        "At equal cost and with 100 labels, he_masked is at most 0.25 points above he_denoising, "
        "for dense nets.",
        (_by("he_masked", "he_denoising", DENSE, _FEWEST, below=MARGIN, reason=MARGIN_REASON),),
    ),
    Claim(
        "pseudo-labels-give-what-pretraining-gives",
        "With few labels, pseudo-labels give what pretraining gives.",
        "asked of Lee 2013, table 1",
        "At equal cost and with 100, 300 and 1,000 labels, he_pseudo_labels is at most 0.25 points "
        "above he_denoising, for dense and for convolutional nets.",
        tuple(
            _by(
                *("he_pseudo_labels", "he_denoising", network, labeled),
                below=MARGIN,
                reason=MARGIN_REASON,
            )
            for network in _NETWORKS
            for labeled in _LABELS[:-1]
        ),
    ),
)

FIGURES = ("gain_against_{axis}", "error_against_{axis}", "error_over_seeds", "rate_sensitivity")

DEVIATIONS = (
    "Rates and epochs are chosen on 1,000 validation images with labels, at every number of "
    "training labels. Somebody with 100 labels has no such images.",
    "The first of the training images have labels. How many images of a class are among them is "
    "left to chance.",
    "Masci et al. and Paine et al. train nets with 96 to 250 filters, Paine et al. on color "
    "images. Convolutional nets here have 8 filters of 3 x 3 pixels in each of 3 convolutions.",
    "The pretraining rate is chosen with 1,000 labels and serves all numbers of labels.",
    "Pseudo-labels count where the net is sure of them by 95 % (Sohn et al. 2020), and not by a "
    "weight that grows in training (Lee 2013).",
)

IN_SHORT = InShort(
    f"**Few labels**, {_FEWEST} of {_ALL:,} images, 3 layers of rectifiers: compared at equal cost "
    "with nets that start from He's initialization, pretrained nets are {} if they are dense, and "
    "{} if they are convolutional.",
    {
        f"{_FEWEST} labels, {network}": difference(
            "he_denoising", "he_longer", network=network, labeled=_FEWEST
        )
        for network in _NETWORKS
    },
)


def answer(found):
    def gains(network: str) -> str:
        return " and ".join(
            f"{found.comparison('he_denoising', 'he', network=network, labeled=labeled)} with "
            f"{labeled:,} labels"
            for labeled in (_FEWEST, _ALL)
        )

    return (
        f"Pretrained rectifiers with He's start are, as dense nets, {gains(DENSE)}; as "
        f"convolutional nets, {gains(CONVOLUTIONAL)}. At equal cost and with 100 labels, the "
        f"pretrained nets are {_at_fewest(found, 'he_longer', DENSE)} (dense) and "
        f"{_at_fewest(found, 'he_longer', CONVOLUTIONAL)} (convolutional)."
    )


def _at_fewest(found, control: str, network: str) -> str:
    return found.comparison("he_denoising", control, network=network, labeled=_FEWEST)
