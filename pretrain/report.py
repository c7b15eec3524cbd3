"""What pretraining did, stage by stage."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pandas as pd

from pretrain.checks import brief
from pretrain.objectives.objective import Objective

# Shares of saturated values and of dead units above which a stage is reported.
SATURATED = 0.9
DEAD = 0.5

ADVICE = (
    "learning_rate, more epochs, or inputs on another scale, such as the columns of a table with "
    "mean 0 and variance 1, and pixels from 0 to 1."
)


class PretrainingWarning(UserWarning):
    """Something that pretraining did not do as one would expect.

    Example:

    >>> import warnings
    >>> from pretrain import PretrainingWarning
    >>> warnings.simplefilter("error", PretrainingWarning)  # makes errors of such warnings
    >>> warnings.simplefilter("default", PretrainingWarning)
    """


@dataclass(repr=False)
class StageReport:
    """What pretraining did to one stage.

    Example:

    >>> import numpy as np
    >>> from pretrain import greedy_pretrain, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=2, units=4)
    >>> first, _ = greedy_pretrain(model, x, epochs=5, batch_size=32, verbose=0).stages
    >>> codes = np.zeros((1, 4))
    >>> tuple(first.decoders[0](codes).shape)
    (1, 6)

    Args:
        name: Name of the stage.
        objective: The objective of the stage, in which nothing is `"auto"` any more.
        loss: Name of the loss.
        baseline: Loss of a trivial model, shape (members,). The model reconstructs every input by
            the mean input, or every target by the mean target, or predicts every label by the
            frequencies of the labels. Missing values and padded steps do not count. Compare the
            baseline with the score `reconstruction` if the objective has that score, and with
            `loss` if not.
        history: A row per member and epoch, with columns `member`, `seed`, `epoch` (from 1),
            `updates` (so far), `loss` and the objective's other scores. With validation data,
            every score has a second column whose name starts with `val_`.
        seconds: Wall-clock time of the stage, all members together.
        flops: FLOPs of each member, shape (members,). A multiply-add is 2 FLOPs, and a step of
            training costs 3 forward passes.
        movement: For each weight w by name, `||w - w_0|| / ||w_0||` of each member, shape
            (members,); w_0 is the weight before pretraining.
        saturated: Share of the code's values that are within 1 % of an end of the range of the
            stage's activation (sigmoid, tanh), for each member, shape (members,); NaN for other
            activations. The first 1,000 examples are encoded for it.
        dead: Share of the code's units that have the same value for all of these examples, for
            each member, shape (members,). A unit of a convolution is a channel.
        decoders: The decoder of each member, a model from the code (or the latent variables) to
            the pre-activation of the reconstruction, which a sigmoid follows if the inputs are
            binary or in [0, 1]. A decoder is `None` if the objective reconstructs nothing. With
            `unpooling="switches"`, the decoder reads what `MaxUnpooling` makes of the code.
        heads: The head of each member, a second model on the stage's output. The head of
            `SupervisedGreedy` returns logits of the classes; the head of `VariationalAutoencoder`
            returns mean and log-variance, shape (n, 2, latent). Other objectives have `None`.
    """

    name: str
    objective: Objective
    loss: str
    baseline: np.ndarray
    history: pd.DataFrame
    seconds: float
    flops: np.ndarray
    movement: dict[str, np.ndarray]
    saturated: np.ndarray
    dead: np.ndarray
    decoders: list[keras.Model | None]
    heads: list[keras.Model | None]

    def __repr__(self) -> str:
        return f"<StageReport of {self.name}, {type(self.objective).__name__}, loss {self.loss}>"

    def last(self) -> pd.DataFrame:
        """A row of the history for each member, that of the member's last epoch."""
        return self.history.groupby("member").tail(1).sort_values("member")

    def problems(self, member: int) -> list[str]:
        """What went wrong for a member, in words; nothing if the member has learned something.

        Args:
            member: Index of the member, from 0.
        """
        scores = self.last().iloc[member]
        reached = scores["reconstruction"] if "reconstruction" in scores else scores["loss"]
        found = {
            "diverged": not np.isfinite(scores["loss"]),
            "above baseline": reached > self.baseline[member],
            "saturated": self.saturated[member] > SATURATED,
            "dead": self.dead[member] > DEAD,
        }
        return [name for name, is_found in found.items() if is_found]

    def to_config(self) -> dict[str, Any]:
        """The report without its objective and models, as plain data for JSON."""
        return {
            "name": self.name,
            "loss": self.loss,
            "baseline": self.baseline.tolist(),
            "history": self.history.to_dict("list"),
            "seconds": self.seconds,
            "flops": self.flops.tolist(),
            "movement": {path: values.tolist() for path, values in self.movement.items()},
            "saturated": self.saturated.tolist(),
            "dead": self.dead.tolist(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], **models: Any) -> "StageReport":
        """A report from the data that `to_config` returned, and its objective and models."""
        return cls(
            name=config["name"],
            loss=config["loss"],
            baseline=np.array(config["baseline"]),
            history=pd.DataFrame(config["history"]),
            seconds=config["seconds"],
            flops=np.array(config["flops"]),
            movement={path: np.array(values) for path, values in config["movement"].items()},
            saturated=np.array(config["saturated"]),
            dead=np.array(config["dead"]),
            **models,
        )


