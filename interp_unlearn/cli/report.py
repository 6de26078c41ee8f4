"""`report`: the page of a run."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder that any verb wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.html", help="The page. Default: report.html in the folder.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of a table that go into the page.")] = 500,
    show_texts: Annotated[
        bool, typer.Option("--show-texts", help="Put prompts and generations in, toxic ones among them.")
    ] = False,
) -> None:
    """Make one HTML page of a run: its figures, its tables to sort, its configuration. Nothing in it is fetched."""
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.report import write_report

    show_written(write_report(run, run / "report.html" if out is None else out, rows=rows, show_texts=show_texts))
