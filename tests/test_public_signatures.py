"""Names, parameters and defaults of the public functions and classes, as they were last agreed on.

A default is part of every result that was obtained with it. Whoever changes one says so in CHANGELOG.md and writes the
list anew: `.venv/bin/python tests/test_public_signatures.py`.
"""

import inspect
import json
from importlib import import_module
from pathlib import Path

import pytest

LISTED = Path(__file__).with_name("public_signatures.json")
MODULES = (
    *("activations", "artifacts", "attacks", "data", "directions", "drift", "evaluation", "figures", "hub"),
    *("interventions", "mechanism", "models", "objectives", "probes", "sites", "statistics", "study", "unlearning"),
)


def public_signatures(module: str) -> dict[str, str]:
    """Of every public callable of a module its parameters, with ` = default` where there is one."""
    found = import_module(f"interp_unlearn.{module}")
    names = getattr(found, "__all__", None) or [name for name in vars(found) if not name.startswith("_")]
    signatures: dict[str, str] = {}
    for name in sorted(names):
        value = getattr(found, name)
        if not callable(value) or not getattr(value, "__module__", "").startswith("interp_unlearn"):
            continue
        try:
            parameters = inspect.signature(value).parameters.values()
        except ValueError:
            continue  # a type alias
        signatures[name] = ", ".join(_described(parameter) for parameter in parameters)
    return signatures


def _described(parameter: inspect.Parameter) -> str:
    """Its name, marked: * and ** of the rest, | of what is given by name alone, / of what by place alone."""
    kinds = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    kinds |= {parameter.KEYWORD_ONLY: "|", parameter.POSITIONAL_ONLY: "/"}
    star = kinds.get(parameter.kind, "")
    default = parameter.default
    if default is parameter.empty:
        return f"{star}{parameter.name}"
    if inspect.isroutine(default) or inspect.isclass(default):
        return f"{star}{parameter.name} = {default.__name__}"
    text = repr(default)  # a factory's is an address or a mark of dataclasses
    return f"{star}{parameter.name} = {'a new one' if 'factory' in text or ' at 0x' in text else text}"


@pytest.mark.parametrize("module", MODULES)
def test_signatures_are_those_that_were_agreed_on(module: str) -> None:
    listed = json.loads(LISTED.read_text(encoding="utf-8"))[module]
    assert public_signatures(module) == listed, "if it is meant, say so in CHANGELOG.md and run this file"


if __name__ == "__main__":
    everything = {module: public_signatures(module) for module in MODULES}
    LISTED.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
