"""What pretraining did, stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pandas as pd

from pretrain.objectives.objective import Objective


@dataclass
class StageReport:
    """What pretraining did to one stage.

    Args:
        name: Name of the stage.
        objective: What it was trained on, with nothing left open.
        loss: Name of the loss, decided once.
        baseline: Loss of a trivial model for each member: of the mean input as a reconstruction,
            or of the classes' frequencies as a prediction. If there is a column `reconstruction`
            beside the `loss`, it is that one's.
        history: A row per member and epoch: `member`, `seed`, `epoch`, `loss`, what else the
            objective reports and, with validation data, each with `val_`.
        seconds: Wall-clock time.
        flops: FLOPs of each member, an array: 2 per multiply-add, training 3 times the forward
            pass.
        movement: For each weight, `||w - w_0|| / ||w_0||` for each member.
        decoders: The decoder of each member, from code (or latent variables) to pre-activation of
            the reconstruction, which needs a sigmoid if inputs are binary or in [0, 1]; `None` if
            the objective has none.
        heads: What else each member reads from the stage's output: the classifier of
            `SupervisedGreedy`; the mean and the log-variance, shape (n, 2, latent), of
            `VariationalAutoencoder`; else `None`.
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
        """All but the models, as plain data for JSON."""
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
    def from_config(cls, config: dict[str, Any], **models: list) -> "StageReport":
        """A report from what `to_config` returned, and its `decoders` and `heads`."""
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
    """What pretraining did, stage by stage; `print` it, or take `to_frame()`.

    Args:
        stages: A report for each stage.
        seeds: Seed of each member.
        layers: Names of the layers of each stage, if the caller named them.
        joint: Whether the stages were trained together: loss, baseline, history and seconds of each
            are those of the whole then.
    """

    stages: list[StageReport] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    layers: Sequence[Sequence[str]] | None = None
    joint: bool = False

    @property
    def history(self) -> pd.DataFrame:
        """A row per stage, member and epoch, with losses; of a joint training, for all stages."""
        names, stages = [stage.name for stage in self.stages], self.stages
        if self.joint:
            names, stages = [" + ".join(names)], stages[:1]
        frames = [s.history.assign(stage=name) for name, s in zip(names, stages, strict=True)]
        history = pd.concat(frames, ignore_index=True)
        return history[["stage", *(c for c in history if c != "stage")]]

    def to_frame(self) -> pd.DataFrame:
        """A row per stage and member.

        Returns:
            Columns `stage`, `member`, `seed`, `loss_name`, `baseline`, the scores of the last epoch
            (see `StageReport.history`), `seconds` (of the stage, all members together), `flops` and
            `movement` (of the first weight matrix).
        """
        rows = []
        for stage in self.stages:
            last = stage.history.groupby("member").tail(1).sort_values("member")
            for i, (_, scores) in enumerate(last.iterrows()):
                losses = scores.drop(["member", "seed", "epoch"]).to_dict()
                rows.append(
                    {
                        "stage": stage.name,
                        "member": i,
                        "seed": self.seeds[i],
                        "loss_name": stage.loss,
                        "baseline": stage.baseline[i],
                        **losses,
                        "seconds": stage.seconds,
                        "flops": stage.flops[i],
                        "movement": next(iter(stage.movement.values()))[i],
                    }
                )
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        frame = self.to_frame()
        if len(self.seeds) == 1:
            frame = frame.drop(columns=["member", "seed"])
        return frame.to_string(index=False, float_format=lambda v: f"{v:.4g}")
