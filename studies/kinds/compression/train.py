"""How codecs are made: autoencoders are trained as one population, other codecs are only tested."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import keras
import numpy as np
from keras import layers

from pretrain import (
    Autoencoder,
    DeepAutoencoder,
    Population,
    PretrainingWarning,
    greedy_pretrain,
    initializers,
    joint_pretrain,
    objectives,
    unroll,
)
from pretrain.datasets import Dataset
from pretrain.seeds import derive
from studies.engine.trial import Cell
from studies.kinds.classification.train import PROTOCOL
from studies.kinds.compression import (
    IMAGES,
    RATES,
    Codec,
    CompressionTrial,
    autoencoder_flops,
    filters,
    widths,
)
from studies.kinds.compression.codecs import STEPS, Curve, code_curve, error_at, pillow_curve, psnr

# The squared error of pixels is what PSNR measures; hidden layers have what suits them.
_FIRST = {"name": "Autoencoder", "loss": "mean_squared_error", "reduction": "sum"}
# Bytes of a weight: half precision is more than images of 8 bits need.
_BYTES = 2
# Images whose structural similarity is measured, and images that are shown.
_SIMILAR = 200
_SHOWN = 10
Load = Callable[[CompressionTrial], Dataset]
Curves = dict[str, Curve]


def train(cell: Cell, load: Load) -> list[dict]:
    """Make and test the codecs of the trials: see `studies.kinds.kind.Kind.train`."""
    if cell.arm.codec:
        return [_coded(trial, cell.arm, load) for trial in cell.trials]
    return _trained(cell, load)


def encoder(trial: CompressionTrial, arm: Codec, shape: tuple[int, ...]) -> keras.Model:
    """Build the encoder of an autoencoder; its code is linear."""

    def kernel(number: int, name: str | dict = arm.initializer) -> keras.Initializer:
        return initializers.get(name, derive("init", trial.seed, number))

    inputs = hidden = keras.Input(shape)
    if arm.convolutional:
        for number, channels in enumerate(filters(trial), start=1):
            hidden = layers.Conv2D(
                channels,
                3,
                strides=2,
                padding="same",
                activation=arm.activation,
                kernel_initializer=kernel(number),
                name=f"hidden_{number}",
            )(hidden)
    hidden = layers.Flatten(name="flatten")(hidden)
    for number, units in enumerate([] if arm.convolutional else widths(trial)[:-1], start=1):
        hidden = layers.Dense(
            units,
            activation=arm.activation,
            kernel_initializer=kernel(number),
            name=f"hidden_{number}",
        )(hidden)
    linear = kernel(0, arm.head_initializer or arm.initializer)
    hidden = layers.Dense(trial.code, kernel_initializer=linear, name="code")(hidden)
    return keras.Model(inputs, hidden, name="encoder")


def _trained(cell: Cell, load: Load) -> list[dict]:
    first, arm, sets = cell.trials[0], cell.arm, [load(trial) for trial in cell.trials]
    models = [
        encoder(trial, arm, data.train[0].shape[1:])
        for trial, data in zip(cell.trials, sets, strict=True)
    ]
    population = Population.from_models(models, [trial.seed for trial in cell.trials])
    options = PROTOCOL | {
        "batch_size": first.batch_size,
        "optimizer": arm.optimizer,
        "learning_rate": [trial.learning_rate for trial in cell.trials],
        "validation_data": ([data.validation[0] for data in sets],),
        "head": 0,
    }
    x, objective, report = [data.train[0] for data in sets], _objective(arm), None
    with warnings.catch_warnings():
        # Records tell what an autoencoder did not learn.
        warnings.simplefilter("ignore", PretrainingWarning)
        if first.greedy_epochs:
            report = greedy_pretrain(
                population, x, objective, epochs=first.greedy_epochs, **options
            )
        del options["drop_remainder"]
        report = joint_pretrain(
            population, x, objective, report=report, epochs=first.epochs, **options
        )
    history = report.stages[0].history
    results = []
    for i, (trial, model, data) in enumerate(zip(cell.trials, models, sets, strict=True)):
        own = history[history["member"] == i]
        made = partial(unroll, model, report, i)
        results.append(_result(trial, arm, data, own, load, made))
    return results


def _objective(arm: Codec) -> list[Autoencoder]:
    rest = {"name": "Autoencoder", "reduction": "sum", "decoder_gain": arm.decoder_gain}
    layers_of = 3 if arm.convolutional else 4
    return [objectives.from_config(each) for each in (_FIRST, *[rest] * (layers_of - 1))]


def _result(trial, arm, data: Dataset, history, load: Load, made: Callable) -> dict:
    curves = {"loss": history["loss"].tolist(), "validation_loss": history["val_loss"].tolist()}
    done = bool(np.isfinite([*curves["loss"], *curves["validation_loss"]]).all())
    result = {
        "status": "done" if done else "diverged",
        "validation_squared_error": curves["validation_loss"][-1] if done else None,
        "flops": autoencoder_flops(trial, arm, data.train[0][0].size),
        "curves": curves,
    }
    # Selection trials never see the test set.
    if trial.role == "report" and done:
        return _with_tests(result, *_of_autoencoder(trial, data, load, made()), trial, data, load)
    return result


def _coded(trial: CompressionTrial, arm: Codec, load: Load) -> dict:
    data = load(trial)
    result = {"status": "done", "flops": data.train[0][0].size * trial.test_size, "curves": {}}
    if arm.codec == "pca":
        tested = _of_components(trial, data, load)
    else:
        tested = {name: pillow_curve(arm.codec, x) for name, x in _tests(trial, load)}, {}
    return _with_tests(result, *tested, trial, data, load)


def _of_autoencoder(trial, data: Dataset, load: Load, deep: DeepAutoencoder) -> tuple[Curves, dict]:
    """Every unit is quantized in steps of its standard deviation on training images."""
    shape = data.train[0].shape[1:]
    spread = np.maximum(deep.encode(data.train[0]).std(axis=0), 1e-6)
    steps = np.multiply.outer(STEPS, spread)
    size = _BYTES * sum(int(np.prod(w.shape)) for w in deep.decoder.weights)

    def decode(codes: np.ndarray) -> np.ndarray:
        return deep.decode(codes.astype("float32")).reshape(-1, *shape[:2])

    curves, more = {}, {"decoder": size}
    for name, images in _tests(trial, load):
        codes = deep.encode(images.reshape(-1, *shape).astype("float32"))
        curves[name] = code_curve(codes, steps, decode, images, lambda used: size)
        if name == trial.dataset:
            more["squared_error"] = _squared_error(np.clip(decode(codes), 0, 1), images)
    return curves, more


def _of_components(trial, data: Dataset, load: Load) -> tuple[Curves, dict]:
    """Principal components of the training images are quantized in steps of one width."""
    x = data.train[0].reshape(len(data.train[0]), -1).astype("float64")
    mean = x.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(x.T))

    def size(used: int) -> int:
        """Of the components that are used, and of the mean."""
        return _BYTES * (used + 1) * mean.size

    steps = np.multiply.outer(STEPS, np.ones(len(axes)))
    # As many components as an autoencoder has units of its code.
    few = axes[:, -trial.code :]
    curves, more = {}, {"decoder": size(len(axes))}
    for name, images in _tests(trial, load):
        flat = images.reshape(len(images), -1) - mean

        def decode(codes: np.ndarray, shape=images.shape) -> np.ndarray:
            return (codes @ axes.T + mean).reshape(shape)

        curves[name] = code_curve(flat @ axes, steps, decode, images, size)
        if name == trial.dataset:
            shown = (flat @ few @ few.T + mean).reshape(images.shape)
            more["squared_error"] = _squared_error(np.clip(shown, 0, 1), images)
    return curves, more


def _tests(trial: CompressionTrial, load: Load):
    """The test images of every kind, of shape (n, height, width)."""
    for name in IMAGES:
        x, _ = load(replace(trial, dataset=name)).test
        yield name, x[: trial.test_size, ..., 0].astype("float64")


def _squared_error(decoded: np.ndarray, images: np.ndarray) -> float:
    return float(((decoded - images) ** 2).sum(axis=(1, 2)).mean())


def _with_tests(result: dict, curves: Curves, more: dict, trial, data: Dataset, load: Load) -> dict:
    mean = data.train[0][..., 0].mean(axis=0, dtype="float64")
    tests = dict(_tests(trial, load))
    unsent = {name: float(((x - mean) ** 2).mean()) for name, x in tests.items()}

    def at(rate: str, name: str = trial.dataset, bits: str = "bits") -> float:
        curve = curves[name]
        return psnr(error_at(RATES[rate], getattr(curve, bits), curve.mse, unsent[name]))

    own, images = curves[trial.dataset], tests[trial.dataset]
    similar = [_similarity(each[:_SIMILAR], images[:_SIMILAR]) for each in own.images]
    blank = _similarity(np.broadcast_to(mean, images[:_SIMILAR].shape), images[:_SIMILAR])
    # The error of a mixture is the mixture of errors; dissimilarity is taken for an error.
    unlike = error_at(RATES["middle"], own.bits, 1 - np.array(similar), 1 - blank)
    result |= more | {f"psnr_{rate}": at(rate) for rate in RATES}
    result |= {f"psnr_on_{name}": at("middle", name) for name in IMAGES}
    result |= {"psnr_files": at("middle", bits="file_bits"), "ssim_middle": 1 - unlike}
    result["curves"] |= {"ssim": similar, "unsent": [unsent[name] for name in IMAGES]}
    for name, curve in curves.items():
        for field in ("bits", "file_bits", "mse"):
            result["curves"][f"{field}_{name}"] = getattr(curve, field).tolist()
    if trial.seed == 0:
        nearest = int(np.abs(own.bits - RATES["middle"]).argmin())
        shown = np.stack([images[:_SHOWN], own.images[nearest][:_SHOWN]])
        result["arrays"] = {"pictures": np.rint(255 * shown).astype("uint8")}
        result["shown_bits"] = float(own.bits[nearest])
    return result


def _similarity(decoded: np.ndarray, images: np.ndarray) -> float:
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise ImportError(
            "Structural similarity comes with scikit-image, which is not installed. Expected "
            '`pip install "pretrain[images]"`'
        ) from error
    pairs = zip(decoded, images, strict=True)
    return float(np.mean([structural_similarity(a, b, data_range=1.0) for a, b in pairs]))
