"""What the verbs read: labelled texts in a public layout, models, sites and layers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from interp_unlearn.cli.options import Dtype, Layout
from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.sites import Site, residual_stream

if TYPE_CHECKING:
    from interp_unlearn.data import FactQuestion, Prompt
    from interp_unlearn.evaluation import ClassifierScorer
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.interventions.selections import Tokens

Row = TypeVar("Row")
_LAYERS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


@dataclass(frozen=True)
class LabelledTexts:
    """Texts of two classes (or of one, where no other was given).

    Attributes:
        texts: both classes, in the order of the file.
        labels: 1 for the target (what is to be forgotten), 0 for neutral.
        groups: rows of one group belong together (a pair and its rewrite).
        answers: of facts, what each text ends in; None for other layouts, and for texts of the other class.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    groups: tuple[str, ...]
    answers: tuple[str | None, ...] | None = None

    def questions(self) -> tuple[list[str], list[str]] | None:
        """The target texts as prompts and completions; None unless they are facts."""
        if self.answers is None:
            return None
        facts = [(text, answer) for text, answer in zip(self.texts, self.answers, strict=True) if answer is not None]
        return [text.removesuffix(answer) for text, answer in facts], [answer for _, answer in facts]

    def of_class(self, label: int) -> list[str]:
        return [text for text, found in zip(self.texts, self.labels, strict=True) if found == label]

    def groups_of_class(self, label: int) -> list[str]:
        return [group for group, found in zip(self.groups, self.labels, strict=True) if found == label]


def read_labelled_texts(
    data: Path, layout: Layout, neutral: Path | None = None, *, limit: int | None = None, skip: int = 0
) -> LabelledTexts:
    """Read the target class and the neutral one; ``limit`` and ``skip`` count rows of each file, pairs as one row.

    Raises:
        DataError: a file is missing, empty or malformed, or no row is left after ``skip``.
        ConfigError: a neutral file was given for a layout that holds both classes.
    """
    from interp_unlearn.data import TOXIC_FROM, read_facts, read_pairs, read_prompts, read_texts

    if neutral is not None and layout not in (Layout.texts, Layout.facts):
        raise ConfigError(
            f"--neutral goes with --layout texts or facts; {data} in the layout {layout} holds both classes"
        )
    rows: list[tuple[str, int, str]] = []
    answers: list[str] = []
    if layout is Layout.pairs:
        for index, pair in _rows(data, read_pairs(data), limit, skip):
            rows += [(pair.toxic, 1, f"pair {index}"), (pair.neutral[0], 0, f"pair {index}")]
    elif layout is Layout.prompts:
        scored = [(prompt.text, prompt.toxicity) for prompt in read_prompts(data) if prompt.toxicity is not None]
        if not scored:
            raise DataError(data, "no prompt has a toxicity score, so there are no classes; use --layout texts")
        for index, (text, toxicity) in _rows(data, scored, limit, skip):
            rows.append((text, int(toxicity >= TOXIC_FROM), f"prompt {index}"))
    else:
        if layout is Layout.facts:
            facts = _rows(data, read_facts(data), limit, skip)
            rows += [(in_words(fact), 1, f"fact {index}") for index, fact in facts]
            answers = [f" {fact.answer}" for _, fact in facts]
        else:
            rows += [(text, 1, f"text {index}") for index, text in _rows(data, read_texts(data), limit, skip)]
        if neutral is not None:
            others = _rows(neutral, read_plain(neutral), limit, skip)
            rows += [(text, 0, f"neutral {index}") for index, text in others]
    texts, labels, groups = zip(*rows, strict=True)
    ends = (*answers, *[None] * (len(rows) - len(answers))) if answers else None
    return LabelledTexts(texts, labels, groups, ends)


def in_words(fact: "FactQuestion") -> str:
    """A fact as one text: question, then answer."""
    from interp_unlearn.evaluation.multiple_choice import TEMPLATE

    return f"{TEMPLATE.format(question=fact.question)} {fact.answer}"


def read_plain(path: Path) -> list[str]:
    """Plain texts, or facts (JSON lines with question and answer) as texts.

    Raises:
        DataError: the file is missing, empty or malformed.
    """
    from interp_unlearn.data import read_facts, read_texts
    from interp_unlearn.data.lines import read_objects

    if path.suffix in (".json", ".jsonl") and path.is_file():
        _, first = next(iter(read_objects(path)))
        if "question" in first:
            return [in_words(fact) for fact in read_facts(path)]
    return read_texts(path)


def read_topics(
    data: Path, topics: Sequence[Path], layout: Layout, neutral: Path | None, *, limit: int | None, skip: int
) -> tuple[LabelledTexts, list[str] | None]:
    """The texts of several files one after another, and the topic of each target text: its file's name.

    Raises:
        DataError: as `read_labelled_texts`.
        ConfigError: two files have one name.
    """
    first = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    if not topics:
        return first, None
    files = [data, *topics]
    if len({file.stem for file in files}) < len(files):
        raise ConfigError("--topic: topics are called after their files, and two of the files have the same name")
    parts = [first, *(read_labelled_texts(file, layout, limit=limit, skip=skip) for file in topics)]
    labels = [file.stem for file, part in zip(files, parts, strict=True) for _ in part.of_class(1)]
    joined = LabelledTexts(
        tuple(text for part in parts for text in part.texts),
        tuple(label for part in parts for label in part.labels),
        tuple(f"{file.stem} {group}" for file, part in zip(files, parts, strict=True) for group in part.groups),
        None if first.answers is None else tuple(answer for part in parts for answer in part.answers or ()),
    )
    return joined, labels


