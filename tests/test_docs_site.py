"""The site's navigation, its pages and its pictures belong together. `make docs` builds it and follows every link."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

import interp_unlearn

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
SVG = "{http://www.w3.org/2000/svg}"


def navigation(entries: Any) -> list[str]:
    """All pages, in order."""
    if isinstance(entries, str):
        return [entries]
    parts = entries if isinstance(entries, list) else entries.values()
    return [page for part in parts for page in navigation(part)]


def test_every_page_is_in_the_navigation_once() -> None:
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(navigation(CONFIG["nav"])) == sorted(pages)


def test_every_layer_has_a_page_of_its_api() -> None:
    layers = re.findall(r"^ {4}([a-z][a-z, ]*?) {2,}", interp_unlearn.__doc__ or "", re.MULTILINE)
    names = {name for layer in layers for name in layer.split(", ")} - {"cli"}
    assert {"errors", "sites", "probes", "study"} <= names
    pages = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    shown = set(re.findall(r"^::: interp_unlearn\.(\w+)", pages, re.MULTILINE))
    assert names <= shown


def test_pictures_are_drawn_for_light_and_dark_and_can_be_read_aloud() -> None:
    drawings = sorted((DOCS / "img").glob("*.svg"))
    shown = "".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    assert len(drawings) >= 5
    for path in drawings:
        root = ElementTree.parse(path).getroot()
        assert root.findtext(f"{SVG}title") and root.findtext(f"{SVG}desc")
        assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")
        assert f"](img/{path.name})" in shown
