import gzip
import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pretrain import datasets
from pretrain.datasets import fingerprint, from_arrays, load


def rows(x):
    """The examples as a set, to ask who is in it."""
    return {example.tobytes() for example in x}


@pytest.fixture(scope="module")
def mnist():
    return load("mnist")


@pytest.fixture
def arrays():
    """60 + 20 distinct images of 3 classes."""
    generator = np.random.default_rng(0)
    return {
        "x_train": generator.integers(0, 256, (60, 5, 4), dtype=np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": generator.integers(0, 256, (20, 5, 4), dtype=np.uint8),
        "y_test": np.arange(20) % 3,
    }


@pytest.fixture
def save(tmp_path):
    def write(arrays, name="own.npz"):
        path = tmp_path / name
        np.savez(path, **arrays)
        return path

    return write


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Nothing in Keras's cache, no Debian package, no network. Returns where the cache would be."""
    import keras

    def refuse(**_):
        raise OSError("the network is unplugged")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(datasets, "_DEBIAN", tmp_path / "debian")
    # The arrays of these tests stand for the published ones.
    monkeypatch.setattr(datasets, "_PUBLISHED", {})
    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", refuse)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", refuse)
    monkeypatch.setattr(keras.utils, "get_file", refuse)
    return tmp_path / "keras" / "datasets"


# MNIST and the split


def test_mnist_is_the_official_one(mnist):
    shapes = [part[0].shape for part in (mnist.train, mnist.validation, mnist.test)]
    assert shapes == [(50_000, 28, 28, 1), (10_000, 28, 28, 1), (10_000, 28, 28, 1)]
    assert (mnist.name, mnist.classes) == ("mnist", 10)
    # The published class counts, and the first ten test labels in their order.
    labels = np.concatenate([mnist.train[1], mnist.validation[1]])
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels).tolist() == counts
    assert mnist.test[1][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_a_dataset_shows_shapes_instead_of_values(mnist):
    assert repr(mnist) == (
        "<Dataset mnist, 10 classes: train (50000, 28, 28, 1), validation (10000, 28, 28, 1), "
        "test (10000, 28, 28, 1)>"
    )


def test_values_are_what_they_promise(mnist):
    for x, y in (mnist.train, mnist.validation, mnist.test):
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert (x.min(), x.max()) == (0, 1)
        assert y.shape == (len(x),)


def test_images_keep_their_labels(arrays, save):
    arrays["x_train"][:, 0, 0] = arrays["y_train"]
    arrays["x_test"][:, 0, 0] = arrays["y_test"]
    for x, y in load(save(arrays))[1:4]:
        np.testing.assert_allclose(x[:, 0, 0, 0] * 255, y, rtol=1e-6)


def test_the_split_is_a_permutation_of_the_training_set(arrays, save):
    path = save(arrays)
    own = load(path)
    assert (len(own.train[0]), len(own.validation[0])) == (48, 12)
    everybody = rows(arrays["x_train"][..., np.newaxis].astype(np.float32) / np.float32(255))
    assert len(everybody) == 60
    assert rows(own.train[0]) | rows(own.validation[0]) == everybody
    expected = arrays["x_test"][..., np.newaxis].astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(own.test[0], expected)


def test_smaller_training_sets_are_the_beginning_of_larger_ones(arrays, save):
    path = save(arrays)
    large, small = load(path, train_size=40), load(path, train_size=7)
    np.testing.assert_array_equal(small.train[0], large.train[0][:7])
    np.testing.assert_array_equal(small.train[1], large.train[1][:7])
    np.testing.assert_array_equal(small.validation[0], large.validation[0])


def test_training_does_not_depend_on_the_validation_size(arrays, save):
    path = save(arrays)
    few, many = load(path, 20, validation_size=5), load(path, 20, validation_size=40)
    np.testing.assert_array_equal(few.train[0], many.train[0])
    assert rows(few.validation[0]) < rows(many.validation[0])
    assert not rows(many.train[0]) & rows(many.validation[0])


def test_the_seed_decides_the_split_and_leaves_the_test_set(arrays, save):
    path = save(arrays)
    one, same, other = load(path, seed=1), load(path, seed=1), load(path, seed=2)
    np.testing.assert_array_equal(one.train[0], same.train[0])
    assert rows(one.validation[0]) != rows(other.validation[0])
    np.testing.assert_array_equal(one.test[0], other.test[0])


def test_the_split_is_pinned(mnist):
    # Released splits never change.
    assert mnist.train[1][:12].tolist() == [7, 7, 3, 3, 5, 5, 4, 0, 4, 8, 5, 2]
    assert mnist.validation[1][:12].tolist() == [0, 1, 5, 2, 9, 1, 1, 7, 7, 8, 7, 9]


def test_validation_is_at_most_ten_thousand(save):
    x, y = np.zeros((60_000, 1), np.uint8), np.zeros(60_000, int)
    own = load(save({"x_train": x, "y_train": y, "x_test": x[:1], "y_test": y[:1]}))
    assert (len(own.train[0]), len(own.validation[0])) == (50_000, 10_000)


@pytest.mark.parametrize("argument", ["train_size", "validation_size"])
@pytest.mark.parametrize("value", [0, -5, 2.5, "10", True])
def test_sizes_are_positive_integers(arrays, save, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be .*Received: {argument}="):
        load(save(arrays), **{argument: value})


@pytest.mark.parametrize("sizes", [(49, None), (50, 11), (None, 60), (61, 1)])
def test_sizes_must_be_there(arrays, save, sizes):
    with pytest.raises(ValueError, match=rf"has 60 examples.*train_size={sizes[0]}, validation"):
        load(save(arrays), *sizes)
    assert len(load(save(arrays), 48).train[0]) == 48


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", None])
def test_a_damaged_mnist_is_refused(monkeypatch, tmp_path, content):
    damaged = content or bytearray(datasets._MNIST.read_bytes())
    if content is None:
        damaged[1_000_000] ^= 1
    (tmp_path / "mnist.npz").write_bytes(damaged)
    monkeypatch.setattr(datasets, "_MNIST", tmp_path / "mnist.npz")
    cause = "git-lfs pointer" if content else "damaged"
    with pytest.raises(ValueError, match=f"{cause}.*Received: sha256="):
        load("mnist")


# Digits


def test_digits_have_a_fixed_test_set():
    from sklearn.datasets import load_digits

    one, other = load("digits", seed=0), load("digits", seed=1)
    sizes = [len(part[0]) for part in one[1:4]]
    assert sizes == [1151, 287, 359]
    assert one.train[0].shape[1:] == (8, 8, 1)
    np.testing.assert_array_equal(one.test[0], other.test[0])
    everything = np.concatenate([part[0] for part in one[1:4]])
    official = (load_digits().images / 16).astype(np.float32)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, official))


