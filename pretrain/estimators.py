"""Pretrained networks as estimators of scikit-learn: for pipelines, grid searches and pickles.

This module needs scikit-learn: `pip install "pretrain[sklearn]"`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from pretrain import networks
from pretrain.greedy import greedy_pretrain
from pretrain.objectives import Objective
from pretrain.population import Population
from pretrain.report import Report
from pretrain.unrolling import unroll

try:
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        RegressorMixin,
        TransformerMixin,
    )
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "`pretrain.estimators` needs scikit-learn 1.6 or later, which is not installed. Expected "
        '`pip install "pretrain[sklearn]"`'
    ) from error


_ROWS = 100


class _Estimator(BaseEstimator):
    """What the estimators have in common: inputs, a seed, and pretraining."""

    def _outputs(self, X: Any) -> np.ndarray:
        """What the fitted model makes of inputs (n, n_features), shape (n, outputs)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, **_inputs_are())
        # Whole blocks: a result does not depend on how many rows are asked for, and a program that
        # is compiled for one number of rows serves others.
        rows = np.arange(-(-len(X) // _ROWS) * _ROWS) % len(X)
        outputs = Population.from_models([self._fitted_model()]).predict(X[rows])[0]
        return outputs[: len(X)].reshape(len(X), -1)

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _mlp(self, input_shape: tuple, outputs: int, seed: int) -> keras.Model:
        """The network for which the user gave the sizes of the hidden layers."""
        units = np.ravel(self.hidden_layer_sizes).tolist()
        options = {"depth": len(units), "units": units, "activation": self.activation}
        return networks.mlp(input_shape, outputs, seed=seed, **options)

    def _pretrain(
        self, model: keras.Model, X: np.ndarray, epochs: int, learning_rate: Any, **options: Any
    ) -> Report:
        return greedy_pretrain(
            model,
            X,
            self.objective,
            epochs=epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=learning_rate,
            verbose=self.verbose,
            **options,
        )


class _Predictor(_Estimator):
    """What the classifier and the regressor have in common: pretraining, then fine-tuning."""

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100, 100),
        *,
        activation: str | Callable | None = "relu",
        model: Callable[[tuple, int, int], keras.Model] | None = None,
        objective: Objective | Sequence[Objective] | None = None,
        pretraining_epochs: int = 10,
        pretraining_rate: float | None = None,
        epochs: int = 50,
        learning_rate: float | None = None,
        batch_size: int = 32,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        random_state: Any = None,
        verbose: str | int = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.model = model
        self.objective = objective
        self.pretraining_epochs = pretraining_epochs
        self.pretraining_rate = pretraining_rate
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.random_state = random_state
        self.verbose = verbose

    def _train(self, X: np.ndarray, y: np.ndarray, X_unlabeled: Any, outputs: int) -> None:
        """Builds, pretrains and fine-tunes the model."""
        seed = self._seed()
        self.model_ = (self.model or self._mlp)(X.shape[1:], outputs, seed)
        _check_outputs(self.model_, (None, outputs))
        self.report_ = self._pretrained(X, y, X_unlabeled, seed)
        population = Population.from_models([self.model_], [seed])
        self.history_ = population.fit(
            X,
            y,
            loss=self._loss(X),
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            verbose=self.verbose,
        )
        population.members.assign(0, self.model_)

    def _pretrained(
        self, X: np.ndarray, y: np.ndarray, X_unlabeled: Any, seed: int
    ) -> Report | None:
        """Pretrains the model, unless there are no epochs of pretraining."""
        if X_unlabeled is not None:
            unlabeled = validate_data(self, X_unlabeled, reset=False, **_inputs_are())
            X = np.concatenate([X, unlabeled])
        if self.pretraining_epochs == 0:
            return None
        supervised = self._needs_targets()
        if supervised and X_unlabeled is not None:
            raise ValueError(
                "SupervisedGreedy learns from targets. Expected X_unlabeled=None, or an objective "
                f"that uses no targets. Received: X_unlabeled of shape {unlabeled.shape}"
            )
        options = {"seed": seed, "y": y if supervised else None}
        return self._pretrain(
            self.model_, X, self.pretraining_epochs, self.pretraining_rate, **options
        )

    def _fitted_model(self) -> keras.Model:
        return self.model_

    def _needs_targets(self) -> bool:
        single = self.objective is None or isinstance(self.objective, Objective)
        objectives = [self.objective] if single else self.objective
        return any(getattr(objective, "needs_targets", False) for objective in objectives)


class PretrainedClassifier(ClassifierMixin, _Predictor):
    """A classifier that is pretrained layer by layer, then fine-tuned on the labels.

    Args:
        hidden_layer_sizes: Widths of the hidden layers of a multilayer perceptron, from the input
            to the output. Only used if `model` is `None`.
        activation: Activation of the hidden layers, as in Keras. Only used if `model` is `None`.
        model: Function from the shape of one input, the number of classes and a seed to a built
            Keras model, in the place of the multilayer perceptron. The model returns a logit, or a
            probability, for each class. A function of a module can be pickled.
        objective: Objective of the pretraining, as in `greedy_pretrain`.
        pretraining_epochs: Epochs of every layer, at least 0; 0 is no pretraining.
        pretraining_rate: Learning rate of the pretraining; `None` is the optimizer's.
        epochs: Epochs of the fine-tuning, at least 1.
        learning_rate: Learning rate of the fine-tuning; `None` is the optimizer's.
        batch_size: Examples per update.
        optimizer: Keras optimizer, by name or instance; every training starts with a fresh copy.
        random_state: Seed of weights, order and corruption, as in scikit-learn.
        verbose: `"auto"` shows a progress bar in a terminal, 0 never.

    Attributes:
        classes_: The labels, sorted, shape (classes,).
        model_: The Keras model.
        report_: The report of the pretraining; `None` if there was no pretraining.
        history_: A row per epoch of the fine-tuning, with columns `epoch` (from 1) and `loss`.
        n_features_in_: Number of columns of X.
        feature_names_in_: Names of the columns of X, if all are strings, shape (n_features,).

    Example:

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from pretrain.estimators import PretrainedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = PretrainedClassifier((8,), epochs=2, random_state=0)
    >>> pipeline = make_pipeline(StandardScaler(), classifier)
    >>> grid = {"pretrainedclassifier__pretraining_epochs": [0, 1]}  # Does pretraining pay?
    >>> search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    >>> search.predict_proba(X).shape
    (150, 3)
    """

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_unlabeled: ArrayLike | None = None
    ) -> "PretrainedClassifier":
        """Pretrains a new model on all inputs, and fine-tunes the model on the labels.

        The steps of a pipeline before this step do not see `X_unlabeled`, unless the pipeline is
        told with `Pipeline(..., transform_input=["X_unlabeled"])`.

        Args:
            X: Inputs (n, n_features), or images (n, height, width, channels) for a `model`.
            y: Labels of any type, shape (n,).
            X_unlabeled: Inputs without labels (m, n_features), which pretraining uses beside X.

        Returns:
            The classifier.

        Raises:
            ValueError: If an argument is out of range, or inputs, labels and model do not fit.
        """
        X, y = validate_data(self, X, y, **_inputs_are())
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        self._train(X, labels, X_unlabeled, len(self.classes_))
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The most probable label (n,) of every input (n, n_features)."""
        outputs = self._outputs(X)
        return self.classes_[outputs.argmax(axis=1)]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities (n, classes) of the labels `classes_`, for inputs (n, n_features)."""
        outputs = self._outputs(X)
        return outputs if _are_probabilities(outputs) else softmax(outputs, axis=1)

    def _loss(self, X: np.ndarray) -> keras.losses.Loss:
        outputs = keras.ops.convert_to_numpy(self.model_(X[:100], training=False))
        return keras.losses.SparseCategoricalCrossentropy(
            from_logits=not _are_probabilities(outputs)
        )


