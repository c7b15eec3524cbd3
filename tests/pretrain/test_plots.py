"""What the pictures show, read back from the matplotlib axes."""

import keras
import matplotlib
import numpy as np
import pytest
from keras import layers
from matplotlib import pyplot as plt
from pretrain_helpers import array, gaussian, sequential, uniform

from pretrain import (
    Autoencoder,
    Population,
    SparseAutoencoder,
    greedy_pretrain,
    joint_pretrain,
    networks,
    plots,
    unroll,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")


@pytest.fixture(autouse=True)
def off_screen():
    matplotlib.use("Agg")
    yield
    plt.close("all")


def mlp(seed=0):
    return networks.mlp((6, 6), 3, depth=2, units=[5, 4], activation="sigmoid", seed=seed)


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_losses_are_drawn_against_their_baseline():
    x, objectives = uniform(20, 6, 6), [Autoencoder(), SparseAutoencoder()]
    population = Population(mlp, seeds=[0, 1])
    options = {"epochs": 3, "batch_size": 10, "validation_data": x, "verbose": 0}
    report = greedy_pretrain(population, x, objectives, **options)
    axes = report.plot()
    assert [ax.get_title() for ax in axes] == ["hidden_1", "hidden_2"]
    for ax, stage, score in zip(axes, report.stages, ["loss", "reconstruction"], strict=True):
        lines = [line.get_ydata() for line in ax.get_lines()]
        members = [stage.history[stage.history["member"] == i] for i in (0, 1)]
        expected = [m[kind] for kind in (score, f"val_{score}") for m in members]
        for line, values in zip(lines, expected, strict=False):
            np.testing.assert_array_equal(line, values)
        heights = np.unique(stage.baseline)
        assert [line[0] for line in lines[len(expected) :]] == heights.tolist()
    assert legend_of(axes[-1]) == ["training", "validation", "baseline"]


def test_joint_pretraining_is_one_picture():
    x = uniform(20, 6, 6)
    report = joint_pretrain(mlp(), x, Autoencoder(), epochs=1, batch_size=10, verbose=0)
    assert [ax.get_title() for ax in report.plot()] == ["hidden_1 + hidden_2"]


def picture_of(ax):
    return np.ma.filled(ax.get_images()[0].get_array(), np.nan)


def test_filters_of_a_dense_layer_have_the_shape_of_the_input():
    model = networks.mlp((20, 20), 3, depth=1, units=5, seed=0)
    picture = picture_of(plots.plot_filters(model))
    kernel = array(model.get_layer("hidden_1").kernel)
    np.testing.assert_array_equal(picture[21:41, :20], kernel[:, 3].reshape(20, 20))
    assert np.isnan(picture[20]).all()


def test_filters_of_convolutions():
    first = layers.Conv2D(4, 20, name="color")
    model = sequential((24, 24, 3), first, layers.Conv2D(2, 3, name="second"), layers.Dense(1))
    kernel = array(first.kernel)[..., 3]
    expected = (kernel - kernel.min()) / (kernel.max() - kernel.min())
    np.testing.assert_allclose(picture_of(plots.plot_filters(model))[21:41, 21:41], expected, 1e-5)
    picture = picture_of(plots.plot_filters(model, "second", count=1))
    mean = array(model.get_layer("second").kernel)[..., 0].mean(axis=2)
    np.testing.assert_array_equal(picture[::6, ::6], mean)


def test_weights_that_are_no_images_are_refused():
    model = sequential((36,), layers.Dense(4, name="h"), layers.Dense(1))
    with pytest.raises(ValueError, match=r"image_shape=\(height, width\)"):
        plots.plot_filters(model)
    assert picture_of(plots.plot_filters(model, image_shape=(6, 6))).shape == (37, 37)


def test_reconstructions_stand_below_the_inputs():
    x = uniform(12, 20, 20)
    model = networks.mlp((20, 20), 3, depth=1, units=5, activation="sigmoid", seed=0)
    report = greedy_pretrain(model, x, epochs=1, batch_size=12, verbose=0)
    deep = unroll(model, report)
    ax = plots.plot_reconstructions(deep, x, count=3)
    picture = picture_of(ax)
    assert picture.shape == (41, 62)
    for row, images in zip((picture[:20], picture[21:]), (x, deep.reconstruct(x)), strict=True):
        images = images[:3]
        expected = (images - images.min()) / (images.max() - images.min())
        np.testing.assert_allclose(row[:, 21:41], expected[1], atol=1e-6)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["input", "reconstruction"]


def test_codes_of_two_dimensions_are_drawn_as_they_are_by_class():
    codes, y = gaussian(30, 2), np.array(["a", "b", "c"] * 10)
    ax = plots.plot_codes(codes, y)
    assert legend_of(ax) == ["a", "b", "c"]
    np.testing.assert_allclose(ax.collections[1].get_offsets(), codes[y == "b"])
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x0 > ax.get_window_extent().x1


def test_codes_of_more_dimensions_are_drawn_by_their_principal_components():
    codes = gaussian(50, 5) * np.array([1, 4, 2, 1, 0.5])
    ax = plots.plot_codes(codes)
    points = np.array(ax.collections[0].get_offsets())
    variances, directions = np.linalg.eigh(np.cov(codes.T))
    expected = (codes - codes.mean(axis=0)) @ directions[:, :-3:-1]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), rtol=1e-4, atol=1e-4)
    assert f"{variances[-1] / variances.sum():.0%}" in ax.get_xlabel()


def test_codes_and_labels_of_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match=r"codes.shape=\(5, 3\), y of shape \(4,\)"):
        plots.plot_codes(gaussian(5, 3), np.arange(4))


def test_pictures_are_drawn_on_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    assert plots.plot_codes(gaussian(5, 2), ax=left) is left
    deep = keras.Sequential([keras.Input((4, 4)), layers.Identity()])
    assert plots.plot_reconstructions(deep, uniform(3, 4, 4), ax=right) is right
