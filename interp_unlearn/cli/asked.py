"""What a model is asked, from the options of a verb."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp_unlearn.cli import options

if TYPE_CHECKING:
    from interp_unlearn.attacks import PromptedMeasure
    from interp_unlearn.cli.inputs import LabelledTexts


def measure_from(
    texts: "LabelledTexts",
    data: Path,
    layout: options.Layout,
    questions: "Sequence[Path] | None",
    form: str,
    score: str | None,
    by_subject: bool,
    limit: int | None,
    skip: int,
    batch_size: int,
) -> "PromptedMeasure":
    """Questions where there are any, else facts, else the target texts themselves.

    Raises:
        DataError: no row is of the target class, or a file cannot be read.
        ConfigError: there is no such form or score.
    """
    from interp_unlearn.attacks import Completions, Facts, MultipleChoice
    from interp_unlearn.data import read_facts, read_questions
    from interp_unlearn.errors import DataError

    chosen = slice(skip, None if limit is None else skip + limit)
    told: dict[str, Any] = {"batch_size": batch_size} | ({} if score is None else {"score": score})
    groups = texts.groups_of_class(1)
    if questions:
        asked = [question for path in questions for question in read_questions(path)[chosen]]
        return MultipleChoice.of(asked, form, by_subject=by_subject, **told)  # pyright: ignore[reportArgumentType] unknown forms are refused there
    if layout is options.Layout.facts:
        return Facts.of(read_facts(data)[chosen], groups=groups, **told)
    if not groups:
        raise DataError(data, "no row is of the target class, so there is nothing to ask; see --layout")
    return Completions([""] * len(groups), texts.of_class(1), groups=groups, **told)
