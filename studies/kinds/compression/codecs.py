"""Codecs of small gray images: bytes of an image, and what is left of the image.

A curve has a point for each quality. Images are arrays of shape (n, height, width) in [0, 1].
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# Qualities of JPEG and WebP, and widths of the quantization's steps, from coarse to fine.
_QUALITIES = (1, 3, 5, 8, 12, 18, 25, 35, 50, 65, 80, 90, 95)
STEPS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125)


class Curve(NamedTuple):
    """A codec on some images: bits per pixel and errors, by quality.

    Attributes:
        bits: Bits per pixel of what codes the images, without the headers of files.
        file_bits: Bits per pixel of whole files; of a trained codec, with its decoder.
        mse: Mean squared error of a pixel.
        images: The first images as they are decoded, by quality.
    """

    bits: np.ndarray
    file_bits: np.ndarray
    mse: np.ndarray
    images: list[np.ndarray]


def pillow_curve(codec: str, images: np.ndarray) -> Curve:
    """The curve of a codec of Pillow: `"jpeg"`, `"webp"` or `"png"`, which has no loss."""
    qualities = (100,) if codec == "png" else _QUALITIES
    return _curve(
        images, (_pillow(codec, np.rint(255 * images).astype("uint8"), q) for q in qualities)
    )


def code_curve(
    codes: np.ndarray,
    steps: np.ndarray,
    decode: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    decoder: Callable[[int], int] = lambda used: 0,
) -> Curve:
    """The curve of codes (n, units) that are quantized in steps and coded by zlib.

    Args:
        codes: Codes of the images.
        steps: Widths of the steps (qualities, units).
        decode: From quantized codes to images.
        images: The images.
        decoder: Bytes of the decoder, which all images share, if so many units are used: at
            coarse qualities, many units are 0 for every image.
    """
    return _curve(images, (_quantized(codes, step, decode, decoder) for step in steps))


def error_at(rate: float, bits: ArrayLike, errors: ArrayLike, unsent: float) -> float:
    """The least error of a mixture of a curve's points, and of images that are not sent, at a rate.

    Args:
        rate: Bits per pixel.
        bits: Bits per pixel of the points (n,).
        errors: Errors of the points (n,).
        unsent: Error of an image that is not sent, at 0 bits.
    """
    bits, errors = np.array([0, *bits]), np.array([unsent, *errors])
    below = bits <= rate
    low, high = bits[below][:, None], bits[~below][None]
    share = (rate - low) / (high - low)
    mixed = (1 - share) * errors[below][:, None] + share * errors[~below][None]
    return float(min([*errors[below], *mixed.ravel()]))


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB, of images in [0, 1]; at most that of rounding to 8 bits."""
    return float(-10 * np.log10(max(mse, 1 / (12 * 255**2))))


def _curve(images: np.ndarray, points: Iterator[tuple[int, int, np.ndarray]]) -> Curve:
    """Points are bytes without headers, bytes with headers, and decoded images."""
    found = [
        (
            8 * coded / images.size,
            8 * whole / images.size,
            ((decoded - images) ** 2).mean(),
            decoded,
        )
        for coded, whole, decoded in points
    ]
    bits, file_bits, mse, decoded = zip(*found, strict=True)
    return Curve(np.array(bits), np.array(file_bits), np.array(mse, float), list(decoded))


def _pillow(codec: str, pixels: np.ndarray, quality: int) -> tuple[int, int, np.ndarray]:
    from PIL import Image

    options = {} if codec == "png" else {"quality": quality}
    coded, whole, decoded = 0, 0, np.empty(pixels.shape)
    for i, image in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(image).save(file, codec, optimize=codec != "webp", **options)
        content = file.getvalue()
        coded += _PAYLOADS[codec](content)
        whole += len(content)
        with Image.open(file) as opened:
            decoded[i] = np.asarray(opened.convert("L")) / 255
    return coded, whole, decoded


def _jpeg_payload(content: bytes) -> int:
    """Bytes of the entropy-coded scan, which follows the segment "start of scan"."""
    start = content.index(b"\xff\xda") + 2
    header = int.from_bytes(content[start : start + 2], "big")
    return len(content) - start - header - len(b"\xff\xd9")


def _png_payload(content: bytes) -> int:
    return sum(size for name, size in _chunks(content, 8, ">I4s", 4) if name == b"IDAT")


def _webp_payload(content: bytes) -> int:
    return sum(size for name, size in _chunks(content, 12, "<4sI", 0) if name[:3] == b"VP8")


def _chunks(content: bytes, place: int, header: str, checksum: int) -> Iterator[tuple[bytes, int]]:
    """Names and sizes of the chunks of a file; chunks of RIFF have even lengths."""
    while place + 8 <= len(content):
        first, second = struct.unpack_from(header, content, place)
        name, size = (first, second) if isinstance(first, bytes) else (second, first)
        yield name, size
        place += 8 + size + (checksum or size % 2)


_PAYLOADS = {"jpeg": _jpeg_payload, "png": _png_payload, "webp": _webp_payload}


# Matches of zlib cost more than they save where symbols are independent, and a byte says which
# strategy was taken.
_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)


def _deflated(content: bytes, strategy: int) -> int:
    coder = zlib.compressobj(9, wbits=-15, memLevel=9, strategy=strategy)
    return len(coder.compress(content) + coder.flush())


def _quantized(
    codes: np.ndarray, step: np.ndarray, decode: Callable, decoder: Callable[[int], int]
) -> tuple[int, int, np.ndarray]:
    symbols = np.clip(np.rint(codes / step), -127, 127).astype("int8")
    # A unit's symbols stand together, since they are alike. A unit of zeros costs a bit.
    used = symbols.any(axis=0)
    content = np.packbits(used).tobytes() + symbols[:, used].T.tobytes()
    coded = 1 + min(_deflated(content, strategy) for strategy in _STRATEGIES)
    return coded, coded + decoder(int(used.sum())), np.clip(decode(symbols * step), 0, 1)