def test_digits_name_the_extra_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "pretrain\[sklearn\]"'):
        load("digits")


# The user's own file


def test_own_vectors_stay_vectors(arrays, save):
    for key in ("x_train", "x_test"):
        arrays[key] = arrays[key].reshape(len(arrays[key]), -1) / 255
    own = load(save(arrays))
    assert own.train[0].shape == (48, 20)
    assert own.train[0].dtype == np.float32
    np.testing.assert_allclose(own.test[0], arrays["x_test"], atol=1e-7)
    assert own.classes == 3


def test_own_images_keep_their_channels(arrays, save):
    for key in ("x_train", "x_test"):
        arrays[key] = np.repeat(arrays[key][..., np.newaxis], 3, axis=-1)
    arrays["y_train"] = arrays["y_train"][:, np.newaxis].astype(np.uint8)
    own = load(str(save(arrays)))
    assert own.train[0].shape == (48, 5, 4, 3)
    assert own.train[1].shape == (48,)


def test_classes_are_counted_before_the_training_set_is_cut(arrays, save):
    assert load(save(arrays), train_size=1).classes == 3


def change(key, value):
    return lambda arrays: arrays.update({key: value(arrays[key])})


def put(key, index, value, dtype=float):
    def edit(arrays):
        arrays[key] = arrays[key].astype(dtype) / (255 if dtype is float else 1)
        arrays[key][index] = value

    return edit


