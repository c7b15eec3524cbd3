"""Readers of the files in which people have datasets: arrays as they are on disk, not yet checked.

No pickle is ever read, since a pickle can run any code.
"""

import gzip
from collections.abc import Iterator
from contextlib import nullcontext
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

KEYS = ("x_train", "y_train", "x_test", "y_test")
EXPECTED = (
    "a .npz file with the keys x_train, y_train, x_test and y_test, or x and y; a .csv file with a "
    "header and a column of labels; a folder of idx files; or a folder with a folder of images for "
    "each class"
)
_LABELS = ("label", "class", "target", "y")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")
_CIFAR = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
# Photographs of scikit-image, and the side of a crop, in pixels: that of a digit of MNIST.
_FOR_TRAINING = (
    *("astronaut", "brick", "camera", "cell", "coffee"),
    *("grass", "gravel", "ihc", "moon"),
)
_FOR_TESTING = ("chelsea", "clock_motion", "coins", "motorcycle_left")
_CROP = 28
_CONVERT = """\
a pickle can run any code, so that no pickle is read. If you trust the file, convert it once:

    import pickle, numpy as np  # and gzip.open for a .gz file
    with open("mine.pkl", "rb") as file:
        content = pickle.load(file)
    np.savez("mine.npz", x_train=..., y_train=..., x_test=..., y_test=...)
"""


class Official(NamedTuple):
    """Arrays as a dataset is published; `x_test` is `None` if it has no test set."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None


def read(path: Path, target: str | None = None) -> Official:
    """Read the file or the folder of a user; `target` is the column of a table's labels."""
    if path.is_dir():
        return _read_folder(path)
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    if suffixes & {".pkl", ".pickle", ".p"}:
        raise ValueError(_CONVERT)
    if ".csv" in suffixes:
        return _read_csv(path, target)
    return read_npz(path)


def read_inputs(path: Path) -> np.ndarray:
    """Read examples without labels: a `.npz` file with `x`, a table, or a folder of images."""
    if path.is_dir():
        return np.stack([_read_image(each) for each in sorted(path.iterdir()) if _is_image(each)])
    if ".csv" in path.suffixes[-2:]:
        import pandas as pd

        return _numbers(pd.read_csv(path))
    with np.load(path, allow_pickle=False) as archive:
        return archive["x"]


def is_readable(path: Path) -> bool:
    """Whether the name of a path is that of a file which `read` knows or knows to refuse."""
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    return bool(suffixes & {".npz", ".csv", ".pkl", ".pickle", ".p"})


def read_npz(file: Path | BinaryIO) -> Official:
    # NumPy would leave the file of a path open if the file is no archive.
    opened = file.open("rb") if isinstance(file, Path) else nullcontext(file)
    with opened as content:
        return _read_archive(np.load(content, allow_pickle=False))


def _read_archive(archive: object) -> Official:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("it holds a single array")
    with archive:
        if {"x", "y"} == set(archive):
            return Official(archive["x"], archive["y"])
        missing = [key for key in KEYS if key not in archive]
        if missing:
            present = ", ".join(archive) or "nothing"
            raise ValueError(f"it lacks {', '.join(missing)} and has {present}")
        return Official(*(archive[key] for key in KEYS))


def _read_csv(path: Path, target: str | None) -> Official:
    """A table with a header, in which one column has the labels; a table has no test set."""
    import pandas as pd

    table = pd.read_csv(path)
    wanted = _LABELS if target is None else (target.strip().lower(),)
    found = [column for column in table if str(column).strip().lower() in wanted]
    if len(found) != 1:
        raise ValueError(
            f"a table must have a header and one column of labels, which is named "
            f"{' or '.join(wanted)}; this table has {len(found)} of them "
            f"among {_shortened(table.columns)}"
        )
    return Official(_numbers(table.drop(columns=found)), table[found[0]].to_numpy())


def _numbers(x: Any) -> np.ndarray:
    """The values of a table, all of which must be numbers."""
    import pandas as pd

    text = [column for column in x if not pd.api.types.is_numeric_dtype(x[column])]
    gaps = x.columns[x.isna().any()]
    if text:
        raise ValueError(f"columns must be numbers; these are not: {_shortened(text)}")
    if len(gaps):
        raise ValueError(f"values are missing in these columns: {_shortened(gaps)}")
    return x.to_numpy()


def read_covertype(path: Path) -> Official:
    """The table of Covertype (Blackard 1998), with a header or without, plain or .gz.

    Ten columns are measured in units of their own, and are brought to [0, 1] by their least and
    greatest values; the others are 0 or 1.
    """
    return _read_covertype(path, path.stat().st_mtime_ns)


