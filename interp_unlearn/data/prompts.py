"""Prompts with toxicity scores, in the layout of RealToxicityPrompts (Gehman et al., Findings of EMNLP 2020)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interp_unlearn.data.lines import in_short, read_objects, require_text, write_lines
from interp_unlearn.errors import DataError

TOXIC_FROM = 0.5
"""Toxicity score from which a text counts as toxic, in RealToxicityPrompts."""


@dataclass(frozen=True)
class Prompt:
    """A prompt, the toxicity score of the prompt (0 to 1, None where unscored) and its original continuation."""

    text: str
    toxicity: float | None = None
    continuation: str | None = None


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read JSON lines ``{"prompt": {"text", "toxicity"}, "continuation": {"text"}}``; other keys are left alone.

    Raises:
        DataError: the file is empty, a line is not such an object, or a score lies outside 0 to 1.
    """
    prompts: list[Prompt] = []
    for line, row in read_objects(path):
        prompt, continuation = row.get("prompt"), row.get("continuation")
        if not isinstance(prompt, dict):
            raise DataError(path, 'expected "prompt": {"text": ..., "toxicity": ...}', line)
        if continuation is not None:
            if not isinstance(continuation, dict):
                raise DataError(path, 'expected "continuation": {"text": ...} or null', line)
            continuation = require_text(path, continuation.get("text"), "continuation.text", line)
        text = require_text(path, prompt.get("text"), "prompt.text", line)
        prompts.append(Prompt(text, _score(path, prompt.get("toxicity"), line), continuation))
    return prompts


def write_prompts(path: str | Path, prompts: Sequence[Prompt]) -> None:
    """Write prompts so that ``read_prompts`` gives them back.

    Raises:
        DataError: there are no prompts, one is blank, or a score lies outside 0 to 1.
    """
    if not prompts:
        raise DataError(path, "no prompts to write")
    lines: list[str] = []
    for number, prompt in enumerate(prompts, start=1):
        require_text(path, prompt.text, "text", number)
        if prompt.continuation is not None:
            require_text(path, prompt.continuation, "continuation", number)
        row = {
            "prompt": {"text": prompt.text, "toxicity": _score(path, prompt.toxicity, number)},
            "continuation": None if prompt.continuation is None else {"text": prompt.continuation},
        }
        lines.append(json.dumps(row, ensure_ascii=False))
    write_lines(path, lines)


def _score(path: str | Path, value: object, line: int) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(path, f"prompt.toxicity: expected a number from 0 to 1 or null, got {in_short(value)}", line)
    return float(value)
