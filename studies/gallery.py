"""When does it pay? Comparisons on common data: `python -m studies.gallery`.

The page is made of the records, without training, if the comparisons were made before.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain.files import replacing
from studies.comparison.verdict import answer
from studies.engine.study import load
from studies.report import tables, write

_HEADER = """\
# When does pretraining pay?

What `studies.compare` says of small networks on common data, with denoising pretraining and all
else at its defaults, in {minutes:g} minutes each: `python -m studies.gallery`. Nothing was tuned
for these data but the rates, by the comparison itself. The page of each comparison has all numbers.
"""


@dataclass(frozen=True)
class Example:
    """A comparison of the gallery.

    Args:
        title: The network and the data, in words.
        layers: A function that returns the layers of the network, the input first.
        data: A function that returns the data, as `studies.compare` takes them.
        settings: Further arguments of `studies.compare`.
    """

    title: str
    layers: Callable[[], list]
    data: Callable[[], Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, seed: int) -> Any:
        """The network; its initial weights are Keras's, of the seed that is set."""
        import keras

        return keras.Sequential(self.layers())


def _dense(features: int, *ends: Any) -> Callable[[], list]:
    """Two hidden layers of 100 rectifiers."""

    def layers() -> list:
        import keras

        dense = keras.layers.Dense
        return [keras.Input((features,)), dense(100, "relu"), dense(100, "relu"), dense(*ends)]

    return layers


def _convolutions() -> list:
    import keras

    kl = keras.layers
    hidden = [kl.Conv2D(n, 3, strides=2, padding="same", activation="relu") for n in (16, 32)]
    return [kl.Input((28, 28, 1)), *hidden, kl.Flatten(), kl.Dense(10)]


def _recurrent() -> list:
    import keras

    kl = keras.layers
    return [kl.Input((8, 8)), kl.LSTM(32, return_sequences=True), kl.LSTM(32), kl.Dense(10)]


def _sklearn(name: str) -> Callable[[], tuple]:
    def data() -> tuple:
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")(return_X_y=True)

    return data


def _digits() -> tuple:
    x, y = _sklearn("digits")()
    return x / 16, y


def _rows() -> tuple:
    x, y = _digits()
    return x.reshape(-1, 8, 8), y


EXAMPLES = {
    "digits": Example("Two dense layers on handwritten digits", _dense(64, 10), _digits),
    "breast_cancer": Example(
        "Two dense layers on breast cancer", _dense(30, 1, "sigmoid"), _sklearn("breast_cancer")
    ),
    "wine": Example("Two dense layers on wine", _dense(13, 3, "softmax"), _sklearn("wine")),
    "diabetes": Example(
        "Two dense layers on the progression of diabetes, a number",
        _dense(10, 1),
        _sklearn("diabetes"),
    ),
    "covertype": Example(
        "Two dense layers on 2,000 examples of Covertype",
        _dense(54, 7),
        lambda: "covertype",
        {"train_size": 2_000, "validation_size": 1_000, "test_size": 10_000},
    ),
    "fashion_mnist": Example(
        "A small convolutional network on 2,000 images of Fashion-MNIST",
        _convolutions,
        lambda: "fashion_mnist",
        {"train_size": 2_000, "validation_size": 1_000, "test_size": 2_000},
    ),
    "rows": Example("Two LSTM layers on the rows of handwritten digits", _recurrent, _rows),
}


def main() -> None:
    """Make the comparisons that are missing, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m studies.gallery", description=__doc__)
    parser.add_argument("examples", nargs="*", default=list(EXAMPLES), metavar="EXAMPLE")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--data-folder", type=Path, help="where Fashion-MNIST and Covertype lie")
    parser.add_argument("--minutes", type=float, default=3)
    args = parser.parse_args()
    import studies

    for name in args.examples:
        example = EXAMPLES[name]
        studies.compare(
            example.build,
            example.data(),
            name=name,
            minutes=args.minutes,
            results=args.results,
            data_folder=args.data_folder,
            **example.settings,
        )
    page = page_of(args.results, args.minutes)
    with replacing(args.results / "compare" / write.PAGE) as file:
        file.write(page.encode())


def page_of(results: Path, minutes: float) -> str:
    """The page, of the records: the sentence and the table of each comparison."""
    study, parts = load("compare"), [_HEADER.format(minutes=minutes)]
    folders = study.folders(results)
    for name, example in EXAMPLES.items():
        for scale_name, folder in folders.items():
            if scale_name.split("-")[1] != name:
                continue
            found, _ = write.results_of(folder, study, scale_name)
            block = study.kind.show.summary(found.table, found.scale)
            sizes = (
                f"{found.scale.train_size:,} training, {found.scale.validation_size:,} validation "
                f"and {found.scale.test_size:,} test examples. "
                f"[All numbers]({scale_name}/{write.PAGE})."
            )
            remarks = " ".join(found.scale.remarks)
            parts += [f"## {example.title}", answer(found.numbers), tables.markdown(block)]
            parts += [f"{sizes} {remarks}".rstrip()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    main()
