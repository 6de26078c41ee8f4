"""Where the twins that come with the package lie."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from interp_unlearn.artifacts import hash_file
from interp_unlearn.errors import CheckpointError


def shipped_twins() -> Path:
    """The folder of the shipped twins, one sub-folder each.

    Raises:
        CheckpointError: This installation holds none.
    """
    folder = Path(str(files("interp_unlearn.organism") / "shipped"))
    if not (folder / "knows_all" / "config.json").exists():
        raise CheckpointError(f"{folder} holds no twins; build them with `interp-unlearn organism build --out DIR`")
    return folder


def twin_hashes(organism: Path | None = None) -> dict[str, str]:
    """SHA-256 of the weights file of each twin, by default of the shipped ones, for the record of a run."""
    folder = organism or shipped_twins()
    return {path.parent.name: hash_file(path) for path in sorted(folder.glob("*/model.safetensors"))}


def twin_path(name: str) -> Path:
    """The checkpoint folder of a shipped twin.

    Raises:
        CheckpointError: There is no twin of that name.
    """
    folder = shipped_twins() / name
    if not (folder / "config.json").exists():
        raise CheckpointError(
            f"no shipped twin {name!r}; there are {sorted(p.parent.name for p in folder.parent.glob('*/config.json'))}"
        )
    return folder
