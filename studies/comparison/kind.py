"""What a comparison measures: the error of the user's own network on the user's own data."""

from functools import cached_property
from typing import Any

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.kinds.classification import Classification
from studies.report.claims import Claim, Condition, difference


class Comparison(Classification):
    """Supervised training of the user's network, on classes or on numbers.

    The error is the share of wrong classes; or the share of the variance of the numbers that is not
    explained, which is their mean squared error over their variance.
    """

    name = "comparison"
    examples = "examples"

    @staticmethod
    def load(source: str, train_size: int, validation_size: int, **options: Any) -> Any:
        # Imported only here: the driver does without NumPy.
        from studies.comparison.data import load

        return load(source, train_size, validation_size, **options)

    def claims(self, scale: Scale) -> tuple:
        return tuple(_claim(arm, scale) for arm in contenders(scale))

    @cached_property
    def show(self) -> Any:
        from studies.comparison.show import ComparisonShow

        return ComparisonShow(self)


def contenders(scale: Scale) -> list[Arm]:
    """The ways to start that are compared with the user's own."""
    return [arm for arm in scale.arms if arm.control and not arm.total_cost_of]


def rivals(arm: Arm, scale: Scale) -> list[Arm]:
    """The arms that have what an arm has but its cause: an arm pays if it beats all of them."""
    longer = [each for each in scale.arms if each.total_cost_of]
    return longer if arm.objective else [scale.arm(arm.control)]


def _claim(arm: Arm, scale: Scale) -> Claim:
    others = rivals(arm, scale)
    names = " and ".join(other.name for other in others)
    return Claim(
        f"{arm.name}-pays",
        f"{arm.label} pays for this network and these data.",
        "asked by the user",
        f"{arm.name} is below {names}, which cost as much.",
        tuple(Condition(difference(arm.name, other.name), below=0) for other in others),
    )


KIND = Comparison()
