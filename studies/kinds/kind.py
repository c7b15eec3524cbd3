"""The contract of a kind of experiment, and the guide to adding a kind.

A *kind* says what is measured: its metrics, its trials, what a trial costs, how trials are trained,
and how results are shown. The engine and the reports know kinds by this contract only.

To add a kind, make a folder (or, for a study of your own, a class in your file) with a subclass of
`Kind` that

- names its metrics, each a `Metric`, and the metric that trials of each role are judged by;
- implements `flops`, which counts what a trial costs;
- implements `train`, which trains a cell and returns its results. Only `train` may import Keras,
  and only when it is called: the driver and the reports import the rest of a kind.

A kind may also change `trial`, a subclass of `Trial` with fields of its own, each of which can be
an axis; `arm_fields`, the fields of an arm that it uses; `groups`, the trials that a scale wants,
where the plan *pretraining, selection, report* does not fit; `load`, where its data come from;
`claims`, what every scale of the kind is asked; and `show`, a subclass of
`studies.report.show.Show` with figures, tables and words of its own. The `KIND` of a study names
a new kind; no other place needs to name it.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pretrain.checks import is_count, is_number
from studies.arms import Arm, version_of
from studies.engine.plan import Group, Trials, choose_pretraining_rate, choose_rate, spread
from studies.engine.scale import FIRST_SELECTION_SEED, Scale
from studies.engine.trial import Cell, Trial

if TYPE_CHECKING:
    import pandas as pd

# A rate that is yet to be chosen: no record has the key of a trial with this rate.
_UNKNOWN = float("nan")
# The plan sets these fields of a trial, so that none of them is an axis.
_PLANNED = (
    *("arm", "arm_version", "seed", "role", "unlabeled"),
    *("learning_rate", "pretraining_epochs", "pretraining_rate"),
)
# The fields of an arm that say how a network is made and trained.
NETWORK_FIELDS = (
    *("activation", "initializer", "head_initializer", "normalization", "shortcut"),
    *("objective", "pretraining_optimizer", "stack_of", "pretrained_layers", "histogram"),
    *("regularizer", "optimizer", "build", "flops", "start", "noise", "error"),
    *("total_cost_of", "pseudo_labels"),
)


def _nothing(record: Mapping[str, Any], scale: Scale) -> None:
    """What a diverged run counts as by default: it has no such number."""


@dataclass(frozen=True)
class Metric:
    """A number that trials are judged by, as it stands in their records.

    Args:
        name: The field of a record that holds it.
        label: Its name in words, for axes and tables.
        unit: Unit of a shown value.
        difference: Unit of a difference of two shown values, if that has another unit.
        factor: What a stored value is multiplied by to be shown: 100 for a fraction in percent.
        lower_is_better: Whether a lower value is better.
        roles: Roles of the trials that have it.
        diverged: A function of the trial's record and the scale, which returns what a diverged run
            counts as. Where it returns `None`, a diverged run has no such number: its rate is the
            worst, means leave the run out, and a claim about it is not judged.
        at_chance: A function of a dataset's error of chance: a run whose value is above has
            learned nothing. `None` if the metric knows no chance.
        resolution: A function of the scale: the least difference between two values.
        limits: The lowest and the highest value that there can be.
        on_test: Whether the metric is measured on the test set, which selection must not see.
    """

    name: str
    label: str
    unit: str = ""
    difference: str = ""
    factor: float = 1
    lower_is_better: bool = True
    roles: tuple[str, ...] = ("report",)
    diverged: Callable[[Mapping[str, Any], Scale], float | None] = _nothing
    at_chance: Callable[[float], float] | None = None
    resolution: Callable[[Scale], float] = lambda scale: 0.0
    limits: tuple[float, float] = (-math.inf, math.inf)
    on_test: bool = False

    def text(self, value: float) -> str:
        """A stored value as it is shown, with its unit."""
        return f"{self.factor * value:.4g} {self.unit}".rstrip()


class Kind:
    """What a kind of experiment says of itself; see the top of this file.

    Attributes:
        name: Name of the kind.
        metrics: Metrics of the kind.
        judged_by: The name of the metric that trials of each role are judged by. Rates are chosen
            by the metric of `"selection"`; claims are about the metric of `"report"`.
        rules: Rules that choose a pretraining rate from the stacks alone: the name of the metric of
            pretraining trials that each takes the best of, by the name of the rule.
        trial: Class of the trials.
        arm_fields: The fields of an arm that the kind uses, beside those that describe the arm.
        labels: Names of axes and of families of arms, in words.
        examples: What the examples of a dataset are called.
    """

    name: str
    metrics: tuple[Metric, ...]
    judged_by: dict[str, str]
    rules: dict[str, str] = {}
    trial: type[Trial] = Trial
    arm_fields: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    examples: str = "images"

    def examples_of(self, scale: Scale) -> str:
        """What the examples of a scale's data are called: not all data are images."""
        return self.examples

    def flops(self, trial: Trial, arm: Arm, scale: Scale) -> int:
        """FLOPs that running a trial takes, without its (shared) stack."""
        raise NotImplementedError

    def train(self, cell: Cell, cache: Path, load: Callable[[Trial], Any]) -> list[dict]:
        """Train the trials of a cell.

        Args:
            cell: The cell.
            cache: Folder of pretrained stacks, which later cells may need.
            load: Returns the `pretrain.datasets.Dataset` of a trial: every seed has its own split.

        Returns:
            For each trial, in order: `status` (`"done"` or `"diverged"`), its metrics, `flops`,
            `curves` if there are any, and `arrays` by name if figures need any.
        """
        raise NotImplementedError

    @staticmethod
    def load(source: str, train_size: int, validation_size: int, **options: Any) -> Any:
        """Load the data of trials and split them, in a worker: see `pretrain.datasets.load`."""
        # Imported only here: the driver does without NumPy.
        from pretrain import datasets

        return datasets.load(source, train_size, validation_size, **options)

    def claims(self, scale: Scale) -> tuple:
        """The claims that any scale of the kind is asked, beside the claims of its study."""
        return ()

    @cached_property
    def show(self) -> Any:
        """How results of the kind are shown: a `studies.report.show.Show`."""
        # Imported only here: plotting takes seconds to import, and a run does not plot.
        from studies.report.show import Show

        return Show(self)

    def derive(self, frame: "pd.DataFrame", scale: Scale) -> "pd.DataFrame":
        """Add the metrics that follow from metrics, curves or other runs to a scale's results."""
        return frame

    def computed(self, record: Mapping[str, Any]) -> float:
        """FLOPs that a finished trial itself took, without its (shared) stack."""
        return record["flops"]

    def optimizer(self, arm: Arm, values: dict[str, Any]) -> str:
        """The optimizer of an arm at some axis values."""
        return arm.optimizer

    def metric(self, name: str = "") -> Metric:
        """A metric by name; by default, the metric that reported trials are judged by."""
        name = name or self.judged_by["report"]
        found = [metric for metric in self.metrics if metric.name == name]
        if not found:
            raise ValueError(
                f"Expected a metric of the kind {self.name}: "
                f"{', '.join(m.name for m in self.metrics)}. Received: {name}"
            )
        return found[0]

    def judge(self, role: str) -> Metric:
        """The metric that trials of a role are judged by."""
        return self.metric(self.judged_by[role])

    def label(self, name: str) -> str:
        """The name of an axis or of a family of arms, in words."""
        return self.labels.get(name, name.replace("_", " "))

    @property
    def axes(self) -> dict[str, type]:
        """The fields of a trial that can be an axis, and their types."""
        fields = dataclasses.fields(self.trial)
        return {f.name: type(f.default) for f in fields if f.name not in _PLANNED}

    def check(self, scale: Scale) -> None:
        """Refuse a scale that this kind of experiment cannot be run at.

        Raises:
            ValueError: If an axis is no field of the trials or has a value of another type, an arm
                sets a field that the kind does not use, or an arm with a rate has no grid.
        """
        if unknown := [axis for axis in scale.axes if axis not in self.axes]:
            raise ValueError(
                f"An axis must be a field of the trials of the kind {self.name}: "
                f"{', '.join(self.axes)}. Received: axes={unknown}"
            )
        for axis, values in scale.axes.items():
            if wrong := [value for value in values if not _is(value, self.axes[axis])]:
                raise ValueError(
                    f"Values of the axis {axis} must be of type {self.axes[axis].__name__}, and "
                    f"numbers at least 1. Received: {axis}={wrong}"
                )
        for rule in scale.axes.get("rule", (scale.rule,)):
            if rule not in ("validation", *self.rules):
                raise ValueError(
                    "A rule that chooses the pretraining rate must be one of validation, "
                    f"{', '.join(self.rules)}. Received: rule={rule!r}"
                )
        for arm in scale.arms:
            self.check_arm(arm)
        if any(arm.rates for arm in scale.arms) and not scale.learning_rates:
            raise ValueError(
                "Arms that have a learning rate need a grid to choose it from, and seeds to choose "
                "it on. Received: learning_rates=()"
            )

    def check_arm(self, arm: Arm) -> None:
        """Refuse an arm that sets a field which this kind of experiment does not use."""
        common = {f.name for f in dataclasses.fields(Arm)} - set(NETWORK_FIELDS)
        unused = [
            f.name
            for f in dataclasses.fields(arm)
            if f.name not in common.union(self.arm_fields) and getattr(arm, f.name) != f.default
        ]
        if unused:
            raise ValueError(
                f"The kind {self.name} does not use every field that the arm {arm.name!r} sets. "
                f"Expected fields among {', '.join(self.arm_fields)}. "
                f"Received: {', '.join(unused)}"
            )
        # A build function that cannot be found is an error now, and not in the middle of a run.
        version_of(arm)

    def check_record(self, record: Mapping[str, Any]) -> None:
        """Refuse what is no sound record of a trial of this kind.

        Raises:
            ValueError: If a field or a metric has another type, the key is not that of the fields,
                or a finished trial lacks the metric that it is judged by.
        """
        fields = {f.name: f for f in dataclasses.fields(self.trial) if f.name in record}
        trial = {name: record[name] for name in fields}
        types = {n: int | str if n == "arm_version" else type(f.default) for n, f in fields.items()}
        wrong = [name for name, value in trial.items() if not _fits(value, types[name])]
        numbers = [*(metric.name for metric in self.metrics), "flops", "seconds"]
        wrong += [name for name in numbers if not _is_measured(record.get(name))]
        if wrong:
            raise ValueError(f"its {wrong[0]} cannot be {record[wrong[0]]!r}")
        # A record that is older than this field does not say all that its key is made of.
        if "arm_version" in trial and self.trial(**trial).key != record["key"]:
            raise ValueError(f"its key {record['key']} is not that of its fields")
        if record["role"] not in self.judged_by:
            raise ValueError(f"its role cannot be {record['role']!r}")
        judge = self.judge(record["role"]).name
        if record["status"] == "done" and judge not in record:
            raise ValueError(f"it is done and lacks {judge}")

    # The plan that most kinds share: pretraining, selection, report.

    def groups(self, scale: Scale, final: dict[str, dict]) -> Iterator[Group]:
        """Compose the trials of a scale: rates are chosen on selection seeds, then reported.

        Args:
            scale: The scale.
            final: The records of finished trials, by key.

        Yields:
            Groups of trials. How many trials there are must not depend on the records.
        """
        for arm in scale.arms:
            found: dict[Trial | None, _Pretraining] = {None: _Pretraining()}
            for values in scale.combinations_of(arm.name):
                source = arm.source
                stack = self.stack(scale, source, self.base(scale, source, values))
                if stack not in found:
                    found[stack] = self._pretraining(scale, source, stack, final)
                    yield from found[stack].groups
                yield from self._training(scale, arm, values, found[stack], final)

    def base(self, scale: Scale, arm: Arm, values: dict[str, Any]) -> Trial:
        """The fields that all trials of an arm at some axis values share.

        The test size stays at its default except in reports: no other role sees the test set.
        """
        names = (
            "dataset",
            "train_size",
            "validation_size",
            "unlabeled",
            "width",
            "batch_size",
            "epochs",
            "rule",
        )
        common = {name: getattr(scale, name) for name in names} | values
        common.pop("test_size", None)
        return self.trial(arm=arm.name, arm_version=version_of(arm), **common)

    def stack(self, scale: Scale, arm: Arm, trial: Trial) -> Trial | None:
        """The stack that a trial starts from; `None` if the arm is not pretrained."""
        return None

    def _pretraining(
        self, scale: Scale, arm: Arm, stack: Trial, final: dict[str, dict]
    ) -> "_Pretraining":
        label, grid = f"pretraining {arm.name}", scale.stack_rates(arm)
        smaller = replace(stack, train_size=scale.selection_train_size or stack.train_size)
        tuned = spread(smaller, _selection_seeds(scale), grid)
        groups, reference = [Group(label, arm, tuned)], None
        if stack.rule == "validation" and len(grid) > 1:
            reference = self._reference(scale, arm, stack)
            words, ready = _words(arm, reference), not missing(tuned, final)
            searched = {rate: self._selection(scale, arm, reference, rate) for rate in grid}
            for rate, trials in searched.items():
                name = f"selection {words} pretraining rate {rate:g}"
                groups.append(Group(name, arm, trials, (tuned,), ready))
            trials = sum(searched.values(), ())
            rate = _chosen(trials, final, lambda r: choose_pretraining_rate(r, scale))
        else:
            metric = self.rules.get(stack.rule, "")
            rate = _chosen(tuned, final, lambda r: choose_rate(r, scale, metric))
        users = [each.name for each in scale.arms if each.source == arm]
        seeds = max((scale.seeds(p) for p in scale.places if p[0] in users), key=len)
        chosen = spread(stack, seeds, (rate,))
        groups.append(Group(label, arm, chosen, ready=math.isfinite(rate)))
        searched = _words(arm, reference) if reference else ""
        return _Pretraining(tuple(groups), tuned, chosen, rate, searched)

    def _reference(self, scale: Scale, arm: Arm, stack: Trial) -> dict[str, Any]:
        """The axis values at which a stack's rate is chosen: as many of the reference as it has."""
        serves = [
            values
            for values in scale.combinations_of(arm.name)
            if self.stack(scale, arm, self.base(scale, arm, values)) == stack
        ]
        return max(serves, key=lambda values: len(values.items() & scale.reference.items()))

    def _selection(self, scale: Scale, arm: Arm, values: dict[str, Any], rate: float) -> Trials:
        """The trials that the learning rate of a place is chosen on."""
        trial = self._started(scale, self.base(scale, arm, values), rate)
        size = scale.selection_train_size or trial.train_size
        trial = replace(trial, role="selection", train_size=size)
        return spread(trial, _selection_seeds(scale), scale.rates((arm.name, *values.values())))

    def _started(self, scale: Scale, trial: Trial, rate: float) -> Trial:
        """A trial that starts from a stack which was pretrained at a rate; 0 for no stack."""
        epochs = scale.pretraining_epochs if rate else 0
        return replace(trial, pretraining_epochs=epochs, pretraining_rate=rate)

    def _training(
        self,
        scale: Scale,
        arm: Arm,
        values: dict[str, Any],
        pretraining: "_Pretraining",
        final: dict[str, dict],
    ) -> Iterator[Group]:
        words, tuned, stacks = _words(arm, values), pretraining.tuned, pretraining.chosen
        select, rate = (), 0.0
        if arm.rates:
            select = self._selection(scale, arm, values, pretraining.rate)
            rate = _chosen(select, final, lambda records: choose_rate(records, scale))
            # The search for the pretraining rate holds the selection where it was made.
            if words != pretraining.searched:
                ready = not missing(tuned, final) and not math.isnan(pretraining.rate)
                yield Group(f"selection {words}", arm, select, (tuned,) if tuned else (), ready)
        trial = self._started(scale, self.base(scale, arm, values), pretraining.rate)
        trial = replace(trial, test_size=values.get("test_size", scale.test_size))
        report = spread(trial, scale.seeds((arm.name, *values.values())), (rate,))
        ready = not missing(stacks + select, final)
        yield Group(f"report {words}", arm, report, (stacks,) if stacks else (), ready)


