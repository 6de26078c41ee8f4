"""Tokens as boxes in lines: what is written of each, how wide it is, and where the lines break. Lengths in points."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

FONT_SIZE = 8.0
PADDING = 2.0
"""Left and right of a token's text, inside its box."""
SPACE = 3.5
"""Between two boxes, where the text has a space."""
LONGEST = 120.0
"""Of a token's text, such as a row of dashes: what is over is cut."""


@dataclass(frozen=True)
class Box:
    """A token's place in the text.

    Attributes:
        text: what is written in it.
        line: counted from 0.
        x: left edge.
        width: of the box.
    """

    text: str
    line: int
    x: float
    width: float


def lay_out(tokens: Sequence[str], width: float) -> list[Box]:
    """Put tokens beside each other and break lines before words, inside a word only where it is longer than a line.

    A token's first space becomes a gap before its box, so that the pieces of a word touch.
    """
    texts = [clipped(_written(token), LONGEST) for token in tokens]
    widths = [text_width(text) + 2 * PADDING for text in texts]
    boxes: list[Box] = []
    line, x = 0, 0.0
    for word in _words(tokens):
        gap = SPACE if x > 0 and _is_spaced(tokens[word[0]]) else 0.0
        needed = sum(widths[index] for index in word)
        if x > 0 and x + gap + needed > width >= needed:
            line, x, gap = line + 1, 0.0, 0.0
        x += gap
        for index in word:
            if x > 0 and x + widths[index] > width:
                line, x = line + 1, 0.0
            boxes.append(Box(texts[index], line, x, widths[index]))
            x += widths[index]
        if tokens[word[-1]].endswith("\n"):
            line, x = line + 1, 0.0
    return boxes


def text_width(text: str) -> float:
    """Width of a text in the figures' font."""
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, _font_properties(), ismath=False)[0])


def clipped(text: str, width: float) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    if text_width(text) <= width:
        return text
    text = text[: int(width)]  # hardly a letter is narrower than a point
    while text and text_width(text + "…") > width:
        text = text[:-1]
    return text + "…"


def drawable(text: str) -> str:
    """The text with escapes such as ``\\n`` for control characters and for what the font has no glyph for."""
    return "".join(c if c.isprintable() and _has_glyph(c) else c.encode("unicode_escape").decode() for c in text)


def _words(tokens: Sequence[str]) -> Iterator[list[int]]:
    """Indices of tokens that belong together: up to the next space, or to the end of a line."""
    word: list[int] = []
    for index, token in enumerate(tokens):
        if word and (_is_spaced(token) or tokens[index - 1].endswith("\n")):
            yield word
            word = []
        word.append(index)
    if word:
        yield word


def _is_spaced(token: str) -> bool:
    """Whether a gap stands for the token's first space; of a token that is nothing else, the space itself is drawn."""
    return token.startswith(" ") and token != " "


def _written(token: str) -> str:
    """A token as its box shows it: without the space that a gap stands for, any other space marked."""
    return drawable((token[1:] if _is_spaced(token) else token).replace(" ", "␣"))


@cache
def _has_glyph(character: str) -> bool:
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont(_font_properties())).get_char_index(ord(character)) != 0


@cache
def _font_properties() -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(family="DejaVu Sans", size=FONT_SIZE)
