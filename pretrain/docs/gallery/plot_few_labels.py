"""
Few labels, many images
=======================

Pretraining needs no labels. Of 5,000 images, 200 have labels here. The layers are pretrained on all
images, and the network is then trained on the 200.
"""

import keras
import matplotlib.pyplot as plt

from pretrain import DenoisingAutoencoder, Masking, Population, datasets, greedy_pretrain, networks

data = datasets.load("mnist", train_size=5_000, validation_size=500)
x, y = data.train
few = x[:200], y[:200]
seeds = range(4)


def network(seed):
    return networks.mlp((28, 28, 1), depth=2, units=200, activation="sigmoid", seed=seed)


# %%
# A population is one architecture with several seeds, trained by one compiled program. It is
# pretrained like a model. Both networks have the learning rate 0.3, the best of 0.03, 0.1, 0.3 and
# 1 on validation images, with pretraining and without.

loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
accuracy = {}
for name in ("from random weights", "pretrained on all images"):
    population = Population(network, seeds)
    if name.startswith("pretrained"):
        objective = DenoisingAutoencoder(Masking(0.5))
        options = {"epochs": 20, "batch_size": 50, "learning_rate": 0.003, "verbose": 0}
        greedy_pretrain(population, x, objective, **options)
    population.fit(*few, loss=loss, epochs=60, batch_size=20, learning_rate=0.3, verbose=0)
    scores = population.evaluate(*data.test, loss=loss, metrics=["accuracy"])
    accuracy[name] = scores["accuracy"]
    print(f"{name}: {accuracy[name].mean():.1%}")

# %%
# A dot is a seed.

figure, ax = plt.subplots(figsize=(6, 2.5), layout="constrained")
for row, values in enumerate(accuracy.values()):
    ax.plot(100 * values, [row] * len(values), "o", color="#0072b2", alpha=0.6)
ax.set(yticks=range(len(accuracy)), yticklabels=accuracy, ylim=(-0.5, 1.5))
ax.set_xlabel("accuracy on 10,000 test images (%), 200 labels")
plt.show()
