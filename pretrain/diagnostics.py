"""What happens inside a network: activations, gradients, Jacobians and codes, layer by layer.

Every diagnosis is a function that returns a table with a row for each layer and member. A layer is
a stage of `split_stages`; the classifier is the last layer. `follow` and `Watch` repeat a diagnosis
after every epoch of a training, and `pretrain.plots.plot_diagnosis` draws the table.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
from keras import ops

from pretrain.backend import Tensor, value_and_gradients
from pretrain.examples import Examples
from pretrain.members import variables_of
from pretrain.population import Population
from pretrain.stage_training import dead_share, saturated_share
from pretrain.stages import Stage, split_stages
from pretrain.task import check_labeled, prediction_task
from pretrain.training import Epoch

# Entries of a Jacobian that are computed at once, and of a whole Jacobian.
_AT_ONCE = 2**22
_LARGEST = 2**26


def activations(
    model: keras.Model | Population,
    x: Any,
    *,
    percentiles: Sequence[float] = (2, 50, 98),
    stages: Sequence[Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Distribution of every layer's outputs, and its saturated and dead units.

    A unit is one of the last axis of the layer's output: a neuron, or a filter of a convolution.

    Example:

    >>> import numpy as np
    >>> from pretrain import diagnostics, networks
    >>> x = np.random.RandomState(0).random((64, 6))
    >>> model = networks.mlp((6,), classes=3, depth=2, units=4, activation="sigmoid")
    >>> table = diagnostics.activations(model, x, percentiles=(50,))
    >>> table.columns.tolist()
    ['layer', 'p50', 'saturated', 'dead']

    Args:
        model: A built Keras model, or a `Population`.
        x: Inputs (n, ...).
        percentiles: Numbers from 0 to 100.
        stages: Names of the layers of each stage, as for `split_stages`.

    Returns:
        Columns `layer`, `member` and `seed` (of a population only), `p2`, `p50`, `p98` (the
        percentiles of the outputs over examples and units), `saturated` (part of the outputs within
        1 % of the range from an end of the range; NaN where the activation has no two ends) and
        `dead` (part of the units whose output is the same for every example).

    Raises:
        ValueError: If x or `stages` does not fit the model, or a percentile is out of range.

    Reference:
        [Glorot & Bengio, 2010](https://proceedings.mlr.press/v9/glorot10a.html)
    """
    valid = all(isinstance(q, int | float) and 0 <= q <= 100 for q in percentiles)
    if not valid:
        raise ValueError(
            "`percentiles` must be numbers from 0 to 100. "
            f"Received: percentiles={tuple(percentiles)!r}"
        )
    layers = _Layers(model, x, stages)

    def row(stage: Stage, outputs: np.ndarray) -> dict[str, float]:
        values = np.percentile(outputs, percentiles)
        named = {f"p{q:g}": value for q, value in zip(percentiles, values, strict=True)}
        shares = {"saturated": saturated_share(outputs, stage), "dead": dead_share(outputs, stage)}
        return named | shares

    return layers.table(
        (stage, [row(stage, o) for o in outputs]) for stage, _, outputs in layers.codes()
    )


