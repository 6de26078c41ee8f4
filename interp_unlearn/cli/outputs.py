"""What the verbs write: run folders that appear whole, and tables on stdout."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from interp_unlearn.artifacts import IDENTITY_FILE, check_claim, claim_folder, claimed, replaced

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def run_folder(out: Path, identity: Mapping[str, object]) -> Generator[Path]:
    """Yield a folder to fill, which becomes ``out`` when the block ends; a run that fails leaves nothing behind.

    A run that is there already, finished, ends the command: nothing is done twice.

    Raises:
        ArtifactError: ``out`` holds another run, or files of no known run, or another process is writing to it; found
            out before the block begins.
    """
    out = out.resolve()
    with claimed(out, None):
        if has_finished(out, identity):
            show_finished(out)
            raise typer.Exit
        with replaced(out) as folder:
            claim_folder(folder, identity)
            yield folder


def has_finished(out: Path, identity: Mapping[str, object]) -> bool:
    """Whether a run of a verb that writes its folder at the end, and whole, is there; nothing is written.

    An empty folder is nobody's, and a record alone is of no run that got to its end.

    Raises:
        ArtifactError: ``out`` holds another run, or files of no known run.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    check_claim(out, identity)
    return any(path.name != IDENTITY_FILE for path in out.iterdir())


def show_finished(out: Path, is_first: bool = True) -> None:
    """Say that there is nothing left to do; of several processes the first alone does."""
    if is_first:
        typer.echo(f"already there, finished: {out}; to run it again, remove it or choose another --out")


def show_table(frame: "pd.DataFrame", columns: list[str] | None = None) -> None:
    """Print a table of numbers, or some of its columns."""
    typer.echo(frame.to_string(columns=columns, index=False, float_format=lambda value: f"{value:.4g}", na_rep=""))


def show_written(path: Path) -> None:
    """Say where the results are."""
    typer.echo(f"written: {path}")
