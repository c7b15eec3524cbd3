"""Seeds of the random streams: split, order, init, corruption."""

import hashlib
import json
from numbers import Integral


def derive(*parts: str | int) -> int:
    """Derive the seed of a random stream from what names it.

    The same parts give the same seed on every platform and Python version, and two streams never
    share one by an accident of arithmetic, as `seed + layer` would.

    Args:
        *parts: Strings and integers, e.g. `derive("init", seed, layer)`.

    Returns:
        An integer in [0, 2**31).

    Raises:
        TypeError: If a part is neither a string nor an integer.
    """
    canonical = json.dumps([_plain(part) for part in parts], separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode("ascii")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _plain(part: str | int) -> str | int:
    if isinstance(part, str):
        return str(part)
    # A boolean is an integer to Python, but not in JSON.
    if isinstance(part, Integral) and not isinstance(part, bool):
        return int(part)
    raise TypeError(f"A seed is derived from strings and integers only. Received: part={part!r}")
