"""How small does zlib make digits, at which level?

Question: how many bits per pixel do 100 digits take, compressed by zlib, one by one or together?

Expected: fewer at a higher level, and fewer together.

Refuted if: the level makes no difference.

This is a study with a kind of its own, all in one file: nothing is trained, so that its arms have
no learning rates.
"""

import zlib
from dataclasses import dataclass

from matplotlib.figure import Figure as Drawing

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.engine.trial import Trial
from studies.kinds.kind import Kind, Metric
from studies.report.claims import Claim, Condition, difference, growth
from studies.report.figures import Figure
from studies.report.frame import reported


@dataclass(frozen=True)
class CompressionTrial(Trial):
    """A trial of a compressor.

    Args:
        level: Level of compression, from 1 to 9.
    """

    level: int = 6


@dataclass(frozen=True)
class Compressor(Arm):
    """A way to compress images.

    Args:
        together: Whether all images are compressed as one.
    """

    together: bool = False


class Compression(Kind):
    """Compression without loss, judged by bits per pixel."""

    name = "compression"
    trial = CompressionTrial
    arm_fields = ("together",)
    judged_by = {"report": "bits"}
    metrics = (Metric("bits", "size", unit="bits per pixel", on_test=True),)

    def flops(self, trial, arm, scale):
        return trial.test_size * scale.shape(trial.dataset)[0]

    def train(self, cell, cache, load):
        return [self._compressed(trial, cell.arm, load(trial)) for trial in cell.trials]

    def _compressed(self, trial, arm, data):
        images = data.validation[0][: trial.test_size]
        pieces = [images] if arm.together else images
        size = sum(len(zlib.compress(piece.tobytes(), trial.level)) for piece in pieces)
        return {"status": "done", "bits": 8 * size / images.size, "flops": images.size}


def bits_over_seeds(frame, scale):
    """Bits per pixel of every seed."""
    drawing = Drawing(layout="constrained")
    drawing.subplots().plot(reported(frame)["seed"], reported(frame)["bits"], "o")
    return drawing


KIND = Compression()

SCALES = {
    "standard": Scale(
        arms=(
            Compressor("single", rates=False),
            Compressor("together", control="single", together=True, rates=False),
        ),
        axes={"level": (1, 6, 9)},
        train_size=100,
        validation_size=100,
        test_size=100,
        epochs=1,
        report_seeds=8,
    )
}

CLAIMS = (
    Claim(
        "levels-matter",
        "A higher level compresses more.",
        "zlib's manual",
        "single at level 9 takes fewer bits than at level 1.",
        (Condition(growth("single", "level", 1, 9), below=0),),
    ),
    Claim(
        "single-is-smaller",
        "Digits that are compressed one by one are smaller.",
        "nobody",
        "together takes more bits than single, at level 6.",
        (Condition(difference("together", "single", level=6), above=0),),
    ),
)

FIGURES = (
    "bits_against_{axis}",
    Figure("bits_over_seeds", "Size of every seed.", "A dot per seed.", bits_over_seeds),
)
