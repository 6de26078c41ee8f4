"""Pushing a folder to the hub: asked for in so many words, private unless told otherwise, and shown before."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_unlearn.errors import ArtifactError, ConfigError, HubError
from interp_unlearn.hub.markdown import CARD, MARKER

REFUSED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py")
"""Files that run code when they are opened."""


@dataclass(frozen=True)
class PushPlan:
    """What a push would do.

    Attributes:
        repo_id: where it would go.
        private: whether nobody else would see it.
        files: path in the repository and bytes, in alphabetical order.
        card: the text of README.md.
    """

    repo_id: str
    private: bool
    files: tuple[tuple[str, int], ...]
    card: str

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(size for _, size in self.files)


def plan_push(folder: str | Path, repo_id: str, *, private: bool = True) -> PushPlan:
    """What `push_to_hub` would push; the hub is not asked. Hidden files are left out.

    Args:
        folder: a model, probes, or an organism, with its card.
        repo_id: owner and name.
        private: whether nobody else is to see it.

    Raises:
        ConfigError: the id is none.
        ArtifactError: there is no card, or the card is not of the unlearned model; a file is pickled, code, or a link
            to a place outside of the folder.
    """
    folder = Path(folder)
    owner, slash, name = repo_id.partition("/")
    if not owner or not slash or not name or "/" in name or "@" in repo_id:
        raise ConfigError(f"{repo_id}: expected a repository as owner/name")
    if not (folder / CARD).is_file():
        raise ArtifactError(
            f"{folder}: holds no {CARD}; expected a folder with its card: write one with `interp-unlearn card {folder}`"
        )
    card = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    if (folder / "unlearn.json").is_file() and MARKER not in card:
        raise ArtifactError(
            f"{folder / CARD}: was not written for this model (perhaps it is the original's); write one with "
            f"`interp-unlearn card --force`, or put the line {MARKER} into a card of your own"
        )
    files: list[tuple[str, int]] = []
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in place.parts):
            continue
        if path.suffix in REFUSED:
            raise ArtifactError(f"{path}: can run code when it is opened, and is not pushed; move it away")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ArtifactError(f"{path}: is a link to {path.resolve()}, outside of the folder; copy the file there")
        files.append((place.as_posix(), path.stat().st_size))
    return PushPlan(repo_id, private, tuple(files), card)


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    message: str = "Upload with interp-unlearn",
    api: Any = None,
) -> str:
    """Push a folder to a repository of models on the hub, in one commit. Nothing else in this package pushes.

    The repository is made if it is not there. Its visibility is never changed: what is to be private is not pushed
    into a repository that others can see.

    Args:
        folder: a model, probes, or an organism, with its card.
        repo_id: owner and name.
        private: whether nobody else is to see it.
        message: of the commit.
        api: a `huggingface_hub.HfApi`, for another endpoint or token; None for the user's own login.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: the id is none, or the repository is there and public and `private` was not given up.
        ArtifactError: as `plan_push`.
        HubError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    folder = Path(folder)
    plan = plan_push(folder, repo_id, private=private)
    api = HfApi() if api is None else api
    try:
        if not api.repo_exists(repo_id, repo_type="model"):
            api.create_repo(repo_id, private=private, repo_type="model")
        elif private and not api.repo_info(repo_id, repo_type="model").private:
            raise ConfigError(
                f"{repo_id}: is public already, and this push is to be private; choose another name, or ask for it "
                "with private=False (--public)"
            )
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name)) for name, _ in plan.files
        ]
        commit = api.create_commit(repo_id, operations=operations, commit_message=message, repo_type="model")
    except ConfigError:
        raise
    except Exception as error:  # the client has errors of several libraries
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HubError(
            f"{repo_id}: not pushed: {reason}; log in with `hf auth login`, and check that {repo_id} is yours"
        ) from error
    return str(commit.commit_url)
