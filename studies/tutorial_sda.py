"""Does a stacked denoising autoencoder reach the error that its tutorial publishes?

Question: which test error on MNIST has the net of the Deep Learning Tutorials
(http://deeplearning.net/tutorial/SdA.html)? The net has 3 layers of 1,000 sigmoid units, which are
pretrained as denoising autoencoders with tied weights. Of their inputs, 10, 20 and 30 % are masked.

Expected: 1.3 %, which the tutorial publishes. Its run took 17 hours on one thread of its day (585
minutes of pretraining, 444 minutes of fine-tuning).

Refuted if: 1.3 % lies outside the prediction interval of a single run of ours, since the tutorial's
figure is of one run, on the same test images. The tutorial's error on validation images is 1.39 %.

What would change the answer: more seeds, since the tutorial publishes a single run, or as much
early stopping as the tutorial has.

The control is the same net without pretraining, which the tutorial does not report. So the study
also says what pretraining gives where all 50,000 training images have labels.

What was tried

Two earlier runs of seeds 0 and 1, whose records are kept, had an output layer that starts with
random weights of the hidden layers' scale, where the tutorial's output layer starts at zero. With
the pretraining rate chosen by the worst layer's reconstruction, 1.0 of 0.03 to 3, the two runs end
at 2.0 and 2.4 %. With a rate of 0.02, they end at 1.48 and 1.37 %.

All other trials were judged on validation images of other seeds, and changed nothing here:

- With all 50,000 training images, two seeds have validation errors of 1.36 and 1.40 % at a rate of
  fine-tuning of 1.0, and of 1.65 and 1.55 % at a rate of 0.3. Some runs were stopped early. The
  first seed has 1.34 % after 15 epochs at a rate of 2.0, which is 20 times the tutorial's rate. It
  has 1.50 % after 10 epochs from layers pretrained at 0.1, and 1.47 % from layers pretrained at
  0.02. The second seed has 1.43 % after 10 epochs in batches of 10, and 1.53 % in batches of 20.
- With 10,000 training images, one seed has 4.03 % without pretraining, 3.21 % after pretraining at
  0.02 and 2.92 % after pretraining at 0.1, which is as much pretraining as 50,000 images have at
  0.02. One setting of the last run was changed at a time. Fine-tuned at 2.0, the seed has 2.90 %;
  in batches of 10, 2.96 %; from historical initial weights, 3.10 %; pretrained in batches of 100,
  at 0.1 for 75 epochs, 3.07 %. Averaging the weights over epochs, which the tutorial does not do,
  helps in batches of 5 only: that run had 2.81 % before it was stopped.

No setting of the tutorial that was tried explains why the mean of six runs is above 1.3 %.

These six runs replace runs of the same seeds on a processor, partly made with source that was never
committed, which end at 1.43 % (1.35 to 1.51) and are kept in `earlier_runs.jsonl`. They were
replaced when the control was run, so that both arms are made alike.
"""

from dataclasses import replace

from studies.engine.scale import Scale
from studies.kinds import classification
from studies.report.claims import Claim, Condition, difference, sample
from studies.report.published import Published

KIND = classification.KIND

_STANDARD = Scale(
    arms=("tutorial", "tutorial_random"),
    axes={"depth": (3,)},
    width=1_000,
    train_size=50_000,
    selection_train_size=10_000,
    validation_size=10_000,
    test_size=10_000,
    epochs=40,
    learning_rates=(0.3, 1.0, 3.0, 10.0),
    pretraining_epochs=15,
    pretraining_rates=(0.02,),
    selection_seeds=1,
    report_seeds=6,
)

SCALES = {
    "quick": replace(
        _STANDARD,
        width=200,
        train_size=5_000,
        selection_train_size=None,
        validation_size=2_000,
        epochs=20,
        learning_rates=(0.3, 1.0, 3.0),
        pretraining_epochs=10,
        pretraining_rates=(0.1, 0.3),
        report_seeds=2,
        demonstration=True,
    ),
    "standard": _STANDARD,
}

CLAIMS = (
    Claim(
        "pretraining-helps-with-all-labels",
        "Denoising pretraining lowers the error of deep sigmoid nets with all labels of MNIST.",
        "Erhan et al. 2010, figure 1",
        "tutorial is below tutorial_random, which has the same net, initial scale and epochs.",
        (Condition(difference("tutorial", "tutorial_random"), below=0),),
    ),
)

FIGURES = ("error_over_epochs", "rate_sensitivity", "tuning_budget")

_SOURCE = "Deep Learning Tutorials, Stacked Denoising Autoencoders"

PUBLISHED = (
    Published(1.3, sample("tutorial"), _SOURCE),
    Published(1.39, sample("tutorial", "validation_error"), _SOURCE),
)

DEVIATIONS = (
    "Batches have 20 images, not 1, and the rate of pretraining is 20 times the tutorial's 0.001.",
    "The rate of fine-tuning is chosen on 10,000 images, with one seed.",
    "Fine-tuning takes 40 epochs. The tutorial's takes up to 1,000 with early stopping, which "
    "ended the tutorial's run after 36 epochs.",
    "Each seed draws its validation images anew. The tutorial's are the last 10,000.",
)


def answer(found):
    agreement = found.beside(PUBLISHED[0])
    return (
        "The stacked denoising autoencoder of the Deep Learning Tutorials ends at a test error on "
        f"MNIST of {found.number('tutorial')}. The tutorial publishes "
        f"{agreement['published']} % of one run; 95 % of single runs of ours lie in "
        f"{agreement['95 % of single runs']} %.{_without_pretraining(found)}"
    )


def _without_pretraining(found):
    if found.verdict(CLAIMS[0].name) == "not run":
        return ""
    gain = found.comparison("tutorial", "tutorial_random")
    return f" Compared with the same net without pretraining, its test error is {gain}."
