"""How fast is a population? Side by side in one run: `python -m studies.speed`.

A cell of the depth study as a population, against the same trials by `model.fit` in a loop,
compilation included; and training throughput as a share of the machine's matrix product.
"""

import argparse
import os
import platform
import time
from pathlib import Path

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


def main(argv: list[str] | None = None) -> None:
    """Runs the benchmark, prints it and writes `speed.md`.

    Args:
        argv: Command-line arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m studies.speed", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    folder = parser.parse_args(argv).results
    page = _HEADER.format(
        machine=_machine(), trials=_TRIALS, train_size=_TRAIN_SIZE, epochs=_EPOCHS
    )
    print(page, end="", flush=True)
    for depth in (2, 5):
        page += _show(_compare(depth))
    members = 2 * (os.cpu_count() or 1)
    page += _show(_THROUGHPUT.format(members=members))
    page += _show(_throughput(members))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "speed.md").write_text(page)
    print(f"\nResults: {folder / 'speed.md'}")


def _show(text: str) -> str:
    print(text, end="", flush=True)
    return text


def _machine() -> str:
    return f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}"


def _build(depth: int, units: int, seed: int):
    from pretrain import networks

    return networks.mlp(
        (28, 28, 1),
        depth=depth,
        units=units,
        activation="sigmoid",
        initializer="historical",
        seed=seed,
    )


def _settings() -> dict:
    import keras

    return {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }


def _compare(depth: int) -> str:
    from pretrain import datasets

    data = datasets.load("mnist", train_size=_TRAIN_SIZE, validation_size=1_000)
    population, plain = _as_population(depth, data), _in_a_loop(depth, data)
    return f"| {depth} | {population:.1f} s | {plain:.1f} s | {plain / population:.1f} |\n"


def _as_population(depth: int, data) -> float:
    from pretrain import Population

    start = time.perf_counter()
    population = Population(lambda seed: _build(depth, 200, seed), range(_TRIALS))
    population.fit(
        *data.train,
        epochs=_EPOCHS,
        batch_size=20,
        optimizer="sgd",
        learning_rate=0.1,
        validation_data=data.validation,
        verbose=0,
        **_settings(),
    )
    return time.perf_counter() - start


def _in_a_loop(depth: int, data) -> float:
    import keras

    start = time.perf_counter()
    for seed in range(_TRIALS):
        keras.utils.clear_session()
        model = _build(depth, 200, seed)
        model.compile(keras.optimizers.SGD(0.1), **_settings())
        model.fit(
            *data.train,
            epochs=_EPOCHS,
            batch_size=20,
            validation_data=data.validation,
            verbose=0,
        )
    return time.perf_counter() - start


def _throughput(members: int) -> str:
    from pretrain import Population, datasets

    x, y = datasets.load("mnist", train_size=12_800).train
    population = Population(lambda seed: _build(3, 500, seed), range(members))
    options = {"batch_size": 128, "learning_rate": 0.1, "verbose": 0, **_settings()}
    # The first call compiles.
    population.fit(x, y, epochs=1, **options)
    epochs = 5
    start = time.perf_counter()
    population.fit(x, y, epochs=epochs, **options)
    seconds = time.perf_counter() - start
    weights = 784 * 500 + 2 * 500 * 500 + 500 * 10
    ours = 6 * weights * len(x) * epochs * members / seconds
    product = _matrix_product()
    return f"| {product / 1e9:.0f} GFLOP/s | {ours / 1e9:.0f} GFLOP/s | {ours / product:.0%} |\n"


def _matrix_product(n: int = 3_000, repeats: int = 5) -> float:
    """FLOPs per second of the best of a few products."""
    import keras
    import numpy as np

    a = keras.ops.convert_to_tensor(np.random.RandomState(0).normal(size=(n, n)).astype("float32"))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        keras.ops.convert_to_numpy(keras.ops.matmul(a, a))
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


if __name__ == "__main__":
    main()
