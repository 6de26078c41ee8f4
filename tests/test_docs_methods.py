"""docs/methods.md has every method by its name, with its options, its source and its caveat, as the code has them."""

import inspect
import re
from pathlib import Path

import pytest

import interp_unlearn
from interp_unlearn.unlearning import method_kinds, recipe_names, registry
from interp_unlearn.unlearning.update_rules import RULES

PAGE = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
HEADINGS = {"loss": "Losses", "weight_edit": "Weight edits", "inference_edit": "Inference edits"}
PAPER = re.compile(r"\b\d{4}\.\d{5}\b")


def sections() -> dict[str, tuple[str, str]]:
    """By title: the heading above it, and its text on one line."""
    found: dict[str, tuple[str, str]] = {}
    for part in PAGE.split("\n## ")[1:]:
        heading, *members = part.split("\n### ")
        for member in members:
            title, _, text = member.partition("\n")
            found[title] = (heading.splitlines()[0], " ".join(text.split()))
    return found


def test_every_method_and_rule_has_its_section_and_no_other_has() -> None:
    titles = {title for title in sections() if re.fullmatch(r"[a-z_]+", title)}
    assert titles == {*method_kinds(), *RULES}


@pytest.mark.parametrize("name", method_kinds())
def test_a_section_has_the_options_the_source_and_the_caveat(name: str) -> None:
    heading, text = sections()[name]
    assert heading.startswith(HEADINGS[method_kinds()[name]])
    builder = registry._methods[name].builder  # pyright: ignore[reportPrivateUsage]
    options = list(inspect.signature(builder).parameters)
    stated = re.search(r"Options: ([^.]*)\.", text)
    assert re.findall(r"`(\w+)`", stated[1] if stated else "") == options
    assert stated is not None or "No options" in text
    assert re.search(r"\*(Published|Our reading|Ours|Privileged|baseline)\*", text), "whose it is"
    assert "*Caveat*:" in text


def test_sources_are_those_of_the_docstrings() -> None:
    package = Path(interp_unlearn.__file__).parent
    folders = (package / "unlearning", package / "objectives")
    code = "".join(path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.py"))
    assert set(PAPER.findall(code)) - set(PAPER.findall(PAGE)) == set(), "papers that the page leaves out"
    named = {title: set(PAPER.findall(text)) for title, (_, text) in sections().items()}
    assert set().union(*named.values()) <= set(PAPER.findall(code)), "papers that no docstring names"


def test_recipes_are_named_where_their_method_is() -> None:
    from interp_unlearn.unlearning import load_recipe

    for recipe in recipe_names():
        assert f"`{recipe}`" in sections()[load_recipe(recipe).objective][1]
