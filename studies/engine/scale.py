"""The size at which a study is run: arms, axes, seeds, grids and data."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from pretrain.checks import is_count, is_number, positive
from pretrain.files import replacing
from studies.arms import ARMS, Arm

# Report seeds count from 0: up to this number of report seeds, no selection seed is among them.
FIRST_SELECTION_SEED = 1000

# More seeds, epochs, units or examples are a slip of the keyboard, which planning would choke on.
_MOST = 10**8

# The scale of a run with overridden axes has this name, or a name that begins with it and a hyphen;
# its folder holds the axes, since no study's file does.
CUSTOM = "custom"
_FILE = "scale.json"

# The share of the most frequent class, where classes are not equally frequent.
_MOST_FREQUENT = {"covertype": 0.4876}
# Size of the flattened input and number of classes, so that planning need not load the data.
_SHAPES = {
    "mnist": (784, 10),
    "fashion_mnist": (784, 10),
    "cifar10": (3072, 10),
    "digits": (64, 10),
    "covertype": (54, 7),
    "photographs": (784, 1),
}

# An arm's name, then a value of each axis.
Place = tuple[Any, ...]
# Rates for all optimizers, or rates by the name of the optimizer.
Grid = tuple[float, ...] | dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Scale:
    """What a study compares, at which size: every arm at every combination of axis values.

    Args:
        arms: Arms, or names of arms in `studies.arms.ARMS`, in the order of tables and legends.
        axes: What is varied beside the arms: values by the name of a field of the kind's trials.
        only_at: For arms that are not run at every value of the axes: the values by the name of the
            axis, by the name of the arm.
        learning_rates: Grid of rates, the same for all arms; or, since optimizers want rates of
            different sizes, a grid for each optimizer by its name, all of one length. Empty if no
            arm has a rate.
        selection_seeds: Number of seeds that rates are chosen on; 0 if no arm has a rate.
        report_seeds: Number of fresh seeds that results are reported on.
        pretraining_epochs: Epochs of every pretrained stage; `None` if no arm is pretrained.
        pretraining_rates: Grid of pretraining rates, or a grid for each optimizer.
        rule: How the pretraining rate is chosen. `"validation"` takes the rate whose nets end at
            the best validation score, each at its best learning rate, at the `reference`; so
            pretraining gets what every rate gets. The name of another rule of the kind takes the
            rate whose stacks have the best value of a metric.
        reference: Axis values at which the rule `"validation"` chooses the pretraining rate, which
            serves all values of these axes. An axis without this value has its first value.
        headline_arms: Arms of the headline claim, which is judged on more seeds.
        headline_axes: Axis values of the headline claim; by default, all values of an axis.
        headline_seeds: Number of report seeds of these arms at these values. With 29 pairs, an arm
            that wins three times in four is shown to win more often than not in 95 % of studies
            (Bouthillier et al. 2021).
        train_size: Number of training examples.
        selection_train_size: Number of training examples that rates are chosen with; by default,
            all of them.
        validation_size: Number of validation examples.
        test_size: Number of test examples.
        epochs: Epochs of training, the pretraining apart.
        width: Units of every hidden layer.
        batch_size: Examples per update.
        dataset: Name understood by `pretrain.datasets.load`.
        features: Size of the flattened input of a dataset that is not known by name.
        classes: Number of classes of such a dataset; 1 if its targets are numbers to predict.
        chance_error: Error of naming the most frequent class of such a dataset, or the mean of its
            targets; by default, all classes are equally frequent.
        unlabeled: Number of examples without labels, which only pretraining sees.
        remarks: What a reader must know of how the scale was chosen, a sentence each.
        demonstration: Whether results are labeled a demonstration and judge no claims.
        kind: The kind of experiment, a `studies.kinds.kind.Kind`: the `KIND` of the study.

    Raises:
        ValueError: If an axis is empty, has a value twice, or has a value that makes no sense.
    """

    arms: tuple[Arm | str, ...]
    train_size: int
    validation_size: int
    test_size: int
    epochs: int
    report_seeds: int
    axes: dict[str, tuple] = field(default_factory=dict)
    only_at: dict[str, dict[str, tuple]] = field(default_factory=dict)
    learning_rates: Grid = ()
    selection_seeds: int = 0
    pretraining_epochs: int | None = None
    pretraining_rates: Grid = ()
    rule: str = "validation"
    reference: dict[str, Any] = field(default_factory=dict)
    headline_arms: tuple[str, ...] = ()
    headline_axes: dict[str, tuple] = field(default_factory=dict)
    headline_seeds: int = 29
    width: int = 200
    batch_size: int = 20
    selection_train_size: int | None = None
    dataset: str = "mnist"
    features: int = 784
    classes: int = 10
    chance_error: float | None = None
    unlabeled: int = 0
    remarks: tuple[str, ...] = ()
    demonstration: bool = False
    kind: Any = field(default=None, compare=False)

    def __post_init__(self):
        named = [ARMS.get(arm, arm) if isinstance(arm, str) else arm for arm in self.arms]
        object.__setattr__(self, "arms", tuple(named))
        _check_values(
            "arms",
            [getattr(arm, "name", arm) for arm in self.arms],
            f"an `Arm` or one of {', '.join(ARMS)}",
            lambda name: name not in named,
        )
        for axis, values in self.axes.items():
            _check_values(
                axis,
                values,
                f"a name, a finite number, or an integer from 1 to {_MOST}",
                lambda value: isinstance(value, str) or _is_axis_number(value),
            )
        for arm, axes in self.only_at.items():
            if arm in self.arm_names and any(
                axis not in self.axes or not values or set(values) - set(self.axes[axis])
                for axis, values in axes.items()
            ):
                raise ValueError(
                    "An arm that is not run at all values of an axis must be run at some of them. "
                    f"Received: only_at={{{arm!r}: {axes}}}, axes={self.axes}"
                )
        for name in ("learning_rates", "pretraining_rates"):
            grid = getattr(self, name)
            grids = grid if isinstance(grid, dict) else {"": grid} if grid else {}
            for rates in grids.values():
                _check_values(name, rates, "a positive number", lambda rate: 0 < rate < 1e6)
            if len({len(rates) for rates in grids.values()}) > 1:
                raise ValueError(
                    f"`{name}` must have as many rates for each optimizer, so that all are tuned "
                    f"alike. Received: {name}={grid}"
                )
        self._check_counts()
        if self.kind:
            self.kind.check(self)

    def _check_counts(self) -> None:
        counts = [f.name for f in dataclasses.fields(self) if f.type is int and f.default != 0]
        counts += ["selection_seeds"] if self.learning_rates else []
        if self.pretraining_rates:
            counts.append("pretraining_epochs")
        for name in counts:
            if positive(name, value := getattr(self, name)) > _MOST:
                raise ValueError(f"`{name}` must be at most {_MOST}. Received: {name}={value}")
        least = min(self.axes.get("train_size", (self.train_size,)))
        batch = max(self.axes.get("batch_size", (self.batch_size,)))
        if batch > least:
            raise ValueError(
                "An epoch must have at least one whole batch. "
                f"Received: batch_size={batch}, train_size={least}"
            )
        size = self.selection_train_size
        if size is not None and not batch <= size <= least:
            raise ValueError(
                f"Rates must be chosen on at least {batch} training examples (a batch) and at most "
                f"{least}. Received: selection_train_size={size}"
            )
        for name in ("report_seeds", "headline_seeds", "selection_seeds"):
            if getattr(self, name) > FIRST_SELECTION_SEED:
                raise ValueError(
                    f"`{name}` must be at most {FIRST_SELECTION_SEED}, so that no selection seed "
                    f"is reported. Received: {name}={getattr(self, name)}"
                )

    @property
    def arm_names(self) -> list[str]:
        return [arm.name for arm in self.arms]

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """Every combination of axis values, by the name of the axis."""
        return _product(self.axes)

    def combinations_of(self, arm: str) -> list[dict[str, Any]]:
        """The combinations of axis values that an arm is run at."""
        return _product(self.axes | self.only_at.get(arm, {}))

    @property
    def places(self) -> list[Place]:
        """Every arm at its combinations of axis values: a table has a row for each."""
        return [(name, *v.values()) for name in self.arm_names for v in self.combinations_of(name)]

    @property
    def varied(self) -> list[str]:
        """The axes that have several values."""
        return [axis for axis, values in self.axes.items() if len(values) > 1]

    def seeds(self, place: Place) -> range:
        """The report seeds at a place: more of them where the headline claim is judged."""
        arm, *values = place
        headline = arm in self.headline_arms and all(
            value in self.headline_axes.get(axis, (value,))
            for axis, value in zip(self.axes, values, strict=True)
        )
        return range(max(self.report_seeds, self.headline_seeds if headline else 0))

    def values(self, place: Place) -> dict[str, Any]:
        """The axis values of a place, by the name of the axis."""
        return dict(zip(self.axes, place[1:], strict=True))

    def rates(self, place: Place) -> tuple[float, ...]:
        """The grid of learning rates at a place."""
        optimizer = self.kind.optimizer(self.arm(place[0]), self.values(place))
        return _of_optimizer(self.learning_rates, optimizer)

    def stack_rates(self, arm: Arm) -> tuple[float, ...]:
        """The grid of pretraining rates of an arm."""
        return _of_optimizer(self.pretraining_rates, arm.pretraining_optimizer)

    def shape(self, dataset: str) -> tuple[int, int]:
        """Size of the flattened input of a dataset, and its number of classes."""
        return _SHAPES.get(dataset, (self.features, self.classes))

    def chance(self, dataset: str) -> float:
        """Error of naming the most frequent class of a dataset for every example."""
        if self.chance_error is not None and dataset not in _SHAPES:
            return self.chance_error
        return 1 - _MOST_FREQUENT.get(dataset, 1 / self.shape(dataset)[1])


def _product(axes: dict[str, tuple]) -> list[dict[str, Any]]:
    return [dict(zip(axes, each, strict=True)) for each in product(*axes.values())]


def _of_optimizer(grid: Grid, optimizer: str) -> tuple[float, ...]:
    if isinstance(grid, dict) and optimizer not in grid:
        raise ValueError(
            f"There is no grid of rates for the optimizer {optimizer!r}. Received: {grid}"
        )
    return grid[optimizer] if isinstance(grid, dict) else grid


def is_custom(name: str) -> bool:
    """Whether a name of a scale is that of a run with overridden axes."""
    return name.partition("-")[0] == CUSTOM


def load_custom(study: Any, folder: Path) -> Scale:
    """Read the custom scale of a study that `save_custom` wrote into the folder of its results."""
    path = folder / _FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored = _tuples(stored)
        arms = tuple(_arm(each, study) for each in stored.pop("arms"))
        return Scale(arms=arms, kind=study.kind, **stored)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise OSError(
            f"A custom scale cannot be read: {error}. Expected the axes that `run` has written; "
            f"run the study again with the same axes. Received: {path}"
        ) from error


def _arm(stored: dict | str, study: Any) -> Arm:
    return Arm(**stored) if isinstance(stored, dict) else study.arms[stored]


def _stored(arm: Arm) -> dict | str:
    """The name of an arm of a study; all of an arm whose version says what it means."""
    if isinstance(arm.version, int):
        return arm.name
    named = {n: f"{f.__module__}:{f.__qualname__}" for n, f in vars(arm).items() if callable(f)}
    return dataclasses.asdict(replace(arm, **named))


def _tuples(value: Any) -> Any:
    """Tuples where JSON has made lists."""
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def save_custom(scale: Scale, folder: Path) -> None:
    """Write a custom scale where `load_custom` reads it, whole or not at all."""
    fields = {f.name: getattr(scale, f.name) for f in dataclasses.fields(scale)}
    stored = {k: v for k, v in fields.items() if k != "kind"}
    stored |= {"arms": [_stored(arm) for arm in scale.arms]}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / _FILE) as file:
        file.write(json.dumps(stored, indent=2).encode() + b"\n")


def _is_axis_number(value: Any) -> bool:
    return is_count(value) and value <= _MOST or isinstance(value, float) and is_number(value)


def _check_values(
    name: str, values: Iterable, expected: str, makes_sense: Callable[[Any], bool]
) -> None:
    values = list(values)
    wrong = [value for value in values if not makes_sense(value)]
    if wrong or not values or len(set(values)) < len(values):
        raise ValueError(
            f"`{name}` must hold at least one value, no value twice, and each must be {expected}. "
            f"Received: {name}={tuple(values)!r}"
        )