@pytest.mark.parametrize(
    "spoil, complaint",
    [
        (lambda arrays: arrays.pop("y_test"), "lacks y_test and has x_train, y_train, x_test"),
        (change("y_train", lambda y: y[:-1]), "one label for each of 60 examples, not .59"),
        (change("y_train", lambda y: np.eye(3, dtype=int)[y] + 1), "not .60, 3"),
        (change("y_train", lambda y: y.astype(float)), "y_train must be integers.*not float64"),
        (change("y_train", lambda y: y + 1), r"0, 1, 2, ... without a gap.*not \[1 2 3\]"),
        (change("y_train", lambda y: y - 1), "without a gap"),
        (change("y_train", lambda y: y * 2), "without a gap"),
        (change("y_test", lambda y: y + 1), "y_test has labels that y_train lacks"),
        (change("x_train", lambda x: 2 * x.astype(int)), "must be in .0, 1., or integers.*int64"),
        (
            change("x_train", lambda x: x.astype(float)),
            "x_train must be in .0, 1..*float64 in .0.0",
        ),
        (put("x_train", (3, 2, 1), np.nan), "x_train must be without NaN"),
        (put("x_test", (3, 2, 1), -0.1), "images in x_test must be in .0, 1."),
        (put("x_test", (3, 2, 1), np.inf), "x_test must be without NaN and infinite"),
        (change("x_test", lambda x: x / 255), "differ in their type: uint8 and float64"),
        (change("x_train", lambda x: x[:, 0, 0]), "x_train must have the shape"),
        (change("x_test", lambda x: x[:0]), "x_test must have the shape"),
        (change("x_test", lambda x: x[:, :3]), "differ in the shape of an example"),
        (change("x_test", lambda x: x.astype(object)), "not a dataset"),
    ],
)
def test_a_bad_file_is_told_what_is_wrong(arrays, save, spoil, complaint):
    spoil(arrays)
    with pytest.raises(ValueError, match=rf"(?s){complaint}.*Expected.*Received: name=.*own\.npz"):
        load(save(arrays))


def test_a_damaged_file_is_refused(arrays, save, tmp_path):
    path = save(arrays)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="not a dataset.*Received: name="):
        load(path)
    with path.open("wb") as file:
        np.save(file, arrays["x_train"])
    with pytest.raises(ValueError, match="single array.*Received: name="):
        load(path)


def test_a_pickle_in_an_npz_is_not_run(arrays, save, tmp_path):
    arrays["x_train"] = np.array([Tripwire(tmp_path)], dtype=object)
    with pytest.raises(ValueError, match="not a dataset"):
        load(save(arrays))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["minst", "", "data.txt", None, 3])
def test_unknown_names_are_answered_with_the_known(name):
    for function in (load, fingerprint):
        with pytest.raises(ValueError, match="mnist, digits, fashion_mnist, cifar10.*name="):
            function(name)


def test_a_missing_file_is_named(tmp_path):
    for function in (load, fingerprint):
        with pytest.raises(FileNotFoundError, match=r"Received: name='.*absent\.npz'"):
            function(tmp_path / "absent.npz")


def test_a_folder_is_not_ignored(tmp_path):
    with pytest.raises(
        ValueError, match="`folder` is for fashion_mnist, cifar10, covertype, photographs only"
    ):
        load("mnist", folder=tmp_path)


def test_the_fingerprint_follows_the_content(arrays, save):
    path = save(arrays)
    moved = path.parent / "elsewhere" / path.name
    moved.parent.mkdir()
    moved.write_bytes(path.read_bytes())
    assert fingerprint(moved) == fingerprint(str(path)) == load(path).name
    stem, digits = fingerprint(path).rsplit("-", 1)
    assert stem == "own" and len(digits) == 12 and set(digits) <= set("0123456789abcdef")
    arrays["y_test"][:2] = arrays["y_test"][1::-1]
    assert fingerprint(save(arrays)) != fingerprint(moved)
    assert fingerprint("cifar10") == "cifar10"


# Formats that people have


def expected_pixels(x):
    return x[..., np.newaxis].astype(np.float32) / np.float32(255)


