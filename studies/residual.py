"""Do shortcuts make networks of basically any depth trainable, and does pretraining add anything?

Question: to which training loss do plain, highway, residual and SkipInit nets come with 10 to 300
hidden layers, and does it matter where the activation of a residual net stands? What does a
trained net lose without a third of its layers? What does pretraining, layer by layer, add to a
residual net?

Expected: the training loss of plain nets rises with depth, and plain nets of 100 layers do not
train at all, with normalization or without. Highway, residual and SkipInit nets train at every
depth. A net with shortcuts does with a third of its layers removed almost as well as with all.

Refuted if: nets with shortcuts stall at a depth, or plain nets train at all depths.

What would change the answer: wider layers or more epochs than these narrow nets have, and a task on
which nets of 100 layers end lower than nets of 10.

What was tried

The grid of learning rates got higher rates when the first trials had been seen, because nets with
batch normalization and 10 layers, and then highway nets with 30 layers, chose the highest rate. It
got the rate 10 when all nets had been run, since nets with the activation in front of each layer
and 300 layers chose the highest rate, 3.

The gates of highway nets started at a bias of -1 at first, which is the usual one. With 30 layers,
these nets stayed at chance at all rates: a layer passes on 73 % of its input, so that 0.01 % passes
30 layers. Srivastava et al. search the bias from -1 to -10 at each depth. Now the bias is the
negative logarithm of the depth, at which a third of the input passes all layers, at every depth.
These trials were thrown away.

A residual net of ours adds what an activation returns. With rectifiers, this is never negative, so
that the sum grows from layer to layer. With 100 layers, such nets with batch normalization ended
at a higher error than with 10 in the first runs. With 300 layers, they end at a training NLL above
that of guessing, though at a training error of 17 %: the outputs are so large that an image with a
wrong label costs many nats. By the NLL, on which the claims were fixed, these nets do not train.

The nets of the papers add what can have either sign. So nets with the activation in front of a
layer, and one more normalization before the classifier, were added (He et al. 2016, identity
mappings), with claims of their own, before these nets were run. Their pretrained arm, its control
and its claim were added when these nets had been run with up to 100 layers.

What limits the depth is the compiler. A net is compiled as one program, without loops over layers.
For residual nets with batch normalization on one busy core, the first epoch, of which compiling is
nearly all, took 45 seconds with 100 layers and 168 seconds with 300 layers, and the memory was 1.4
and 2.3 GB. So 1,000 layers would take some 12 minutes for every program and 6 GB; they can be asked
for by `--depth 1000`. Highway nets take much more, since XLA fuses the sums of all their layers:
300 layers took 12 GB, and an hour was not enough for nine rates. Without fusion, 60 layers compiled
in 6 instead of 49 seconds, an epoch took half the time, and 300 layers took 4 GB. So highway nets
of 300 layers, and all nets with the activation in front of each layer, were run with
`XLA_FLAGS=--xla_disable_hlo_passes=fusion`.
"""

import math
from dataclasses import replace

from studies.arms import ARMS, longer
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


def highway(input_shape, classes, trial):
    """A highway net whose gates let a third of the input pass all layers at first."""
    from pretrain import networks

    return networks.mlp(
        input_shape,
        classes,
        depth=trial.depth,
        units=trial.width,
        shortcut="highway",
        gate_bias=-math.log(trial.depth),
        initializer="he_normal",
        seed=trial.seed,
    )


_HIGHWAY = replace(
    ARMS["he"],
    name="highway",
    title="highway",
    paper="Srivastava et al. 2015",
    control="he",
    shortcut="highway",
    build="studies.residual:highway",
    look=("#0072b2", "D"),
)
_SKIP_INIT = replace(
    ARMS["he"],
    name="skip_init",
    title="SkipInit",
    paper="De and Smith 2020",
    control="he",
    shortcut="skip_init",
    look=("#661100", "v"),
)

_PRE_ACTIVATION = replace(
    ARMS["residual_batch_norm"],
    name="pre_activation",
    title="pre-activation + batch norm",
    paper="He et al. 2016, identity mappings",
    control="residual_batch_norm",
    shortcut="pre_activation",
    look=("#3a93c9", "s"),
)
_PRE_ACTIVATION_DENOISING = replace(
    ARMS["residual_denoising"],
    name="pre_activation_denoising",
    title=f"{_PRE_ACTIVATION.title}, pretrained",
    paper="He et al. 2016, identity mappings; Vincent et al. 2010",
    control="pre_activation",
    shortcut="pre_activation",
    look=("#882255", "h"),
)
# Pretrained nets and their controls at equal cost, on which the claims of equivalence rest.
_PAIRED = (
    *("residual_longer", "residual_denoising"),
    *("pre_activation_longer", "pre_activation_denoising"),
)

