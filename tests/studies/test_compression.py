"""Codecs against what NumPy, zlib, Pillow and scikit-learn say of them."""

import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linprog
from sklearn.decomposition import PCA

from pretrain import datasets, greedy_pretrain, joint_pretrain, unroll
from studies import compression as study
from studies.engine.trial import Cell
from studies.kinds.compression import CompressionTrial, codecs, train

SCALE = replace(study.SCALES["quick"], kind=study.KIND)
ARMS = {arm.name: arm for arm in study.SCALES["standard"].arms}
TRIAL = CompressionTrial(
    arm="relu",
    train_size=60,
    validation_size=20,
    test_size=12,
    width=32,
    code=6,
    epochs=3,
    batch_size=20,
    learning_rate=0.01,
)


def load(trial):
    """Digits under every name: fashion images and photographs are not at hand."""
    return datasets.load("mnist", trial.train_size, trial.validation_size, seed=trial.seed)


@pytest.fixture(scope="module")
def images():
    return load(TRIAL).test[0][:12, ..., 0].astype("float64")


def saved(image, codec, **options):
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * image).astype("uint8")).save(file, codec, **options)
    return file.getvalue()


# Codecs


def test_png_has_no_loss_and_its_payload_is_the_stream_of_pixels(images):
    curve = codecs.pillow_curve("png", images)
    assert curve.mse.max() < 1e-12
    content = saved(images[0], "png", optimize=True)
    start = content.index(b"IDAT") + 4
    stream = zlib.decompressobj()
    assert len(stream.decompress(content[start:])) == 28 * 29  # a byte more per row
    payload = len(content[start:]) - len(stream.unused_data)
    assert codecs._PAYLOADS["png"](content) == payload


def test_the_payload_of_jpeg_is_the_scan(images):
    content = saved(images[0], "jpeg", quality=50)
    size = codecs._PAYLOADS["jpeg"](content)
    scan = content[-2 - size : -2]
    assert content[-2:] == b"\xff\xd9"
    # Within a scan, a byte 255 is followed by a byte 0; the header of the scan ends in 0, 63, 0.
    assert all(after == 0 for byte, after in zip(scan, scan[1:], strict=False) if byte == 255)
    assert content[-5 - size : -2 - size] == b"\x00\x3f\x00"


def test_the_payload_of_webp_is_its_only_chunk(images):
    content = saved(images[0], "webp", quality=50)
    assert content[8:16] == b"WEBPVP8 "
    padding = len(content) - 20 - codecs._PAYLOADS["webp"](content)
    assert padding in (0, 1)


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_a_codec_of_pillow_is_measured_as_pillow_decodes_it(codec, images):
    curve = codecs.pillow_curve(codec, images)
    assert (np.diff(curve.bits) >= 0).all()
    assert curve.mse[-1] < curve.mse[0]
    assert (curve.file_bits > curve.bits).all()
    options = {"optimize": True} if codec == "jpeg" else {}
    content = [saved(image, codec, quality=50, **options) for image in images]
    decoded = [np.asarray(Image.open(io.BytesIO(c)).convert("L")) / 255 for c in content]
    at = codecs._QUALITIES.index(50)
    assert curve.mse[at] == pytest.approx(((np.array(decoded) - images) ** 2).mean())
    assert curve.file_bits[at] == pytest.approx(8 * sum(map(len, content)) / images.size)


def test_codes_take_about_as_many_bits_as_their_entropy():
    random = np.random.RandomState(0)
    codes = random.normal(size=(2_000, 5)) * [1, 2, 4, 8, 0]
    (point,) = [
        codecs._quantized(codes, np.ones(5), lambda z: np.zeros((2_000, 4, 4)), lambda n: 100 * n)
    ]
    coded, whole, _ = point
    entropy = 0.0
    for column in np.rint(codes).T:
        _, counts = np.unique(column, return_counts=True)
        entropy -= (counts * np.log2(counts / 2_000)).sum()
    assert entropy < 8 * coded < 1.2 * entropy
    # The last unit is 0 everywhere.
    assert whole == coded + 400


def test_fine_steps_leave_no_error_and_coarse_steps_leave_all(images):
    flat = images.reshape(len(images), -1)
    steps = np.multiply.outer((100.0, 0.01), np.ones(flat.shape[1]))
    curve = codecs.code_curve(flat, steps, lambda z: z.reshape(images.shape), images)
    assert curve.mse == pytest.approx([(images**2).mean(), 0], abs=0.01**2)
    assert curve.bits[0] < 1 < curve.bits[1]


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8, 1.7, 2.9, 8.0])
def test_the_error_at_a_rate_is_that_of_the_best_mixture(rate):
    random = np.random.RandomState(0)
    bits, errors = np.sort(random.uniform(0.2, 3, 9)), random.uniform(0, 1, 9)
    all_bits, all_errors = np.append(0, bits), np.append(0.9, errors)
    shares = {"A_ub": all_bits[None], "b_ub": [rate], "A_eq": np.ones((1, 10)), "b_eq": [1]}
    best = linprog(all_errors, **shares).fun
    assert codecs.error_at(rate, bits, errors, 0.9) == pytest.approx(best)


