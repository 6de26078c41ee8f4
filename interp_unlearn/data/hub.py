"""Datasets by the names they have on the hub: which file of theirs is read, and which of them need leave."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from interp_unlearn.errors import ConfigError, DataError
from interp_unlearn.snapshots import fetch_snapshot

Layout = Literal["questions", "pairs", "prompts", "texts", "facts"]
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
"""Files that hold data; a script that would build a dataset is never fetched."""

GATED = {
    "cais/wmdp-bio-forget-corpus": "any biomedical text in the same layout (title, abstract, text)",
    "bio-forget-corpus": "any biomedical text in the same layout (title, abstract, text)",
}
OPEN = {
    "cyber-forget-corpus": "cais/wmdp-corpora",
    "cyber-retain-corpus": "cais/wmdp-corpora",
    "bio-retain-corpus": "cais/wmdp-corpora",
}


@dataclass(frozen=True)
class KnownDataset:
    """The layout that a dataset is assumed to have on the hub.

    Attributes:
        files: pattern of its files, in which {config} and {split} are filled.
        layout: the reader is `read_` and this.
        config: an example, where there are several.
        split: the one read by default; empty where a file is not of a split.
        splits: all.
        columns: what the reader needs.
    """

    files: str
    layout: Layout
    columns: tuple[str, ...]
    config: str = ""
    split: str = ""
    splits: tuple[str, ...] = ()


_QUESTIONS = ("question", "choices", "answer")
KNOWN = MappingProxyType(
    {
        "cais/wmdp": KnownDataset(
            "{config}/{split}-*.parquet", "questions", _QUESTIONS, "wmdp-cyber", "test", ("test",)
        ),
        "cais/mmlu": KnownDataset(
            "{config}/{split}-*.parquet", "questions", _QUESTIONS, "all", "test", ("test", "validation", "dev")
        ),
        "allenai/real-toxicity-prompts": KnownDataset("prompts.jsonl", "prompts", ("prompt", "continuation")),
        "s-nlp/paradetox": KnownDataset("train.tsv", "pairs", ("en_toxic_comment", "en_neutral_comment")),
        "cais/wmdp-corpora": KnownDataset(
            "{config}/{split}-*.parquet", "texts", ("text",), "cyber-forget-corpus", "train", ("train",)
        ),
        "locuslab/TOFU": KnownDataset("{config}.json", "facts", ("question", "answer"), "forget10"),
    }
)
"""Layouts as the hub's file listings and cards showed them in 2025; any other dataset is read by naming its file."""


@dataclass(frozen=True)
class HubDataset:
    """One data file of the hub, fetched.

    Attributes:
        path: for the reader of its layout.
        repo: owner and name.
        file: its path in the repository.
        commit: of the repository, 40 hexadecimal digits, whatever the revision asked for was called.
    """

    path: Path
    repo: str
    file: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repo}/{self.file}@{self.commit}"


def hub_dataset(
    name: str,
    config: str | None = None,
    *,
    revision: str,
    split: str | None = None,
    file: str | None = None,
    cache_dir: str | Path | None = None,
) -> HubDataset:
    """Fetch a dataset by its name on the hub; give the `path` of the result to the reader of its layout.

    `KNOWN` has the assumed layouts: Parquet of `question, choices, answer` (and `subject`) in a folder for each
    configuration (WMDP, MMLU), the original JSON lines (RealToxicityPrompts, TOFU), a table of
    `en_toxic_comment, en_neutral_comment` with a row a rewrite (ParaDetox), Parquet of `text` (WMDP's corpora). Where a
    file is otherwise the reader says which columns it found. Of a dataset that is not there, name the `file`.

    Caveat: a branch moves. Record `commit`, which the result has.

    Args:
        name: owner and name.
        config: which part, for example "wmdp-cyber", or a subject of MMLU or "all".
        revision: commit, tag or branch. There is no default: ask for "main" if you mean what is there now.
        split: "test", "validation" or "dev" where there are such; None for the one that benchmarks report.
        file: path of a file in the repository, instead of config and split.
        cache_dir: of the hub; None for its own.

    Raises:
        ConfigError: there is no such configuration or split, the file is no data file, or no revision is stated.
        HubError: there is no such dataset or revision, it is gated, or the hub cannot be reached.
        DataError: it holds no such file, or several.
    """
    pattern = _pattern(name, config, split) if file is None else _checked_file(name, file, config, split)
    snapshot = fetch_snapshot(name, revision, kind="dataset", patterns=(pattern,), cache_dir=cache_dir)
    found = sorted(path for path in snapshot.folder.glob(pattern) if path.is_file())
    if not found:
        raise DataError(
            f"{name}@{snapshot.commit}",
            f"holds no {pattern}; look at its files on the hub and name one: file=..., or hub:{name}/FILE@{revision}",
        )
    if len(found) > 1:
        names = [path.relative_to(snapshot.folder).as_posix() for path in found]
        raise DataError(
            f"{name}@{snapshot.commit}",
            f"{pattern} is in {len(found)} files, expected one; name it: file=..., or hub:{name}/{names[0]}@{revision}",
        )
    return HubDataset(found[0], name, found[0].relative_to(snapshot.folder).as_posix(), snapshot.commit)


def explain_missing_corpus(name: str) -> None:
    """Say how to come by a corpus of WMDP that was named instead of a file.

    Raises:
        DataError: the name is one of theirs; nothing is raised for any other.
    """
    if name in GATED:
        raise DataError(
            name,
            "is gated: ask its authors for access at https://huggingface.co/datasets/cais/wmdp-bio-forget-corpus and "
            f"give the path of the downloaded .jsonl; until then use {GATED[name]}, and say so beside the numbers",
        )
    if name in OPEN:
        raise DataError(
            name,
            f"is no file, but open: give hub:{OPEN[name]}/{name}@REVISION, or the path of a file of {OPEN[name]}",
        )


def _pattern(name: str, config: str | None, split: str | None) -> str:
    """Where a known dataset has what was asked for.

    Raises:
        ConfigError: it is not known, or has no such part.
    """
    known = KNOWN.get(name)
    if known is None:
        raise ConfigError(
            f"{name}: the layout of this dataset is not known, only of {', '.join(KNOWN)}; name its file: file=..., or "
            f"hub:{name}/FILE@REVISION"
        )
    if bool(config) != bool(known.config):
        expected = f"a configuration, for example {known.config}" if known.config else "no configuration"
        raise ConfigError(f"{name}: expected {expected}, got {config or 'none'}")
    if split is not None and split not in known.splits:
        raise ConfigError(f"{name}: expected a split of {', '.join(known.splits) or '(it has none)'}, got {split}")
    if config and not re.fullmatch(r"[\w.-]+", config):
        raise ConfigError(f"{name}: expected a configuration, for example {known.config}, got {config!r}")
    return known.files.format(config=config, split=split or known.split)


def _checked_file(name: str, file: str, config: str | None, split: str | None) -> str:
    if config or split:
        raise ConfigError(f"{name}: give a file, or a configuration and split, not both")
    if not file.endswith(DATA_SUFFIXES):
        raise ConfigError(
            f"{name}: {file}: expected a data file ({', '.join(DATA_SUFFIXES)}); scripts are never fetched or run"
        )
    if file.startswith("/") or ".." in file or re.search(r"[*?\[\]]", file):
        raise ConfigError(f"{name}: {file}: expected the path of one file in the repository")
    return file