# A study reads the table for every seed, and half a million rows of text take seconds.
@lru_cache(maxsize=1)
def _read_covertype(path: Path, changed: int) -> Official:
    import pandas as pd

    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        has_header = not file.read(1).isdigit()
    table = pd.read_csv(path, header=0 if has_header else None).to_numpy()
    if table.shape[1:] != (55,) or table.dtype.kind not in "iu":
        raise ValueError(f"expected 55 columns of integers, not {table.dtype} of {table.shape}")
    x, y = table[:, :-1].astype("float32"), table[:, -1]
    low, high = x.min(axis=0), x.max(axis=0)
    return Official((x - low) / np.maximum(high - low, 1), y - 1)


def _shortened(names) -> str:
    shown = [str(name) for name in names[:5]]
    more = f" and {len(names) - 5} others" if len(names) > 5 else ""
    return f"{', '.join(shown)}{more}"


def _read_folder(folder: Path) -> Official:
    if any(folder.glob("*idx3-ubyte*")):
        return read_idx(folder)
    if any(folder.glob("*/*")):
        return _read_images(folder)
    raise ValueError("the folder has neither idx files nor a folder of images for each class")


def read_idx(folder: Path) -> Official:
    """Four idx files, plain or .gz, such as those of MNIST, Fashion-MNIST and EMNIST."""
    tests = "t10k" if any(folder.glob("*t10k*")) else "test"
    wanted = [
        f"{split}-{kind}-ubyte"
        for split in ("train", tests)
        for kind in ("images-idx3", "labels-idx1")
    ]
    return Official(*(_read_idx_file(_the_file(folder, name)) for name in wanted))


def _the_file(folder: Path, name: str) -> Path:
    """The file of a name, which may stand behind the name of the dataset."""
    plain = sorted(folder.glob(f"*{name}")) or sorted(folder.glob(f"*{name}.gz"))
    if len(plain) != 1:
        raise FileNotFoundError(f"expected one file *{name}[.gz], and found {len(plain)}")
    return plain[0]


def _read_idx_file(path: Path) -> np.ndarray:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    # An idx file has two zeros, the type (8 is uint8), the rank, the sizes and then the values.
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not an idx file of bytes")
    rank = content[3]
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", rank, offset=4))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if len(values) != prod(shape):
        raise ValueError(f"{path.name} has {len(values)} values and announces {prod(shape)}")
    return values.reshape(shape)


def _read_images(folder: Path) -> Official:
    """A folder for each class, or such folders within `train` and `test`."""
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return Official(*_images_of(folder / "train"), *_images_of(folder / "test"))
    return Official(*_images_of(folder))


def _images_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    found = list(_image_files(folder))
    if not found:
        raise ValueError(f"{folder.name} has no images in folders ({', '.join(_IMAGES)})")
    images = [_read_image(path) for path in found]
    if len({image.ndim for image in images}) > 1:
        # Gray images among color images.
        images = [image if image.ndim == 3 else np.stack([image] * 3, -1) for image in images]
    for path, image in zip(found, images, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(
                f"all images must be of one size, and {found[0].name} is {images[0].shape[:2]} "
                f"where {path.name} is {image.shape[:2]}"
            )
    return np.stack(images), np.array([path.parent.name for path in found])


def _image_files(folder: Path) -> Iterator[Path]:
    return filter(_is_image, sorted(folder.glob("*/*")))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _IMAGES


def _read_image(path: Path) -> np.ndarray:
    """A gray image (height, width) or a color image (height, width, 3) of uint8."""
    from PIL import Image

    with Image.open(path) as image:
        if image.mode[0] in "IF":
            raise ValueError(f"images must have 8 bits per channel, and {path.name} has more")
        return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def read_photographs(folder: Path) -> Official:
    """Gray crops of photographs of scikit-image 0.16.2, which have no classes: all labels are 0.

    Crops for training overlap by half. Crops for testing are of other photographs and do not
    overlap.
    """
    train, test = _crops(folder, _FOR_TRAINING, _CROP // 2), _crops(folder, _FOR_TESTING, _CROP)
    return Official(train, np.zeros(len(train), int), test, np.zeros(len(test), int))


def _crops(folder: Path, names: tuple[str, ...], step: int) -> np.ndarray:
    from PIL import Image

    crops = []
    for name in names:
        with Image.open(folder / f"{name}.png") as image:
            pixels = np.asarray(image.convert("L"))
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (_CROP, _CROP))
        crops.append(windows[::step, ::step].reshape(-1, _CROP, _CROP))
    return np.concatenate(crops)


def read_cifar(folder: Path) -> Official:
    """The binary version of CIFAR-10."""
    *train, test = (_read_cifar_batch(folder / name) for name in _CIFAR)
    return Official(*map(np.concatenate, zip(*train, strict=True)), *test)


def _read_cifar_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]
