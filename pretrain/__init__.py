"""Layer-wise pretraining of your own Keras models.

Names are loaded when first used, so that `pretrain.datasets` and `pretrain.seeds` can be imported
without Keras. Keras loads saved models of this package once this package is imported, before
Keras or after it.
"""

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    # Editors and type checkers read these imports instead of the lazy ones below.
    from pretrain import corruption as corruption
    from pretrain import datasets as datasets
    from pretrain import diagnostics as diagnostics
    from pretrain import estimators as estimators
    from pretrain import initializers as initializers
    from pretrain import networks as networks
    from pretrain import objectives as objectives
    from pretrain import plots as plots
    from pretrain import seeds as seeds
    from pretrain.corruption import Gaussian as Gaussian
    from pretrain.corruption import Masking as Masking
    from pretrain.corruption import PatchMasking as PatchMasking
    from pretrain.corruption import SaltAndPepper as SaltAndPepper
    from pretrain.greedy import greedy_pretrain as greedy_pretrain
    from pretrain.initializers import lsuv as lsuv
    from pretrain.joint import joint_pretrain as joint_pretrain
    from pretrain.objectives import Autoencoder as Autoencoder
    from pretrain.objectives import ContractiveAutoencoder as ContractiveAutoencoder
    from pretrain.objectives import DenoisingAutoencoder as DenoisingAutoencoder
    from pretrain.objectives import RestrictedBoltzmannMachine as RestrictedBoltzmannMachine
    from pretrain.objectives import SparseAutoencoder as SparseAutoencoder
    from pretrain.objectives import SupervisedGreedy as SupervisedGreedy
    from pretrain.objectives import VariationalAutoencoder as VariationalAutoencoder
    from pretrain.objectives import importance_weighted_bound as importance_weighted_bound
    from pretrain.population import Population as Population
    from pretrain.report import PretrainingWarning as PretrainingWarning
    from pretrain.report import Report as Report
    from pretrain.report import StageReport as StageReport
    from pretrain.stages import Stage as Stage
    from pretrain.stages import split_stages as split_stages
    from pretrain.training import BestEpoch as BestEpoch
    from pretrain.unpooling import MaxUnpooling as MaxUnpooling
    from pretrain.unrolling import DeepAutoencoder as DeepAutoencoder
    from pretrain.unrolling import unroll as unroll

_NAMES = {
    "corruption": "Gaussian Masking PatchMasking SaltAndPepper",
    "greedy": "greedy_pretrain",
    "initializers": "lsuv",
    "joint": "joint_pretrain",
    "objectives": "Autoencoder ContractiveAutoencoder DenoisingAutoencoder SparseAutoencoder "
    "RestrictedBoltzmannMachine SupervisedGreedy VariationalAutoencoder importance_weighted_bound",
    "population": "Population",
    "report": "PretrainingWarning Report StageReport",
    "stages": "Stage split_stages",
    "training": "BestEpoch",
    "unpooling": "MaxUnpooling",
    "unrolling": "DeepAutoencoder unroll",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
_SUBMODULES = (
    *("corruption", "datasets", "diagnostics", "estimators", "initializers", "networks"),
    *("objectives", "plots", "seeds"),
)

# A star import does not need what the estimators need, scikit-learn.
__all__ = [name for name in (*_MODULES, *_SUBMODULES) if name != "estimators"]
__version__ = "0.1.0"


def _register() -> None:
    """Imports the classes that Keras meets in saved models."""
    # With another backend of Keras, the names of this package cannot be used anyway.
    with contextlib.suppress(ImportError):
        importlib.import_module("pretrain.networks")
        importlib.import_module("pretrain.unrolling")


# Now if Keras has been imported, and when Keras is imported if not.
wrapt.register_post_import_hook(lambda keras: _register(), "keras")

if not TYPE_CHECKING:  # A type checker would take any name for a name of this module.

    def __getattr__(name: str) -> Any:
        if name in _SUBMODULES:
            return importlib.import_module(f"pretrain.{name}")
        if name in _MODULES:
            _register()
            return getattr(importlib.import_module(f"pretrain.{_MODULES[name]}"), name)
        raise AttributeError(f"module 'pretrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "estimators"])
