"""What a user may say of a comparison, beside its model, data and arms."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What a user may say of a comparison; `None` leaves it to the comparison.

    Args:
        seeds: Number of pairs.
        minutes: The time that the comparison may take; `None` for any.
        epochs: Epochs of training.
        pretraining_epochs: Epochs of pretraining, of every layer.
        batch_size: Examples per update.
        optimizer: Optimizer of training.
        pretraining_optimizer: Optimizer of pretraining.
        learning_rates: Grid of rates of training.
        pretraining_rates: Grid of rates of pretraining.
        selection_seeds: Number of seeds that rates are chosen on.
        train_size: Number of training examples.
        validation_size: Number of validation examples.
        test_size: Number of test examples.
    """

    seeds: int = 10
    minutes: float | None = None
    epochs: int = 30
    pretraining_epochs: int = 15
    batch_size: int | None = None
    optimizer: str = "adam"
    pretraining_optimizer: str = "adam"
    learning_rates: tuple[float, ...] | None = None
    pretraining_rates: tuple[float, ...] | None = None
    selection_seeds: int = 2
    train_size: int | None = None
    validation_size: int | None = None
    test_size: int | None = None
