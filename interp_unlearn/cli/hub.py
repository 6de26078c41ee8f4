"""`card` and `push`: what others are shown, and showing it to them."""

from pathlib import Path
from typing import Annotated

import typer

from interp_unlearn.cli import options
from interp_unlearn.errors import ConfigError


def card(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Unlearned model, probes, or organism.")],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option("--evaluation", help="Folder of evaluate, exam, facts, toxicity or drift; repeat it."),
    ] = None,
    attacks: Annotated[list[Path] | None, typer.Option("--attack", help="Folder of attack; repeat it.")] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Share of the gap below which an attack is survived; it is stated.")
    ] = 0.1,
    title: Annotated[str | None, typer.Option("--title", help="Default: the folder's name.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="As the hub calls it, for example mit; default: none is stated.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a README.md that was not written here.")] = False,
    dtype: options.DtypeOption = None,
) -> None:
    """Write a folder's card from the records on disk: what was done, measured, attacked, and what was not."""
    from interp_unlearn.cli.inputs import quiet_transformers
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.hub import write_model_card, write_probe_card

    quiet_transformers()
    if (folder / "unlearn.json").is_file() or not ((folder / "probes.json").is_file() or _is_organism(folder)):
        import torch

        path = write_model_card(
            folder,
            evaluations=evaluation or (),
            attacks=attacks or (),
            threshold=threshold,
            title=title,
            licence=licence,
            dtype=None if dtype is None else getattr(torch, dtype),
            overwrite=force,
        )
    elif evaluation or attacks:
        raise ConfigError(f"{folder}: --evaluation and --attack go with an unlearned model")
    elif (folder / "probes.json").is_file():
        path = write_probe_card(folder, title=title, licence=licence, overwrite=force)
    else:
        from interp_unlearn.organism.cards import write_organism_card
        from interp_unlearn.organism.shipped import twin_hashes

        write_organism_card(folder, twin_hashes(folder))
        path = folder / "README.md"
    show_written(path)


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="With its card, which `card` writes.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="On the hub, as owner/name.")],
    public: Annotated[bool, typer.Option("--public", help="Others may see it; default: private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and show the card; the hub is not asked.")
    ] = False,
    message: Annotated[str, typer.Option("--message", help="Of the commit.")] = "Upload with interp-unlearn",
) -> None:
    """Push a folder to the hub, in one commit. No other verb pushes anything."""
    from interp_unlearn.hub import plan_push, push_to_hub

    plan = plan_push(folder, repo, private=not public)
    for name, size in plan.files:
        typer.echo(f"{size:>14,}  {name}")
    seen = "private" if plan.private else "public"
    typer.echo(f"{len(plan.files)} files, {plan.size:,} bytes, to {repo}, {seen}")
    if dry_run:
        typer.echo(f"\n{plan.card}\nnothing was pushed (--dry-run)")
        return
    typer.echo(f"pushed: {push_to_hub(folder, repo, private=not public, message=message)}")


def _is_organism(folder: Path) -> bool:
    return (folder / "knows_all" / "build.json").is_file()
