"""How results of models of the inputs' density are shown: the bound on log p(x), in nats."""

from studies.engine.scale import Scale
from studies.kinds.density import ACTIVE, IMPORTANCE_SAMPLES
from studies.kinds.density import figures as draw
from studies.report.figures import told
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
        draw.bound_against_axis,
        draw.active_units,
        draw.bound_against_epoch,
        draw.rate_sensitivity,
        draw.samples,
        draw.latent_grid,
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
