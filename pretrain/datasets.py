"""Datasets by name, each split into training, validation and test examples by a seed."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pretrain.checks import positive
from pretrain.readers import (
    EXPECTED,
    Official,
    is_readable,
    read,
    read_cifar,
    read_covertype,
    read_idx,
    read_npz,
    read_photographs,
)
from pretrain.seeds import derive

Arrays = tuple[np.ndarray, np.ndarray]

NAMES = ("mnist", "digits", "fashion_mnist", "cifar10", "covertype", "photographs")

_MNIST = files("pretrain") / "data" / "mnist.npz"
_MNIST_SHA256 = "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64"
_DEBIAN = Path("/usr/share/datasets")
# What tells the published contents from others: SHA-256 of the idx files as they are published,
# unpacked, in the order of `Official`; examples of each class, as the authors count them.
_PUBLISHED = {
    "fashion_mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "covertype": (211_840, 283_301, 35_754, 2_747, 9_493, 17_367, 20_510),
    "photographs": ("808ef4abff4ec380c38ef82e84fdf733f9c65f8acafdbdf6597497d9fe30757c",),
}
_HOW_TO_GET = {
    "fashion_mnist": "Download the four files of https://github.com/zalandoresearch/fashion-mnist "
    "and pass their folder as `folder`; on Debian, `apt install dataset-fashion-mnist`.",
    "cifar10": "Download and unpack the binary version from "
    "https://www.cs.toronto.edu/~kriz/cifar.html and pass its folder as `folder`. The Python "
    "version is pickled, and a pickle can run any code.",
    "covertype": "Download https://archive.ics.uci.edu/dataset/31/covertype and pass the folder of "
    "covtype.data.gz as `folder`.",
    "photographs": "Download the wheel of scikit-image 0.16.2 from https://pypi.org, unpack it as "
    "a zip file, and pass its folder skimage/data as `folder`.",
}
# Datasets that come with no package, for which `load` takes a `folder`.
TO_BE_FOUND = tuple(_HOW_TO_GET)
_COVERTYPE_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/covtype/covtype.data.gz"


class Dataset(NamedTuple):
    """A dataset, split into three pairs of arrays `(x, y)`.

    Example:

    >>> from pretrain import datasets
    >>> data = datasets.load("mnist", train_size=100, validation_size=50)
    >>> [len(x) for x, _ in (data.train, data.validation, data.test)]
    [100, 50, 10000]

    Attributes:
        name: Name of the dataset, as `fingerprint` returns it.
        train: Training examples. x is float32, images of shape `(n, height, width, channels)` in
            [0, 1] or a table of shape `(n, features)`; y is int64 in [0, classes), of shape `(n,)`.
        validation: Validation examples, which are taken from the official training set and are
            disjoint from `train`.
        test: The official test set, in its order.
        classes: Number of classes of the whole dataset; a small `train` may lack some classes.
        class_names: What the classes are called, if the labels are text or names of folders.
        unlabeled: Inputs without labels, like those of `train`, if there are any.
    """

    name: str
    train: Arrays
    validation: Arrays
    test: Arrays
    classes: int
    class_names: tuple[str, ...] = ()
    unlabeled: np.ndarray | None = None

    def __repr__(self) -> str:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        shapes = ", ".join(f"{name} {x.shape}" for name, (x, _) in parts.items())
        return f"<Dataset {self.name}, {self.classes} classes: {shapes}>"


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
    `train_size`. Of a dataset without an official test set, a fifth of the examples, the same for
    every seed, is the test set.

    Pixels are divided by 255: values of type uint8, images of integers, and integers that range
    from 0 to 255. Other tables stay as they are. Labels are integers 0, 1, 2, ..., one-hot rows, or
    text, of which `class_names` tells the order.

    Example:

    >>> from pretrain import datasets
    >>> data = datasets.load("mnist", train_size=1_000)
    >>> x, y = data.train
    >>> x.shape, y.shape, data.classes
    ((1000, 28, 28, 1), (1000,), 10)

    Args:
        name: `"mnist"` (inside this package), `"digits"` (from scikit-learn), `"fashion_mnist"`,
            `"cifar10"`, `"covertype"` (a table of forest land, columns scaled to [0, 1]),
            `"photographs"` (gray crops of 28 x 28 pixels of photographs that were never compressed
            with loss; the test set is of other photographs), or a path. A `.npz` file has the keys
            of Keras's mnist.npz: `x_train` and `x_test` of shape `(n, height, width[, channels])`
            or `(n, features)`, `y_train` and `y_test`. A `.csv` or `.csv.gz` file has a header and
            a column of labels, named `label`, `class`, `target` or `y`. A folder has four idx
            files, plain or `.gz`, such as those of EMNIST; or a folder of images for each class,
            or such folders within `train` and `test`.
        train_size: Number of training examples, at least 1. `None`: all examples of the official
            training set that are not for validation.
        validation_size: Number of validation examples, at least 1. `None`: a fifth of the official
            training set, at most 10,000.
        seed: Integer. The seed and the dataset determine which examples are for training and which
            for validation.
        folder: A folder with `"fashion_mnist"` (the four idx files, plain or .gz), `"cifar10"` (the
            batches of the binary version), `"covertype"` (covtype.data, plain or .gz, or
            covtype.csv), `"photographs"` (the .png files of scikit-image 0.16.2) or a
            `<name>.npz`, in the folder itself or in a subfolder. Only if the dataset is not there,
            Keras's cache, Debian's package and Keras's download are tried. Other data are not taken
            for Fashion-MNIST, Covertype or the photographs.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If the name is unknown, the dataset is too small or the file is no dataset. A
            pickle is refused.
        FileNotFoundError: If the file does not exist, or the dataset is not found anywhere.
        ImportError: If scikit-learn, which has the digits, is not installed.
    """
    title = fingerprint(name)
    return _dataset(title, _official(name, folder), train_size, validation_size, seed)


