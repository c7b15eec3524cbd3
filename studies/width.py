"""Does pretraining hurt narrow nets and help wide nets?

Question: what does denoising pretraining do to the test error of sigmoid nets with 25 to 800 units
in each of 1 to 3 hidden layers, against the historical initial scale and against the right one?

Expected: pretraining hurts narrow nets and helps wide nets, since a narrow net has no units to
spare for features that tell nothing of the class. The deeper the net, the wider must the net be for
pretraining to help (Erhan et al. 2010, figure 8).

Refuted if: pretraining helps the narrowest nets, too, or helps no more at the greatest width.

What would change the answer: other objectives than denoising, unlabeled images beyond the training
images, or data whose classes need fewer features than digits.
"""

from dataclasses import replace

from studies.engine.scale import Scale
from studies.kinds import classification
from studies.report.claims import Claim, Condition, InShort, difference, growth_of_gain

KIND = classification.KIND

_WIDTHS = (25, 50, 100, 200, 400, 800)
_DEPTHS = (1, 2, 3)

_STANDARD = Scale(
    arms=("random", "glorot", "glorot_longer", "denoising"),
    axes={"width": _WIDTHS, "depth": _DEPTHS},
    only_at={"glorot_longer": {"depth": (1, 3), "width": (25, 400)}},
    train_size=2_000,
    validation_size=2_000,
    test_size=10_000,
    epochs=20,
    learning_rates=(0.1, 0.3, 1.0, 3.0, 10.0),
    pretraining_epochs=15,
    pretraining_rates=(0.03, 0.1, 0.3, 1.0),
    reference={"depth": 2},
    selection_seeds=1,
    report_seeds=10,
)

SCALES = {
    "quick": replace(
        _STANDARD,
        arms=("random", "glorot", "denoising"),
        axes={"width": (10, 50, 250), "depth": (1, 3)},
        only_at={},
        train_size=1_000,
        validation_size=1_000,
        learning_rates=(0.3, 1.0, 3.0),
        pretraining_rates=(0.1, 0.3),
        reference={"depth": 3},
        report_seeds=3,
        demonstration=True,
    ),
    "standard": _STANDARD,
}

_NARROWEST, _WIDEST = _WIDTHS[0], _WIDTHS[-1]


def _at(control: str, depth: int, width: int, **bound: float) -> Condition:
    """The test error of pretrained nets minus the test error of a control."""
    return Condition(difference("denoising", control, depth=depth, width=width), **bound)


# The claims were fixed before the run. Where a net stays at chance, a comparison is of medians.
CLAIMS = (
    Claim(
        "hurts-narrow-nets",
        "Pretraining hurts narrow nets.",
        "Erhan et al. 2010, figure 8",
        "With 25 units in each of 3 layers, denoising is above random.",
        (_at("random", 3, _NARROWEST, above=0),),
    ),
    Claim(
        "helps-wide-nets",
        "Pretraining helps wide nets of every depth.",
        "Erhan et al. 2010, figure 8",
        "With 800 units in each layer, denoising is below random at depths 1, 2 and 3.",
        tuple(_at("random", depth, _WIDEST, below=0) for depth in _DEPTHS),
    ),
    Claim(
        "hurts-narrow-nets-of-the-right-scale",
        "Pretraining hurts narrow nets, compared with nets that start at the right scale.",
        "asked of Erhan et al. 2010, figure 8, whose nets start at the historical scale",
        "With 25 units in each of 3 layers, denoising is above glorot.",
        (_at("glorot", 3, _NARROWEST, above=0),),
    ),
    Claim(
        "helps-wide-nets-of-the-right-scale",
        "Pretraining helps wide nets, compared with nets that start at the right scale.",
        "asked of Erhan et al. 2010, figure 8, whose nets start at the historical scale",
        "With 800 units in each layer, denoising is below glorot at depths 1, 2 and 3.",
        tuple(_at("glorot", depth, _WIDEST, below=0) for depth in _DEPTHS),
    ),
    Claim(
        "gain-grows-with-width",
        "What pretraining gains on the right initial scale grows with the width.",
        "Erhan et al. 2010, figure 8, with the right initial scale",
        "At depths 1, 2 and 3, denoising gains more on glorot with 800 units than with 25.",
        tuple(
            Condition(
                growth_of_gain("denoising", "glorot", "width", _NARROWEST, _WIDEST, depth=depth),
                above=0,
            )
            for depth in _DEPTHS
        ),
    ),
    Claim(
        "deeper-nets-must-be-wider",
        "The deeper the net, the wider must the net be for pretraining to help.",
        "Erhan et al. 2010, figure 8, with the right initial scale",
        "With 25 and with 50 units, denoising gains less on glorot at depth 3 than at depth 1.",
        tuple(
            Condition(growth_of_gain("denoising", "glorot", "depth", 1, 3, width=width), below=0)
            for width in _WIDTHS[:2]
        ),
    ),
    Claim(
        "helps-wide-nets-at-equal-cost",
        "Pretraining helps wide nets, compared with nets that start at the right scale and are "
        "trained to the same total cost.",
        "asked of Erhan et al. 2010, who compare at equal epochs",
        "With 400 units in each layer, denoising is below glorot_longer at depths 1 and 3.",
        tuple(_at("glorot_longer", depth, 400, below=0) for depth in (1, 3)),
    ),
    Claim(
        "hurts-narrow-nets-at-equal-cost",
        "Pretraining hurts narrow nets, compared with nets that start at the right scale and are "
        "trained to the same total cost.",
        "asked of Erhan et al. 2010, who compare at equal epochs",
        "With 25 units in each of 3 layers, denoising is above glorot_longer.",
        (_at("glorot_longer", 3, _NARROWEST, above=0),),
    ),
)

FIGURES = ("gain_against_{axis}", "error_against_{axis}", "error_over_seeds", "rate_sensitivity")

DEVIATIONS = (
    "There are 2,000 training images and 20 epochs, not 50,000 and 50.",
    "Batches have 20 images, not 1.",
    "Erhan et al. also pretrain by RBMs. Here, all nets are pretrained as denoising autoencoders.",
)

IN_SHORT = InShort(
    "**Width**, 3 layers of sigmoid units: compared at equal cost with nets that start at the "
    "right scale, pretrained nets are {} with 25 units in each layer, and {} with 400.",
    {
        f"sigmoid, 3 layers of {width} units": difference(
            "denoising", "glorot_longer", depth=3, width=width
        )
        for width in (25, 400)
    },
)


def answer(found):
    gains = {
        (control, width): found.comparison("denoising", control, depth=3, width=width)
        for control in ("random", "glorot")
        for width in (_NARROWEST, _WIDEST)
    }
    return (
        f"With 3 layers of {_NARROWEST} units, the test error of pretrained nets is, compared with "
        f"nets that start at the historical scale, {gains['random', _NARROWEST]}; with "
        f"{_WIDEST} units, the test error is {gains['random', _WIDEST]}. Compared with nets that "
        f"start at the right scale, the test error is {gains['glorot', _NARROWEST]} with "
        f"{_NARROWEST} units, and {gains['glorot', _WIDEST]} with {_WIDEST} units."
    )
