"""What an object was told, as JSON: by it two runs are known for the same, or for different ones."""

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from functools import cached_property, partial
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, nn

from interp_unlearn.artifacts.files import hash_tensors


def fingerprint(value: object) -> Any:
    """Numbers and texts as they are, tensors, arrays and models by their hash, functions by name and what they hold.

    Functions without a name of their own (written within another, lambdas) are told apart by their code as well.
    Caveat: what an object of C code holds (a tokenizer's library, an open file) is not seen, only its type.
    """
    return _told(value, ())


def _told(value: Any, within: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) in within:
        return "itself"
    inside = (*within, id(value))

    def told(part: object) -> Any:
        return _told(part, inside)

    if isinstance(value, Tensor):
        return hash_tensors([("tensor", value)])
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): told(part) for key, part in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, Set):
        return sorted((told(part) for part in value), key=str)
    if isinstance(value, Sequence):
        return [told(part) for part in value]
    if hasattr(value, "__array__"):  # NumPy's scalars and arrays, pandas' columns and tables
        return _of_array(np.asarray(value), told)
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "type": type(value).__qualname__,
            **told({part.name: getattr(value, part.name) for part in fields(value)}),
        }
    if not isinstance(value, type) and callable(hashed := getattr(value, "hash", None)):  # a model
        return hashed()
    if isinstance(value, nn.Module):
        return {"type": type(value).__qualname__, "weights": hash_tensors(value.state_dict().items())}
    if isinstance(value, partial):
        return {"function": told(value.func), "args": told(value.args), "keywords": told(value.keywords)}
    if isinstance(value, MethodType):
        return {"function": told(value.__func__), "of": told(value.__self__)}
    if isinstance(value, FunctionType):
        return _of_function(value, told)
    if hasattr(value, "__qualname__") or not hasattr(value, "__dict__"):  # classes and built-in functions; C objects
        return getattr(value, "__qualname__", type(value).__qualname__)
    return {"type": type(value).__qualname__, **told(_own(value))}


def _own(value: object) -> dict[str, Any]:
    """An object's attributes but for what it has worked out and kept: asked before or after, it is the same object."""
    kinds = type(value).__mro__
    kept = {name for kind in kinds for name, part in vars(kind).items() if isinstance(part, cached_property)}
    return {name: part for name, part in vars(value).items() if name not in kept}


def _of_array(array: np.ndarray, told: Any) -> Any:
    if array.ndim == 0 or array.dtype.kind not in "biufc":
        return told(array.tolist())
    return _digest([str(array.dtype), list(array.shape), np.ascontiguousarray(array).tobytes().hex()])


def _of_function(function: FunctionType, told: Any) -> Any:
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    code = _of_code(function.__code__) if "<" in function.__qualname__ else None
    if not held and not defaults and code is None:
        return function.__qualname__
    return {"function": function.__qualname__, "holds": told(held), "defaults": told(defaults), "code": code}


def _of_code(code: CodeType) -> str:
    constants = [_of_code(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return _digest([code.co_code.hex(), constants, list(code.co_names)])


def _digest(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
