"""Published settings, as data files that name the source of each value."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from interp_unlearn.artifacts import read_json
from interp_unlearn.errors import ConfigError
from interp_unlearn.unlearning.config import UnlearnConfig


@dataclass(frozen=True)
class Recipe:
    """One published setting.

    Attributes:
        name: of the file.
        model: what it was published for.
        objective: name in the registry.
        options: for `build_method`.
        config: for `unlearn`, or the `apply` of a weight edit.
        sources: where each value is from; a value that is ours says so.
        notes: what the file cannot express.
    """

    name: str
    model: str
    objective: str
    options: dict[str, Any]
    config: UnlearnConfig
    sources: dict[str, str]
    notes: str


def recipe_names() -> list[str]:
    """All recipes that come with the package."""
    folder = files("interp_unlearn.unlearning") / "recipes"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def load_recipe(name: str) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in recipe_names():
        raise ConfigError(f"unknown recipe {name!r}; expected one of {', '.join(recipe_names())}")
    stored: dict[str, Any] = read_json(str(files("interp_unlearn.unlearning") / "recipes" / f"{name}.json"))
    config = UnlearnConfig(**stored.pop("config"))
    return Recipe(name=name, config=config, **stored)
