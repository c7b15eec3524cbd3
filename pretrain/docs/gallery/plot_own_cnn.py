"""
Pretrain your own CNN
=====================

Any Keras model can be pretrained layer by layer, in place: here a small convolutional network of
our own, whose layers first learn to undo noise. Then the network is trained as usual.
"""

import keras
from keras import layers

from pretrain import DenoisingAutoencoder, Masking, datasets, greedy_pretrain, split_stages

data = datasets.load("mnist", train_size=1_000, validation_size=500)
(x, y), (x_test, y_test) = data.train, data.test


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu", name="first"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu", name="second"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, name="classifier"),
        ]
    )


def train(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.001), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=5, batch_size=32, verbose=0)
    return model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]


# %%
# A stage is what is pretrained at once: a layer with weights, and what belongs to it. The
# classifier, the last stage, is left alone.

model = network()
for stage in split_stages(model):
    print(stage.name)

# %%
# Each stage learns to restore its inputs, a quarter of which is masked. The report says how well,
# beside the loss of a constant output.

objective = DenoisingAutoencoder(Masking(0.25))
report = greedy_pretrain(model, x, objective, epochs=5, batch_size=32, verbose=0)
print(report.to_frame()[["stage", "loss", "baseline"]])

# %%
# One seed decides nothing: here, with 1,000 labels and rectifiers, pretraining need not help. For a
# fair comparison, with many seeds and chosen rates, see the studies.

print(f"without pretraining: {train(network()):.1%} right")
print(f"with pretraining: {train(model):.1%} right")