def from_arrays(
    x: ArrayLike,
    y: ArrayLike,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    train_size: int | None = None,
    validation_size: int | None = None,
    seed: int = 0,
    name: str = "arrays",
) -> Dataset:
    """Split arrays into training, validation and test examples.

    Example:

    >>> import numpy as np
    >>> from pretrain import datasets
    >>> x, y = np.random.RandomState(0).normal(size=(100, 3)), np.arange(100) % 2
    >>> own = datasets.from_arrays(x, y)
    >>> [len(examples) for examples, _ in (own.train, own.validation, own.test)]
    [64, 16, 20]

    Args:
        x: Examples, of shape `(n, height, width[, channels])` or `(n, features)`, as for `load`.
        y: Labels, as for `load`.
        test: Test examples and their labels; `None` makes a fifth of the examples, the same for
            every seed, the test set.
        train_size: As for `load`.
        validation_size: As for `load`.
        seed: As for `load`.
        name: Beginning of the dataset's name, which ends in a hash of the arrays.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If the arrays are no dataset, or there are too few examples.
    """
    arrays = [np.asarray(values) for values in (x, y, *(test or ()))]
    try:
        official = _checked(Official(*arrays))
    except ValueError as error:
        raise ValueError(
            f"The arrays are not a dataset: {error}. Received: name={name!r}"
        ) from error
    digest = hashlib.sha256()
    for values in filter(lambda each: each is not None, official):
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    title = f"{name}-{digest.hexdigest()[:12]}"
    return _dataset(title, official, train_size, validation_size, seed)


def fingerprint(name: str | os.PathLike) -> str:
    """Return a name for the content of a dataset, which does not depend on where the dataset lies.

    Example:

    >>> from pretrain import datasets
    >>> datasets.fingerprint("mnist")
    'mnist'

    Args:
        name: As for `load`.

    Returns:
        A built-in name as it is; for a file or a folder, `<stem>-<first 12 hexadecimal digits of
        the SHA-256 of its content>`.

    Raises:
        ValueError: If the name is unknown.
        FileNotFoundError: If the file does not exist.
    """
    if name in NAMES:
        return str(name)
    path = _own_path(name)
    if path.is_file():
        return f"{path.name.partition('.')[0]}-{_digest_of_file(path)[:12]}"
    lines = (
        f"{_digest_of_file(each)} {each.relative_to(path).as_posix()}\n"
        for each in sorted(path.rglob("*"))
        if each.is_file()
    )
    return f"{path.name}-{hashlib.sha256(''.join(lines).encode()).hexdigest()[:12]}"


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_path(name: str | os.PathLike) -> Path:
    path = Path(name).expanduser() if name and isinstance(name, str | os.PathLike) else None
    if path and path.is_dir():
        return path
    if not path or not is_readable(path):
        raise ValueError(
            f"A dataset is one of {', '.join(NAMES)}, or the path of {EXPECTED}. "
            f"Received: name={name!r}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no such file. Received: name={os.fspath(name)!r}")
    return path


def _official(name: str | os.PathLike, folder: str | os.PathLike | None) -> Official:
    if name in _HOW_TO_GET:
        return _find(str(name), folder)
    if folder is not None:
        raise ValueError(
            f"`folder` is for {', '.join(TO_BE_FOUND)} only. "
            f"Received: name={name!r}, folder={folder!r}"
        )
    if name in NAMES:
        return _mnist() if name == "mnist" else _digits()
    return _read_own(_own_path(name))


