"""
Watch the gradients
===================

Why did deep sigmoid networks not train? The gradient that training sends back shrinks from layer to
layer. Pretraining is one of the answers to this, and a better initialization is the other.
"""

import keras

from pretrain import Population, datasets, diagnostics, networks, plots

x, y = datasets.load("mnist", train_size=1_000).train
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
population = Population(
    lambda seed: networks.mlp((28, 28, 1), depth=4, units=50, activation="sigmoid", seed=seed),
    seeds=range(3),
)

# %%
# The variances before training and after every epoch, as a table and as a figure. In the first
# layer, the gradient is smaller by orders of magnitude than in the last.

loop = population.epochs(x, y, loss=loss, epochs=5, learning_rate=0.3, verbose=0)
table = diagnostics.follow(
    loop, lambda: diagnostics.gradients(population, x[:200], y[:200], loss=loss)
)
print(table.groupby(["epoch", "layer"], sort=False)["backpropagated"].mean().unstack(sort=False))
axes = plots.plot_diagnosis(table)

# %%
# The Jacobians of the layers say why: their singular values are far below 1.

axes = plots.plot_diagnosis(diagnostics.jacobians(population, x[:3]))
