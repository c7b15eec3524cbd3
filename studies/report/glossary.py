"""What the arms of a study are, in words made of their data, and how they were pretrained."""

import pandas as pd

from studies.arms import Arm
from studies.engine.scale import Scale
from studies.kinds.kind import Metric
from studies.report import tables
from studies.report.frame import reported

_UNITS = {"relu": "rectified linear (ReLU)"}
_INITIALIZERS = {
    "historical": "random weights in ± 1 / √(inputs of the unit)",
    "glorot_uniform": "random weights as Glorot and Bengio (2010) scale them",
    "he_normal": "random weights as He et al. (2015) scale them",
    "lsuv": "orthogonal weights, scaled to unit variance layer by layer (LSUV)",
}

_SETTINGS = {
    ("reduction", "sum"): "loss summed over features",
    ("tied", True): "tied weights",
    ("output", "bernoulli"): "Bernoulli pixels",
}


def explained(arm: Arm) -> str:
    """What an arm is, in a sentence made of its data."""
    objective = objective_of(arm)
    parts = [
        f"{_UNITS.get(arm.activation, arm.activation)} units" if arm.activation else "",
        _initial(arm.initializer),
        f"{arm.normalization} normalization" if arm.normalization else "",
        f"{arm.shortcut.replace('_', ' ')} connections" if arm.shortcut else "",
        f"built by `{arm.build}`" if arm.build else "",
        f"{_layers(arm)} trained {_labels(arm)} labels: {objective}" if objective else "",
        f"{_words(arm.regularizer['class_name'])} penalty ({_settings(arm.regularizer['config'])})"
        if arm.regularizer
        else "",
        f"noise in training: {arm.noise}" if arm.noise != "none" else "",
        "images without labels have those that the net is sure of" if arm.pseudo_labels else "",
        f"trained for as long as `{arm.total_cost_of}` costs in all" if arm.total_cost_of else "",
    ]
    return "; ".join(filter(None, parts)) or arm.label


def objective_of(arm: Arm) -> str:
    """What trains an arm's hidden layers without labels, in words; empty if nothing does."""
    objective = arm.source.objective
    objectives = objective if isinstance(objective, tuple) else (objective,)
    listed = dict.fromkeys(_objective(each) for each in objectives if each)
    return ", then ".join(listed)


def hints(scale: Scale) -> dict[str, str]:
    """What each arm of a scale is, by its title."""
    return {arm.label: explained(arm) for arm in scale.arms}


def table(scale: Scale) -> pd.DataFrame:
    """The arms of a scale: title, short name, what it is, its control and its paper."""
    labels = {arm.name: arm.label for arm in scale.arms}
    rows = [
        {
            "arm": arm.label,
            "short name": arm.name,
            "what it is": explained(arm),
            "compared with": labels.get(arm.control, tables.NOT_APPLICABLE),
            "paper": arm.paper or tables.NOT_APPLICABLE,
        }
        for arm in scale.arms
    ]
    return pd.DataFrame(rows)


def pretraining(frame: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """How each pretrained arm was pretrained, a row per arm and chosen rate; empty if none was."""
    rows = []
    for arm in scale.arms:
        chosen = reported(frame)
        chosen = chosen[chosen["arm"] == arm.name].get("pretraining_rate", pd.Series(dtype=float))
        for rate in sorted(set(chosen) - {0}):
            rows.append(_pretrained(arm, rate, frame, scale))
    return pd.DataFrame(rows)


def _pretrained(arm: Arm, rate: float, frame: pd.DataFrame, scale: Scale) -> dict:
    rates = scale.stack_rates(arm.source)
    edge = len(rates) > 1 and rate in (min(rates), max(rates))
    stacks = frame[(frame["role"] == "pretraining") & (frame["arm"] == arm.source.name)]
    stacks = stacks[stacks["learning_rate"] == rate]
    measured = {
        metric.label: _mean(metric, stacks[metric.name])
        for metric in scale.kind.metrics
        if metric.roles == ("pretraining",)
    }
    return {
        "arm": arm.label,
        "objective": objective_of(arm),
        "optimizer": arm.source.pretraining_optimizer,
        "chosen rate": f"{rate:g}" + "†" * edge,
        "rates tried": ", ".join(f"{each:g}" for each in sorted(rates)),
        **measured,
    }


def _mean(metric: Metric, values: pd.Series) -> str:
    """The mean over stacks. A metric may say nothing of a stage, or be younger than a record."""
    known = values.dropna()
    return metric.text(known.mean()) if len(known) else tables.NOT_APPLICABLE


def _layers(arm: Arm) -> str:
    """Which layers of an arm are pretrained, or start from the distribution of such layers."""
    first = f"first {arm.pretrained_layers} " if arm.pretrained_layers else ""
    if arm.histogram:
        return f"weights of the {first}hidden layers drawn at random from those of layers"
    return f"{first}hidden layers"


def _labels(arm: Arm) -> str:
    """Whether an arm's layers are pretrained with labels: such an objective has a head."""
    objective = arm.source.objective
    return "with" if isinstance(objective, dict) and "classes" in objective else "without"


def _initial(initializer: str | dict | None) -> str:
    if isinstance(initializer, dict):
        return f"random weights by {initializer['class_name']} ({_settings(initializer['config'])})"
    return _INITIALIZERS.get(initializer, f"initial weights `{initializer}`" if initializer else "")


def _objective(config: dict) -> str:
    """An objective in words: "denoising autoencoder, masking (rate 0.25), reduction sum"."""
    words = [_words(config["name"])]
    for name, value in config.items():
        if isinstance(value, dict):
            rest = {key: each for key, each in value.items() if key != "name"}
            words.append(f"{_words(value['name'])} ({_settings(rest)})")
        elif name != "name":
            words.append(_SETTINGS.get((name, value), f"{name.replace('_', ' ')} {value}"))
    return ", ".join(words)


def _settings(config: dict) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in config.items())


def _words(name: str) -> str:
    """A class's name in words: "denoising autoencoder"."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
