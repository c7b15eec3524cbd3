"""Compression: codecs of small gray images, judged by the error that is left at a bit rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.engine.trial import Cell, Trial
from studies.kinds.classification import examples
from studies.kinds.kind import Kind, Metric

# What codecs are trained and tested on: gray images of 28 x 28 pixels.
IMAGES = ("mnist", "fashion_mnist", "photographs")
# Bits per pixel at which codecs are compared.
RATES = {"low": 0.1, "middle": 0.3, "high": 1.0}
CODECS = ("jpeg", "webp", "png", "pca")
# Deep autoencoders have hidden layers of these widths, relative to the first.
_SHRINK = (1, 2, 4)


@dataclass(frozen=True)
class CompressionTrial(Trial):
    """A trial of a codec.

    Args:
        code: Units of the code of an autoencoder.
        greedy_epochs: Epochs in which each layer of the encoder is pretrained, before all layers
            are trained together.
    """

    code: int = 32
    greedy_epochs: int = 0


@dataclass(frozen=True)
class Codec(Arm):
    """A way to compress images.

    Args:
        codec: One of `CODECS`; empty for an autoencoder.
        convolutional: Whether the encoder has two convolutions with strides of 2 and a dense layer,
            instead of four dense layers.
        decoder_gain: Factor of the initial weights of the decoder's layers that lead to hidden
            units: see `decoder_gain` of `pretrain.Autoencoder`.
    """

    codec: str = ""
    convolutional: bool = False
    decoder_gain: float = 1.0


_psnr = partial(
    Metric, unit="dB", lower_is_better=False, on_test=True, diverged=lambda record, scale: 0.0
)


class Compression(Kind):
    """Compression of images with loss.

    A codec has a curve of mean squared error against bits per pixel. Between two points of its
    curve, a codec can code some images at one point and the others at the other; and an image that
    is not sent at all is the mean training image, at 0 bits. So every codec has an error at every
    rate: that of the best such mixture.
    """

    name = "compression"
    trial = CompressionTrial
    arm_fields = (
        *("activation", "initializer", "head_initializer", "objective", "optimizer"),
        *("total_cost_of", "codec", "convolutional", "decoder_gain"),
    )
    labels = {"code": "units of the code", "dataset": "trained on"}
    judged_by = {"selection": "validation_squared_error", "report": "psnr_middle"}
    metrics = (
        Metric(
            "validation_squared_error",
            "squared error of an image, validation",
            roles=("selection", "report"),
        ),
        *(_psnr(f"psnr_{name}", f"PSNR at {rate:g} bpp") for name, rate in RATES.items()),
        _psnr("psnr_files", f"PSNR at {RATES['middle']:g} bpp, files and decoder counted"),
        *(_psnr(f"psnr_on_{name}", f"PSNR on {name.replace('_', ' ')}") for name in IMAGES),
        Metric("ssim_middle", "SSIM", lower_is_better=False, on_test=True),
        Metric("squared_error", "squared error, not quantized", on_test=True),
        Metric("decoder", "size of the decoder", "kB", factor=1e-3, roles=("report",)),
    )

    def flops(self, trial: CompressionTrial, arm: Codec, scale: Scale) -> int:
        features, _ = scale.shape(trial.dataset)
        if arm.codec:
            # Nothing is trained: a pixel counts as an operation.
            return features * trial.test_size
        return autoencoder_flops(trial, arm, features)

    def base(self, scale: Scale, arm: Codec, values: dict[str, Any]) -> Trial:
        trial = super().base(scale, arm, values)
        if arm.objective:
            return replace(trial, greedy_epochs=scale.pretraining_epochs)
        if not arm.total_cost_of:
            return trial
        other = scale.arm(arm.total_cost_of)
        features, _ = scale.shape(trial.dataset)
        total = self.flops(self.base(scale, other, values), other, scale)
        of_an_epoch = autoencoder_flops(replace(trial, epochs=1), arm, features)
        return replace(trial, epochs=math.ceil(total / of_an_epoch))

    def train(self, cell: Cell, cache: Path, load: Callable[[Trial], Any]) -> list[dict]:
        from studies.kinds.compression.train import train

        return train(cell, load)

    @cached_property
    def show(self) -> Any:
        from studies.kinds.compression.show import CompressionShow

        return CompressionShow(self)

    def check(self, scale: Scale) -> None:
        super().check(scale)
        names = scale.axes.get("dataset", (scale.dataset,))
        if unknown := set(names) - set(IMAGES):
            raise ValueError(
                f"Codecs are trained and tested on {', '.join(IMAGES)}. "
                f"Received: dataset={sorted(unknown)}"
            )
        for arm in scale.arms:
            if getattr(arm, "codec", None) not in ("", *CODECS):
                raise ValueError(
                    f"Expected an arm that is a `Codec`, with a codec of {', '.join(CODECS)} or "
                    f"none. Received: {arm.name}"
                )
            if arm.objective and not scale.pretraining_epochs:
                raise ValueError(
                    f"The arm {arm.name!r} is pretrained. Expected `pretraining_epochs`. "
                    f"Received: {scale.pretraining_epochs}"
                )


def layer_flops(trial: CompressionTrial, arm: Codec, features: int) -> list[int]:
    """Forward FLOPs per image of each layer of an encoder."""
    if arm.convolutional:
        # Two convolutions of 3 x 3 with strides of 2, and a dense layer.
        pixels, (few, many) = (features // 4, features // 16), filters(trial)
        products = 9 * few * pixels[0], 9 * few * many * pixels[1], many * pixels[1] * trial.code
        return [2 * n for n in products]
    sizes = [features, *widths(trial)]
    return [2 * n * m for n, m in zip(sizes[:-1], sizes[1:], strict=True)]


def widths(trial: CompressionTrial) -> list[int]:
    """Units of the layers of a deep encoder, the code last."""
    return [*(trial.width // n for n in _SHRINK), trial.code]


def filters(trial: CompressionTrial) -> tuple[int, int]:
    """Filters of the two convolutions of a convolutional encoder."""
    return trial.width // 16, trial.width // 8


def autoencoder_flops(trial: CompressionTrial, arm: Codec, features: int) -> int:
    """FLOPs of training an autoencoder, layer by layer and then all layers together.

    A step of training counts as three forward passes.
    """
    encoder = layer_flops(trial, arm, features)
    # A decoder undoes the stride of 2 first, and so has four times the positions of a convolution.
    more = [4, 4, 1] if arm.convolutional else [1] * len(encoder)
    decoder = [n * flops for n, flops in zip(more, encoder, strict=True)]
    codes = sum(encoder) * trial.train_size if trial.greedy_epochs else 0
    epochs = trial.epochs + trial.greedy_epochs
    return 3 * sum(encoder + decoder) * examples(trial) * epochs + codes


KIND = Compression()
