"""Datasets by name, each split into training, validation and test examples by a seed."""

import gzip
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from pretrain.checks import positive
from pretrain.seeds import derive

Arrays = tuple[np.ndarray, np.ndarray]

NAMES = ("mnist", "digits", "fashion_mnist", "cifar10")

_MNIST = files("pretrain") / "data" / "mnist.npz"
_MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
_DEBIAN = Path("/usr/share/datasets")
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_HOW_TO_GET = {
    "fashion_mnist": "Download the four files of https://github.com/zalandoresearch/fashion-mnist "
    "and pass their folder as `folder`; on Debian, `apt install dataset-fashion-mnist`.",
    "cifar10": "Download and unpack the binary version from "
    "https://www.cs.toronto.edu/~kriz/cifar.html and pass its folder as `folder`. The Python "
    "version is pickled, and a pickle can run any code.",
}


class Dataset(NamedTuple):
    """A dataset, split into three pairs of arrays `(x, y)`.

    Attributes:
        name: Name of the dataset, as `fingerprint` returns it.
        train: Training examples. x is float32 in [0, 1], of shape `(n, height, width, channels)` or
            `(n, features)`; y is int64 in [0, classes), of shape `(n,)`.
        validation: Validation examples, which are taken from the official training set and are
            disjoint from `train`.
        test: The official test set, in its order.
        classes: Number of classes of the whole dataset; a small `train` may lack some classes.
    """

    name: str
    train: Arrays
    validation: Arrays
    test: Arrays
    classes: int