def test_psnr_is_of_images_in_the_unit_interval():
    assert codecs.psnr(0.01) == pytest.approx(20)
    assert codecs.psnr(0) == codecs.psnr(1e-9) == pytest.approx(58.92, abs=0.01)


# Trials


def report(arm, **fields):
    asked = replace(TRIAL, arm=arm, **fields)
    (result,) = train.train(Cell((asked,), ARMS[arm], study.KIND), load)
    return asked, result


def test_components_are_those_of_scikit_learn(images):
    _, result = report("pca")
    x = load(TRIAL).train[0].reshape(60, -1).astype("float64")
    pca = PCA(TRIAL.code, svd_solver="full").fit(x)
    restored = pca.inverse_transform(pca.transform(images.reshape(12, -1)))
    error = ((np.clip(restored, 0, 1) - images.reshape(12, -1)) ** 2).sum(axis=1).mean()
    assert result["squared_error"] == pytest.approx(error)


@pytest.mark.parametrize("arm", ["sigmoid_pretrained", "relu", "convolutional"])
def test_an_autoencoder_learns_and_costs_what_the_library_counts(arm):
    greedy = 2 if arm == "sigmoid_pretrained" else 0
    asked, result = report(arm, greedy_epochs=greedy)
    assert result["status"] == "done"
    loss = result["curves"]["loss"]
    assert loss[-1] < loss[0]
    model = train.encoder(asked, ARMS[arm], (28, 28, 1))
    options = {"batch_size": 20, "head": 0, "verbose": 0}
    x, made, counted = load(asked).train[0], None, 0
    if greedy:
        made = greedy_pretrain(model, x, train._objective(ARMS[arm]), epochs=greedy, **options)
        counted = sum(stage.flops.sum() for stage in made.stages)
    made = joint_pretrain(model, x, train._objective(ARMS[arm]), report=made, epochs=3, **options)
    counted += sum(stage.flops.sum() for stage in made.stages)
    assert result["flops"] == counted


def test_a_longer_control_is_trained_to_the_cost_of_the_pretrained_arm():
    scale = replace(study.SCALES["standard"], kind=study.KIND)
    values = {"dataset": "mnist"}
    pretrained, longer = (
        study.KIND.base(scale, ARMS[name], values) for name in ("relu_pretrained", "relu_longer")
    )
    costs = [study.KIND.flops(t, ARMS[t.arm], scale) for t in (pretrained, longer)]
    of_an_epoch = costs[1] / longer.epochs
    assert 0 <= costs[1] - costs[0] < of_an_epoch


def test_at_the_right_scale_an_untrained_autoencoder_tells_images_apart():
    """From the historical start, what the layers return hardly depends on the image."""

    def spread(name):
        arm, x = ARMS[name], load(TRIAL).train[0]
        model = train.encoder(TRIAL, arm, x.shape[1:])
        options = {"epochs": 1, "learning_rate": 1e-12, "head": 0, "verbose": 0}
        report = joint_pretrain(model, x, train._objective(arm), **options)
        return unroll(model, report).predict(x, verbose=0).std(axis=0).mean()

    assert spread("glorot_longer") > 100 * spread("sigmoid_longer")


def test_selection_never_sees_test_images():
    asked = []

    def watched(trial):
        data = load(trial)
        return data._replace(test=property(asked.append))

    trial = replace(TRIAL, role="selection")
    (result,) = train.train(Cell((trial,), ARMS["relu"], study.KIND), watched)
    assert not asked and "psnr_middle" not in result
    assert result["validation_squared_error"] > 0


def test_scales_of_other_images_or_arms_are_refused():
    with pytest.raises(ValueError, match="trained and tested on mnist.*Received: .*cifar10"):
        replace(SCALE, axes={"dataset": ("cifar10",)})
    with pytest.raises(ValueError, match="an arm that is a `Codec`"):
        replace(SCALE, arms=(replace(ARMS["jpeg"], codec="gif"),))
    with pytest.raises(ValueError, match="is pretrained. Expected `pretraining_epochs`"):
        replace(SCALE, pretraining_epochs=None)
