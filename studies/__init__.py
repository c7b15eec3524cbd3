"""Studies that repeat the literature's experiments on layer-wise pretraining.

A module of this package is a study if it defines `SCALES`. Run one with
`python -m studies run depth`; see `python -m studies --help`. `studies.compare` asks of a model and
data of your own whether pretraining pays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.comparison.result import Comparison

# The order in which the studies answer the question of the project; further ones follow by name.
ORDER = (
    *("depth", "modern", "initialization", "normalization", "residual", "width", "labels"),
    *("convolution", "regularizer", "choosing", "trajectories", "tutorial_sda", "compression"),
    *("generative", "vae_latent"),
)


def compare(
    build: Callable | str,
    data: Any,
    *,
    arms: Sequence[Any] = ("none", "denoising"),
    seeds: int = 10,
    minutes: float | None = 10,
    results: Any = None,
    workers: int | None = None,
    target: str | None = None,
    unlabeled: Any = None,
    task: str | None = None,
    error: Any = None,
    data_folder: Any = None,
    name: str | None = None,
    **settings: Any,
) -> Comparison:
    """Compare ways to start training: does pretraining pay for your model and your data?

    Every arm has the same data, seeds, splits and grids of rates, which are chosen on validation
    data with seeds of their own, and widened where the best rate lies at an end. Then fresh seeds
    are trained and tested, so that arms are compared in pairs. Beside the arms, there are controls
    at the cost of pretraining: the net without pretraining that trains as long, and the same net
    with noisy inputs.

    Example:

        import studies
        from pretrain import networks

        def build(seed):
            return networks.mlp((64,), classes=10, depth=3, units=50, seed=seed)

        print(studies.compare(build, "digits.csv", minutes=5))

    Args:
        build: Function from a seed to a Keras model that is not trained, with one input; or
            `"module:function"`. For classes, the model has an output for each class, or one for two
            classes, logits or probabilities; for a number, it has one output.
        data: `(x, y)` or `(x, y, x_test, y_test)`; a `pretrain.datasets.Dataset`; a name of
            `pretrain.datasets`; or the path of a `.csv` file, a `.npz` file or a folder of images.
            Columns of a table are standardized, unless all values are in [0, 1].
        arms: `"none"`, the model as it is; names of objectives (`"denoising"`, `"autoencoder"`,
            `"contractive"`, `"sparse"`, `"rbm"`) or objectives of `pretrain`; `"lsuv"`; functions
            that change a model in place or return another, such as one that loads weights.
        seeds: Number of pairs, at least 1. Below three, there are no intervals; below six, no
            verdicts.
        minutes: The time to keep to: epochs, training examples and seeds are reduced before the
            comparison starts, by the speed of this machine, and the seeds once more after the rates
            are chosen. `None` for no limit.
        results: A folder for records and a page. Called again with the same arguments, the
            comparison goes on there. By default, both are lost in the end.
        workers: Number of processes; `build` must be importable then. By default, all runs in this
            process.
        target: Column of the targets, in a `.csv` file; by default, the column that is named label,
            class, target or y.
        unlabeled: More examples, without labels, which pretraining sees: an array, a `.csv` file, a
            `.npz` file with `x`, or a folder of images.
        task: `"classification"` or `"regression"`. By default, targets of floating point are
            numbers, and others are classes.
        error: What is compared: a function of targets and outputs, in operations of Keras, that
            returns an error for each example, of which the mean counts; or the name of a loss of
            Keras, such as `"mean_absolute_error"`. The lower, the better. Of a network with one
            output, targets and outputs have the shape (n, 1). By default, the share of wrong
            classes, or the mean squared error. Nets are trained on the usual loss all the same.
        data_folder: Where data that have a name are looked for.
        name: What arrays are called, in the names of files and on the page.
        **settings: `epochs` (30), `pretraining_epochs` (15, of every layer), `batch_size`,
            `optimizer` and `pretraining_optimizer` (`"adam"`, `"adamw"`, `"momentum"`, `"sgd"`),
            `learning_rates` and `pretraining_rates` (the grids to begin with), `selection_seeds`
            (2), `train_size`, `validation_size`, `test_size`.

    Returns:
        The result, whose `str` is a sentence and a table; see also its `sentence`, `frame`,
        `figure()` and `folder`.

    Raises:
        ValueError: If an argument is out of range, or model and data do not fit.
        RuntimeError: If a training failed; trainings that diverge are results.
    """
    # Imported only here: the command line, which imports this package, stays fast.
    from studies.comparison import call
    from studies.comparison.settings import Settings

    return call.compare(
        build,
        data,
        arms,
        Settings(seeds=seeds, minutes=minutes, **settings),
        results,
        workers,
        data_folder,
        error,
        target=target,
        unlabeled=unlabeled,
        task=task,
        name=name,
    )
