"""A cache laid out as the hub's, so that fetching can be tested without a hub; probes to put there."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch

from interp_unlearn import ProbeSet, Site

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put_in_cache(
    cache: Path, repo: str, files: Mapping[str, Path], kind: str = "dataset", branch: str = "main", commit: str = COMMIT
) -> Path:
    """Files of a repository at a commit, which a branch points to: blobs, and links to them, as the hub has it."""
    home = cache / f"{kind}s--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    (home / "blobs").mkdir(parents=True, exist_ok=True)
    for number, (name, source) in enumerate(files.items()):
        blob = home / "blobs" / f"{commit}-{number}"
        shutil.copyfile(source, blob)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / branch).write_text(commit)
    return snapshot


def files_of(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def make_probes() -> ProbeSet:
    return ProbeSet(
        (Site(0, "resid_post"),),
        torch.tensor([[0.6, 0.8]]),
        torch.tensor([0.1]),
        torch.tensor([2.0]),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([0.2]),
        pd.DataFrame({"site": ["0.resid_post"], "layer": [0], "auroc": [0.8765], "auroc_length": [float("nan")]}),
        {"model_hash": "abc123", "pool": "mean", "include_bos": False},
    )