def check_own(found, arrays):
    """The dataset has the arrays' test set, and its other examples are those for training."""
    np.testing.assert_array_equal(found.test[0], expected_pixels(arrays["x_test"]))
    np.testing.assert_array_equal(found.test[1], arrays["y_test"])
    own = rows(found.train[0]) | rows(found.validation[0])
    assert own == rows(expected_pixels(arrays["x_train"]))


@pytest.mark.parametrize(
    "edit",
    [
        change("y_train", lambda y: np.eye(3)[y]),
        lambda arrays: arrays.update(
            {key: x.astype(np.int64) for key, x in arrays.items() if key[0] == "x"}
        ),
    ],
)
def test_one_hot_labels_and_pixels_of_other_integers_are_read(arrays, save, edit):
    plain = dict(arrays)
    edit(arrays)
    check_own(load(save(arrays)), plain)


def test_a_table_keeps_its_values(arrays, save):
    for key in ("x_train", "x_test"):
        arrays[key] = np.random.default_rng(0).normal(size=(len(arrays[key]), 4)) * 1000
    own = load(save(arrays))
    np.testing.assert_array_equal(own.test[0], arrays["x_test"].astype(np.float32))


def test_text_labels_are_numbered_in_alphabetical_order(arrays, save):
    numbers = arrays["y_test"]
    for key in ("y_train", "y_test"):
        arrays[key] = np.array(["ant", "bee", "cat"])[arrays[key]]
    own = load(save(arrays))
    assert own.class_names == ("ant", "bee", "cat")
    np.testing.assert_array_equal(own.test[1], numbers)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("prefix", ["", "emnist-letters-"])
def test_a_folder_of_idx_files_is_read(tmp_path, arrays, suffix, prefix):
    write_idx(tmp_path / "mine", arrays, suffix)
    for path in (tmp_path / "mine").iterdir():
        path.rename(path.with_name(f"{prefix}{path.name}"))
    found = load(tmp_path / "mine")
    check_own(found, arrays)
    assert found.name.startswith("mine-")


def write_csv(path, header="label,a,b", rows=None):
    rows = rows or [f"{i % 2},{i / 10},{-i}" for i in range(50)]
    path.write_text("\n".join([header, *rows]))
    return path


def test_a_csv_file_is_read_and_a_fifth_is_its_test_set(tmp_path):
    path = write_csv(tmp_path / "own.csv")
    one, other = load(path, seed=1), load(path, seed=2)
    assert [len(examples) for examples, _ in one[1:4]] == [32, 8, 10]
    np.testing.assert_array_equal(one.test[0], other.test[0])
    everything = np.concatenate([x for x, _ in one[1:4]])
    labels = np.concatenate([y for _, y in one[1:4]])
    np.testing.assert_allclose(sorted(everything[:, 0]), np.arange(50) / 10, rtol=1e-6)
    # Rows keep their labels: the second column is minus ten times the first.
    np.testing.assert_array_equal(-everything[:, 1] % 2, labels)


@pytest.mark.parametrize(
    "header, rows, complaint",
    [
        ("a,b,c", None, "one column of labels.*has 0 of them among a, b, c"),
        ("label,Class,c", None, "has 2 of them"),
        ("label,a,b", ["0,red,1", "1,blue,2"] * 5, "must be numbers; these are not: a"),
        ("label,a,b", ["0,1,", "1,2,3"] * 5, "missing in these columns: b"),
    ],
)
def test_a_csv_file_is_told_what_it_lacks(tmp_path, header, rows, complaint):
    with pytest.raises(ValueError, match=rf"(?s){complaint}.*Received: name=.*own\.csv"):
        load(write_csv(tmp_path / "own.csv", header, rows))


def write_images(folder, arrays, sets=("train", "test")):
    from PIL import Image

    for name in sets:
        pairs = zip(arrays[f"x_{name}"], arrays[f"y_{name}"], strict=True)
        for i, (x, y) in enumerate(pairs):
            path = folder / (name if len(sets) > 1 else "") / "abc"[y] / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(path)


def test_a_folder_of_images_by_class_is_read(tmp_path, arrays):
    write_images(tmp_path / "mine", arrays)
    found = load(tmp_path / "mine")
    assert found.class_names == ("a", "b", "c")
    assert rows(found.test[0]) == rows(expected_pixels(arrays["x_test"]))
    by_image = {x.tobytes(): y for x, y in zip(*found.test, strict=True)}
    for x, y in zip(expected_pixels(arrays["x_test"]), arrays["y_test"], strict=True):
        assert by_image[x.tobytes()] == y


