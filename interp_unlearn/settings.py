"""What a dataclass of settings may hold: what its annotations say, and no number that is not finite."""

import math
from collections.abc import Sequence
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from interp_unlearn.errors import ConfigError

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


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in arguments)
    if origin in (tuple, Sequence):
        return isinstance(value, tuple | list) and all(_fits(part, arguments[0]) for part in value)  # pyright: ignore[reportUnknownVariableType]
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and _is_finite(value)  # pyright: ignore[reportUnnecessaryIsInstance]
    return isinstance(value, hint)


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float can hold
        return False


def _in_words(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, UnionType):
        return " or ".join(map(_in_words, arguments))
    if origin in (tuple, Sequence):
        return f"a list, each {_in_words(arguments[0])}"
    return _WORDS.get(hint) or str(hint.__name__)
