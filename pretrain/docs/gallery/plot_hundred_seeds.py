"""
A hundred seeds at once
=======================

How much of a result is luck? A population trains a hundred copies of a network, each with initial
weights and an order of the examples of its own, as one compiled program.
"""

import keras
import matplotlib.pyplot as plt

from pretrain import Population, datasets, networks

data = datasets.load("digits")


def network(seed):
    return networks.mlp((8, 8, 1), depth=2, units=32, activation="relu", seed=seed)


population = Population(network, seeds=range(100))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
history = population.fit(
    *data.train,
    loss=loss,
    metrics=["accuracy"],
    validation_data=data.validation,
    epochs=20,
    batch_size=32,
    learning_rate=0.1,
    verbose=0,
)
scores = population.evaluate(*data.test, loss=loss, metrics=["accuracy"])
print(scores["accuracy"].describe())

# %%
# The history is a DataFrame with a row for each member and epoch. A thin line is a seed.

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for _, member in history.groupby("member"):
    left.plot(member["epoch"], member["val_loss"], color="#0072b2", alpha=0.15, linewidth=1)
left.set(xlabel="epoch", ylabel="validation loss (nats)", yscale="log")
right.hist(100 * scores["accuracy"], bins=15, color="#0072b2")
right.set(xlabel="test accuracy (%)", ylabel="number of seeds")
plt.show()

# %%
# A member is a Keras model like any other.

best = population.member(int(scores["accuracy"].argmax()))
print(best.name, best.count_params(), "weights")
