"""Layer-wise pretraining of your own Keras models.

Names are loaded when first used, so that `pretrain.datasets` and `pretrain.seeds` can be imported
without Keras.
"""

import importlib
from typing import Any

_MODULES = {
    "BestEpoch": "training",
    "DeepAutoencoder": "unrolling",
    "Population": "population",
    "Report": "report",
    "StageReport": "report",
    "greedy_pretrain": "greedy",
    "joint_pretrain": "joint",
    "lsuv": "initializers",
    "split_stages": "stages",
    "Stage": "stages",
    "unroll": "unrolling",
    "Autoencoder": "objectives",
    "ContractiveAutoencoder": "objectives",
    "DenoisingAutoencoder": "objectives",
    "RestrictedBoltzmannMachine": "objectives",
    "SparseAutoencoder": "objectives",
    "SupervisedGreedy": "objectives",
    "VariationalAutoencoder": "objectives",
    "importance_weighted_bound": "objectives",
    "Gaussian": "corruption",
    "Masking": "corruption",
    "PatchMasking": "corruption",
    "SaltAndPepper": "corruption",
}
_SUBMODULES = ("corruption", "datasets", "initializers", "networks", "objectives", "seeds")

__all__ = [*_MODULES, *_SUBMODULES]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"pretrain.{name}")
    if name in _MODULES:
        return getattr(importlib.import_module(f"pretrain.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'pretrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
