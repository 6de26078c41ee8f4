"""`figures`, `organism` and `reproduce`: the model organism and the study on it."""

from pathlib import Path
from typing import Annotated

import typer

from interp_unlearn.cli import options

organism = typer.Typer(help="The embedded world and its twins.", rich_markup_mode=None)


@organism.command()
def build(
    out: options.OutOption,
    device: options.DeviceOption = "cpu",
) -> None:
    """Train the twins from their seeded generator; an interrupted build is taken up again."""
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.organism.build import build_organism

    build_organism(out, device=device)
    show_written(out)


@organism.command()
def check(folder: Annotated[Path, typer.Argument(help="Folder of the twins.")]) -> None:
    """Measure every quality gate of the twins; exit code 1 if one is not passed."""
    from interp_unlearn.cli.outputs import show_table
    from interp_unlearn.organism.quality import check_organism

    report = check_organism(folder)
    show_table(report.to_frame())
    if not report.passed:
        raise typer.Exit(1)


def reproduce(
    out: options.OutOption,
    quick: Annotated[bool, typer.Option("--quick", help="A reduced study, to see that everything runs.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, one thread each.")] = 2,
) -> None:
    """Run the study on the shipped organism: tables, figures and a report."""
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.study.reproduce import reproduce as run_study

    run_study(out, quick, workers)
    show_written(out)


def figures(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run: of reproduce, probe or drift.")],
    out: Annotated[Path | None, typer.Option("--out", help="Default: figures in the run's folder.")] = None,
) -> None:
    """Draw every figure whose table lies in a run's folder, as PDF and PNG."""
    from interp_unlearn.artifacts import read_parquet
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.errors import ArtifactError
    from interp_unlearn.figures import plot_dissociation, plot_drift, plot_probe_auroc, plot_relearning, save_figure

    drawn = 0
    target = run / "figures" if out is None else out
    for table, name, plot in (
        ("dissociation.parquet", "dissociation", plot_dissociation),
        ("dissociation.parquet", "relearning", plot_relearning),
        ("drift.parquet", "drift", plot_drift),
        ("probes.parquet", "probe_auroc", plot_probe_auroc),
        ("table.parquet", "probe_auroc", plot_probe_auroc),
    ):
        if not (run / table).is_file():
            continue
        frame = read_parquet(run / table)
        if plot is plot_relearning and not frame["measure"].str.contains("relearning").any():
            continue
        show_written(save_figure(plot(frame), target / name)[0])
        drawn += 1
    if not drawn:
        raise ArtifactError(
            f"{run}: no table to draw there; expected dissociation.parquet, drift.parquet or table.parquet"
        )
