"""When does pretraining pay? Comparisons on common data: `python -m studies.gallery all`.

Without an argument, the pages are made of the records again, without training. The data need
scikit-learn, and a folder with Fashion-MNIST and Covertype (`--data-folder`) where Keras cannot
download these.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain.files import replacing
from studies.comparison.verdict import ENDS, answer, verdict
from studies.engine.study import load
from studies.report import tables
from studies.report.pages import Results
from studies.report.write import PAGE, results_of, write_scale

_PAGE, _FOLDER = "gallery.md", "gallery"
_HEADER = """\
# When does pretraining pay?

What `studies.compare` says of small networks on common data, with denoising pretraining and with
all settings at their defaults: `python -m studies.gallery all`. Nothing was tuned for these data
but the rates, by the comparison itself. The page of a comparison has all of its numbers.
"""
_COUNTS = (
    "Pretraining is worth it in {} of the {} comparisons, and not worth it in {}; {} cannot tell."
)


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
    hidden = [kl.Conv2D(n, 3, strides=2, padding="same", activation="relu") for n in (8, 16)]
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
        "A small convolutional network on 1,000 images of Fashion-MNIST",
        _convolutions,
        lambda: "fashion_mnist",
        {"train_size": 1_000, "validation_size": 500, "test_size": 1_000},
    ),
    "rows": Example("Two LSTM layers on the rows of handwritten digits", _recurrent, _rows),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the comparisons that are named, and write the pages of all that have been made."""
    parser = argparse.ArgumentParser(prog="python -m studies.gallery", description=__doc__)
    parser.add_argument(
        "examples", nargs="*", metavar="EXAMPLE", help=f"all, or any of {', '.join(EXAMPLES)}"
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--data-folder", type=Path, help="where Fashion-MNIST and Covertype lie")
    args = parser.parse_args(arguments)
    named = list(EXAMPLES) if args.examples == ["all"] else args.examples
    if unknown := set(named) - set(EXAMPLES):
        parser.error(f"expected any of {', '.join(EXAMPLES)}. Received: {', '.join(unknown)}")
    for name in named:
        print(f"{name}\n{_compared(name, args.results, args.data_folder)}\n")
    write(args.results)


def _compared(name: str, results: Path, data_folder: Path | None) -> Any:
    # Imported only here: pages are made without Keras.
    import studies

    example = EXAMPLES[name]
    return studies.compare(
        example.build,
        example.data(),
        name=name,
        minutes=None,
        results=results / _FOLDER,
        data_folder=data_folder,
        **example.settings,
    )


def write(results: Path) -> None:
    """Write the page of each comparison, and the gallery's, from the records."""
    study, parts, ends = load("compare"), [], Counter()
    folders = study.folders(results / _FOLDER)
    for name, example in EXAMPLES.items():
        for scale_name, folder in folders.items():
            if scale_name.split("-")[1] == name:
                write_scale(folder, study, scale_name)
                found, _ = results_of(folder, study, scale_name)
                link = (folder / PAGE).relative_to(results).as_posix()
                parts += _section(example.title, found, link)
                ends.update(verdict(each) for each in found.judgments)
    worth, *others = (ends[end] for end in ENDS)
    counts = _COUNTS.format(worth, ends.total(), *others)
    page = "\n\n".join(part.strip() for part in (_HEADER, counts, *parts))
    with replacing(results / _PAGE) as file:
        file.write(f"{page}\n".encode())


def _section(title: str, found: Results, link: str) -> list[str]:
    """The sentence and the table of a comparison."""
    scale, block = found.scale, found.study.kind.show.summary(found.table, found.scale)
    sizes = (
        f"{scale.train_size:,} training, {scale.validation_size:,} validation and "
        f"{scale.test_size:,} test examples. [All numbers]({link})."
    )
    return [f"## {title}", answer(found.numbers), tables.markdown(block), sizes]


if __name__ == "__main__":
    main()
