"""How fast is a population? Side by side in one run: `python -m studies.speed`.

A cell of the depth study as a population, against the same trials by `model.fit` in a loop,
compilation included; training throughput as a share of the machine's matrix product; and
convolutions, trained and pretrained, against `model.fit` and, where torch is installed, PyTorch.
"""

import argparse
import contextlib
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

from pretrain import DenoisingAutoencoder, Population, datasets, greedy_pretrain, networks

_TRIALS = 15
_TRAIN_SIZE = 2_000
_EPOCHS = 10
_HEADER = """# Speed

Made by `python -m studies.speed`, on {machine}.

## A cell of the depth study

{trials} trials of 200 sigmoid units per layer ({train_size:,} MNIST images, {epochs} epochs,
batches of 20, plain SGD), each epoch validated on 1,000 images: as a population, and by
`model.fit` in a loop. Both times include compilation.

| hidden layers | population | `model.fit` in a loop | ratio |
| ------------: | ---------: | --------------------: | ----: |
"""
_THROUGHPUT = """
## Training throughput

Three hidden layers of 500 sigmoid units, batches of 128, {members} members; 2 FLOPs per
multiply-add, training three times the forward pass. The matrix product is the backend's, of single
precision, 3,000 x 3,000.

| matrix product | population | share |
| -------------: | ---------: | ----: |
"""
_CONVOLUTIONS = """
## Convolutions

Two layers of 32 filters of 3 x 3 pixels, rectified, each with 2 x 2 pooling, on {images:,} MNIST
images, batches of 64: seconds per epoch and seed, medians of {repeats} runs in turns, after one
that compiles. Pretrained are two denoising autoencoders (Adam, {pretraining} epochs each), by hand
as one Keras model per stage, with `fit`, and codes by `predict`: seconds per seed.

| what | seconds | `fit` or by hand / this |
| :--- | ------: | ----------------------: |
"""
_IMAGES = 4_000
_REPEATS = 2
_PRETRAINING = 2