def require_both_classes(texts: LabelledTexts, data: Path) -> None:
    """Refuse texts of one class.

    Raises:
        DataError: they are.
    """
    found = set(texts.labels)
    if found != {0, 1}:
        kind = "target" if found == {1} else "neutral"
        raise DataError(data, f"all {len(texts.labels)} rows are {kind}; give rows of both classes (see --neutral)")


def open_model(
    path: str,
    device: str,
    dtype: Dtype | None,
    backend: str = "torch",
    first_blocks: int | None = None,
    remote: str | None = None,
) -> "HookedModel":
    """Load a model without progress bars or warnings of transformers on stderr; a hosted one stays where it is.

    Raises:
        CheckpointError: it cannot be loaded.
        ConfigError: there is no such device.
    """
    import torch

    from interp_unlearn.interventions import HookedModel

    quiet_transformers()
    check_device(device)
    precision = None if dtype is None else getattr(torch, dtype)
    where = True if remote == "ndif" else remote or False
    return HookedModel.from_pretrained(
        path, backend=backend, dtype=precision, device=device, first_blocks=first_blocks, remote=where
    )


def open_scorers(names: Sequence[str], device: str) -> "list[ClassifierScorer]":
    """Load classifiers, each named by its directory, or by the whole path where two directories are called alike.

    Args:
        names: directories or hub ids, with ``#`` and the toxic label behind them where it cannot be told.
        device: where they run.

    Raises:
        CheckpointError: one cannot be loaded or is no classifier.
        ConfigError: a toxic label cannot be told, or there is no such device.
    """
    from interp_unlearn.evaluation import ClassifierScorer

    quiet_transformers()
    check_device(device)
    # A directory's own name may hold a #.
    parts = [(name, "", "") if Path(name).is_dir() else name.partition("#") for name in names]
    alike = len({Path(path).name for path, _, _ in parts}) < len(parts)
    return [
        ClassifierScorer.from_pretrained(path, label=label or None, name=path if alike else None, device=device)
        for path, _, label in parts
    ]


def read_scored_prompts(path: Path, *, limit: int | None = None, skip: int = 0) -> "list[Prompt]":
    """Prompts in the layout of RealToxicityPrompts, those without a score among them.

    Raises:
        DataError: the file is missing, empty or malformed, or no row is left after ``skip``.
    """
    from interp_unlearn.data import read_prompts

    return [prompt for _, prompt in _rows(path, read_prompts(path), limit, skip)]


def quiet_transformers() -> None:
    """Keep progress bars and warnings of transformers off stderr."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ConfigError: it is not.
    """
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device}: {str(error).splitlines()[0]}") from error


def chosen_sites(names: Sequence[str] | None, model: "HookedModel") -> list[Site]:
    """The sites named, or the embedding and every resid_post.

    Raises:
        SiteError: a name is no site, or the model has no such layer.
        ConfigError: one is named twice.
    """
    if not names:
        return residual_stream(model.n_layers)
    sites = [Site.parse(name) for name in names]
    for site in sites:
        site.check(model.n_layers)
    if len(set(sites)) < len(sites):
        raise ConfigError(f"--site: expected each site once, got {', '.join(map(str, sites))}")
    return sites


def parse_tokens(text: str) -> "Tokens":
    """A selection of tokens: a name, or a span written as ``0:8``, ``2:`` or ``-4:``.

    Raises:
        ConfigError: the text is neither.
    """
    from interp_unlearn.interventions.selections import Span, check_tokens

    start, colon, stop = text.partition(":")
    if not colon:
        check_tokens(text)
        return text  # pyright: ignore[reportReturnType]
    try:
        return Span(int(start or 0), int(stop) if stop else None)
    except ValueError as error:
        raise ConfigError(f"cannot read {text!r} as a span of positions; write for example 0:8 or -4:") from error


def parse_layers(text: str) -> list[int]:
    """Layers written as ``3``, ``1,4`` or ``2-6``.

    Raises:
        ConfigError: the text is neither.
    """
    layers: list[int] = []
    for part in text.split(","):
        found = _LAYERS.fullmatch(part.strip())
        first, last = (0, -1) if found is None else (int(found[1]), int(found[2] or found[1]))
        if last < first:
            raise ConfigError(f"cannot read {text!r} as layers; write for example 3 or 1,4 or 2-6")
        layers += range(first, last + 1)
    return layers


def _rows(data: Path, rows: Sequence[Row], limit: int | None, skip: int) -> list[tuple[int, Row]]:
    """The rows asked for, with their index in the file."""
    chosen = list(enumerate(rows))[skip : None if limit is None else skip + limit]
    if not chosen:
        raise DataError(data, f"holds {len(rows)} rows, so none is left after --skip {skip}")
    return chosen
