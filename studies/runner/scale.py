"""The size at which a study is run."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from studies.arms import ARMS, DENSITY

# Report seeds count from 0, so that both kinds stay apart for any number of them below this.
FIRST_SELECTION_SEED = 1000

# The scale of runs with overridden axes; its folder says which ones, since no study file does.
CUSTOM = "custom"
_FILE = "scale.json"


@dataclass(frozen=True)
class Scale:
    """Axes of a study: every combination of arm and depth is run on one grid of rates.

    Args:
        arms: Names of arms in `studies.arms.ARMS`, in the order of tables and legends.
        depths: Numbers of hidden layers.
        train_size: Number of training examples.
        selection_train_size: Number of them that rates are chosen with; by default all.
        validation_size: Number of validation examples.
        test_size: Number of test examples.
        epochs: Epochs of training, the pretraining apart.
        learning_rates: Grid of rates, the same for all arms and depths.
        selection_seeds: Number of seeds that rates are chosen on.
        report_seeds: Number of fresh seeds that results are reported on.
        pretraining_epochs: Epochs of every pretrained stage; `None` if no arm is pretrained.
        pretraining_rates: Grid of pretraining rates, chosen from without labels.
        headline_arms: Arms of the headline claim, which is judged on more seeds.
        headline_depths: Its depths.
        headline_seeds: Number of report seeds of these arms at these depths. With 29 pairs, an arm
            that wins three times in four is shown to win more often than not in 95 % of studies
            (Bouthillier et al. 2021).
        width: Units of every hidden layer.
        batch_size: Examples per update.
        dataset: Name understood by `pretrain.datasets.load`.
        features: Size of the flattened input.
        classes: Number of classes.
        demonstration: Whether results are labeled a demonstration and judge no claims.

    Raises:
        ValueError: If an axis is empty, has a value twice or one that makes no sense.
    """

    arms: tuple[str, ...]
    depths: tuple[int, ...]
    train_size: int
    validation_size: int
    test_size: int
    epochs: int
    learning_rates: tuple[float, ...]
    selection_seeds: int
    report_seeds: int
    pretraining_epochs: int | None = None
    pretraining_rates: tuple[float, ...] = ()
    headline_arms: tuple[str, ...] = ()
    headline_depths: tuple[int, ...] = ()
    headline_seeds: int = 29
    width: int = 200
    batch_size: int = 20
    selection_train_size: int | None = None
    dataset: str = "mnist"
    features: int = 784
    classes: int = 10
    demonstration: bool = False

    def __post_init__(self):
        _check_axis("arms", self.arms, f"one of {', '.join(ARMS)}", ARMS.__contains__)
        _check_axis("depths", self.depths, "an integer of at least 1", _is_count)
        pretrained = any(ARMS[arm].pretrained for arm in self.arms)
        for name in ("learning_rates", *(["pretraining_rates"] if pretrained else [])):
            _check_axis(name, getattr(self, name), "a positive number", lambda rate: rate > 0)
        counts = [field.name for field in dataclasses.fields(self) if field.type is int]
        for name in (*counts, *(["pretraining_epochs"] if pretrained else [])):
            if not _is_count(value := getattr(self, name)):
                raise ValueError(
                    f"`{name}` must be an integer of at least 1. Received: {name}={value!r}"
                )
        if self.batch_size > self.train_size:
            raise ValueError(
                "An epoch must have at least one whole batch. "
                f"Received: batch_size={self.batch_size}, train_size={self.train_size}"
            )
        size = self.selection_train_size
        if size is not None and not self.batch_size <= size <= self.train_size:
            raise ValueError(
                f"Rates are chosen with from {self.batch_size} (a batch) to {self.train_size} "
                f"training examples. Received: selection_train_size={size}"
            )
        density = [ARMS[arm].task == DENSITY for arm in self.arms]
        if any(density) and not (all(density) and self.depths == (1,)):
            raise ValueError(
                "Models of the density are compared with one another, at depth 1. "
                f"Received: arms={self.arms}, depths={self.depths}"
            )
        for arm in self.arms:
            if ARMS[arm].stages not in (None, max(self.depths)):
                raise ValueError(
                    f"The arm {arm!r} says how each of {ARMS[arm].stages} hidden layers is "
                    f"pretrained: expected that as the greatest depth. Received: {self.depths}"
                )
        for name in ("report_seeds", "headline_seeds"):
            if getattr(self, name) > FIRST_SELECTION_SEED:
                raise ValueError(
                    f"At most {FIRST_SELECTION_SEED} report seeds stay apart from the selection "
                    f"seeds. Received: {name}={getattr(self, name)}"
                )

    @property
    def task(self) -> str:
        """What all of its arms are for."""
        return ARMS[self.arms[0]].task

    def seeds(self, arm: str, depth: int) -> range:
        """The report seeds of an arm at a depth: those of the headline go on where others end."""
        headline = arm in self.headline_arms and depth in self.headline_depths
        return range(max(self.report_seeds, self.headline_seeds if headline else 0))


def find(study: str, name: str, folder: Path) -> Scale:
    """Return a scale by name: from the study's file, or a custom one from its folder.

    Args:
        study: Name of the study.
        name: Name of the scale.
        folder: The folder of the scale's results.

    Returns:
        The scale.

    Raises:
        KeyError: If the study has no such scale.
        OSError: If the scale is a custom one and its folder does not say which.
    """
    if name != CUSTOM:
        return import_module(f"studies.{study}").SCALES[name]
    path = folder / _FILE
    try:
        stored = json.loads(path.read_text())
        return Scale(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise OSError(
            f"A custom scale cannot be read: {error}. Expected the axes that `run` has written "
            f"there; run it again with the same ones. Received: {path}"
        ) from error


def save(scale: Scale, folder: Path) -> None:
    """Write a custom scale where `find` reads it, whole or not at all."""
    new = folder / f"{_FILE}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(dataclasses.asdict(scale), indent=2) + "\n")
        new.replace(folder / _FILE)
    except OSError as error:
        raise OSError(
            f"Could not write the axes of a custom scale: {error.strerror or error}. Expected a "
            f"folder that can be written to, on a disk with space left. Received: {folder}"
        ) from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_axis(
    name: str, values: tuple, expected: str, makes_sense: Callable[[object], bool]
) -> None:
    wrong = [value for value in values if not makes_sense(value)]
    if wrong or not values or len(set(values)) < len(values):
        raise ValueError(
            f"`{name}` must hold at least one value, each once and each {expected}. "
            f"Received: {name}={values!r}"
        )
