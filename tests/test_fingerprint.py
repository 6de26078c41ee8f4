"""Two settings that differ have different fingerprints, whatever kind of object holds the difference."""

import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp_unlearn.artifacts import as_read_back
from interp_unlearn.artifacts.fingerprint import fingerprint


@dataclass(frozen=True)
class Told:
    value: Any


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, x: int) -> int:
        return x


def power(x: float, exponent: float) -> float:
    return x**exponent


def of_closure(value: int) -> Any:
    return lambda x: x + value


def with_default(value: int) -> Any:
    def function(x: int, y: int = value) -> int:
        return x + y

    return function


PAIRS = {
    "numbers": (1, 2),
    "NumPy scalars": (np.int64(7), np.int64(3)),
    "arrays": (np.array([0, 0]), np.array([0, 1])),
    "shapes": (np.zeros((2, 3)), np.zeros((3, 2))),
    "dtypes": (np.zeros(2, np.float32), np.zeros(2, np.int32)),
    "arrays of texts": (np.array(["a"]), np.array(["b"])),
    "columns": (pd.Series([1.0]), pd.Series([2.0])),
    "tables": (pd.DataFrame({"a": ["x"]}), pd.DataFrame({"a": ["y"]})),
    "tensors": (torch.zeros(2), torch.ones(2)),
    "paths": (Path("a"), Path("b")),
    "sets": ({"a", "b"}, {"a", "c"}),
    "partials": (partial(power, exponent=1), partial(power, exponent=2)),
    "partials' arguments": (partial(power, 1), partial(power, 2)),
    "closures": (of_closure(1), of_closure(2)),
    "defaults": (with_default(1), with_default(2)),
    "lambdas": (lambda x: x + 1, lambda x: x + 2),
    "operations of lambdas": (lambda x: x + 1, lambda x: x * 1),
    "callable objects": (Plain(1), Plain(2)),
    "methods": (Plain(1).__call__, Plain(2).__call__),
    "modules": (torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("within", [lambda x: x, lambda x: Told(x), lambda x: {"a": [x]}])
def test_what_differs_is_told_apart(kind: str, within: Any) -> None:
    one, other = map(within, PAIRS[kind])
    assert fingerprint(one) == fingerprint(one) == as_read_back({"told": fingerprint(one)})["told"]
    assert fingerprint(one) != fingerprint(other)


def test_what_is_equal_is_not() -> None:
    assert fingerprint(np.int64(3)) == 3 and fingerprint(np.float32(0.5)) == 0.5
    assert fingerprint(power) == "power" and fingerprint(Plain) == "Plain"
    assert fingerprint(of_closure(1)) == fingerprint(of_closure(1))
    assert fingerprint(Plain([1])) == fingerprint(Plain([1])) == {"type": "Plain", "value": [1]}
    assert fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})


def test_an_object_that_holds_itself_ends() -> None:
    plain = Plain(1)
    plain.value = [plain]
    assert fingerprint(plain) == {"type": "Plain", "value": ["itself"]}


class Lazy(Plain):
    @cached_property
    def doubled(self) -> int:
        return 2 * self.value


def test_what_an_object_has_worked_out_and_kept_does_not_make_it_another() -> None:
    used, fresh = Lazy(3), Lazy(3)
    assert used.doubled == 6 and "doubled" in vars(used)
    assert fingerprint(used) == fingerprint(fresh) == {"type": "Lazy", "value": 3}
    assert fingerprint(used) != fingerprint(Lazy(4))


def test_sets_have_one_order_in_every_process() -> None:
    script = "from interp_unlearn.artifacts.fingerprint import fingerprint; print(fingerprint({'a', 'b', 'c', 'd'}))"
    told = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {"['a', 'b', 'c', 'd']\n"}
