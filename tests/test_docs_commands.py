"""Every command on the pages and in the README is one that the app takes, and every verb has its section."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from interp_unlearn.cli.app import app
from interp_unlearn.unlearning import method_kinds, recipe_names
from interp_unlearn.unlearning.update_rules import RULES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def lines() -> Iterator[tuple[str, list[str]]]:
    """Each command line of the pages: where it stands, and its words."""
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        blocks = FENCE.findall(text)
        assert len(blocks) == text.count("```bash"), f"{path.name}: a block of bash is indented, and so not found"
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            # As in a shell, a # inside a word begins no comment: FILE#TENSOR.
            if words := shlex.split(re.sub(r"(^|\s)#.*", "", line)):
                yield path.relative_to(ROOT).as_posix(), words


OURS = [(page, words[1:]) for page, words in lines() if words[0] == "interp-unlearn"]


@cache
def application() -> Any:
    return typer.main.get_command(app)


def parsed(words: list[str]) -> dict[str, Any]:
    """What the app's own parser makes of the arguments; nothing is run."""
    command, context = application(), application().make_context("interp-unlearn", list(words))
    name = ""
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context)
    return {"verb": name, **context.params}


@pytest.mark.parametrize(("page", "words"), OURS, ids=[f"{page}: {words[0]}" for page, words in OURS])
def test_a_command_is_one_that_the_app_takes(page: str, words: list[str]) -> None:
    given = parsed(words)
    if given["verb"] == "unlearn":
        assert given["objective"] is not None or given["recipe"] is not None
        assert given["objective"] in {None, *method_kinds()}
        assert given["recipe"] in {None, *recipe_names()}
        assert set(given["rules"] or ()) <= RULES.keys()


def test_what_the_app_does_not_take_would_be_noticed() -> None:
    for wrong in (["collect", "M", "--data", "x", "--out", "y", "--no-such-option"], ["collect", "M"], ["no_verb"]):
        with pytest.raises(typer.TyperException):
            parsed(wrong)


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = {word for _, words in lines() if words[0] == "make" for word in words[1:]}
    for path in PAGES:
        asked |= set(re.findall(r"`make ([a-z-]+)`", path.read_text(encoding="utf-8")))
    assert asked and asked <= targets


def test_every_verb_has_a_section_with_an_example() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### (\S+)\n", page, re.MULTILINE)
    assert sorted(sections) == sorted(application().commands)
    shown = {tuple(words[:2]) for where, words in OURS if where == "docs/command-line.md"}
    for name, command in application().commands.items():
        for member in getattr(command, "commands", ()):
            assert (name, member) in shown
        assert any(name == first for first, _ in shown)