class _Official(NamedTuple):
    """The published arrays, in the order of `_KEYS`."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def load(
    name: str | os.PathLike,
    train_size: int | None = None,
    validation_size: int | None = None,
    seed: int = 0,
    folder: str | os.PathLike | None = None,
) -> Dataset:
    """Load a dataset and split it.

    With the same seed, a smaller training set holds the first examples of every larger training
    set. The training set does not depend on `validation_size`, nor the validation set on
    `train_size`.

    Args:
        name: `"mnist"` (inside this package), `"digits"` (from scikit-learn), `"fashion_mnist"`,
            `"cifar10"`, or the path of a .npz file. The digits have no official test set; a fifth
            of the digits, the same for every seed, is their test set. The file must have the keys
            of Keras's mnist.npz: `x_train` and `x_test` of shape
            `(n, height, width[, channels])` or `(n, features)`, uint8 or floats in [0, 1];
            `y_train` and `y_test`, integers in [0, classes).
        train_size: Number of training examples, at least 1. `None`: all examples of the official
            training set that are not for validation.
        validation_size: Number of validation examples, at least 1. `None`: a fifth of the official
            training set, at most 10,000.
        seed: Integer. The seed and the dataset determine which examples are for training and which
            for validation.
        folder: A folder with `"fashion_mnist"` (the four idx files, plain or .gz), `"cifar10"` (the
            batches of the binary version) or a `<name>.npz`, in the folder itself
            or in a subfolder. Only if the dataset is not there, Keras's cache, Debian's package and
            Keras's download are tried.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If the name is unknown, the dataset is too small or the file is no dataset.
        FileNotFoundError: If the file does not exist, or the dataset is not found anywhere.
        ImportError: If scikit-learn, which has the digits, is not installed.
    """
    title = fingerprint(name)
    official = _official(name, folder)
    split = _split(title, len(official.x_train), train_size, validation_size, seed)
    return Dataset(
        title,
        *(_examples(official.x_train[part], official.y_train[part]) for part in split),
        _examples(official.x_test, official.y_test),
        int(official.y_train.max()) + 1,
    )


def fingerprint(name: str | os.PathLike) -> str:
    """Return a name for the content of a dataset, which does not depend on where the dataset lies.

    Args:
        name: As for `load`.

    Returns:
        A built-in name as it is; for a file, `<stem>-<first 12 hexadecimal digits of its SHA-256>`.

    Raises:
        ValueError: If the name is unknown.
        FileNotFoundError: If the file does not exist.
    """
    if name in NAMES:
        return str(name)
    path = _own_file(name)
    with path.open("rb") as file:
        return f"{path.stem}-{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"


def _own_file(name: str | os.PathLike) -> Path:
    if not isinstance(name, str | os.PathLike) or Path(name).suffix != ".npz":
        raise ValueError(
            f"A dataset is one of {', '.join(NAMES)}, or the path of a .npz file. "
            f"Received: name={name!r}"
        )
    if not Path(name).is_file():
        raise FileNotFoundError(f"There is no such file. Received: name={os.fspath(name)!r}")
    return Path(name)


def _official(name: str | os.PathLike, folder: str | os.PathLike | None) -> _Official:
    if name in _HOW_TO_GET:
        return _find(str(name), folder)
    if folder is not None:
        raise ValueError(
            f"`folder` is for {' and '.join(_HOW_TO_GET)} only. "
            f"Received: name={name!r}, folder={folder!r}"
        )
    if name in NAMES:
        return _mnist() if name == "mnist" else _digits()
    return _read_own(_own_file(name))


# Splitting


def _split(
    name: str, count: int, train_size: int | None, validation_size: int | None, seed: int
) -> Arrays:
    """Return the indices of training and validation examples, the two ends of a permutation."""
    for argument, value in {"train_size": train_size, "validation_size": validation_size}.items():
        if value is not None:
            positive(argument, value)
    held_out = validation_size or min(max(count // 5, 1), 10_000)
    left = count - held_out
    kept = train_size or left
    if not 1 <= kept <= left:
        raise ValueError(
            f"The official training set of {name} has {count} examples. Without {held_out} for "
            f"validation, {max(left, 0)} are left for training. "
            f"Received: train_size={train_size}, validation_size={validation_size}"
        )
    order = _permutation(count, "split", name, seed)
    return order[:kept], order[left:]


def _permutation(count: int, *stream: str | int) -> np.ndarray:
    # NumPy promises that RandomState will never change, but not that default_rng will not.
    return np.random.RandomState(derive(*stream)).permutation(count)


def _examples(x: np.ndarray, y: np.ndarray) -> Arrays:
    scale = np.float32(255 if x.dtype == np.uint8 else 1)
    images = x[..., np.newaxis] if x.ndim == 3 else x
    return images.astype(np.float32) / scale, y.astype(np.int64)


# Datasets that are at hand


def _mnist() -> _Official:
    content = _MNIST.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != _MNIST_SHA256:
        pointer = content.startswith(b"version https://git-lfs")
        cause = "is a git-lfs pointer (`git lfs pull` fetches it)" if pointer else "is damaged"
        raise ValueError(
            f"The package's mnist.npz {cause}; reinstall the package. Expected the SHA-256 "
            f"{_MNIST_SHA256}. Received: sha256={digest}"
        )
    return _read_npz(io.BytesIO(content))


def _digits() -> _Official:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is not installed. Expected "
            "`pip install \"pretrain[sklearn]\"`. Received: name='digits'"
        ) from error
    digits = load_digits()
    x, y = digits.images / 16, digits.target
    order = _permutation(len(x), "split", "digits", "test")
    test, train = np.split(order, [len(x) // 5])
    return _Official(x[train], y[train], x[test], y[test])


def _read_own(path: Path) -> _Official:
    try:
        return _checked(_read_npz(path))
    # A damaged archive can raise any exception.
    except Exception as error:
        raise ValueError(
            f"The file is not a dataset: {error}. Expected a .npz file with the keys "
            f"{', '.join(_KEYS)}. Received: name={os.fspath(path)!r}"
        ) from error


# Datasets that have to be found


def _find(name: str, folder: str | os.PathLike | None) -> _Official:
    failures = []
    for place, read in _places(name, folder):
        try:
            return read()
        # Keras raises an Exception when a download fails, and a damaged file can raise any.
        except Exception as error:
            failures.append(f"- {place}: {error}")
    listed = "\n".join(failures)
    raise FileNotFoundError(
        f"No usable copy of {name} was found in any of these places:\n{listed}\n"
        f"{_HOW_TO_GET[name]} Received: name={name!r}, folder={folder!r}"
    )


def _places(
    name: str, folder: str | os.PathLike | None
) -> Iterator[tuple[str, Callable[[], _Official]]]:
    if folder is not None:
        yield f"`folder`, {folder}", partial(_read_folder, name, Path(folder))
    if name == "fashion_mnist":
        cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
        # Older versions of Keras unpacked the files into the cache itself.
        inner = cache / "fashion-mnist"
        place = inner if inner.is_dir() else cache
        yield f"Keras's cache, {place}", partial(_read_folder, name, place)
        debian = _DEBIAN / "fashion-mnist"
        yield f"Debian's dataset-fashion-mnist, {debian}", partial(_read_folder, name, debian)
    yield "Keras's download", partial(_download, name)


def _download(name: str) -> _Official:
    keras = import_module("keras")
    train, test = getattr(keras.datasets, name).load_data()
    official = _Official(*train, *test)
    if official.x_train.ndim == 4 and keras.config.image_data_format() == "channels_first":
        official = official._replace(
            x_train=np.moveaxis(official.x_train, 1, -1), x_test=np.moveaxis(official.x_test, 1, -1)
        )
    return _checked(official)


def _read_folder(name: str, folder: Path) -> _Official:
    if not folder.is_dir():
        raise FileNotFoundError("no such folder")
    # MNIST has files of the same names as Fashion-MNIST, which may lie in a folder nearby.
    subfolders = folder.glob("*[Ff]ashion*/" if name == "fashion_mnist" else "*/")
    for place in (folder, *sorted(subfolders)):
        for first, read in _formats(name):
            if (place / first).is_file():
                return _checked(read(place))
    expected = ", ".join(first for first, _ in _formats(name))
    raise FileNotFoundError(f"none of {expected} is in it or in a subfolder")


def _formats(name: str) -> Iterator[tuple[str, Callable[[Path], _Official]]]:
    """Yield, for each format, the file by which it is recognized and its reader."""
    if name == "fashion_mnist":
        yield "train-images-idx3-ubyte", _read_idx_files
        yield "train-images-idx3-ubyte.gz", _read_idx_files
    else:
        yield "data_batch_1.bin", _read_batches
    yield f"{name}.npz", lambda folder: _read_npz(folder / f"{name}.npz")


# File formats


def _read_npz(file: Path | BinaryIO) -> _Official:
    # NumPy would leave the file of a path open if the file is no archive.
    opened = file.open("rb") if isinstance(file, Path) else nullcontext(file)
    with opened as content:
        return _read_archive(np.load(content, allow_pickle=False))


def _read_archive(archive: object) -> _Official:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("it holds a single array")
    with archive:
        missing = [key for key in _KEYS if key not in archive]
        if missing:
            present = ", ".join(archive) or "nothing"
            raise ValueError(f"it lacks {', '.join(missing)} and has {present}")
        return _Official(*(archive[key] for key in _KEYS))


def _read_idx_files(folder: Path) -> _Official:
    kinds = ("images-idx3", "labels-idx1")
    paths = [folder / f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in kinds]
    return _Official(*(_read_idx(path) for path in paths))


def _read_idx(path: Path) -> np.ndarray:
    if path.exists():
        content = path.read_bytes()
    else:
        content = gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
    # An idx file has two zeros, the type (8 is uint8), the rank, the sizes and then the values.
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not an idx file of bytes")
    rank = content[3]
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", rank, offset=4))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if len(values) != prod(shape):
        raise ValueError(f"{path.name} has {len(values)} values and announces {prod(shape)}")
    return values.reshape(shape)


def _read_batches(folder: Path) -> _Official:
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    *train, test = (_read_batch(folder / name) for name in names)
    return _Official(*map(np.concatenate, zip(*train, strict=True)), *test)


def _read_batch(path: Path) -> Arrays:
    rows = np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]


# Checking


def _checked(official: _Official) -> _Official:
    """Return the arrays with labels of shape (n,), or say what is wrong with them."""
    x_train, y_train, x_test, y_test = official
    _check_inputs("x_train", x_train)
    _check_inputs("x_test", x_test)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"x_train and x_test differ in the shape of an example: {x_train.shape[1:]} and "
            f"{x_test.shape[1:]}"
        )
    y_train = _labels("y_train", y_train, len(x_train))
    y_test = _labels("y_test", y_test, len(x_test))
    classes = np.unique(y_train)
    if not np.array_equal(classes, np.arange(len(classes))):
        raise ValueError(f"the labels in y_train must be 0, 1, 2, ... without a gap, not {classes}")
    if not np.isin(y_test, classes).all():
        raise ValueError("y_test has labels that y_train lacks")
    return _Official(x_train, y_train, x_test, y_test)


def _check_inputs(key: str, x: np.ndarray) -> None:
    if x.ndim not in (2, 3, 4) or x.size == 0:
        shapes = "(n, height, width[, channels]) or (n, features)"
        raise ValueError(f"{key} must have the shape {shapes}, not {x.shape}")
    if x.dtype == np.uint8:
        return
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"{key} must be uint8 or floats in [0, 1], not {x.dtype}")
    # NaN fails this comparison too.
    if not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"{key} must be in [0, 1] without NaN, not in [{x.min()}, {x.max()}]")


def _labels(key: str, y: np.ndarray, count: int) -> np.ndarray:
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{key} must be integers, not {y.dtype}")
    if y.shape not in ((count,), (count, 1)):
        raise ValueError(f"{key} must be one label for each of {count} examples, not {y.shape}")
    return y.reshape(count)
