"""`figures`, `organism` and the studies on it: `reproduce`, `sensitivity`, `replicate`, `compare`, `evidence`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from interp_unlearn.cli import options

organism = typer.Typer(help="The embedded world and its twins.", rich_markup_mode=None)


@organism.command()
def build(
    out: options.OutOption,
    device: options.DeviceOption = "cpu",
    twin: Annotated[list[str] | None, typer.Option("--twin", help="Default: the three shipped ones.")] = None,
    world_seed: Annotated[int, typer.Option(help="Seed of the facts and documents.")] = 0,
    init_seed: Annotated[int, typer.Option(help="Seed of the initial weights.")] = 0,
) -> None:
    """Train twins from their seeded generator; an interrupted build is taken up again."""
    from interp_unlearn.cli.inputs import check_device
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.organism.build import SHIPPED_TWINS, BuildConfig, build_organism

    check_device(device)
    config = BuildConfig(world_seed=world_seed, init_seed=init_seed)
    build_organism(out, config, tuple(twin or SHIPPED_TWINS), device)
    show_written(out)


@organism.command()
def data(
    out: options.OutOption,
    world_seed: Annotated[int, typer.Option(help="Seed of the facts and documents.")] = 0,
) -> None:
    """Write the world's documents, pairs, prompts and questions in the public layouts."""
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.organism.files import write_world
    from interp_unlearn.organism.world import World

    for path in write_world(World(world_seed), out):
        show_written(path)


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
    typer.echo((out / "dissociation.md").read_text(encoding="utf-8"))
    show_written(out)


def sensitivity(
    out: options.OutOption,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, one thread each.")] = 2,
) -> None:
    """Run the factorial with other forget sets, steps and trained tensors: does the crossover hang on a setting?"""
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.study.sensitivity import vary_settings

    vary_settings(out, workers=workers)
    typer.echo((out / "sensitivity.md").read_text(encoding="utf-8"))
    show_written(out)


def replicate(
    out: options.OutOption,
    organisms: Annotated[int, typer.Option("--organisms", min=2, help="Number 0 is the shipped one.")] = 8,
    only: Annotated[
        list[int] | None, typer.Option("--only", help="Make these organisms; repeat it. Default: all that are missing.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Organisms side by side, one thread each.")] = 2,
) -> None:
    """Run the factorial on several organisms, built here, and test the crossover over them."""
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.study.replication import ReplicationConfig
    from interp_unlearn.study.replication import replicate as run_replication

    if missing := run_replication(out, ReplicationConfig(organisms), workers, tuple(only or ())):
        typer.echo(
            f"{out} still lacks the organisms {', '.join(map(str, missing))}: no table is made before all are in"
        )
    else:
        typer.echo((out / "replication.md").read_text(encoding="utf-8"))
    show_written(out)


def compare(
    out: options.OutOption,
    goal: Annotated[Literal["knowledge", "toxicity"], typer.Option("--goal", help="What is unlearned.")] = "toxicity",
    quick: Annotated[
        bool, typer.Option("--quick", help="One seed, few steps and trials: does everything run?")
    ] = False,
    only: Annotated[list[str] | None, typer.Option("--only", help="Methods by name; repeat it. Default: all.")] = None,
    organism: Annotated[
        Path | None, typer.Option("--organism", help="Folder of twins (`organism build`). Default: the shipped ones.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, one thread each.")] = 2,
) -> None:
    """Compare methods of unlearning on a model organism: one search for all, five seeds, one table."""
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.study.comparison import ComparisonConfig, compare_methods
    from interp_unlearn.study.comparison.contest import contest_on

    config = ComparisonConfig(only=tuple(only or ()))
    compare_methods(out, goal, config.quick(contest_on(goal)) if quick else config, workers, organism)
    typer.echo((out / "comparison.md").read_text(encoding="utf-8"))
    show_written(out)


def figures(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a study, attack, probe, heatmap, drift, dissect or directions."),
    ],
) -> None:
    """Draw a run's figures again from its tables, as PDF and PNG, without computing anything anew."""
    from interp_unlearn.artifacts import read_parquet
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.errors import ArtifactError
    from interp_unlearn.figures import draw_token_heatmap, plot_dissection, plot_probe_auroc, save_figure

    if (run / "dissociation.parquet").is_file():
        from interp_unlearn.study.reproduce import draw_figures

        draw_figures(run)
        show_written(run / "figures")
    elif (run / "excess.parquet").is_file():
        from interp_unlearn.study.comparison.compare import draw_figures as draw_comparison

        draw_comparison(run)
        show_written(run / "figures")
    elif (run / "sensitivity.parquet").is_file():
        from interp_unlearn.study.sensitivity import draw_figures as draw_sensitivity

        draw_sensitivity(run)
        show_written(run / "figures")
    elif (run / "efficacy.parquet").is_file() and (run / "contrasts.parquet").is_file():
        from interp_unlearn.study.replication import draw_figures as draw_replication

        draw_replication(run)
        show_written(run / "figures")
    elif (run / "attacks.json").is_file():
        from interp_unlearn.cli.attack import draw_attacks

        for drawn in draw_attacks(run):
            show_written(drawn)
    elif (run / "attacks.parquet").is_file() and (run / "predictions.parquet").is_file():
        from interp_unlearn.study.evidence.evidence import draw_figures as draw_evidence

        draw_evidence(run)
        show_written(run / "figures")
    elif (run / "dissection.json").is_file():
        tables = {path.stem: read_parquet(path) for path in run.glob("*.parquet")}
        show_written(save_figure(plot_dissection(tables), run / "dissection")[0])
    elif (run / "drift.parquet").is_file() or (run / "drift.json").is_file():
        from interp_unlearn.cli.drift import draw_drift

        for drawn in draw_drift(run):
            show_written(drawn)
    elif (run / "directions.safetensors").is_file():
        from interp_unlearn.cli.directions import draw_directions

        draw_directions(run)
        show_written(run)
    elif (run / "table.parquet").is_file():
        show_written(save_figure(plot_probe_auroc(read_parquet(run / "table.parquet")), run / "probe_auroc")[0])
    elif (run / "token_scores.parquet").is_file():
        table = read_parquet(run / "token_scores.parquet")
        show_written(save_figure(draw_token_heatmap(table), run / "token_heatmap")[0])
    else:
        raise ArtifactError(
            f"{run}: no table to draw there; expected the folder of a study, attack, probe, heatmap, drift, dissect or "
            "directions"
        )


def evidence(
    out: options.OutOption,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, one method a goal: to see that all runs.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, one thread each.")] = 2,
) -> None:
    """Attack unlearned models of the shipped organism in every way, and take their changes of the weights apart."""
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.study.evidence import gather_evidence

    gather_evidence(out, quick, workers)
    typer.echo((out / "evidence.md").read_text(encoding="utf-8"))
    show_written(out)
