from dataclasses import replace

import pytest

from studies.arms import ARMS
from studies.engine import cost
from studies.engine.trial import Trial

TRIAL = Trial(train_size=105, batch_size=10, width=20, depth=3, epochs=4)
FEATURES, CLASSES = 50, 10
FORWARD = 2 * (50 * 20 + 20 * 20 + 20 * 20)


def test_finetuning_is_three_forward_passes_of_whole_batches():
    expected = 3 * (FORWARD + 2 * 20 * 10) * 100 * 4
    assert cost.finetuning_flops(TRIAL, 4, FEATURES, CLASSES) == expected


def test_pretraining_is_encoder_and_decoder_and_one_pass_for_codes():
    expected = 3 * 2 * FORWARD * 100 * 5 + FORWARD * 105
    assert cost.pretraining_flops(TRIAL, 5, FEATURES) == expected


def test_a_trial_costs_its_own_role():
    stack = replace(TRIAL, role="pretraining", arm="denoising")
    assert cost.trial_flops(stack, FEATURES, CLASSES) == cost.pretraining_flops(stack, 4, FEATURES)
    longer = replace(TRIAL, extra_epochs=6)
    finetuning = cost.finetuning_flops(TRIAL, 10, FEATURES, CLASSES)
    assert cost.trial_flops(longer, FEATURES, CLASSES) == finetuning


@pytest.mark.parametrize("depth", [1, 2, 8])
def test_equal_cost_is_the_least_number_of_epochs_that_costs_the_pretraining(depth):
    trial = replace(TRIAL, depth=depth)
    epochs = cost.equal_cost_epochs(trial, ARMS["denoising"], 15, FEATURES, CLASSES)
    pretraining = cost.pretraining_flops(trial, 15, FEATURES)
    assert cost.finetuning_flops(trial, epochs, FEATURES, CLASSES) >= pretraining
    assert cost.finetuning_flops(trial, epochs - 1, FEATURES, CLASSES) < pretraining