def test_images_without_a_test_set_lend_a_fifth_and_colors_stay(tmp_path, arrays):
    arrays["x_train"] = np.repeat(arrays["x_train"][..., np.newaxis], 3, -1)
    write_images(tmp_path / "mine", arrays, sets=("train",))
    found = load(tmp_path / "mine")
    assert [len(x) for x, _ in found[1:4]] == [39, 9, 12]
    assert found.train[0].shape[1:] == (5, 4, 3)


def test_images_of_two_sizes_are_named(tmp_path, arrays):
    from PIL import Image

    write_images(tmp_path / "mine", arrays)
    Image.fromarray(np.zeros((7, 4), np.uint8)).save(tmp_path / "mine" / "train" / "a" / "odd.png")
    with pytest.raises(
        ValueError, match=r"of one size, and 000.png is \(5, 4\).*odd.png is \(7, 4\)"
    ):
        load(tmp_path / "mine")


def test_an_empty_folder_is_no_dataset(tmp_path):
    with pytest.raises(ValueError, match="neither idx files nor a folder of images"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["mnist.pkl.gz", "mine.pickle"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Tripwire(tmp_path)))
    with pytest.raises(ValueError, match=r"(?s)no pickle is read.*np\.savez\(.*x_train"):
        load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_arrays_are_split_like_a_file(arrays, save):
    test = arrays["x_test"], arrays["y_test"]
    own = from_arrays(arrays["x_train"], arrays["y_train"].tolist(), test, name="mine")
    check_own(own, arrays)
    assert own.name.startswith("mine-")
    arrays["x_train"][0, 0, 0] ^= 1
    assert from_arrays(arrays["x_train"], arrays["y_train"], test, name="mine").name != own.name
    with pytest.raises(ValueError, match="one label for each of 60 examples, not .59.*name='mine'"):
        from_arrays(arrays["x_train"], arrays["y_train"][:-1], test, name="mine")


def test_the_fingerprint_of_a_folder_follows_names_and_content(tmp_path, arrays):
    write_images(tmp_path / "mine", arrays)
    (tmp_path / "copy").mkdir()
    write_images(tmp_path / "copy" / "mine", arrays)
    assert fingerprint(tmp_path / "mine") == fingerprint(tmp_path / "copy" / "mine")
    moved = tmp_path / "mine" / "train" / "a" / "000.png"
    moved.rename(moved.parent.parent / "b" / "000.png")
    assert fingerprint(tmp_path / "mine") != fingerprint(tmp_path / "copy" / "mine")


# Fashion-MNIST and CIFAR-10


def write_idx(folder, arrays, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for part, title in (("train", "train"), ("test", "t10k")):
        for kind, values in (("images", arrays[f"x_{part}"]), ("labels", arrays[f"y_{part}"])):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            content = header + values.astype(np.uint8).tobytes()
            path = folder / f"{title}-{kind}-idx{values.ndim}-ubyte{suffix}"
            path.write_bytes(gzip.compress(content) if suffix else content)


@pytest.fixture
def colors():
    """What the CIFAR files hold: five training batches of 4 and a test batch of 6."""
    generator = np.random.default_rng(1)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    sizes = [4, 4, 4, 4, 4, 6]
    return {
        name: (
            generator.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8),
            np.arange(size, dtype=np.uint8) % 4,
        )
        for name, size in zip(names, sizes, strict=True)
    }


def planes(x):
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(len(x), -1)


def write_binary(folder, colors):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (x, y) in colors.items():
        (folder / f"{name}.bin").write_bytes(np.hstack([y[:, np.newaxis], planes(x)]).tobytes())


