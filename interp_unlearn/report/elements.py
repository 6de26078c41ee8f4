"""Elements of a page. Text and attributes are escaped when the page is written, so nothing from disk becomes markup."""

import base64
import hashlib
import re
from collections.abc import Iterable
from xml.etree import ElementTree as Tree

Element = Tree.Element
Content = Element | str
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # no HTML parser keeps these


def element(tag: str, *content: Content, **attributes: str) -> Element:
    """An element with its content. A last underscore of an attribute is dropped (``class_``), others become hyphens."""
    made = Tree.Element(tag, {name.rstrip("_").replace("_", "-"): _plain(v) for name, v in attributes.items()})
    last: Element | None = None
    for part in content:
        if isinstance(part, str):
            if last is None:
                made.text = (made.text or "") + _plain(part)
            else:
                last.tail = (last.tail or "") + _plain(part)
        else:
            made.append(part)
            last = part
    return made


def section(title: str, name: str, content: Iterable[Content]) -> Element:
    """A part of the page with its heading, to which ``#name`` leads."""
    return element("section", element("h2", title, id=name), *content, aria_labelledby=name)


def written(page: Element) -> str:
    """The page as HTML."""
    return "<!DOCTYPE html>\n" + Tree.tostring(page, encoding="unicode", method="html") + "\n"


def data_uri(png: bytes) -> str:
    """An image as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def source_hash(source: str) -> str:
    """How a content security policy names the one script, or the one style sheet, that it lets through."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _plain(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
