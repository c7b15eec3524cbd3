"""What studies claim of trainability: that most runs of an arm train, or that most do not.

A run trains if its training NLL at the last epoch is below half the NLL of guessing.
"""

from typing import Any

from studies.report.claims import AtChance, Condition, sample

_MOST = "Half of the runs is the least share that is called most."


def trains(arm: str, **place: Any) -> Condition:
    """Most runs of an arm train, at axis values."""
    return Condition(AtChance(sample(arm, "final_train_nll", **place)), below=0.5, reason=_MOST)


def stalls(arm: str, **place: Any) -> Condition:
    """Most runs of an arm do not train, at axis values."""
    return Condition(AtChance(sample(arm, "final_train_nll", **place)), above=0.5, reason=_MOST)
