"""The estimators of scikit-learn, against scikit-learn's own checks and against the library."""

import pickle
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from pretrain_helpers import array, gaussian, uniform

from pretrain import Autoencoder, Population, SupervisedGreedy, greedy_pretrain, networks

sklearn = pytest.importorskip("sklearn")
from sklearn.base import clone  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import Pipeline, make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from pretrain.estimators import (  # noqa: E402
    PretrainedClassifier,  # noqa: E402
    PretrainedRegressor,
    StackedAutoencoder,
)

# These tests are about what is computed.
pytestmark = pytest.mark.usefixtures("plain_graphs")

SMALL = {"hidden_layer_sizes": (5,), "activation": "sigmoid", "random_state": 0, "batch_size": 10}
BRIEF = {**SMALL, "pretraining_epochs": 1, "epochs": 2}
# Pretraining would only be compiled anew for every check: the tests below pretrain.
QUICK = {"hidden_layer_sizes": (8,), "pretraining_epochs": 0, "epochs": 20, "learning_rate": 0.05}


def labeled(n=40):
    x = uniform(n, 4)
    return x, np.where(x[:, 0] > x[:, 1], "more", "less")


def small_mlp(input_shape, outputs, seed):
    return networks.mlp(input_shape, outputs, depth=1, units=5, activation="sigmoid", seed=seed)


def ends_in_softmax(input_shape, outputs, seed):
    logits = small_mlp(input_shape, outputs, seed)
    return keras.Sequential([logits, layers.Softmax()])


def small_convnet(input_shape, outputs, seed):
    return networks.convnet(input_shape, outputs, depth=1, filters=2, seed=seed)


def image_encoder(input_shape, seed):
    convolution = layers.Conv2D(2, 3, strides=2, padding="same", activation="sigmoid")
    return keras.Sequential([keras.Input(input_shape), convolution])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@parametrize_with_checks(
    [
        PretrainedClassifier(**QUICK, random_state=0),
        PretrainedRegressor(**QUICK, random_state=0),
        StackedAutoencoder(hidden_layer_sizes=(4,), epochs=1, random_state=0),
    ]
)
def test_scikit_learn_accepts_the_estimators(estimator, check):
    check(estimator)


def test_a_classifier_is_the_network_pretrained_on_all_inputs_and_fine_tuned_on_the_labels():
    (x, y), unlabeled = labeled(), uniform(20, 4, seed=2)
    classifier = PretrainedClassifier(**BRIEF, optimizer="sgd", learning_rate=0.5)
    classifier.fit(x, y, X_unlabeled=unlabeled)
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    model = small_mlp((4,), 2, seed)
    options = {"optimizer": "sgd", "batch_size": 10, "verbose": 0}
    greedy_pretrain(model, np.concatenate([x, unlabeled]), epochs=1, seed=seed, **options)
    population = Population.from_models([model], [seed])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    labels = (y == "more").astype(int)
    population.fit(x, labels, loss=loss, epochs=2, learning_rate=0.5, **options)
    for found, expected in zip(
        classifier.model_.weights, population.member(0).weights, strict=True
    ):
        np.testing.assert_array_equal(array(found), array(expected))


def test_labels_of_any_type_and_their_probabilities():
    x, y = labeled(200)
    classifier = PretrainedClassifier(**SMALL, epochs=30, learning_rate=0.1).fit(x, y)
    assert classifier.classes_.tolist() == ["less", "more"]
    assert classifier.score(x, y) > 0.9
    logits = array(classifier.model_(x[:3]))
    exponentials = np.exp(logits)
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(x[:3]), expected, rtol=1e-5)


def test_a_model_may_end_in_a_softmax():
    x, y = labeled()
    options = {**BRIEF, "pretraining_epochs": 0}
    logits = PretrainedClassifier(model=small_mlp, **options).fit(x, y)
    probabilities = PretrainedClassifier(model=ends_in_softmax, **options).fit(x, y)
    expected = logits.predict_proba(x)
    np.testing.assert_allclose(probabilities.predict_proba(x), expected, rtol=1e-4)


@pytest.mark.slow
def test_a_classifier_of_images():
    x, y = uniform(20, 6, 6, 1), np.arange(20) % 3
    classifier = PretrainedClassifier(model=small_convnet, **BRIEF).fit(x, y)
    assert classifier.predict_proba(x).shape == (20, 3)