# Splitting


def _dataset(
    title: str, official: Official, train_size: int | None, validation_size: int | None, seed: int
) -> Dataset:
    if official.x_test is None:
        official = _with_test_set(title, official)
    x_train, y_train, x_test, y_test = official
    names = tuple(map(str, np.unique(y_train))) if y_train.dtype.kind == "U" else ()
    if names:
        y_train, y_test = (np.searchsorted(names, y) for y in (y_train, y_test))
    parts = split(title, len(x_train), train_size, validation_size, seed)
    scale = np.float32(255 if _are_pixels(x_train) else 1)
    return Dataset(
        title,
        *(_examples(x_train[part], y_train[part], scale) for part in parts),
        _examples(x_test, y_test, scale),
        int(y_train.max()) + 1,
        names,
    )


def _with_test_set(title: str, official: Official) -> Official:
    x, y, *_ = official
    order = _permutation(len(x), "split", title, "test")
    test, train = np.split(order, [len(x) // 5])
    return Official(x[train], y[train], x[test], y[test])


def split(
    name: str, count: int, train_size: int | None, validation_size: int | None, seed: int
) -> Arrays:
    """Return the indices of training and validation examples, the two ends of a permutation.

    Args:
        name: Name of the data, on which the permutation depends.
        count: Number of examples that are not for the test.
        train_size: As for `load`.
        validation_size: As for `load`.
        seed: As for `load`.

    Raises:
        ValueError: If there are too few examples.
    """
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


def _are_pixels(x: np.ndarray) -> bool:
    if not np.issubdtype(x.dtype, np.integer) or x.min() < 0 or x.max() > 255:
        return False
    return x.dtype == np.uint8 or x.ndim > 2 or x.max() == 255


def _examples(x: np.ndarray, y: np.ndarray, scale: np.float32) -> Arrays:
    images = x[..., np.newaxis] if x.ndim == 3 else x
    return images.astype(np.float32) / scale, y.astype(np.int64)


# Datasets that are at hand


def _mnist() -> Official:
    content = _MNIST.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != _MNIST_SHA256:
        pointer = content.startswith(b"version https://git-lfs")
        cause = "is a git-lfs pointer (`git lfs pull` fetches it)" if pointer else "is damaged"
        raise ValueError(
            f"The package's mnist.npz {cause}; reinstall the package. Expected the SHA-256 "
            f"{_MNIST_SHA256}. Received: sha256={digest}"
        )
    return read_npz(io.BytesIO(content))


def _digits() -> Official:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is not installed. Expected "
            "`pip install \"pretrain[sklearn]\"`. Received: name='digits'"
        ) from error
    digits = load_digits()
    return Official(digits.images / 16, digits.target)


def _read_own(path: Path) -> Official:
    try:
        return _checked(read(path))
    # A damaged archive can raise any exception.
    except Exception as error:
        raise ValueError(
            f"The file is not a dataset: {error}. Expected {EXPECTED}. "
            f"Received: name={os.fspath(path)!r}"
        ) from error


# Datasets that have to be found


def _find(name: str, folder: str | os.PathLike | None) -> Official:
    failures = []
    for place, reader in _places(name, folder):
        try:
            return _as_published(name, reader())
        # Keras raises an Exception when a download fails, and a damaged file can raise any.
        except Exception as error:
            failures.append(f"- {place}: {error}")
    listed = "\n".join(failures)
    raise FileNotFoundError(
        f"No usable copy of {name} was found in any of these places:\n{listed}\n"
        f"{_HOW_TO_GET[name]} Received: name={name!r}, folder={folder!r}"
    )


def _as_published(name: str, official: Official) -> Official:
    """Refuse other data that have the name of a known dataset."""
    expected, x = _PUBLISHED.get(name), official.x_train
    if expected and _mark(name, official) != expected:
        raise ValueError(
            f"its contents are not those that were published as {name}. Data of your own are "
            f"loaded by the path of their file or folder: load(PATH). Received: x_train of "
            f"{x.dtype} and shape {x.shape}"
        )
    return official


def _mark(name: str, official: Official) -> tuple:
    if name == "covertype":
        return tuple(np.bincount(official.y_train).tolist())
    if name == "photographs":
        return (hashlib.sha256(official.x_train.tobytes() + official.x_test.tobytes()).hexdigest(),)
    return tuple(map(_digest_of_idx, official))


def _digest_of_idx(values: np.ndarray) -> str:
    """The SHA-256 of an idx file with these values."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return hashlib.sha256(header + values.astype(np.uint8).tobytes()).hexdigest()


def _places(
    name: str, folder: str | os.PathLike | None
) -> Iterator[tuple[str, Callable[[], Official]]]:
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
    if name != "photographs":
        yield "Keras's download", partial(_download, name)


def _download(name: str) -> Official:
    keras = import_module("keras")
    if name == "covertype":
        return _checked(read_covertype(Path(keras.utils.get_file(origin=_COVERTYPE_URL))))
    train, test = getattr(keras.datasets, name).load_data()
    official = Official(*train, *test)
    if official.x_train.ndim == 4 and keras.config.image_data_format() == "channels_first":
        official = official._replace(
            x_train=np.moveaxis(official.x_train, 1, -1), x_test=np.moveaxis(official.x_test, 1, -1)
        )
    return _checked(official)


def _read_folder(name: str, folder: Path) -> Official:
    if not folder.is_dir():
        raise FileNotFoundError("no such folder")
    # MNIST has files of the same names as Fashion-MNIST, which may lie in a folder nearby.
    subfolders = folder.glob("*[Ff]ashion*/" if name == "fashion_mnist" else "*/")
    for place in (folder, *sorted(subfolders)):
        for first, reader in _formats(name):
            if (place / first).is_file():
                return _checked(reader(place))
    expected = ", ".join(first for first, _ in _formats(name))
    raise FileNotFoundError(f"none of {expected} is in it or in a subfolder")


def _formats(name: str) -> Iterator[tuple[str, Callable[[Path], Official]]]:
    """Yield, for each format, the file by which it is recognized and its reader."""
    if name == "fashion_mnist":
        yield "train-images-idx3-ubyte", read_idx
        yield "train-images-idx3-ubyte.gz", read_idx
    elif name == "covertype":
        for file in ("covtype.data.gz", "covtype.data", "covtype.csv"):
            yield file, partial(_read_covertype, file)
    elif name == "photographs":
        yield "astronaut.png", read_photographs
    else:
        yield "data_batch_1.bin", read_cifar
    yield f"{name}.npz", lambda folder: read_npz(folder / f"{name}.npz")


def _read_covertype(file: str, folder: Path) -> Official:
    return read_covertype(folder / file)


# Checking


def _checked(official: Official) -> Official:
    """Return the arrays with labels of shape (n,), or say what is wrong with them."""
    x_train, y_train, x_test, y_test = official
    _check_inputs("x_train", x_train)
    y_train = _labels("y_train", y_train, len(x_train))
    classes = np.unique(y_train)
    if y_train.dtype.kind != "U" and not np.array_equal(classes, np.arange(len(classes))):
        raise ValueError(
            "the labels in y_train must be 0, 1, 2, ... without a gap, or text, not "
            f"{np.array2string(classes, threshold=20)}"
        )
    if x_test is None:
        return Official(x_train, y_train)
    _check_inputs("x_test", x_test)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"x_train and x_test differ in the shape of an example: {x_train.shape[1:]} and "
            f"{x_test.shape[1:]}"
        )
    if x_train.dtype.kind != x_test.dtype.kind:
        raise ValueError(
            f"x_train and x_test differ in their type: {x_train.dtype} and {x_test.dtype}"
        )
    y_test = _labels("y_test", y_test, len(x_test))
    if not np.isin(y_test, classes).all():
        raise ValueError("y_test has labels that y_train lacks")
    return Official(x_train, y_train, x_test, y_test)


def _check_inputs(key: str, x: np.ndarray) -> None:
    if x.ndim not in (2, 3, 4) or x.size == 0:
        shapes = "(n, height, width[, channels]) or (n, features)"
        raise ValueError(f"{key} must have the shape {shapes}, not {x.shape}")
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{key} must be numbers, not {x.dtype}")
    if not np.isfinite(x).all():
        raise ValueError(f"{key} must be without NaN and infinite values")
    if x.ndim > 2 and not _are_pixels(x) and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"images in {key} must be in [0, 1], or integers in [0, 255] such as uint8, not "
            f"{x.dtype} in [{x.min()}, {x.max()}]"
        )


def _labels(key: str, y: np.ndarray, count: int) -> np.ndarray:
    if y.dtype.kind == "O" and all(isinstance(label, str) for label in y.ravel()):
        y = y.astype(str)
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf" and _is_one_hot(y):
        y = y.argmax(axis=1)
    if y.dtype.kind not in "biuU":
        raise ValueError(
            f"the labels in {key} must be integers, one-hot rows or text, not {y.dtype}"
        )
    if y.shape not in ((count,), (count, 1)):
        raise ValueError(f"{key} must be one label for each of {count} examples, not {y.shape}")
    return y.reshape(count)


def _is_one_hot(y: np.ndarray) -> bool:
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())
