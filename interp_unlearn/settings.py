"""What a dataclass of settings may hold: what its annotations say, and no number that is not finite."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from interp_unlearn.errors import ConfigError

Made = TypeVar("Made")
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    NoneType: "None",
}


def check_fields(settings: Any) -> None:
    """Refuse a field whose value is of another type than its annotation, or is infinite or NaN.

    Python looks at no annotation: text where a number belongs would be found out in the middle of a run, and an
    infinite number, which JSON cannot hold, when the run's record is written.

    Args:
        settings: an instance of a dataclass. Its annotations may be made of numbers, text, booleans, None, literals,
            classes, unions, tuples and sequences; a list passes for a tuple, as JSON has it.

    Raises:
        ConfigError: a field does not fit.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not _fits(value, hints[field.name]):
            raise ConfigError(f"{field.name}: expected {_in_words(hints[field.name])}, got {value!r}")


def call_with(make: Callable[..., Made], options: Mapping[str, Any], name: str) -> Made:
    """Call what makes a thing by its name with the options that were given for it, once they fit its signature.

    Options are held to those annotations that settings may have; others are for ``make`` itself to check.

    Raises:
        ConfigError: there is no such option, one is missing, or of another type.
    """
    signature = inspect.signature(make)
    try:
        signature.bind(**options)
    except TypeError as error:
        accepted = ", ".join(signature.parameters)
        raise ConfigError(f"{name}: {error}; its options are {accepted}") from error
    for option, value in options.items():
        hint = signature.parameters[option].annotation if option in signature.parameters else Any
        if _is_plain(hint) and not _fits(value, hint):
            raise ConfigError(f"{name}: {option}: expected {_in_words(hint)}, got {value!r}")
    return make(**options)


def is_finite(value: Any) -> bool:
    """Whether a value is a number, neither infinite nor NaN, that a float can hold."""
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _is_plain(hint: Any) -> bool:
    """Whether an annotation is made of numbers, text, booleans, None and literals, or lists and maps of these."""
    if get_origin(hint) is Literal:
        return True
    if get_origin(hint) in (Union, UnionType, tuple, Sequence, Mapping):
        return all(part is Ellipsis or _is_plain(part) for part in get_args(hint))
    return isinstance(hint, type) and hint in _WORDS


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in arguments)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            return False
        return all(_fits(key, arguments[0]) and _fits(part, arguments[1]) for key, part in value.items())
    if origin is tuple and Ellipsis not in arguments:
        listed = value if isinstance(value, tuple | list) else ()
        return len(listed) == len(arguments) and all(map(_fits, listed, arguments))
    if origin in (tuple, Sequence):
        kinds = tuple | list if origin is tuple else tuple | list | range
        return isinstance(value, kinds) and all(_fits(part, arguments[0]) for part in value)  # pyright: ignore[reportUnknownVariableType]
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and is_finite(value)  # pyright: ignore[reportUnnecessaryIsInstance]
    return isinstance(value, hint)


def _in_words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, arguments))
    if origin is Mapping:
        return f"a map to {_in_words(arguments[1])}"
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {', '.join(map(_in_words, arguments))}"
    if origin in (tuple, Sequence):
        return f"a list, each {_in_words(arguments[0])}"
    return _WORDS.get(hint) or str(hint.__name__)
