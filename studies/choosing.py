"""How should the rate of pretraining be chosen, and how much depends on that?

Question: three rules choose the rate of layer-wise pretraining from the pretrained layers alone: by
how well they reconstruct their inputs, in the mean or in the worst layer, or by how well a linear
classifier tells the classes from their codes. A fourth rule trains nets and takes the rate whose
nets have the lowest validation error. Which rate does each rule choose, and at which test error do
the nets end?

Expected: the error of reconstruction is no guide to the error of classification, but nobody has
measured what the choice costs. If it costs as much as pretraining gains, then papers that chose by
reconstruction have measured their rule, and not pretraining.

Refuted if: all rules end within a quarter of a point of each other.

What would change the answer: another optimizer of pretraining than Adam and SGD, or deeper stacks
than three layers, whose rates may be harder to choose.
"""

from dataclasses import replace

from studies.engine.scale import Scale
from studies.kinds import classification
from studies.report.claims import (
    MARGIN,
    MARGIN_REASON,
    Claim,
    Condition,
    Difference,
    equivalent,
    sample,
)

KIND = classification.KIND

_NETS = (
    ("sigmoid", "denoising"),
    ("ReLU", "he_denoising"),
    ("ReLU with SGD", "he_denoising_sgd"),
    ("batch norm", "batch_norm_denoising"),
    ("batch norm with SGD", "batch_norm_denoising_sgd"),
)

_STANDARD = Scale(
    arms=("random", "he", "batch_norm", *(arm for _, arm in _NETS)),
    axes={"depth": (3,), "rule": ("reconstruction", "worst_stage", "probe", "validation")},
    train_size=10_000,
    validation_size=2_000,
    test_size=10_000,
    epochs=20,
    learning_rates=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    pretraining_epochs=15,
    pretraining_rates={
        "sgd": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        "adam": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03),
    },
    selection_seeds=2,
    report_seeds=10,
)

SCALES = {
    "quick": replace(
        _STANDARD,
        arms=("he", "he_denoising"),
        train_size=2_000,
        validation_size=1_000,
        learning_rates=(0.03, 0.1, 0.3),
        pretraining_epochs=10,
        pretraining_rates={"adam": (0.0003, 0.003, 0.03)},
        selection_seeds=1,
        report_seeds=3,
        demonstration=True,
    ),
    "standard": _STANDARD,
}


def _cost(arm: str, rule: str) -> Difference:
    """The error at the rate of a rule minus the error at the rate of validation."""
    return Difference((sample(arm, rule=rule),), (sample(arm, rule="validation"),))


# The claims were fixed before the run. A quarter of a point is the margin of equivalence of all
# studies: less than what the literature calls a gain.
CLAIMS = (
    *(
        Claim(
            f"{rule.replace('_', '-')}-costs-{arm.replace('_', '-')}",
            f"Choosing the pretraining rate of {net} nets by {words} costs more than a quarter "
            "of a point of test error.",
            "asked here",
            f"{arm} at the rate that {rule} chooses is more than 0.25 points above {arm} at the "
            "rate that validation chooses.",
            (Condition(_cost(arm, rule), above=MARGIN, reason=MARGIN_REASON),),
        )
        for net, arm in _NETS
        for rule, words in (
            ("worst_stage", "the reconstruction of the worst layer"),
            ("probe", "a linear probe"),
        )
    ),
    Claim(
        "reconstruction-is-good-enough-for-sigmoid-nets",
        "For sigmoid nets, choosing by mean reconstruction is as good as choosing by validation "
        "error.",
        "implied by Vincent et al. 2010, who report no such choice",
        "denoising ends within 0.25 points at the two rates.",
        (equivalent(_cost("denoising", "reconstruction")),),
    ),
)

FIGURES = ("error_against_{axis}", "rate_sensitivity")


def answer(found):
    rules = ("reconstruction", "worst_stage", "validation")
    relu, batch_norm = (
        [found.number(arm, rule=rule) for rule in rules]
        for arm in ("he_denoising", "batch_norm_denoising")
    )
    controls = [found.number(arm, rule="validation") for arm in ("he", "batch_norm")]
    return (
        f"Pretrained rectifiers with three layers end at a test error of {relu[0]} if mean "
        "reconstruction chooses the rate of pretraining, of "
        f"{relu[1]} if the reconstruction of the worst layer does, and of {relu[2]} if validation "
        f"error does; without pretraining, they end at {controls[0]}. With batch normalization, "
        f"these errors are {', '.join(batch_norm)}, and {controls[1]} without pretraining. "
        "Rectifiers that are pretrained by plain SGD end at "
        f"{found.number('he_denoising_sgd', rule='validation')}, at the rate that validation error "
        "chooses."
    )
