"""Folders of the hub, fetched when asked to and named by the commit that they were resolved to.

A branch moves: a result that was computed from it names the commit, never the branch alone.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from interp_unlearn.errors import ConfigError, HubError

logger = logging.getLogger(__name__)

Kind = Literal["model", "dataset"]
PREFIX = "hub:"
SAFE_FILES = ("*.json", "*.jsonl", "*.safetensors", "*.parquet", "*.model", "*.txt", "*.jinja", "*.md")
"""What is fetched of a repository of models, probes or twins: neither pickles nor code."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CACHED = re.compile(r"(models|datasets)--(.+)")  # how the hub's cache calls the folder of a repository


@dataclass(frozen=True)
class Snapshot:
    """A repository as it was at a commit.

    Attributes:
        repo: owner and name.
        commit: 40 hexadecimal digits.
        folder: where its files are, in the hub's cache.
    """

    repo: str
    commit: str
    folder: Path


@dataclass(frozen=True)
class Address:
    """Something on the hub in one word: ``hub:OWNER/NAME[/INSIDE]@REVISION``.

    Attributes:
        repo: owner and name.
        inside: what of it; empty for the whole.
        revision: commit, tag or branch.
    """

    repo: str
    inside: str
    revision: str

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an address.

        Raises:
            ConfigError: it is none, or states no revision.
        """
        place, at, revision = text.removeprefix(PREFIX).rpartition("@")
        owner, _, rest = place.partition("/")
        name, _, inside = rest.partition("/")
        if not at or not revision:
            raise ConfigError(
                f"{text}: states no revision; write {text}@COMMIT, so that the result says what it was made from "
                "(@main takes what is there now, and the commit is recorded)"
            )
        if not owner or not name:
            raise ConfigError(f"{text}: expected {PREFIX}OWNER/NAME@REVISION, or with what is inside behind NAME/")
        return cls(f"{owner}/{name}", inside, revision)


def fetch_snapshot(
    repo: str,
    revision: str,
    *,
    kind: Kind = "model",
    patterns: Sequence[str] = SAFE_FILES,
    cache_dir: str | Path | None = None,
) -> Snapshot:
    """Download the files of a repository that match, or find them in the hub's cache.

    Args:
        repo: owner and name.
        revision: commit, tag or branch.
        kind: of the repository.
        patterns: files wanted, as a shell writes them.
        cache_dir: of the hub; None for its own.

    Raises:
        ConfigError: no revision is stated.
        HubError: there is no such repository or revision, it is closed, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    if not revision:
        raise ConfigError(
            f"{repo}: revision: expected a commit, got nothing; a tag or branch will do, 'main' if you mean what is "
            "there now: the commit is recorded"
        )
    try:
        folder = snapshot_download(
            repo, repo_type=kind, revision=revision, allow_patterns=list(patterns), cache_dir=cache_dir
        )
    except GatedRepoError as error:
        raise HubError(
            f"{repo}: is gated: ask for access at {page_of(repo, kind)}, log in with `hf auth login`, and try again"
        ) from error
    except Exception as error:  # the client has errors of several libraries
        raise HubError(
            f"{repo} at {revision}: cannot be fetched: {_first_line(error)}; check the name at {page_of(repo, kind)}, "
            "or give a local path"
        ) from error
    commit = Path(folder).name
    if not _COMMIT.fullmatch(revision):
        logger.warning("%s: %s may move; it is now %s: state that commit to get the same again", repo, revision, commit)
    return Snapshot(repo, commit, Path(folder))


def open_folder(
    path: str | Path, revision: str | None = None, *, expected: str, cache_dir: str | Path | None = None
) -> Path:
    """A local folder, or a repository of models on the hub at a revision.

    Args:
        path: folder or hub id.
        revision: commit, tag or branch; of a hub id only.
        expected: a file that has to be in it.
        cache_dir: of the hub; None for its own.

    Raises:
        ConfigError: a revision of a local folder was asked for, or none of a hub id.
        HubError: it can be neither, or cannot be fetched, or holds no such file.
    """
    if Path(path).is_dir():
        if revision is not None:
            raise ConfigError(f"{path}: is a local folder and has no revision {revision!r}; leave revision out")
        folder = Path(path)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) and not str(path).startswith("."):
        folder = fetch_snapshot(str(path), revision or "", cache_dir=cache_dir).folder
    else:
        raise HubError(f"{path}: no such folder; expected one, or a hub id such as org/name")
    if not (folder / expected).is_file():
        raise HubError(f"{path}: holds no {expected}; expected what save_pretrained wrote")
    return folder


def source_of(path: str | Path) -> dict[str, str] | None:
    """Where a file or folder in the hub's cache is from: ``kind, repo, commit, file``; None of any other path."""
    parts = Path(path).parts
    for place, part in enumerate(parts[:-2]):
        found = _CACHED.fullmatch(part)
        if found and parts[place + 1] == "snapshots" and _COMMIT.fullmatch(parts[place + 2]):
            return {
                "kind": found[1].removesuffix("s"),
                "repo": found[2].replace("--", "/", 1),
                "commit": parts[place + 2],
                "file": "/".join(parts[place + 3 :]),
            }
    return None


def page_of(repo: str, kind: str) -> str:
    """The address of a repository in a browser."""
    return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
