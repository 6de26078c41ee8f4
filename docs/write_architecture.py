"""Draws the layers of the package, as they import each other, into CONTRIBUTING.md.

With --check nothing is written: exit code 1 says that the picture is not what the code makes.
"""

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "interp_unlearn"
PAGE = ROOT / "CONTRIBUTING.md"
MARKS = re.compile(r"(<!-- architecture: .+? -->\n).*?(<!-- end of architecture -->)", re.DOTALL)
LAYER = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)*)  +(?P<words>\S.*)$", re.MULTILINE)

Graph = dict[str, set[str]]
"""By layer: those it imports from."""


def main() -> None:
    """Draws the picture, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    text = PAGE.read_text(encoding="utf-8")
    drawn = MARKS.sub(lambda marks: f"{marks[1]}{picture()}{marks[2]}", text)
    if not MARKS.search(text):
        sys.exit(f"{PAGE.name} has no marks of the architecture")
    if not parser.parse_args().check:
        PAGE.write_text(drawn, encoding="utf-8")
    elif drawn != text:
        sys.exit(f"{PAGE.name} is not what the code makes; run: python docs/{Path(__file__).name}")


def picture() -> str:
    """The layers in Mermaid, each below what it is built on."""
    words = layers()
    edges = reduced({name: imports(name) & words.keys() for name in words})
    lines = [f'    {name}["<b>{name}</b><br>{_in_mermaid(said)}"]' for name, said in words.items()]
    lines += [f"    {below} --> {name}" for name in words for below in words if below in edges[name]]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```", ""])


def layers() -> dict[str, str]:
    """Layers in the order of the package's docstring, with what it says of each: on a shared line in as many parts."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")), clean=False) or ""
    found: dict[str, str] = {}
    for line in LAYER.finditer(docstring):
        names, said = line["names"].split(", "), line["words"].split("; ")
        found |= zip(names, said if len(said) == len(names) else [line["words"]] * len(names), strict=True)
    return found


def imports(layer: str) -> set[str]:
    """What the files of a layer import from, itself left out."""
    paths = (PACKAGE / layer).rglob("*.py") if (PACKAGE / layer).is_dir() else [PACKAGE / f"{layer}.py"]
    names: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE.name}."):
                names.add((node.module or "").split(".")[1])
    return names - {layer}


def reduced(graph: Graph) -> Graph:
    """Without the imports that others imply: what a layer imports from imports from them in turn."""
    above = {name: reached(graph, name) for name in graph}
    return {name: {one for one in direct if not any(one in above[o] for o in direct)} for name, direct in graph.items()}


def reached(graph: Graph, name: str) -> set[str]:
    """All that a layer is built on, directly or not."""
    found: set[str] = set()
    waiting = list(graph[name])
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += graph[one]
    return found


def _in_mermaid(words: str) -> str:
    """Without the signs that Mermaid reads."""
    return re.sub(r"[`\"]", "", words)


if __name__ == "__main__":
    main()