_STANDARD = Scale(
    arms=(
        *("he", "batch_norm", _HIGHWAY, _SKIP_INIT),
        *("residual_batch_norm", _PRE_ACTIVATION, "residual_longer", "residual_denoising"),
        *(longer(_PRE_ACTIVATION, "pre_activation_denoising", "X"), _PRE_ACTIVATION_DENOISING),
    ),
    axes={"depth": (10, 30, 100, 300)},
    only_at=dict.fromkeys(_PAIRED, {"depth": (10,)}),
    width=50,
    batch_size=50,
    train_size=5_000,
    validation_size=2_000,
    test_size=10_000,
    epochs=10,
    learning_rates=(0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    pretraining_epochs=10,
    pretraining_rates={"adam": (0.0001, 0.0003, 0.001, 0.003, 0.01)},
    selection_seeds=1,
    report_seeds=10,
    headline_arms=_PAIRED,
)

SCALES = {
    "quick": replace(
        _STANDARD,
        arms=("he", _HIGHWAY, "residual_batch_norm"),
        axes={"depth": (10, 30)},
        only_at={},
        width=30,
        train_size=2_000,
        validation_size=1_000,
        learning_rates=(0.003, 0.03, 0.3),
        pretraining_epochs=None,
        pretraining_rates={},
        report_seeds=3,
        headline_arms=(),
        demonstration=True,
    ),
    "standard": _STANDARD,
}

_CAPPED = (
    "The notes on the paper ask for a factor of 100. Guessing has an NLL of 2.3 nats, so that nets "
    "of 10 layers would have to end below 0.023 nats, which 10 epochs may not lead to."
)
_TEN = "The notes on the paper, written before there were any records, give a factor of 10."
_TWO = "The notes on the paper, written before there were any records, give a factor of 2."
_POINT = "The notes on the paper, written before there were any records, give 1 point."
_SAME = "A ratio of 1 says that both end at the same loss."


def _loss(arm: str, depth: int, control: str, control_depth: int) -> Ratio:
    """The training NLL of an arm at a depth, over that of its control."""
    places = ((arm, depth), (control, control_depth))
    return Ratio(*(sample(a, "final_train_nll", depth=d) for a, d in places))


# The claims were fixed before the run, and those on pre_activation before the runs of their arms.
CLAIMS = (
    Claim(
        "plain-nets-degrade",
        "The training error of plain nets with batch normalization rises with depth.",
        "He et al. 2016, figure 6",
        "The training NLL of batch_norm at 100 layers is more than twice that at 10 layers.",
        (Condition(_loss("batch_norm", 100, "batch_norm", 10), above=2, reason=_TWO),),
    ),
    Claim(
        "residual-nets-do-not-degrade",
        "The training error of residual nets falls with depth.",
        "He et al. 2016, figure 6",
        "The training NLL of residual_batch_norm at 100 layers is below that at 10 layers.",
        (
            Condition(
                _loss("residual_batch_norm", 100, "residual_batch_norm", 10), below=1, reason=_SAME
            ),
        ),
    ),
    Claim(
        "plain-nets-fail-and-highways-do-not",
        "Deep plain nets end far above shallow ones, and deep highway nets do not.",
        "Srivastava et al. 2015, figure 1",
        "The training NLL at 100 layers is more than 10 times that at 10 layers for he, and less "
        "than 10 times for highway.",
        (
            Condition(_loss("he", 100, "he", 10), above=10, reason=_CAPPED),
            Condition(_loss("highway", 100, "highway", 10), below=10, reason=_TEN),
        ),
    ),
    Claim(
        "highways-are-ahead-at-every-depth",
        "Highway nets end at a lower training loss than plain nets at every depth.",
        "Srivastava et al. 2015, figure 1",
        "The training NLL of highway is below that of he at 10, 30 and 100 layers.",
        tuple(
            Condition(_loss("highway", depth, "he", depth), below=1, reason=_SAME)
            for depth in (10, 30, 100)
        ),
    ),
    Claim(
        "highways-do-without-a-third",
        "Single layers of a trained highway net add almost nothing; most of its middle is idle.",
        "Srivastava et al. 2015, figure 4",
        "At 100 layers, highway without the middle third of its layers has less than 1 point more "
        "training error.",
        (
            Condition(
                Difference((sample("highway", "lesion", depth=100),), ()), below=1, reason=_POINT
            ),
        ),
    ),
    Claim(
        "residual-nets-do-without-a-third",
        "Residual nets can do without many of their layers.",
        "after Veit et al. 2016",
        "At 100 layers, residual_batch_norm without the middle third of its layers has less than 1 "
        "point more training error.",
        (
            Condition(
                Difference((sample("residual_batch_norm", "lesion", depth=100),), ()),
                below=1,
                reason=_POINT,
            ),
        ),
    ),
    Claim(
        "shortcuts-train-300-layers",
        "With shortcuts, networks of basically any depth train; plain nets do not.",
        "Srivastava et al. 2015; He et al. 2016; De and Smith 2020",
        "At 300 layers, most runs of highway, residual_batch_norm and skip_init train, and most "
        "runs of he and batch_norm do not.",
        (
            *(trains(arm, depth=300) for arm in ("highway", "residual_batch_norm", "skip_init")),
            *(stalls(arm, depth=300) for arm in ("he", "batch_norm")),
        ),
    ),
    Claim(
        "pre-activation-does-not-degrade",
        "The training error of residual nets falls with depth, if the activation stands in front "
        "of each layer.",
        "He et al. 2016, identity mappings",
        "The training NLL of pre_activation at 100 layers is below that at 10 layers.",
        (Condition(_loss("pre_activation", 100, "pre_activation", 10), below=1, reason=_SAME),),
    ),
    Claim(
        "pre-activation-is-ahead-when-deep",
        "The deeper a residual net, the more does the activation in front of each layer lower the "
        "training loss.",
        "He et al. 2016, identity mappings, figure 6",
        "The training NLL of pre_activation is below that of residual_batch_norm at 100 and 300 "
        "layers.",
        tuple(
            Condition(
                _loss("pre_activation", depth, "residual_batch_norm", depth), below=1, reason=_SAME
            )
            for depth in (100, 300)
        ),
    ),
    Claim(
        "pre-activation-trains-300-layers",
        "Residual nets of hundreds of layers train, if the activation stands in front of each "
        "layer.",
        "He et al. 2016, identity mappings",
        "At 300 layers, most runs of pre_activation train.",
        (trains("pre_activation", depth=300),),
    ),
    Claim(
        "pretraining-adds-nothing-to-residual-nets",
        "Pretraining adds nothing to residual nets, at equal cost.",
        "folklore after He et al. 2016",
        "At 10 layers, residual_denoising and residual_longer differ by less than 0.25 points.",
        (equivalent(difference("residual_denoising", "residual_longer", depth=10)),),
    ),
    Claim(
        "pretraining-adds-nothing-to-pre-activation-nets",
        "Pretraining adds nothing to residual nets with the activation in front of each layer, at "
        "equal cost.",
        "folklore after He et al. 2016, identity mappings",
        "At 10 layers, pre_activation_denoising and pre_activation_longer differ by less than 0.25 "
        "points.",
        (equivalent(difference("pre_activation_denoising", "pre_activation_longer", depth=10)),),
    ),
)

FIGURES = (
    "train_nll_against_{axis}",
    "trained_against_{axis}",
    "lesions",
    "error_against_{axis}",
    "variance_by_layer",
    "rate_sensitivity",
)

DEVIATIONS = (
    "Nets are fully connected and narrow (50 units), see 5,000 images and train for 10 epochs of "
    "plain SGD: whether nets train is asked, and not how low an error can be. He et al. train "
    "convolutional nets on color images.",
    "A shortcut goes around one layer, not two. Before the output layer, nothing normalizes the "
    "sum, unless the activation stands in front of each layer. All nets have as many units per "
    "layer, so that highway nets have twice the weights; Srivastava et al. compare 50 units with "
    "71.",
    "A layer of a residual net is pretrained with its shortcut: all paths go through the tensors "
    "between two layers. The decoder reconstructs the sum that goes into a layer from the sum that "
    "leaves the layer.",
)

IN_SHORT = InShort(
    "**Residual nets**, 10 narrow layers with the activation in front: compared at equal cost with "
    "nets that are not pretrained, pretrained nets are {}.",
    {
        "residual, 10 narrow layers": difference(
            "pre_activation_denoising", "pre_activation_longer", depth=10
        )
    },
)


def answer(found):
    losses = [
        f"{words} {found.number(arm, 'final_train_nll', depth=100)}"
        for arm, words in (
            ("he", "plain nets"),
            ("batch_norm", "plain nets with batch normalization"),
            ("highway", "highway nets"),
            ("residual_batch_norm", "residual nets with batch normalization"),
            ("pre_activation", "residual nets with the activation in front of each layer"),
            ("skip_init", "SkipInit nets"),
        )
    ]
    deepest = found.verdict("shortcuts-train-300-layers")
    return (
        f"With 100 layers, training ends at these NLLs: {', '.join(losses)}. The claim that nets "
        f"with shortcuts train at 300 layers, and plain nets do not: {deepest}. "
        "At 10 layers and equal cost, pretrained residual nets are "
        f"{found.comparison('residual_denoising', 'residual_longer', depth=10)}; with the "
        "activation in front of each layer, they are "
        f"{found.comparison('pre_activation_denoising', 'pre_activation_longer', depth=10)}."
    )
