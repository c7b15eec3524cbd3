"""The arms of a comparison: ways to start training the user's network, and their controls."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pretrain.checks import brief
from studies.arms import Arm

NONE = "none"
_OBJECTIVES = {
    "autoencoder": "Autoencoder",
    "contractive": "ContractiveAutoencoder",
    "denoising": "DenoisingAutoencoder",
    "rbm": "RestrictedBoltzmannMachine",
    "sparse": "SparseAutoencoder",
}
_LSUV = "lsuv"
# The objective that has noise, and the noise of training with labels that is like it.
_NOISY, _NOISE = "DenoisingAutoencoder", "masking"


def made(
    build: str | Callable,
    arms: Sequence[Any],
    optimizer: str,
    pretraining_optimizer: str,
    error: str | Callable | None = None,
) -> list[Arm]:
    """Make the arms of a comparison.

    Args:
        build: The build function of all arms.
        arms: Names of objectives, objectives, `"lsuv"`, or functions that change a network;
            `"none"` is always among the arms, first.
        optimizer: Optimizer of training with labels.
        pretraining_optimizer: Optimizer of pretraining.
        error: What all arms are judged by, if not by the error that the kind knows.

    Returns:
        The arms, and the controls that isolate the cause: the network without pretraining, trained
        as long as pretraining takes, with noise and without.

    Raises:
        ValueError: If an arm is nothing that can be compared, or stands there twice.
    """
    none = Arm(
        NONE,
        "no pretraining",
        build=build,
        optimizer=optimizer,
        pretraining_optimizer=pretraining_optimizer,
        error=error,
        look=("#d55e00", "o"),
    )
    found = [_contender(each, none) for each in arms if each != NONE]
    names = [arm.name for arm in found]
    if not found or len(set(names)) < len(names):
        raise ValueError(
            "Expected at least one arm beside 'none', and no arm twice. "
            f"Received: arms={brief(arms)}"
        )
    return [none, *found, *_controls(none, found)]


def _contender(given: Any, none: Arm) -> Arm:
    base = replace(none, control=NONE, look=None)
    if given == _LSUV:
        return replace(base, name=_LSUV, title="LSUV initialization", initializer=_LSUV)
    if isinstance(given, str) and ":" not in given and given in _OBJECTIVES:
        title = f"{'RBM' if given == 'rbm' else given} pretraining"
        return replace(base, name=given, title=title, objective={"name": _OBJECTIVES[given]})
    if callable(given) or isinstance(given, str) and ":" in given:
        return replace(base, **_named(given), start=given)
    if isinstance(given, str):
        raise ValueError(
            f"Expected an arm that is 'none', 'lsuv', one of {', '.join(_OBJECTIVES)}, an "
            "objective of `pretrain`, or a function of the network, as itself or as "
            f"'module:function'. Received: {given!r}"
        )
    return _of_objective(given, base)


def _named(function: str | Callable) -> dict[str, str]:
    text = function if isinstance(function, str) else function.__qualname__
    words = re.findall(r"\w+", text)[-1].strip("_")
    return {"name": words, "title": words.replace("_", " ")}


def _of_objective(objective: Any, base: Arm) -> Arm:
    # Keras has been imported by whoever has made an objective.
    from pretrain import objectives

    if not isinstance(objective, objectives.Objective):
        raise ValueError(
            "Expected an arm that is a name, an objective of `pretrain`, or a function of the "
            f"network. Received: {brief(objective)}"
        )
    config = objectives.to_config(objective)
    known = {kind: name for name, kind in _OBJECTIVES.items()}
    name = known.get(config["name"], config["name"].lower())
    return replace(base, name=name, title=f"{name} pretraining", objective=config)


def _controls(none: Arm, contenders: list[Arm]) -> list[Arm]:
    """The network without pretraining, which trains for as long as pretraining takes.

    The counted cost of pretraining is the same for all objectives.
    """
    pretrained = [arm for arm in contenders if arm.objective]
    if not pretrained:
        return []
    longer = replace(
        none,
        name="none_longer",
        title="no pretraining, trained as long",
        control=NONE,
        total_cost_of=pretrained[0].name,
        look=("#c28500", "s"),
    )
    noisy = replace(
        longer,
        name="noise_longer",
        title="no pretraining, noisy inputs, trained as long",
        noise=_NOISE,
        look=("#cc79a7", "D"),
    )
    has_noise = any(arm.objective["name"] == _NOISY for arm in pretrained)
    return [longer, noisy] if has_noise else [longer]
