"""Does batch normalization make deep nets trainable, and what is left for pretraining to add?

Question: how many updates do sigmoid nets take to 90 % accuracy, at which learning rates do they
train, and how far do the inputs of a hidden unit move, with batch normalization, with layer
normalization and without? Up to which depth does each net train? What does pretraining add?

Expected: nets with batch normalization train several times as fast, at a range of rates that is
ten times as wide, and the inputs of their hidden units move less (Ioffe and Szegedy 2015). Deeper
nets train, and pretraining adds less than half of what it adds without normalization.

Refuted if: normalized nets take more than a third of the updates, or pretraining adds as much to
them as to nets without normalization.

What would change the answer: a task that takes more than some thousand updates, where being faster
matters more, or batches so small that their statistics are noise.

What was tried

A pilot run of one seed, with 10,000 images, 10 epochs and three layers, ended at validation errors
of 6 to 9 % at the best rates, with batch normalization and without. So the 95 % accuracy that the
notes on the paper ask for cannot be reached, and 90 % was taken instead, before the study was run.
In the pilot, nets reached 90 % after 4 epochs with batch normalization, and after 5 without, each
at its best rate: the claims on speed were not changed after that.

When results of the first run had been seen, grids were widened, because rates lay at their ends:
learning rates downward, for rectifier nets with 50 layers, and pretraining rates upward.
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
    Ratio,
    difference,
    equivalent,
    sample,
)

KIND = trainability.KIND

_LOOKS = {None: "#d55e00", "batch": "#009e73", "layer": "#882255"}
_PAPERS = {"batch": "Ioffe and Szegedy 2015", "layer": "Ba et al. 2016"}
_START = {"class_name": "RandomNormal", "config": {"stddev": 0.1}}


def _net(name: str, normalization: str | None) -> tuple[Arm, Arm, Arm]:
    """Sigmoid nets: from random weights, the same trained longer, and pretrained."""
    words = f" + {normalization} norm" if normalization else ""
    bare = Arm(
        name,
        f"sigmoid{words}",
        family="sigmoid",
        paper=_PAPERS.get(normalization, "Ioffe and Szegedy 2015"),
        control="gaussian" if normalization else None,
        activation="sigmoid",
        initializer=_START,
        normalization=normalization,
        look=(_LOOKS[normalization], "o"),
    )
    pretrained = replace(
        bare,
        name=f"{name}_denoising",
        title=f"{bare.title}, pretrained",
        paper="Vincent et al. 2010",
        control=name,
        objective=ARMS["denoising"].objective,
        pretraining_optimizer="adam",
        look=(_LOOKS[normalization], "^"),
    )
    return bare, longer(bare, pretrained.name, "X"), pretrained


_NETS = ("gaussian", "batch", "layer")
_SIGMOID = (
    *(*_net("gaussian", None), replace(ARMS["glorot"], control="gaussian")),
    *(*_net("batch", "batch"), *_net("layer", "layer")),
)
_RELU = (
    *(ARMS["he"], ARMS["batch_norm"]),
    replace(
        ARMS["batch_norm"],
        name="relu_layer_norm",
        title="ReLU + layer norm",
        paper="Ba et al. 2016",
        normalization="layer",
        look=("#332288", "<"),
    ),
)
_SHALLOW = [arm.name for arm in _SIGMOID if arm.pretrained or arm.total_cost_of]

_STANDARD = Scale(
    arms=(*_SIGMOID, *_RELU),
    axes={"depth": (3, 10, 50), "input_values": ("binary",)},
    only_at={
        **dict.fromkeys(_SHALLOW, {"depth": (3,)}),
        **dict.fromkeys(("gaussian", "glorot", "layer"), {"depth": (3, 10)}),
        **{arm.name: {"depth": (50,)} for arm in _RELU},
    },
    width=100,
    batch_size=60,
    train_size=10_000,
    validation_size=2_000,
    test_size=10_000,
    epochs=10,
    learning_rates=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    pretraining_epochs=10,
    pretraining_rates={"adam": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)},
    selection_seeds=2,
    report_seeds=10,
    # The claims of equivalence rest on these.
    headline_arms=("batch_longer", "batch_denoising", "layer_longer", "layer_denoising"),
)

SCALES = {
    "quick": replace(
        _STANDARD,
        arms=(*(_net(name, norm)[0] for name, norm in (("gaussian", None), ("batch", "batch"))),),
        axes={"depth": (3, 10), "input_values": ("binary",)},
        only_at={},
        validation_size=1_000,
        learning_rates=(0.1, 1.0, 10.0),
        pretraining_epochs=None,
        pretraining_rates={},
        selection_seeds=1,
        report_seeds=3,
        headline_arms=(),
        demonstration=True,
    ),
    "standard": _STANDARD,
}

_THIRD = "The paper's nets with batch normalization take a small part of the updates of the others."
_TEN = "Rates are a factor of about 3 apart, so that 9 stands for two steps, a factor of 10."


def _updates(arm: str, control: str) -> Condition:
    over, under = (sample(name, "updates", depth=3) for name in (arm, control))
    return Condition(Ratio(over, under), below=1 / 3, reason=_THIRD)


def _shrinks(ending: str) -> tuple[Condition, ...]:
    """Pretraining gains something without normalization, and less than half of it with."""
    bare, pretrained, batch, batch_pretrained = (
        sample(name, depth=3)
        for name in (f"gaussian{ending}", "gaussian_denoising", f"batch{ending}", "batch_denoising")
    )
    twice = Difference((batch, batch, pretrained), (batch_pretrained, batch_pretrained, bare))
    return (Condition(Difference((pretrained,), (bare,)), below=0), Condition(twice, below=0))


# The claims were fixed before the run. No claim is about the final accuracy of Ioffe and Szegedy's
# nets, in which a tuned rate leaves little difference. The notes on the papers, written before
# there were any records, give the bounds.
CLAIMS = (
    Claim(
        "batch-norm-is-faster",
        "Batch normalization takes sigmoid nets to the same accuracy in a fraction of the updates.",
        "Ioffe and Szegedy 2015, figure 1a",
        "With three layers, batch takes less than a third of the updates of gaussian to 90 % "
        "accuracy on validation images, each at its best rate. A net that never gets there counts "
        "as one that does at its last update.",
        (_updates("batch", "gaussian"),),
    ),
    Claim(
        "batch-norm-is-faster-than-a-good-start",
        "Batch normalization is faster than a good initialization, too.",
        "asked here, since Ioffe and Szegedy 2015 compare with small random weights",
        "With three layers, batch takes less than a third of the updates of glorot.",
        (_updates("batch", "glorot"),),
    ),
    Claim(
        "layer-norm-is-faster",
        "Layer normalization speeds training up as batch normalization does.",
        "Ba et al. 2016",
        "With three layers, layer takes less than a third of the updates of gaussian.",
        (_updates("layer", "gaussian"),),
    ),
    Claim(
        "inputs-stay",
        "Batch normalization makes the distribution of a hidden unit's inputs more stable.",
        "Ioffe and Szegedy 2015, figure 1b and 1c",
        "With three layers, the 15th, 50th and 85th percentile of the inputs of a unit of the last "
        "hidden layer go a shorter way over training in batch than in gaussian, in distances of "
        "the outer percentiles.",
        (
            Condition(
                Ratio(sample("batch", "drift", depth=3), sample("gaussian", "drift", depth=3)),
                below=1,
                reason="A ratio of 1 says that the inputs move as far.",
            ),
        ),
    ),
    Claim(
        "rates-are-wider",
        "Batch normalization makes learning rates usable in a range that is ten times as wide.",
        "Ioffe and Szegedy 2015, section 3.3",
        "With three layers, the highest usable rate of batch over its lowest is at least 10 times "
        "that of gaussian. A rate is usable if it takes the selection seeds to a mean validation "
        "error of at most 10 %. A place has one such number, so that its interval has no width.",
        (
            Condition(
                Ratio(*(sample(arm, "usable_rates", depth=3) for arm in ("batch", "gaussian"))),
                above=9,
                reason=_TEN,
            ),
        ),
    ),
    *(
        Claim(
            f"pretraining-adds-less-under-batch-norm{name}",
            f"Pretraining adds less than half as much to nets with batch normalization{words}.",
            "folklore after Ioffe and Szegedy 2015",
            f"With three layers, gaussian_denoising is below gaussian{ending}, and twice the gain "
            f"of batch_denoising on batch{ending} is below this gain.",
            _shrinks(ending),
        )
        for name, ending, words in (("", "", ""), ("-at-equal-cost", "_longer", ", at equal cost"))
    ),
    *(
        Claim(
            f"pretraining-adds-nothing-under-{norm}-norm",
            f"Pretraining adds nothing to nets with {norm} normalization, at equal cost.",
            f"folklore after {_PAPERS[norm]}",
            f"With three layers, {norm}_denoising and {norm}_longer differ by less than 0.25 "
            "points.",
            (equivalent(difference(f"{norm}_denoising", f"{norm}_longer", depth=3)),),
        )
        for norm in ("batch", "layer")
    ),
    Claim(
        "batch-norm-trains-deep-sigmoid-nets",
        "Batch normalization makes sigmoid nets trainable that no initialization makes trainable.",
        "Ioffe and Szegedy 2015, section 4.2.2",
        "At 10 layers, most runs of batch train, and most runs of gaussian and of glorot do not.",
        (trains("batch", depth=10), stalls("gaussian", depth=10), stalls("glorot", depth=10)),
    ),
    *(
        Claim(
            f"{norm}-norm-trains-50-layers",
            f"{norm.capitalize()} normalization allows rectifier nets of 50 layers to be trained, "
            "which do not train without.",
            f"folklore after {_PAPERS[norm]}",
            f"At 50 layers, most runs of {arm} train, and most runs of he do not.",
            (trains(arm, depth=50), stalls("he", depth=50)),
        )
        for norm, arm in (("batch", "batch_norm"), ("layer", "relu_layer_norm"))
    ),
)

FIGURES = (
    "error_over_updates",
    "hidden_input_over_epochs",
    "trained_against_{axis}",
    "rate_sensitivity",
    "variance_by_layer",
    "gradient_by_layer",
    "useless_by_layer",
    "train_nll_against_{axis}",
    "error_against_cost",
)

DEVIATIONS = (
    "There are 10,000 training images and 1,660 updates, not 60,000 images and 50,000 updates, and "
    "validation images tell when a net is at its goal, once in 166 updates. The goal is an "
    "accuracy of 90 %, not 95 %, which 10,000 images do not lead to.",
    "The paper gives neither the learning rate nor the size of its small random weights. Here, the "
    "rate is chosen for every arm alike, and weights have a standard deviation of 0.1.",
    "The paper's nets have three layers. Pretraining, layer normalization, rectifiers and other "
    "depths are added here.",
)

IN_SHORT = InShort(
    "**Batch normalization**, 3 layers of sigmoid units: compared at equal cost with nets that are "
    "not pretrained, pretrained nets are {}.",
    {"sigmoid + batch norm, 3 layers": difference("batch_denoising", "batch_longer", depth=3)},
)


def answer(found):
    return (
        "With three layers of 100 sigmoid units, nets take "
        f"{found.number('gaussian', 'updates', depth=3)} updates to 90 % accuracy without "
        f"normalization, {found.number('batch', 'updates', depth=3)} with batch normalization and "
        f"{found.number('layer', 'updates', depth=3)} with layer normalization. At equal cost, "
        f"pretrained nets with batch normalization are "
        f"{found.comparison('batch_denoising', 'batch_longer', depth=3)}."
    )
