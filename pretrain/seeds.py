"""Seeds of the streams of random numbers: split, order, init, corruption."""

import hashlib
import json
from numbers import Integral


def derive(*names: str | int) -> int:
    """Derive the seed of a stream of random numbers from the names of the stream.

    The same names give the same seed on every platform and Python version. Two streams do not
    share a seed by an accident of arithmetic, as they would with `seed + layer`.

    Example:

    >>> from pretrain.seeds import derive
    >>> derive("init", 0, "hidden_1") == derive("init", 0, "hidden_1")
    True
    >>> derive("init", 0, "hidden_1") == derive("init", 1, "hidden_1")
    False

    Args:
        *names: Strings and integers, such as `derive("init", seed, layer)`.

    Returns:
        An integer in [0, 2**31).

    Raises:
        TypeError: If a name is neither a string nor an integer.
    """
    canonical = json.dumps(list(map(_plain, names)), separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode("ascii")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _plain(name: str | int) -> str | int:
    if isinstance(name, str):
        return str(name)
    # A boolean is an integer to Python, but not in JSON.
    if isinstance(name, Integral) and not isinstance(name, bool):
        return int(name)
    raise TypeError(f"A seed is derived from strings and integers only. Received: name={name!r}")
