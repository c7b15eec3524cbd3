"""The arms that studies compare: plain data, one entry each, with its paper.

Within a family, arms differ from their neighbor in one thing, so that a difference in error has
one cause. To add an arm, add an entry to `ARMS` and name it in the `SCALES` of a study.
"""

from dataclasses import dataclass

# What a net is for: to name the class of an image, or to give images a probability density.
CLASSIFICATION, DENSITY = "classification", "density"


@dataclass(frozen=True)
class Arm:
    """What is compared: a way to make a deep network trainable, or a model of the inputs' density.

    Args:
        name: Unique name, as it stands in records and tables.
        family: `"sigmoid"` (the literature's), `"relu"` (today's) or `"variational"`. Claims
            compare within one.
        paper: Where it comes from.
        activation: Activation of the hidden layers, by its Keras name.
        initializer: What `pretrain.initializers.get` takes, by name or as plain data.
        head_initializer: The same, of the output layer if it is another.
        normalization: `None`, `"batch"` or `"layer"`.
        shortcut: `None`, `"residual"`, `"highway"` or `"skip_init"`.
        objective: Config of the objective that pretrains the hidden layers (see
            `pretrain.objectives.from_config`), or one for each of them; `None` for no pretraining.
            That of a density arm is all that it is trained on.
        pretrained_neighbor: For an arm without pretraining, the arm whose total cost its report
            runs are also trained to, so that both can be compared at equal cost.
        task: `CLASSIFICATION`, judged by the error, or `DENSITY`, by the bound on log p(x).
        optimizer: Keras's name of the optimizer that the learning rates are for.
        version: Raise it when the meaning of the arm changes: its records are then made anew.
    """

    name: str
    family: str
    paper: str
    activation: str
    initializer: str | dict
    head_initializer: str | dict | None = None
    normalization: str | None = None
    shortcut: str | None = None
    objective: dict | tuple[dict, ...] | None = None
    pretrained_neighbor: str | None = None
    task: str = CLASSIFICATION
    optimizer: str = "sgd"
    version: int = 1

    @property
    def pretrained(self) -> bool:
        return self.objective is not None and self.task == CLASSIFICATION

    @property
    def stages(self) -> int | None:
        """The number of hidden layers that have an objective each; `None` if all have one."""
        return len(self.objective) if isinstance(self.objective, tuple) else None


# The literature's loss of a stage is summed over the features, not averaged.
_AUTOENCODER = {"name": "Autoencoder", "reduction": "sum"}
_DENOISING = {
    "name": "DenoisingAutoencoder",
    "corruption": {"name": "Masking", "rate": 0.25},
    "reduction": "sum",
}

# Four times Glorot's, which the tutorial gives to sigmoid layers.
_GLOROT_SIGMOID = {
    "class_name": "VarianceScaling",
    "config": {"scale": 16.0, "mode": "fan_avg", "distribution": "uniform"},
}

_ARMS = [
    Arm(
        "random",
        "sigmoid",
        "Bengio et al. 2007; Erhan et al. 2010",
        activation="sigmoid",
        initializer="historical",
        pretrained_neighbor="denoising",
    ),
    Arm(
        "glorot",
        "sigmoid",
        "Glorot and Bengio 2010",
        activation="sigmoid",
        initializer="glorot_uniform",
        pretrained_neighbor="denoising",
    ),
    Arm(
        "autoencoder",
        "sigmoid",
        "Bengio et al. 2007",
        activation="sigmoid",
        initializer="historical",
        objective=_AUTOENCODER,
    ),
    Arm(
        "denoising",
        "sigmoid",
        "Vincent et al. 2008, 2010",
        activation="sigmoid",
        initializer="historical",
        objective=_DENOISING,
    ),
    Arm(
        "sigmoid_batch_norm",
        "sigmoid",
        "Ioffe and Szegedy 2015",
        activation="sigmoid",
        initializer="historical",
        normalization="batch",
    ),
    Arm(
        "he",
        "relu",
        "He et al. 2015",
        activation="relu",
        initializer="he_normal",
        pretrained_neighbor="he_denoising",
    ),
    Arm(
        "he_denoising",
        "relu",
        "He et al. 2015; Vincent et al. 2010",
        activation="relu",
        initializer="he_normal",
        objective=_DENOISING,
    ),
    Arm(
        "batch_norm",
        "relu",
        "Ioffe and Szegedy 2015",
        activation="relu",
        initializer="he_normal",
        normalization="batch",
        pretrained_neighbor="batch_norm_denoising",
    ),
    Arm(
        "batch_norm_denoising",
        "relu",
        "Ioffe and Szegedy 2015; Vincent et al. 2010",
        activation="relu",
        initializer="he_normal",
        normalization="batch",
        objective=_DENOISING,
    ),
    Arm(
        "residual_batch_norm",
        "relu",
        "He et al. 2016",
        activation="relu",
        initializer="he_normal",
        normalization="batch",
        shortcut="residual",
    ),
    Arm(
        "tutorial",
        "sigmoid",
        "Deep Learning Tutorials, Stacked Denoising Autoencoders",
        activation="sigmoid",
        initializer=_GLOROT_SIGMOID,
        head_initializer="zeros",
        objective=tuple(
            {**_DENOISING, "corruption": {"name": "Masking", "rate": rate}, "tied": True}
            for rate in (0.1, 0.2, 0.3)
        ),
        version=2,
    ),
    *(
        Arm(
            f"latent_{latent}",
            "variational",
            "Kingma and Welling 2013",
            activation="tanh",
            initializer="glorot_uniform",
            objective={
                "name": "VariationalAutoencoder",
                "latent": latent,
                "output": "bernoulli",
            },
            task=DENSITY,
            optimizer="adam",
        )
        for latent in (2, 3, 5, 10, 20, 200)
    ),
]

ARMS = {arm.name: arm for arm in _ARMS}
