"""Does layer-wise pretraining still pay, and at which depth?

Question: what does greedy pretraining with autoencoders do to the test error at each depth, against
better initialization, batch normalization and residual networks?

Expected: with sigmoid units and the historical initialization, error grows with depth without
pretraining and does not with it (Erhan et al. 2010; Larochelle et al. 2009); with rectifiers, He
initialization or batch normalization, pretraining adds nothing.

Refuted if: pretrained sigmoid nets are no better than unpretrained ones at equal cost, or if
pretraining still lowers the error of today's nets.
"""

import sys

from studies.runner.scale import Scale

_ALL_ARMS = (
    "random",
    "glorot",
    "autoencoder",
    "denoising",
    "sigmoid_batch_norm",
    "he",
    "he_denoising",
    "batch_norm",
    "batch_norm_denoising",
    "residual_batch_norm",
)

SCALES = {
    "quick": Scale(
        arms=(
            "random",
            "denoising",
            "sigmoid_batch_norm",
            "he",
            "batch_norm",
            "residual_batch_norm",
        ),
        depths=(1, 3, 5),
        train_size=2_000,
        validation_size=1_000,
        test_size=10_000,
        epochs=25,
        learning_rates=(0.03, 0.1, 0.3, 1.0, 3.0),
        pretraining_epochs=15,
        pretraining_rates=(0.03, 0.1, 0.3),
        selection_seeds=1,
        report_seeds=3,
        demonstration=True,
    ),
    "standard": Scale(
        arms=_ALL_ARMS,
        depths=(1, 2, 3, 4, 5, 8),
        train_size=10_000,
        validation_size=2_000,
        test_size=10_000,
        epochs=20,
        learning_rates=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        pretraining_epochs=15,
        pretraining_rates=(0.01, 0.03, 0.1, 0.3),
        selection_seeds=2,
        report_seeds=10,
        headline_arms=("random", "denoising"),
        headline_depths=(1, 2, 3, 4),
    ),
    "paper": Scale(
        arms=_ALL_ARMS,
        depths=(1, 2, 3, 4, 5),
        train_size=50_000,
        validation_size=10_000,
        test_size=10_000,
        epochs=50,
        learning_rates=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
        pretraining_epochs=50,
        pretraining_rates=(0.01, 0.03, 0.1, 0.3),
        selection_seeds=10,
        report_seeds=400,
        width=800,
    ),
}

if __name__ == "__main__":
    from studies.__main__ import run_study

    sys.exit(run_study("depth"))
