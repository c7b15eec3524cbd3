"""How nets are watched while they train: before training, after every epoch, and at the end."""

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from pretrain import Population, diagnostics, split_stages
from pretrain.datasets import Dataset
from pretrain.stage_training import dead_share, saturated_share
from pretrain.stages import Stage
from studies.engine.trial import Cell
from studies.kinds.classification.prediction import prediction
from studies.kinds.classification.train import Load, Watch
from studies.kinds.classification.train import train as classify
from studies.kinds.trainability import PERCENTILES, TrainabilityTrial

# Images that a trained net is looked at with, and layers that are removed, one at a time.
_IMAGES = 1_000
_LESIONS = 20


def train(cell: Cell, cache: Path, load: Load) -> list[dict]:
    """Train the trials of a cell, and watch those that are reported."""

    def loaded(trial: TrainabilityTrial) -> Dataset:
        data = load(trial)
        return binary(data) if trial.input_values == "binary" else data

    watches = (_watch(cell, loaded),) if cell.trials[0].role == "report" else ()
    return classify(cell, cache, loaded, *watches)


def binary(data: Dataset) -> Dataset:
    """The same data with inputs that are 1 above one half, and 0 elsewhere."""
    parts = {name: getattr(data, name) for name in ("train", "validation", "test")}
    return data._replace(**{n: ((x > 0.5).astype(x.dtype), y) for n, (x, y) in parts.items()})


def _watch(cell: Cell, load: Load) -> Watch:
    sets, last = [load(trial) for trial in cell.trials], cell.trials[0].epochs

    def watch(population: Population, epoch: int) -> dict[str, np.ndarray]:
        measures: list[Callable] = [_hidden_input]
        measures += [_variances, _gradients] if epoch == 0 else []
        measures += [_useless, lesions] if epoch == last else []
        found = [
            {k: v for measure in measures for k, v in measure(population.member(i), data).items()}
            for i, data in enumerate(sets)
        ]
        return {name: np.array([each[name] for each in found]) for name in found[0]}

    return watch


def hidden_inputs(model: keras.Model, x: np.ndarray, last: bool = False) -> Iterator[np.ndarray]:
    """What goes into the activations of the hidden layers, or of the last: arrays (n, units).

    The net is in training mode, and `x` is one batch. A net that is no MLP of `pretrain.networks`
    has no such layers.
    """
    names = {layer.name: layer for layer in model.layers}
    depth = sum(name.startswith("hidden_") for name in names)
    numbers = range(depth if last else 1, depth + 1) if depth else ()
    # With normalization, the activation is a layer of its own, and what goes into it is normalized.
    found = [names.get(f"activation_{i}", names.get(f"hidden_{i}")) for i in numbers]
    if found:
        inputs = keras.Model(model.input, {layer.name: layer.input for layer in found})
        # Before training, batch normalization in inference mode does nothing. The scope keeps the
        # moving averages as they are.
        with keras.StatelessScope():
            tensors = inputs(x, training=True)
        yield from (_before_activation(layer, tensors[layer.name]) for layer in found)


def _before_activation(layer: keras.Layer, inputs: Any) -> np.ndarray:
    if isinstance(layer, keras.layers.Dense):
        inputs = ops.matmul(inputs, layer.kernel)
        inputs = inputs if layer.bias is None else inputs + layer.bias
    return ops.convert_to_numpy(inputs).astype("float64")


def _hidden_input(model: keras.Model, data: Dataset) -> dict[str, Any]:
    """Percentiles of the inputs of a unit of the last hidden layer, over validation images."""
    found = list(hidden_inputs(model, data.validation[0], last=True))
    return {"hidden_input": np.percentile(found[0][:, 0], PERCENTILES)} if found else {}


def _variances(model: keras.Model, data: Dataset) -> dict[str, Any]:
    """Variance of what goes into the units of each layer, over validation images and units."""
    found = [inputs.var() for inputs in hidden_inputs(model, data.validation[0])]
    return {"start_variances": found} if found else {}


def _gradients(model: keras.Model, data: Dataset) -> dict[str, Any]:
    """Variance of what training sends back to each hidden layer, of validation images."""
    x, y = (array[:_IMAGES] for array in data.validation)
    table = diagnostics.gradients(model, x, y, loss=prediction(model, data.classes).judged["loss"])
    return {"start_gradients": table["backpropagated"].to_numpy()[:-1]}


def _useless(model: keras.Model, data: Dataset) -> dict[str, Any]:
    """Share of saturated outputs of each hidden layer; of dead units, if none can saturate."""
    stages = split_stages(model, head=1)
    codes = accumulate(stages, _through, initial=ops.convert_to_tensor(data.validation[0]))
    outputs = map(ops.convert_to_numpy, islice(codes, 1, None))
    shares = [
        (saturated_share(code, stage), dead_share(code, stage))
        for code, stage in zip(outputs, stages, strict=True)
    ]
    return {"useless": [dead if np.isnan(saturated) else saturated for saturated, dead in shares]}


def lesions(model: keras.Model, data: Dataset) -> dict[str, Any]:
    """Training error of a net without some layers, which then pass on their inputs.

    In a net with shortcuts, this is to remove what the layers add. Returns `intact_error`,
    `middle_third_error` (without the middle third of the layers behind the first), and, one layer
    at a time, `lesion_errors` with the layers' `lesion_positions`, from 0 to 1 at the last layer.
    """
    x, y = (array[:_IMAGES] for array in data.train)
    stages = split_stages(model, head=0)
    inner = range(1, len(stages) - 1)
    codes = list(accumulate(stages, _through, initial=ops.convert_to_tensor(x)))

    def error(first: int, after: int) -> float:
        """The error without the layers from one to another."""
        scores = ops.convert_to_numpy(reduce(_through, stages[after:], codes[first]))
        return float((scores.argmax(axis=-1) != y).mean())

    third = len(inner) // 3
    single = inner[:: -(-len(inner) // _LESIONS)] if inner else ()
    return {
        "intact_error": error(0, 0),
        "middle_third_error": error(1 + third, 1 + 2 * third),
        "lesion_positions": [(i + 1) / (len(stages) - 1) for i in single],
        "lesion_errors": [error(i, i + 1) for i in single],
    }


def _through(code: Any, stage: Stage) -> Any:
    return stage(stage.preamble(code) if stage.preamble else code)