def check_colors(found, colors):
    x_test, y_test = colors["test_batch"]
    np.testing.assert_array_equal(found.test[0], x_test.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(found.test[1], y_test)
    batches = [colors[f"data_batch_{number}"][0] for number in range(1, 6)]
    expected = np.concatenate(batches).astype(np.float32) / np.float32(255)
    assert rows(found.train[0]) | rows(found.validation[0]) == rows(expected)


def check_gray(found, arrays):
    expected = arrays["x_test"][..., np.newaxis].astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(found.test[0], expected)
    np.testing.assert_array_equal(found.test[1], arrays["y_test"])
    assert (found.name, len(found.train[0]), len(found.validation[0])) == ("fashion_mnist", 48, 12)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("inner", [".", "FashionMNIST"])
def test_reads_idx_files(offline, tmp_path, arrays, suffix, inner):
    write_idx(tmp_path / "mine" / inner, arrays, suffix)
    check_gray(load("fashion_mnist", folder=tmp_path / "mine"), arrays)


def test_mnist_beside_it_is_not_taken_for_fashion_mnist(offline, tmp_path, arrays):
    write_idx(tmp_path / "mine" / "mnist", arrays)
    with pytest.raises(FileNotFoundError, match="No usable copy of fashion_mnist"):
        load("fashion_mnist", folder=tmp_path / "mine")


@pytest.mark.parametrize("inner", [".", "cifar-10"])
def test_reads_cifar_batches(offline, tmp_path, colors, inner):
    write_binary(tmp_path / "mine" / inner, colors)
    check_colors(load("cifar10", folder=str(tmp_path / "mine")), colors)


def test_reads_an_npz_in_the_folder(offline, tmp_path, arrays, save):
    save(arrays, "fashion_mnist.npz")
    check_gray(load("fashion_mnist", folder=tmp_path), arrays)


@pytest.mark.parametrize("inner", [".", "fashion-mnist"])
def test_reads_the_cache_of_keras(offline, arrays, inner):
    write_idx(offline / inner, arrays, ".gz")
    check_gray(load("fashion_mnist"), arrays)


def test_reads_the_package_of_debian(offline, tmp_path, arrays):
    write_idx(tmp_path / "debian" / "fashion-mnist", arrays, ".gz")
    check_gray(load("fashion_mnist"), arrays)


def test_downloads_at_last(offline, monkeypatch, colors):
    import keras

    x, y = colors["data_batch_1"]
    test = colors["test_batch"]
    downloaded = (x, y[:, np.newaxis]), (test[0], test[1][:, np.newaxis])
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: downloaded)
    found = load("cifar10", train_size=3, validation_size=1)
    np.testing.assert_array_equal(found.test[1], test[1])
    assert found.train[0].shape == (3, 32, 32, 3)


def test_other_data_do_not_pass_for_fashion_mnist(offline, tmp_path, monkeypatch, arrays):
    write_idx(tmp_path / "mine", arrays)
    files = [f"{s}-{k}-ubyte" for s in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]
    contents = [(tmp_path / "mine" / name).read_bytes() for name in files]
    published = tuple(hashlib.sha256(content).hexdigest() for content in contents)
    monkeypatch.setattr(datasets, "_PUBLISHED", {"fashion_mnist": published})
    check_gray(load("fashion_mnist", folder=tmp_path / "mine"), arrays)
    for key in arrays:
        other = {**arrays, key: arrays[key][::-1]}
        write_idx(tmp_path / "mine", other)
        message = r"not those that were published as fashion_mnist.*load\(PATH\).*\(60, 5, 4\)"
        with pytest.raises(FileNotFoundError, match=message):
            load("fashion_mnist", folder=tmp_path / "mine")
        check_own(load(tmp_path / "mine"), other)


@pytest.mark.parametrize("file", ["covtype.data.gz", "covtype.data", "covtype.csv"])
def test_covertype_is_scaled_by_column_and_counted(offline, tmp_path, monkeypatch, file):
    random = np.random.RandomState(0)
    measured, binary = random.randint(-50, 4000, (40, 10)), random.randint(0, 2, (40, 44))
    table = np.hstack([measured, binary, np.arange(40)[:, np.newaxis] % 4 + 1])
    names = [f"column {i}" for i in range(55)]
    header = names if file.endswith("csv") else False
    pd.DataFrame(table, columns=names).to_csv(tmp_path / file, index=False, header=header)
    monkeypatch.setitem(datasets._PUBLISHED, "covertype", (40,))
    with pytest.raises(FileNotFoundError, match="not those that were published as covertype"):
        load("covertype", folder=tmp_path)
    monkeypatch.setitem(datasets._PUBLISHED, "covertype", (10, 10, 10, 10))
    found = load("covertype", 20, 5, folder=tmp_path)
    assert (found.classes, found.train[0].shape, found.test[0].shape) == (4, (20, 54), (8, 54))
    low, high = measured.min(axis=0), measured.max(axis=0)
    scaled = np.hstack([(measured - low) / (high - low), binary]).astype("float32")
    rows = {row.tobytes(): label for row, label in zip(scaled, table[:, -1] - 1, strict=True)}
    x, y = (np.concatenate(parts) for parts in zip(*found[1:4], strict=True))
    assert [rows[row.tobytes()] for row in x] == y.tolist()