def test_a_grid_search_over_a_pipeline_with_unlabeled_inputs():
    (x, y), unlabeled = labeled(), uniform(30, 4, seed=2)
    pipeline = make_pipeline(StandardScaler(), PretrainedClassifier(**BRIEF))
    grid = {"pretrainedclassifier__pretraining_epochs": [0, 1]}
    search = GridSearchCV(pipeline, grid, cv=2)
    search.fit(x, y, pretrainedclassifier__X_unlabeled=unlabeled)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_pipeline_transforms_the_unlabeled_inputs_too():
    (x, y), unlabeled = labeled(), uniform(30, 4, seed=2)
    with sklearn.config_context(enable_metadata_routing=True):
        classifier = PretrainedClassifier(**BRIEF).set_fit_request(X_unlabeled=True)
        steps = [("scale", StandardScaler()), ("net", classifier)]
        pipeline = Pipeline(steps, transform_input=["X_unlabeled"])
        pipeline.fit(x, y, X_unlabeled=unlabeled)
    scaler = StandardScaler().fit(x)
    alone = PretrainedClassifier(**BRIEF)
    alone.fit(scaler.transform(x), y, X_unlabeled=scaler.transform(unlabeled))
    found, expected = pipeline.predict_proba(x), alone.predict_proba(scaler.transform(x))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("estimator", "method"),
    [
        (PretrainedClassifier(model=small_mlp, **BRIEF), "predict_proba"),
        (StackedAutoencoder(**SMALL, epochs=1, objective=Autoencoder(tied=True)), "transform"),
    ],
)
def test_pickles_and_clones_say_the_same(estimator, method):
    x, y = labeled()
    fitted = clone(estimator).fit(x, y)
    expected = getattr(fitted, method)(x)
    kept = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(getattr(kept, method)(x), expected)
    np.testing.assert_array_equal(getattr(clone(fitted).fit(x, y), method)(x), expected)


def test_a_regressor_of_several_targets():
    x = gaussian(200, 3)
    y = np.stack([x[:, 0] - x[:, 1], x[:, 2]], axis=1)
    regressor = PretrainedRegressor(**SMALL, epochs=50, learning_rate=0.03).fit(x, y)
    assert regressor.predict(x).shape == (200, 2)
    assert regressor.score(x, y) > 0.8


def test_supervised_pretraining_takes_the_labels():
    x, y = labeled()
    classifier = PretrainedClassifier(**BRIEF, objective=SupervisedGreedy(2)).fit(x, y)
    assert classifier.report_.stages[0].objective == SupervisedGreedy(2)
    with pytest.raises(ValueError, match=r"X_unlabeled=None.*shape \(40, 4\)"):
        classifier.fit(x, y, X_unlabeled=x)


def test_codes_and_reconstructions():
    table = pd.DataFrame(uniform(40, 4), columns=list("abcd"))
    stacked = StackedAutoencoder(**{**SMALL, "hidden_layer_sizes": (5, 3)}, epochs=1).fit(table)
    assert stacked.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert stacked.get_feature_names_out().tolist() == [f"stackedautoencoder{i}" for i in range(3)]
    codes, weights = table.to_numpy(), [array(w) for w in stacked.autoencoder_.encoder.weights]
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        codes = 1 / (1 + np.exp(-(codes @ kernel + bias)))
    np.testing.assert_allclose(stacked.transform(table), codes, rtol=1e-5)
    deep = stacked.autoencoder_.reconstruct(table.to_numpy())
    np.testing.assert_allclose(stacked.inverse_transform(codes), deep, rtol=1e-4)


def test_codes_of_images_are_flat():
    x = uniform(20, 6, 6, 1)
    stacked = StackedAutoencoder(model=image_encoder, epochs=1, batch_size=10, random_state=0)
    codes = stacked.fit_transform(x)
    assert codes.shape == (20, 3 * 3 * 2)
    assert stacked.inverse_transform(codes).shape == x.shape


def test_a_model_with_other_outputs_is_refused():
    def build(input_shape, outputs, seed):
        return small_mlp(input_shape, 7, seed)

    with pytest.raises(ValueError, match=r"outputs of shape \(None, 2\).*\(None, 7\)"):
        PretrainedClassifier(model=build).fit(*labeled())


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "pretrain.estimators")
    with pytest.raises(ImportError, match=r'pip install "pretrain\[sklearn\]"'):
        import pretrain.estimators  # noqa: F401
