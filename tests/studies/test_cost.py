from dataclasses import replace

import pytest
from fake_cells import SCALE

from studies.arms import ARMS, Arm
from studies.engine.trial import Trial
from studies.kinds import classification as cost
from studies.kinds.classification import KIND

TRIAL = Trial(dataset="own", train_size=105, batch_size=10, width=20, depth=3, epochs=4)
FEATURES, CLASSES = 50, 10
SHAPED = replace(SCALE, dataset="own", features=FEATURES, classes=CLASSES)
FORWARD = 2 * (50 * 20 + 20 * 20 + 20 * 20)
RANDOM, DENOISING = ARMS["random"], ARMS["denoising"]


def test_finetuning_is_three_forward_passes_of_whole_batches():
    expected = 3 * (FORWARD + 2 * 20 * 10) * 100 * 4
    assert cost.finetuning_flops(TRIAL, RANDOM, 4, FEATURES, CLASSES) == expected


def test_pretraining_is_encoder_and_decoder_and_one_pass_for_codes():
    expected = 3 * 2 * FORWARD * 100 * 5 + FORWARD * 105
    assert cost.pretraining_flops(TRIAL, DENOISING, 5, FEATURES) == expected


def test_a_gate_costs_as_much_as_the_layer_that_it_gates():
    highway = Arm("highway", shortcut="highway")
    assert cost.layer_flops(TRIAL, highway, FEATURES) == [2000, 1600, 1600]
    assert cost.layer_flops(TRIAL, RANDOM, FEATURES) == [2000, 800, 800]


def test_a_trial_costs_its_own_role():
    stack = replace(TRIAL, role="pretraining")
    pretraining = cost.pretraining_flops(stack, DENOISING, 4, FEATURES)
    assert KIND.flops(stack, DENOISING, SHAPED) == pretraining
    finetuning = cost.finetuning_flops(TRIAL, RANDOM, 4, FEATURES, CLASSES)
    assert KIND.flops(TRIAL, RANDOM, SHAPED) == finetuning


@pytest.mark.parametrize("depth", [1, 2, 8])
def test_equal_cost_is_the_least_number_of_epochs_that_costs_the_pretraining(depth):
    trial = replace(TRIAL, depth=depth)
    epochs = cost.equal_cost_epochs(trial, RANDOM, DENOISING, 15, FEATURES, CLASSES)
    pretraining = cost.pretraining_flops(trial, DENOISING, 15, FEATURES)
    assert cost.finetuning_flops(trial, RANDOM, epochs, FEATURES, CLASSES) >= pretraining
    assert cost.finetuning_flops(trial, RANDOM, epochs - 1, FEATURES, CLASSES) < pretraining