@dataclass(repr=False)
class Report:
    """What pretraining did, stage by stage: `print` the report, or call its `to_frame()`.

    Example:

    >>> import numpy as np
    >>> from pretrain import greedy_pretrain, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=2, units=4)
    >>> report = greedy_pretrain(model, x, epochs=5, batch_size=32, verbose=0)
    >>> report.to_frame()[["stage", "loss_name"]].values.tolist()
    [['hidden_1', 'binary_crossentropy'], ['hidden_2', 'mean_squared_error']]

    Args:
        stages: A report for each stage.
        seeds: Seed of each member.
        layers: Names of the layers of each stage; `None` if the caller did not name layers.
        left_out: Names of the stages at the end of the model that were not pretrained.
        joint: Whether the stages were trained together. The loss, baseline, history and seconds of
            every stage are then those of all stages together.
    """

    stages: list[StageReport] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    layers: Sequence[Sequence[str]] | None = None
    left_out: Sequence[str] = ()
    joint: bool = False

    @property
    def history(self) -> pd.DataFrame:
        """The scores by stage, member and epoch; of all stages at once after joint training."""
        names, stages = [stage.name for stage in self.stages], self.stages
        if self.joint:
            names, stages = [" + ".join(names)], stages[:1]
        frames = [s.history.assign(stage=name) for name, s in zip(names, stages, strict=True)]
        history = pd.concat(frames, ignore_index=True)
        return history[["stage", *(c for c in history if c != "stage")]]

    def to_frame(self) -> pd.DataFrame:
        """A row per stage and member.

        Returns:
            Columns `stage`, `member`, `seed`, `loss_name`, `baseline`, the `updates` and scores of
            the last epoch, `seconds`, `flops`, the first weight matrix's `movement`, `saturated`
            and `dead`, see `StageReport`; and `problem`, a text that is empty where nothing is
            wrong, and names what is wrong otherwise: `diverged`, `above baseline`, `saturated`
            (more than 90 %) or `dead` (more than half of the units).
        """
        rows = []
        for stage in self.stages:
            for i, (_, scores) in enumerate(stage.last().iterrows()):
                row = {"stage": stage.name, "member": i, "seed": self.seeds[i]}
                row |= {"loss_name": stage.loss, "baseline": stage.baseline[i]}
                row |= scores.drop(["member", "seed", "epoch"]).to_dict()
                row |= {"seconds": stage.seconds, "flops": stage.flops[i]}
                row |= {"movement": next(iter(stage.movement.values()))[i]}
                row |= {"saturated": stage.saturated[i], "dead": stage.dead[i]}
                rows.append({**row, "problem": ", ".join(stage.problems(i))})
        return pd.DataFrame(rows).astype({"updates": int})

    def __repr__(self) -> str:
        names = ", ".join(stage.name for stage in self.stages)
        return f"<Report of {len(self.stages)} stages ({names}), {len(self.seeds)} members>"

    def plot(self) -> np.ndarray:
        """Draws every stage's loss against its baseline, see `pretrain.plots.plot_report`."""
        from pretrain.plots import plot_report

        return plot_report(self)

    def __str__(self) -> str:
        return f"{self._shown().to_string(index=False, float_format=_short)}{self._note()}"

    def _repr_html_(self) -> str:
        return f"{self._shown().to_html(index=False, float_format=_short)}<p>{self._note()}</p>"

    def _shown(self) -> pd.DataFrame:
        frame = self.to_frame()
        return frame.drop(columns=["member", "seed"]) if len(self.seeds) == 1 else frame

    def _note(self) -> str:
        return f"\nNot pretrained: {listed(self.left_out)}." if self.left_out else ""


def listed(names: Sequence[str]) -> str:
    """Names as a text, of which a long list shows the first."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _short(value: float) -> str:
    return f"{value:.4g}"


def warn_of(stages: Sequence[StageReport]) -> None:
    """Warns of what went wrong in stages that were trained together."""
    for stage in stages:
        found = [stage.problems(i) for i in range(len(stage.baseline))]
        # The loss of stages that are trained together is one.
        shared = ("diverged", "above baseline") if stage is not stages[0] else ()
        names = dict.fromkeys(name for problems in found for name in problems if name not in shared)
        if names:
            told = [_told(stage, name, [name in problems for problems in found]) for name in names]
            message = f"Stage {stage.name!r} {'; '.join(told)}. Try another {ADVICE}"
            warnings.warn(message, PretrainingWarning, stacklevel=3)


def _told(stage: StageReport, name: str, found: list[bool]) -> str:
    """A problem of a stage in words, with its numbers for the first member that has it."""
    i = found.index(True)
    scores = stage.last().iloc[i]
    reached = "reconstruction" if "reconstruction" in scores else "loss"
    words = {
        "diverged": f"diverged: its loss is not finite after {scores['updates']:.0f} updates",
        "above baseline": f"learned nothing in {scores['updates']:.0f} updates: its {reached} "
        f"{scores[reached]:.4g} is above the baseline {stage.baseline[i]:.4g}",
        "saturated": f"is saturated: {stage.saturated[i]:.1%} of its outputs are at an end of the "
        "activation's range",
        "dead": f"is dead: {stage.dead[i]:.0%} of its units have one output for all examples",
    }
    members = "" if len(found) == 1 else f" (members {[j for j, f in enumerate(found) if f]})"
    return words[name] + members


def check_report(report: Any) -> None:
    """Refuses what is not a report of at least one stage."""
    if not isinstance(report, Report) or not report.stages:
        raise ValueError(
            "`report` must be a report that greedy_pretrain or joint_pretrain returned. "
            f"Received: report={brief(report)}"
        )
