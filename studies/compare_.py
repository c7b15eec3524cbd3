"""Does pretraining pay for my model and my data?

Question: a user has a Keras model and data. What does a way to start training, such as denoising
pretraining, do to the test error? What do longer training and noise in training do, at the cost of
pretraining?

Expected: with few labels, many unlabeled examples or a network that is hard to train, pretraining
pays. For a modern network with labels for all examples, the net without pretraining is as good if
it trains as long.

Refuted if: for a modern network with labels for all examples, the pretrained net is better than
every net that costs as much, by an interval above 0.
"""

from studies.comparison.kind import KIND as KIND

# A user's call or command says what is compared: `studies.compare`.
SCALES = {}

FIGURES = ("gains", "error_over_seeds", "error_over_epochs", "rate_sensitivity")


def answer(found):
    # Imported only here: a run needs no statistics.
    from studies.comparison.verdict import answer

    return answer(found)