class PretrainedRegressor(RegressorMixin, _Predictor):
    """A regressor that is pretrained layer by layer, then fine-tuned on the squared error.

    Scale targets that are not of the order of 1, see the example. All arguments except `model` are
    those of `PretrainedClassifier`.

    Args:
        model: Function from the shape of one input, the number of targets and a seed to a built
            Keras model, in the place of the multilayer perceptron. The model returns a number for
            each target. A function of a module can be pickled.

    Attributes:
        model_, report_, history_, n_features_in_, feature_names_in_: As in `PretrainedClassifier`.

    Example:

    >>> from sklearn.compose import TransformedTargetRegressor
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import StandardScaler
    >>> from pretrain.estimators import PretrainedRegressor
    >>> X, y = load_diabetes(return_X_y=True)  # y goes from 25 to 346
    >>> regressor = PretrainedRegressor((8,), pretraining_epochs=1, epochs=2, random_state=0)
    >>> scaled = TransformedTargetRegressor(regressor, transformer=StandardScaler())
    >>> scaled.fit(X, y).predict(X).shape
    (442,)
    """

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_unlabeled: ArrayLike | None = None
    ) -> "PretrainedRegressor":
        """Pretrains a new model on all inputs, and fine-tunes the model on the targets.

        Args:
            X: Inputs, as in `PretrainedClassifier.fit`.
            y: Targets (n,) or (n, targets).
            X_unlabeled: Inputs without targets, as in `PretrainedClassifier.fit`.

        Returns:
            The regressor.

        Raises:
            ValueError: If an argument is out of range, or inputs, targets and model do not fit.
        """
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, **_inputs_are())
        self._target_shape = y.shape[1:]
        targets = y.reshape(len(y), -1).astype(X.dtype)
        self._train(X, targets, X_unlabeled, targets.shape[1])
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Targets (n,) or (n, targets), of the shape of y, for inputs (n, n_features)."""
        outputs = self._outputs(X).astype("float64")
        return outputs.reshape(len(outputs), *self._target_shape)

    def _loss(self, X: np.ndarray) -> str:
        return "mean_squared_error"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class StackedAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Estimator):
    """A transformer from inputs to the codes of autoencoders that are stacked layer by layer.

    Args:
        hidden_layer_sizes: Widths of the layers of the encoder, from the input to the code. Only
            used if `model` is `None`.
        activation: Activation of the layers, as in Keras. Only used if `model` is `None`.
        model: Function from the shape of one input and a seed to a built Keras model that ends in
            its code, in the place of the layers. A function of a module can be pickled.
        objective: Objective of the layers, as in `greedy_pretrain`.
        epochs: Epochs of every layer, at least 1.
        learning_rate: Learning rate of every layer; `None` is the optimizer's.
        batch_size, optimizer, random_state, verbose: As in `PretrainedClassifier`.

    Attributes:
        autoencoder_: The deep autoencoder, from inputs to reconstructions.
        report_: The report of the pretraining.
        n_features_in_, feature_names_in_: As in `PretrainedClassifier`.

    Example:

    >>> import numpy as np
    >>> from pretrain.estimators import StackedAutoencoder
    >>> X = np.random.RandomState(0).random((100, 6))
    >>> features = StackedAutoencoder(hidden_layer_sizes=(5, 2), epochs=1, random_state=0)
    >>> codes = features.fit_transform(X)
    >>> codes.shape, features.inverse_transform(codes).shape
    ((100, 2), (100, 6))
    """

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100, 100),
        *,
        activation: str | Callable | None = "relu",
        model: Callable[[tuple, int], keras.Model] | None = None,
        objective: Objective | Sequence[Objective] | None = None,
        epochs: int = 10,
        learning_rate: float | None = None,
        batch_size: int = 32,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        random_state: Any = None,
        verbose: str | int = 0,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.model = model
        self.objective = objective
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: Any = None) -> "StackedAutoencoder":
        """Pretrains a new encoder, and the decoders of its layers.

        Args:
            X: Inputs (n, n_features), or images (n, height, width, channels) for a `model`.
            y: Not used; pipelines pass their targets.

        Returns:
            The transformer.

        Raises:
            ValueError: If an argument is out of range, X and model do not fit, or the objective
                has no decoder.
        """
        X = validate_data(self, X, **_inputs_are())
        seed = self._seed()
        model = self.model(X.shape[1:], seed) if self.model else self._mlp(X.shape[1:], 1, seed)
        # A network of ours ends in a classifier, and a user's encoder does not.
        options = {"seed": seed, "head": 0 if self.model else 1}
        self.report_ = self._pretrain(model, X, self.epochs, self.learning_rate, **options)
        self.autoencoder_ = unroll(model, self.report_)
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Codes (n, units) of inputs (n, n_features); codes of a higher rank are flattened."""
        return self._outputs(X)

    def inverse_transform(self, X: ArrayLike) -> np.ndarray:
        """Reconstructions of inputs from codes (n, units).

        Args:
            X: Codes, as `transform` returns them.

        Returns:
            Reconstructions (n, n_features), in the units of the first layer's input.
        """
        check_is_fitted(self)
        codes = np.reshape(X, (len(X), *self.autoencoder_.encoder.output_shape[1:]))
        return self.autoencoder_.decode(codes.astype(keras.config.floatx()))

    def _fitted_model(self) -> keras.Model:
        return self.autoencoder_.encoder

    @property
    def _n_features_out(self) -> int:
        return math.prod(self.autoencoder_.encoder.output_shape[1:])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = [keras.config.floatx()]
        return tags


def _inputs_are() -> dict[str, Any]:
    """What scikit-learn checks of inputs."""
    return {"dtype": keras.config.floatx(), "allow_nd": True}


def _check_outputs(model: Any, expected: tuple) -> None:
    shape = getattr(model, "output_shape", None)
    if shape != expected:
        raise ValueError(
            f"`model` must build a Keras model with outputs of shape {expected}. "
            f"Received: a {type(model).__name__} with outputs of shape {shape}"
        )


def _are_probabilities(outputs: np.ndarray) -> bool:
    """Whether outputs come from a softmax: logits of a network do not happen to sum to 1."""
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-4))