def gradients(
    model: keras.Model | Population,
    x: Any,
    y: Any,
    *,
    loss: str | keras.losses.Loss | Callable,
    stages: Sequence[Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Variances of the gradients that training sends through every layer.

    The layers are in training mode, as one batch of all examples; dropout is off.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from pretrain import diagnostics, networks
    >>> x, y = np.random.RandomState(0).random((64, 6)), np.arange(64) % 3
    >>> model = networks.mlp((6,), classes=3, depth=2, units=4)
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> table = diagnostics.gradients(model, x, y, loss=loss)
    >>> table.columns.tolist()
    ['layer', 'backpropagated', 'weights']

    Args:
        model: A built Keras model, or a `Population`.
        x: Inputs (n, ...); a batch, say.
        y: Targets (n, ...).
        loss: Keras loss, by name or instance, or a function `(y_true, y_pred)`.
        stages: Names of the layers of each stage, as for `split_stages`; the last stage must end
            the model.

    Returns:
        Columns `layer`, `member` and `seed` (of a population only), `backpropagated` (variance,
        over examples and units, of the gradient of an example's loss by the layer's output) and
        `weights` (variance, over the entries of the layer's weight matrices, of the gradient of the
        mean loss).

    Raises:
        ValueError: If data, loss, `stages` and model do not fit.

    Reference:
        [Glorot & Bengio, 2010](https://proceedings.mlr.press/v9/glorot10a.html)
    """
    layers = _Layers(model, x, stages, y)
    template = layers.members.template
    task = prediction_task(template, layers.examples, loss, ())
    check_labeled(template, task, layers.examples)
    blocks = layers.of_each(layers.blocks)
    rows = [_Member(layers, i).gradients(task, b.x, b.y) for i, b in enumerate(blocks)]
    return layers.table(zip(layers.stages, zip(*rows, strict=True), strict=True))


def jacobians(
    model: keras.Model | Population, x: Any, *, stages: Sequence[Sequence[str]] | None = None
) -> pd.DataFrame:
    """Singular values of the Jacobian of every layer's output by the layer's input.

    The layers are in inference mode. The Jacobian of one example costs as much as backpropagation
    of as many examples as the layer has outputs: pass a few inputs.

    Example:

    >>> import numpy as np
    >>> from pretrain import diagnostics, networks
    >>> x = np.random.RandomState(0).random((10, 6))
    >>> table = diagnostics.jacobians(networks.mlp((6,), classes=3, depth=2, units=4), x)
    >>> bool((table["largest"] >= table["smallest"]).all())
    True

    Args:
        model: A built Keras model, or a `Population`.
        x: Inputs (n, ...), 10 of them, say.
        stages: Names of the layers of each stage, as for `split_stages`.

    Returns:
        Columns `layer`, `member` and `seed` (of a population only), `largest`, `mean` and
        `smallest`: of the min(inputs, outputs) singular values of an example, the mean over the
        examples.

    Raises:
        ValueError: If x or `stages` does not fit the model, or a Jacobian has more than 2^26
            entries.

    Reference:
        [Saxe et al., 2014](https://arxiv.org/abs/1312.6120)
    """
    layers = _Layers(model, x, stages)
    for stage in layers.stages:
        _check_size(stage)

    def row(i: int, stage: Stage, inputs: np.ndarray) -> dict[str, float]:
        member = _Member(layers, i)
        jacobians = np.stack([member.jacobian(stage, example) for example in inputs])
        values = np.linalg.svd(jacobians, compute_uv=False)
        kinds = {"largest": values[:, 0], "mean": values, "smallest": values[:, -1]}
        return {name: float(numbers.mean()) for name, numbers in kinds.items()}

    members = range(len(layers.members))
    return layers.table(
        (stage, [row(i, stage, inputs[i]) for i in members]) for stage, inputs, _ in layers.codes()
    )


def linear_probes(
    model: keras.Model | Population,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    stages: Sequence[Sequence[str]] | None = None,
) -> pd.DataFrame:
    """Error of a linear classifier on the frozen outputs of every layer.

    The classifier is scikit-learn's logistic regression with its defaults, on standardized outputs:
    `pip install "pretrain[sklearn]"`.

    Example:

    >>> from pretrain import datasets, diagnostics, networks
    >>> data = datasets.load("mnist", train_size=100, validation_size=50)
    >>> model = networks.mlp((28, 28, 1), depth=2, units=20)
    >>> table = diagnostics.linear_probes(model, data.train, data.validation)
    >>> table["layer"].tolist()
    ['input', 'hidden_1', 'hidden_2', 'head']

    Args:
        model: A built Keras model, or a `Population`.
        train: Inputs (n, ...) and labels (n,) that the classifiers are fitted to.
        test: Inputs and labels on which the errors are measured.
        stages: Names of the layers of each stage, as for `split_stages`.

    Returns:
        Columns `layer`, `member` and `seed` (of a population only), `train_error` and `test_error`,
        parts of the examples from 0 to 1. The first row, `input`, is of the inputs themselves.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If x or `stages` does not fit the model.

    Reference:
        [Alain & Bengio, 2016](https://arxiv.org/abs/1610.01644)
    """
    labels = [np.ravel(y) for _, y in (train, test)]
    fitted, measured = (_Layers(model, x, stages) for x, _ in (train, test))

    def rows(codes: list[np.ndarray], held_out: list[np.ndarray]) -> list[dict[str, float]]:
        return [_probe(*pair, *labels) for pair in zip(codes, held_out, strict=True)]

    inputs = [layers.of_each(layers.inputs()) for layers in (fitted, measured)]
    found: list[tuple[Any, list]] = [("input", rows(*inputs))]
    for (stage, _, codes), (_, _, held_out) in zip(fitted.codes(), measured.codes(), strict=True):
        found.append((stage, rows(codes, held_out)))
    return fitted.table(found)


def follow(epochs: Iterable[Epoch], diagnosis: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Repeats a diagnosis before a training of a population, and after every epoch.

    Args:
        epochs: The training, as `Population.epochs` returns it.
        diagnosis: Function without arguments that returns a table.

    Returns:
        The tables one below the other, with a column `epoch` in front, 0 before the training.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from pretrain import Population, diagnostics, networks
    >>> x, y = np.random.RandomState(0).random((64, 6)), np.arange(64) % 3
    >>> population = Population(lambda seed: networks.mlp((6,), 3, seed=seed), seeds=[0, 1])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> loop = population.epochs(x, y, loss=loss, epochs=2, verbose=0)
    >>> table = diagnostics.follow(loop, lambda: diagnostics.activations(population, x))
    >>> table["epoch"].unique().tolist()
    [0, 1, 2]
    """
    tables = [_at_epoch(0, diagnosis())]
    tables += [_at_epoch(epoch.number, diagnosis()) for epoch in epochs]
    return pd.concat(tables, ignore_index=True)


class Watch(keras.callbacks.Callback):
    """A Keras callback that repeats a diagnosis before a training, and after every epoch.

    Args:
        diagnosis: Function without arguments that returns a table.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from pretrain import diagnostics, networks
    >>> x, y = np.random.RandomState(0).random((64, 6)), np.arange(64) % 3
    >>> model = networks.mlp((6,), 3, depth=2, seed=0)
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> watch = diagnostics.Watch(lambda: diagnostics.jacobians(model, x[:3]))
    >>> history = model.fit(x, y, epochs=2, callbacks=[watch], verbose=0)
    >>> watch.table["epoch"].unique().tolist()
    [0, 1, 2]
    """

    def __init__(self, diagnosis: Callable[[], pd.DataFrame]) -> None:
        super().__init__()
        self._diagnosis = diagnosis
        self._tables: list[pd.DataFrame] = []

    @property
    def table(self) -> pd.DataFrame:
        """The tables one below the other, with a column `epoch` in front, 0 before the training."""
        return pd.concat(self._tables, ignore_index=True)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._tables = [_at_epoch(0, self._diagnosis())]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._tables.append(_at_epoch(epoch + 1, self._diagnosis()))


class _Layers:
    """The layers of a model or of the members of a population, and the examples they see."""

    def __init__(self, model: Any, x: Any, stages: Any, y: Any = None) -> None:
        population = model if isinstance(model, Population) else Population.from_models([model])
        self.members = population.members
        members = len(population) if population is model else None
        self.examples = Examples(x, y, model=population.template, members=members)
        self.blocks = next(self.examples.blocks())
        shape = self.blocks[0].x.shape[1:]
        options = {"head": 0, "stages": stages, "input_shape": shape}
        self.stages = split_stages(population.template, **options)
        self._single = population is not model

    def inputs(self) -> list[np.ndarray]:
        """Inputs for all members, or of each."""
        return [block.x.astype(keras.config.floatx(), copy=False) for block in self.blocks]

    def of_each(self, parts: list) -> list:
        """A block or an array for each member, from one for all members or one for each."""
        return parts * len(self.members) if len(parts) == 1 else parts

    def codes(self) -> Iterator[tuple[Stage, list[np.ndarray], list[np.ndarray]]]:
        """Every stage with the inputs and the outputs of each member, in inference mode."""
        arrays = self.inputs()
        for stage in self.stages:
            if stage.preamble:
                arrays = self._through(stage.preamble, arrays)
            outputs = self._through(stage, arrays)
            yield stage, self.of_each(arrays), self.of_each(outputs)
            arrays = outputs

    def _through(self, layer: keras.Layer, arrays: list[np.ndarray]) -> list[np.ndarray]:
        members = self.members.of_layer(layer)
        # What has no weights is one member, whose inputs may be those of several.
        if len(members) < len(arrays):
            return [members.outputs([array])[0] for array in arrays]
        return members.outputs(arrays)

    def table(self, rows: Iterable[tuple[Any, Sequence[dict[str, Any]]]]) -> pd.DataFrame:
        """A table of rows by layer and member."""
        return pd.DataFrame(
            [
                {"layer": getattr(stage, "name", stage)}
                | ({} if self._single else {"member": i, "seed": self.members.seeds[i]})
                | row
                for stage, of_members in rows
                for i, row in enumerate(of_members)
            ]
        )


class _Member(NamedTuple):
    """A member of a population, whose weights stand in for the weights of the layers."""

    layers: _Layers
    number: int

    def gradients(self, task: Any, x: np.ndarray, y: np.ndarray) -> list[dict[str, float]]:
        """For each stage, the variances of the gradients."""
        by_outputs, by_matrices = self._slopes(task, x, y)
        return [
            {"backpropagated": _variance([len(x) * by_output]), "weights": _variance(by_matrix)}
            for by_output, by_matrix in zip(by_outputs, by_matrices, strict=True)
        ]

    def _slopes(self, task: Any, x: np.ndarray, y: np.ndarray) -> tuple[list, list[list]]:
        """Gradients of the mean loss by each stage's outputs, and by each stage's matrices."""
        stages = self.layers.stages
        inputs = ops.convert_to_tensor(x.astype(keras.config.floatx(), copy=False))
        matrices = [[v for v in s.trainable_variables if len(v.shape) > 1] for s in stages]
        variables = [v for of_stage in matrices for v in of_stage]
        # A gradient by what is added to an output is the gradient by the output.
        added = [ops.zeros((len(x), *stage.features_out)) for stage in stages]

        def mean_loss(values: list) -> tuple:
            with self.weights(zip(variables, values, strict=False)):
                outputs = _run(stages, inputs, values[len(variables) :])
                return task.batch_loss(inputs, ops.convert_to_tensor(y), outputs, None), 0.0

        values = [self.layers.members.value(self.number, v) for v in variables]
        gradients = value_and_gradients(mean_loss, values + added)[2]
        found = iter(list(map(ops.convert_to_numpy, gradients)))
        by_matrices = [[next(found) for _ in of_stage] for of_stage in matrices]
        return list(found), by_matrices

    def jacobian(self, stage: Stage, example: np.ndarray) -> np.ndarray:
        """The Jacobian of a stage's output at an example, shape (outputs, inputs)."""
        outputs = math.prod(stage.features_out)
        at_once = max(1, _AT_ONCE // max(outputs, example.size))
        starts = range(0, outputs, at_once)
        parts = [self._rows(stage, example, range(i, min(i + at_once, outputs))) for i in starts]
        return np.concatenate(parts)

    def _rows(self, stage: Stage, example: np.ndarray, units: range) -> np.ndarray:
        """Rows of the Jacobian: copies of the example, and one output of each copy."""
        chosen = np.eye(math.prod(stage.features_out), dtype=example.dtype)[
            units.start : units.stop
        ]
        copies = np.repeat(example[None], len(units), axis=0)

        def total(inputs: list) -> tuple:
            with self.weights():
                outputs = stage(inputs[0], training=False)
            return ops.sum(ops.reshape(outputs, chosen.shape) * chosen), 0.0

        (gradient,) = value_and_gradients(total, [ops.convert_to_tensor(copies)])[2]
        return ops.convert_to_numpy(gradient).reshape(len(units), -1)

    def weights(self, others: Iterable[tuple] = ()) -> keras.StatelessScope:
        """A scope in which the model's variables have the member's values, or others."""
        members = self.layers.members
        own = [(v, members.value(self.number, v)) for v in variables_of(members.template)]
        return keras.StatelessScope(state_mapping=[*own, *others])


def _run(stages: list[Stage], x: Tensor, additions: list[Tensor]) -> Tensor:
    """Output of the last stage, in training mode, if something is added to every output."""
    for stage, addition in zip(stages, additions, strict=True):
        if stage.preamble:
            x = stage.preamble(x, training=False)
        x = stage(x, training=True) + addition
    return x


def _variance(arrays: list[np.ndarray]) -> float:
    """Variance over the entries of all arrays; NaN if there are none, in a frozen layer."""
    entries = [array.astype("float64").ravel() for array in arrays]
    return float(np.var(np.concatenate(entries))) if entries else math.nan


def _check_size(stage: Stage) -> None:
    shapes = (stage.features_in, stage.features_out)
    if None in shapes[0] + shapes[1] or math.prod(map(math.prod, shapes)) > _LARGEST:
        raise ValueError(
            f"Expected layers whose Jacobian has at most {_LARGEST} entries; name smaller layers "
            f"with `stages`. Received: layer {stage.name!r} from {shapes[0]} to {shapes[1]}"
        )


def _probe(x: np.ndarray, x_test: np.ndarray, y: np.ndarray, y_test: np.ndarray) -> dict:
    """Errors of a linear classifier on training and test examples."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            "Linear probes need scikit-learn, which is not installed. Expected "
            '`pip install "pretrain[sklearn]"`'
        ) from error
    x, x_test = (codes.reshape(len(codes), -1) for codes in (x, x_test))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
    return {"train_error": 1 - probe.score(x, y), "test_error": 1 - probe.score(x_test, y_test)}


def _at_epoch(number: int, table: pd.DataFrame) -> pd.DataFrame:
    table.insert(0, "epoch", number)
    return table