@pytest.mark.skipif(not datasets._DEBIAN.is_dir(), reason="the package of Debian is not installed")
def test_the_package_of_debian_is_as_published():
    assert load("fashion_mnist").test[1][:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]


def test_the_folder_comes_first(offline, tmp_path, arrays):
    write_idx(offline / "fashion-mnist", arrays, ".gz")
    inverted = {key: 255 - x if key[0] == "x" else x for key, x in arrays.items()}
    write_idx(tmp_path / "mine", inverted)
    check_gray(load("fashion_mnist", folder=tmp_path / "mine"), inverted)


def test_what_is_not_found_lists_the_places(offline, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        load("fashion_mnist", folder=tmp_path / "absent")
    lines = str(caught.value).splitlines()
    assert "fashion_mnist" in lines[0]
    places = [tmp_path / "absent", offline, tmp_path / "debian" / "fashion-mnist", "download"]
    for place, line in zip(places, lines[1:5], strict=True):
        assert str(place) in line
    assert all("no such folder" in line for line in lines[1:4])
    assert "unplugged" in lines[4]
    assert "apt install dataset-fashion-mnist" in lines[5]
    assert lines[-1].endswith(f"Received: name='fashion_mnist', folder={tmp_path / 'absent'!r}")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(
    "spoil, complaint",
    [
        (
            lambda mine: truncate(mine / "t10k-images-idx3-ubyte"),
            "has 395 values and announces 400",
        ),
        (
            lambda mine: (mine / "t10k-images-idx3-ubyte").unlink(),
            "one file .*t10k-images.*found 0",
        ),
        (lambda mine: (mine / "t10k-labels-idx1-ubyte").write_bytes(b"<html>"), "not an idx file"),
    ],
)
def test_damaged_idx_files_are_explained(offline, tmp_path, arrays, spoil, complaint):
    write_idx(tmp_path / "mine", arrays)
    spoil(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match=rf"`folder`, .*mine: .*{complaint}"):
        load("fashion_mnist", folder=tmp_path / "mine")


def test_damaged_cifar_batches_are_explained(offline, tmp_path, colors):
    write_binary(tmp_path / "mine", colors)
    truncate(tmp_path / "mine" / "data_batch_3.bin")
    with pytest.raises(FileNotFoundError, match=r"`folder`, .*mine: .+"):
        load("cifar10", folder=tmp_path / "mine")
    write_binary(tmp_path / "mine", colors)
    (tmp_path / "mine" / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_4"):
        load("cifar10", folder=tmp_path / "mine")


class Tripwire:
    def __init__(self, folder):
        self.path = folder / "sprung"

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_the_pickled_version_of_cifar_is_not_read(offline, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data_batch_1").write_bytes(pickle.dumps(Tripwire(tmp_path)))
    with pytest.raises(FileNotFoundError, match="binary version"):
        load("cifar10", folder=tmp_path / "mine")
    assert not (tmp_path / "sprung").exists()


def test_imports_neither_keras_nor_scikit_learn():
    # The package around it may import Keras, and is therefore left unexecuted.
    script = (
        "import sys; from importlib.util import find_spec, module_from_spec; "
        "sys.modules['pretrain'] = module_from_spec(find_spec('pretrain')); "
        "import pretrain.datasets; "
        "print({'keras', 'tensorflow', 'jax', 'sklearn'} & set(sys.modules))"
    )
    root = Path(datasets.__file__).parents[1]
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "set()", done.stderr
