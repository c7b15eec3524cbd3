"""What pretraining did, stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pandas as pd

from pretrain.checks import brief
from pretrain.objectives.objective import Objective


@dataclass
class StageReport:
    """What pretraining did to one stage.

    Args:
        name: Name of the stage.
        objective: The objective of the stage, in which nothing is `"auto"` any more.
        loss: Name of the loss.
        baseline: Loss of a trivial model, shape (members,). The model reconstructs every input by
            the mean input, or predicts every label by the frequencies of the labels. Compare the
            baseline with the score `reconstruction` if the objective has that score, and with
            `loss` if not.
        history: A row per member and epoch, with columns `member`, `seed`, `epoch` (from 1),
            `loss` and the objective's other scores. With validation data, every score has a second
            column whose name starts with `val_`.
        seconds: Wall-clock time of the stage, all members together.
        flops: FLOPs of each member, shape (members,). A multiply-add is 2 FLOPs, and a step of
            training costs 3 forward passes.
        movement: For each weight w by name, `||w - w_0|| / ||w_0||` of each member, shape
            (members,); w_0 is the weight before pretraining.
        decoders: The decoder of each member, a model from the code (or the latent variables) to
            the pre-activation of the reconstruction, which a sigmoid follows if the inputs are
            binary or in [0, 1]. A decoder is `None` if the objective reconstructs nothing.
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
    decoders: list[keras.Model | None]
    heads: list[keras.Model | None]

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
            **models,
        )


@dataclass
class Report:
    """What pretraining did, stage by stage: `print` the report, or call its `to_frame()`.

    Args:
        stages: A report for each stage.
        seeds: Seed of each member.
        layers: Names of the layers of each stage; `None` if the caller did not name layers.
        joint: Whether the stages were trained together. The loss, baseline, history and seconds of
            every stage are then those of all stages together.
    """

    stages: list[StageReport] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    layers: Sequence[Sequence[str]] | None = None
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
            Columns `stage`, `member`, `seed`, `loss_name`, `baseline`, the scores of the last
            epoch, `seconds`, `flops` and the first weight matrix's `movement`; see `StageReport`.
        """
        rows = []
        for stage in self.stages:
            last = stage.history.groupby("member").tail(1).sort_values("member")
            for i, (_, scores) in enumerate(last.iterrows()):
                row = {"stage": stage.name, "member": i, "seed": self.seeds[i]}
                row |= {"loss_name": stage.loss, "baseline": stage.baseline[i]}
                row |= scores.drop(["member", "seed", "epoch"]).to_dict()
                row |= {"seconds": stage.seconds, "flops": stage.flops[i]}
                rows.append({**row, "movement": next(iter(stage.movement.values()))[i]})
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        frame = self.to_frame()
        if len(self.seeds) == 1:
            frame = frame.drop(columns=["member", "seed"])
        return frame.to_string(index=False, float_format=lambda v: f"{v:.4g}")


def check_report(report: Any) -> None:
    """Refuses what is not a report of at least one stage."""
    if not isinstance(report, Report) or not report.stages:
        raise ValueError(
            "`report` must be a report that greedy_pretrain or joint_pretrain returned. "
            f"Received: report={brief(report)}"
        )
