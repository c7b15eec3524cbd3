"""Objectives, which say what a stage is trained on: frozen dataclasses, one module per family."""

import dataclasses
from typing import Any

from pretrain import corruption
from pretrain.checks import check_choice
from pretrain.objectives.autoencoder import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    SparseAutoencoder,
)
from pretrain.objectives.boltzmann import RestrictedBoltzmannMachine
from pretrain.objectives.objective import Objective
from pretrain.objectives.supervised import SupervisedGreedy
from pretrain.objectives.variational import VariationalAutoencoder, importance_weighted_bound

__all__ = [
    "Autoencoder",
    "ContractiveAutoencoder",
    "DenoisingAutoencoder",
    "Objective",
    "RestrictedBoltzmannMachine",
    "SparseAutoencoder",
    "SupervisedGreedy",
    "VariationalAutoencoder",
    "from_config",
    "importance_weighted_bound",
    "of_name",
    "to_config",
]

_CLASSES = {
    kind.__name__: kind
    for kind in (
        Autoencoder,
        ContractiveAutoencoder,
        DenoisingAutoencoder,
        RestrictedBoltzmannMachine,
        SparseAutoencoder,
        SupervisedGreedy,
        VariationalAutoencoder,
        corruption.Gaussian,
        corruption.Masking,
        corruption.PatchMasking,
        corruption.SaltAndPepper,
    )
}


_NAMES = {
    "autoencoder": Autoencoder,
    "contractive": ContractiveAutoencoder,
    "denoising": DenoisingAutoencoder,
    "rbm": RestrictedBoltzmannMachine,
    "sparse": SparseAutoencoder,
}


def of_name(identifier: Any) -> Any:
    """The objective of a name, with its defaults; what is no name stays as it is."""
    if not isinstance(identifier, str):
        return identifier
    check_choice("objective", identifier, list(_NAMES))
    return _NAMES[identifier]()


def to_config(objective: Any) -> dict[str, Any]:
    """An objective, or a corruption process, as plain data for JSON.

    Example:

    >>> from pretrain import RestrictedBoltzmannMachine, objectives
    >>> objectives.to_config(RestrictedBoltzmannMachine(k=5))["k"]
    5

    Args:
        objective: An objective or a corruption process of this package.

    Returns:
        The fields of the dataclass, and the name of its class as `"name"`.
    """
    fields = {f.name: getattr(objective, f.name) for f in dataclasses.fields(objective)}
    plain = {k: to_config(v) if dataclasses.is_dataclass(v) else v for k, v in fields.items()}
    return {"name": type(objective).__name__, **plain}


def from_config(config: dict[str, Any]) -> Any:
    """An objective, or a corruption process, from the data that `to_config` returned.

    Example:

    >>> from pretrain import objectives
    >>> objectives.from_config({"name": "Masking", "rate": 0.5})
    Masking(rate=0.5)

    Args:
        config: The name of the class as `"name"`, and any fields of the dataclass.

    Returns:
        The objective or the corruption process.

    Raises:
        ValueError: If the name or a field is unknown.
    """
    fields = {k: from_config(v) if isinstance(v, dict) else v for k, v in config.items()}
    name = fields.pop("name", None)
    try:
        return _CLASSES[name](**fields)
    except (KeyError, TypeError):
        known = {k: [f.name for f in dataclasses.fields(v)] for k, v in _CLASSES.items()}
        raise ValueError(
            f"Expected a name and fields among {known}. Received: config={config!r}"
        ) from None
