"""How results of models of the inputs' density are shown: the bound on log p(x), in nats."""

from studies.engine.scale import Scale
from studies.kinds.density import ACTIVE, IMPORTANCE_SAMPLES
from studies.kinds.density import figures as draw
from studies.report.figures import Figure, told
from studies.report.show import Show


class DensityShow(Show):
    """Bounds, their gap and the latent variables that are used, a row per place."""

    title = "Test bound (nats)"
    metrics = (
        *("test_bound", "train_bound", "bound_gap"),
        *("test_importance_weighted_bound", "active_units"),
    )
    summarized = ("test_bound", "train_bound", "bound_gap", "active_units")
    columns = (
        "*test*, *training*: bound on log p(x) after the last epoch, mean over images; *gap*: "
        "training minus test.",
        f"*importance-weighted*: that bound of {IMPORTANCE_SAMPLES} samples, on the test set.",
        f"*active*: latent variables whose posterior mean has a variance above {ACTIVE} over the "
        "test images.",
        "*rate*: learning rate, chosen on the validation bound of other seeds.",
        "*FLOPs*: of one run.",
    )
    figures = (
        Figure(
            "bound_against_{axis}",
            "Bound on log p(x) against {axis}.",
            "Means with their 95 % t intervals over seeds, per image; the dots are seeds. The "
            f"importance-weighted bound of {IMPORTANCE_SAMPLES} samples (Burda et al. 2016) is "
            "nearer to log p(x).",
            draw.bound_against_axis,
        ),
        Figure(
            "active_units",
            "Latent variables that are used.",
            f"A latent variable is used if its posterior mean has a variance above {ACTIVE} over "
            "the test images. On the gray line all are used. The dots are seeds.",
            draw.active_units,
            needs="latent",
        ),
        Figure(
            "bound_against_epoch",
            "Bound against epoch.",
            "Means over seeds: on the validation set after each epoch, and on the training set, "
            "the mean during the epoch.",
            draw.bound_against_epoch,
        ),
        Figure(
            "rate_sensitivity",
            "Validation bound against learning rate.",
            "Means over the selection seeds. Ringed: the chosen rate, which the reported runs "
            "have. The axis ends at the bound of the mean image: what lies below is worse than "
            "that.",
            draw.rate_sensitivity,
            needs="learning_rates",
        ),
        Figure(
            "samples",
            "Samples.",
            "Means of p(x | z) for draws of the latent variables from their prior, of the first "
            "seed.",
            draw.samples,
        ),
        Figure(
            "latent_grid",
            "The manifold of two latent variables.",
            "Means of p(x | z) at quantiles of the prior, of the first seed (Kingma and Welling "
            "2013, figure 4).",
            draw.latent_grid,
        ),
    )

    def training(self, scale: Scale) -> str:
        arms = [
            f"a hidden layer of {told(scale, 'width')} {arm.activation} units in the encoder and "
            f"one in the decoder, trained by {arm.optimizer.capitalize()}"
            for arm in scale.arms
        ]
        return (
            "Pixels in [0, 1] are means of Bernoulli variables. Networks: "
            f"{'; '.join(dict.fromkeys(arms))}. Training: {told(scale, 'epochs')} epochs, batches "
            f"of {told(scale, 'batch_size')}, one draw of the latent variables per image and step. "
            "Bounds are reported after the last epoch."
        )

    def caveats(self, scale: Scale) -> list[str]:
        return [
            "The bound is that of a density on {0, 1} for each pixel, taken at gray values: it is "
            "to be compared with bounds that are so taken, and not with those of binarized images.",
            "Intervals are over seeds: initial weights, batch order and split. A diverged run "
            "counts as the bound of the mean image.",
            "With a fixed number of epochs, a model that learns more slowly is read earlier: see "
            "the bound against epoch.",
            "Cost is counted, not measured: 2 FLOPs per multiply-add, training three times the "
            "forward pass.",
        ]
