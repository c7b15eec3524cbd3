"""What tells two architectures apart: plain data about operations, functions and constants.

A description is equal for what computes the same of the same weights, in every process. It has no
names, no initial values and no seeds.
"""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from pretrain.internals import attributes_of, layers_of

# Settings without an effect on what is computed, where dropout is off.
_WITHOUT_EFFECT = ("name", "seed", "build_config")
# The weights and seeds of a layer are arguments of what is computed.
_HELD = (keras.Layer, keras.Variable, keras.random.SeedGenerator, keras.Initializer)
_PLAIN = (bool, int, float, str, type(None))
# What their names tell: the sources of these packages stay as they are while a program runs.
_LIBRARIES = ("builtins", "jax", "jaxlib", "keras", "numpy", "pretrain", "tensorflow")

_BLOCK = 2**24  # Bytes that are digested at once.


def digest(value: Any) -> str:
    """A text that is equal for equal descriptions, in every process."""
    canonical = json.dumps(_described(value), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def digest_of_arrays(arrays: Iterable[Any]) -> str:
    """A text that is equal for arrays of equal shapes, types and values."""
    sha = hashlib.sha256()
    for array in arrays:
        array = np.atleast_1d(ops.convert_to_numpy(array))
        sha.update(f"{array.dtype} {array.shape}".encode())
        # In blocks of rows, since an array on disk need not fit in memory.
        rows = max(1, _BLOCK // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            sha.update(np.ascontiguousarray(array[start : start + rows]))
    return sha.hexdigest()


def describe_operation(operation: keras.Operation) -> list:
    """What an operation computes, as far as its class, settings and attributes say."""
    if hasattr(operation, "architecture_text"):
        return [operation.architecture_text()]
    return list(map(_settings, _operations(operation)))


def _operations(operation: keras.Operation) -> list[keras.Operation]:
    return layers_of(operation) if isinstance(operation, keras.Layer) else [operation]


def _settings(operation: keras.Operation) -> list:
    """What one operation computes, without the layers inside."""
    config: dict[str, Any] = {}
    with warnings.catch_warnings(), contextlib.suppress(NotImplementedError):
        # Keras warns of functions that cannot be saved, but nothing is saved here.
        warnings.simplefilter("ignore")
        config = operation.get_config()
    policy = getattr(operation, "dtype_policy", None)
    weights = getattr(operation, "weights", [])
    return [
        type(operation),
        config,
        _without_held(attributes_of(operation)),
        policy and policy.name,
        [[w.shape, w.dtype, bool(w.trainable)] for w in weights],
    ]


def _without_held(value: Any) -> Any:
    """The attributes of an operation without its weights and layers."""
    if isinstance(value, dict):
        return {key: _without_held(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_held(item) for item in value]
    return None if isinstance(value, _HELD) else value


def _described(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Plain data about any object, which is `inside` of objects of such identities."""
    if isinstance(value, _PLAIN):
        return value
    if id(value) in inside:
        return type(value).__qualname__
    inside = (*inside, id(value))
    parts = value if isinstance(value, dict | list | tuple) else _parts(value)
    if isinstance(parts, dict):
        items = ((str(key), item) for key, item in parts.items())
        return {key: _described(item, inside) for key, item in items if _has_effect(key)}
    if isinstance(parts, list | tuple):
        return [_described(item, inside) for item in parts]
    return parts


def _has_effect(key: str) -> bool:
    return key not in _WITHOUT_EFFECT and not key.endswith("initializer")


def _parts(value: Any) -> Any:
    """A text about an object, or the objects of which the object is made."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, type) or _is_function(value):
        return _code_of(value)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, keras.Operation):
        weights = getattr(value, "weights", [])
        return [describe_operation(value), digest_of_arrays(weights)]
    if _is_array(value):
        return digest_of_arrays([value])
    if dataclasses.is_dataclass(value):
        return [type(value), {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}]
    if isinstance(value, set | frozenset):
        # The order of a set differs between processes.
        return sorted(value, key=repr)
    return [type(value), *_state(value)]


def _state(value: Any) -> list:
    """What an object holds, beside its class."""
    if hasattr(value, "get_config"):
        return [value.get_config()]
    if getattr(value, "__dict__", None):
        # Not all that the object leads to, which may be everything that the program knows.
        own = vars(value).items()
        return [{k: v for k, v in own if isinstance(v, _PLAIN) or _is_function(v) or _is_array(v)}]
    # The text that an object has by default tells its place in memory.
    return [] if type(value).__repr__ is object.__repr__ else [str(value)]


def _of_library(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").split(".")[0] in _LIBRARIES


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, type)


def _is_function(value: Any) -> bool:
    return isinstance(value, types.FunctionType | types.MethodType) or hasattr(value, "__wrapped__")


def _code_of(value: Any) -> Any:
    """The code of a function or class, which its name does not tell, and what the code reads."""
    if _of_library(value):
        return value.__qualname__
    if isinstance(value, type):
        kinds = [kind for kind in value.__mro__ if not _of_library(kind)]
        return [value.__qualname__, *(f for kind in kinds for f in _methods(kind))]
    function = inspect.unwrap(getattr(value, "__func__", value))
    if not isinstance(function, types.FunctionType):
        return type(function).__qualname__
    code, outer = function.__code__, function.__globals__
    read = {name: outer[name] for name in sorted(_names(code)) if _tells(outer.get(name), function)}
    return [_described_code(code), list(_contents(function)), function.__defaults__, read]


def _methods(kind: type) -> list:
    members = [getattr(m, "fget", getattr(m, "__func__", m)) for m in vars(kind).values()]
    return [m for m in members if isinstance(m, types.FunctionType)]


def _contents(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        # A cell is empty until its variable has a value.
        with contextlib.suppress(ValueError):
            yield cell.cell_contents


def _tells(value: Any, function: types.FunctionType) -> bool:
    """Whether a global value of a function's module may change what the function computes."""
    constant = isinstance(value, bool | int | float | list | tuple) or _is_array(value)
    own = isinstance(value, types.FunctionType) and value.__module__ == function.__module__
    return constant or own


def _names(code: types.CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _described_code(code: types.CodeType) -> list:
    return [code.co_code.hex(), [_described_constant(c) for c in code.co_consts], code.co_names]


def _described_constant(constant: Any) -> Any:
    if isinstance(constant, types.CodeType):
        return _described_code(constant)
    return repr(sorted(constant, key=repr) if isinstance(constant, frozenset) else constant)