@dataclass(frozen=True)
class _Pretraining:
    """The stacks that some places of an arm share; empty for an arm without pretraining.

    Args:
        groups: The groups of trials that make the stacks and choose their rate.
        tuned: The stacks of the selection seeds, at all rates.
        chosen: The stacks of the report seeds, at the chosen rate.
        rate: The chosen rate, NaN if it is yet to be chosen, 0 without pretraining.
        searched: The arm and the axis values where trained nets choose the rate, in words; empty
            if the stacks choose the rate.
    """

    groups: tuple[Group, ...] = ()
    tuned: Trials = ()
    chosen: Trials = ()
    rate: float = 0.0
    searched: str = ""


def _words(arm: Arm, values: dict[str, Any]) -> str:
    return " ".join([arm.name, *(f"{axis.replace('_', ' ')} {v}" for axis, v in values.items())])


def _is(value: object, type_: type) -> bool:
    if type_ is int:
        return is_count(value)
    return isinstance(value, int | float if type_ is float else type_)


def _fits(value: object, type_: Any) -> bool:
    return is_number(value) if type_ is float else type(value) in (type_, *get_args(type_))


def _is_measured(value: object) -> bool:
    """Whether a value can be a metric; NaN, which is null in a record, can."""
    return value is None or isinstance(value, Real) and not isinstance(value, bool)


def missing(trials: Trials, final: dict[str, dict]) -> Trials:
    """The trials that have no result yet."""
    return tuple(trial for trial in trials if trial.key not in final)


def _selection_seeds(scale: Scale) -> range:
    return range(FIRST_SELECTION_SEED, FIRST_SELECTION_SEED + scale.selection_seeds)


def _chosen(trials: Trials, final: dict[str, dict], choose: Callable[[list[dict]], float]) -> float:
    """Choose on the records of whole groups, and on no other record of the journal."""
    if missing(trials, final):
        return _UNKNOWN
    return choose([final[trial.key] for trial in trials])