def main(argv: list[str] | None = None) -> None:
    """Runs the benchmark, prints it and writes `speed.md`.

    Args:
        argv: Command-line arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m studies.speed", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    folder = parser.parse_args(argv).results
    machine = f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}"
    page = _HEADER.format(machine=machine, trials=_TRIALS, train_size=_TRAIN_SIZE, epochs=_EPOCHS)
    print(page, end="", flush=True)
    for depth in (2, 5):
        page += _show(_compare(depth))
    members = 2 * (os.cpu_count() or 1)
    page += _show(_THROUGHPUT.format(members=members))
    page += _show(_throughput(members))
    page += _show(_CONVOLUTIONS.format(images=_IMAGES, repeats=_REPEATS, pretraining=_PRETRAINING))
    page += _show(_convolutions())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "speed.md").write_text(page)
    print(f"\nResults: {folder / 'speed.md'}")


def _show(text: str) -> str:
    print(text, end="", flush=True)
    return text


def _build(depth: int, units: int, seed: int) -> keras.Model:
    options = {"activation": "sigmoid", "initializer": "historical", "seed": seed}
    return networks.mlp((28, 28, 1), depth=depth, units=units, **options)


def _settings() -> dict:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": loss, "metrics": ["accuracy"]}


def _seconds(call: Callable[[], object], members: int = 1) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) / members


def _compare(depth: int) -> str:
    data = datasets.load("mnist", train_size=_TRAIN_SIZE, validation_size=1_000)
    options = {"epochs": _EPOCHS, "batch_size": 20, "validation_data": data.validation}

    def as_population() -> None:
        population = Population(lambda seed: _build(depth, 200, seed), range(_TRIALS))
        population.fit(*data.train, learning_rate=0.1, verbose=0, **options, **_settings())

    def in_a_loop() -> None:
        for seed in range(_TRIALS):
            keras.utils.clear_session()
            model = _build(depth, 200, seed)
            model.compile(keras.optimizers.SGD(0.1), **_settings())
            model.fit(*data.train, verbose=0, **options)

    population, plain = _seconds(as_population), _seconds(in_a_loop)
    return f"| {depth} | {population:.1f} s | {plain:.1f} s | {plain / population:.1f} |\n"


def _throughput(members: int) -> str:
    x, y = datasets.load("mnist", train_size=12_800).train
    population = Population(lambda seed: _build(3, 500, seed), range(members))
    options = {"batch_size": 128, "learning_rate": 0.1, "verbose": 0, **_settings()}
    # The first call compiles.
    population.fit(x, y, epochs=1, **options)
    epochs = 5
    seconds = _seconds(lambda: population.fit(x, y, epochs=epochs, **options))
    weights = 784 * 500 + 2 * 500 * 500 + 500 * 10
    ours = 6 * weights * len(x) * epochs * members / seconds
    product = _matrix_product()
    return f"| {product / 1e9:.0f} GFLOP/s | {ours / 1e9:.0f} GFLOP/s | {ours / product:.0%} |\n"


def _matrix_product(n: int = 3_000, repeats: int = 5) -> float:
    """FLOPs per second of the best of a few products."""
    a = keras.ops.convert_to_tensor(np.random.RandomState(0).normal(size=(n, n)).astype("float32"))
    seconds = [_seconds(lambda: keras.ops.convert_to_numpy(a @ a)) for _ in range(repeats)]
    return 2 * n**3 / min(seconds)


def _convolutions() -> str:
    x, y = datasets.load("mnist", train_size=_IMAGES).train
    trained = {"`fit`": _fit(x, y), "population of 1": _trained(x, y, 1)}
    trained["population of 4"] = _trained(x, y, 4)
    with contextlib.suppress(ImportError):
        trained["a PyTorch loop"] = _torch(x, y)
    pretrained = {
        "pretraining by hand in Keras": lambda: _by_hand(x),
        "`greedy_pretrain`, one model": lambda: _pretrained(x, 1),
        "`greedy_pretrain`, a population of 4": lambda: _pretrained(x, 4),
    }
    return _in_turns(trained) + _in_turns(pretrained)


def _in_turns(competitors: dict[str, Callable[[], float]]) -> str:
    """Rows of the medians of competitors; what else the machine does disturbs all of them alike."""
    seconds = {name: [] for name in competitors}
    for turn in range(_REPEATS + 1):
        for name, run in competitors.items():
            taken = run()
            if turn:
                seconds[name].append(taken)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    first = next(iter(medians.values()))
    return "".join(f"| {name} | {t:.2f} | {first / t:.2f} |\n" for name, t in medians.items())


def _convnet(seed: int):
    def convolution(number: int) -> layers.Layer:
        initializer = keras.initializers.GlorotUniform(10 * seed + number)
        options = {"padding": "same", "activation": "relu", "kernel_initializer": initializer}
        return layers.Conv2D(32, 3, **options)

    stack = [convolution(0), layers.MaxPooling2D(), convolution(1), layers.MaxPooling2D()]
    return keras.Sequential([keras.Input((28, 28, 1)), *stack, layers.Flatten(), layers.Dense(10)])


def _fit(x, y) -> Callable[[], float]:
    model = _convnet(0)
    model.compile(keras.optimizers.SGD(0.01), **_settings())
    return lambda: _seconds(lambda: model.fit(x, y, batch_size=64, verbose=0))


def _trained(x, y, members: int) -> Callable[[], float]:
    population = Population(_convnet, range(members))
    options = {"batch_size": 64, "learning_rate": 0.01, "verbose": 0, **_settings()}
    return lambda: _seconds(lambda: population.fit(x, y, **options), members)


def _torch(x, y) -> Callable[[], float]:
    import torch
    from torch import nn

    stack = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    stack += [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*stack, nn.Flatten(), nn.Linear(7 * 7 * 32, 10))
    optimizer, loss = torch.optim.SGD(model.parameters(), 0.01), nn.CrossEntropyLoss()
    images, labels = torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(y, dtype=torch.long)

    def epoch() -> None:
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            loss(model(images[rows]), labels[rows]).backward()
            optimizer.step()

    return lambda: _seconds(epoch)


def _pretrained(x, members: int) -> float:
    population = Population(_convnet, range(members))
    options = {"epochs": _PRETRAINING, "batch_size": 64, "verbose": 0}
    return _seconds(
        lambda: greedy_pretrain(population, x, DenoisingAutoencoder(), **options), members
    )


def _by_hand(x) -> float:
    def pretrain() -> None:
        codes, encoders = x, _convnet(0).layers
        for first, loss in ((0, "binary_crossentropy"), (2, "mse")):
            encoder = keras.Sequential([keras.Input(codes.shape[1:]), *encoders[first : first + 2]])
            activation = "sigmoid" if first == 0 else None
            decoder = layers.Conv2D(codes.shape[-1], 3, padding="same", activation=activation)
            corrupted = [keras.Input(codes.shape[1:]), layers.Dropout(0.25)]
            model = keras.Sequential([*corrupted, encoder, layers.UpSampling2D(), decoder])
            model.compile("adam", loss)
            model.fit(codes, codes, epochs=_PRETRAINING, batch_size=64, verbose=0)
            codes = encoder.predict(codes, batch_size=1000, verbose=0)

    return _seconds(pretrain)


if __name__ == "__main__":
    main()
