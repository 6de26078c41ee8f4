"""The application and its entry point; verbs import what they need when they run, so that `--help` is quick."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from interp_unlearn.cli.attack import attack
from interp_unlearn.cli.classifier import classifier
from interp_unlearn.cli.collect import collect
from interp_unlearn.cli.directions import directions
from interp_unlearn.cli.dissect import dissect
from interp_unlearn.cli.drift import drift
from interp_unlearn.cli.evaluate import evaluate
from interp_unlearn.cli.exam import exam, facts
from interp_unlearn.cli.heatmap import heatmap
from interp_unlearn.cli.hub import card, push
from interp_unlearn.cli.probe import probe
from interp_unlearn.cli.report import report
from interp_unlearn.cli.score import score
from interp_unlearn.cli.sources import with_sources
from interp_unlearn.cli.study import compare, evidence, figures, organism, replicate, reproduce, sensitivity
from interp_unlearn.cli.toxicity import toxicity
from interp_unlearn.cli.unlearn import unlearn
from interp_unlearn.errors import InterpError

INTERRUPTED = 130

app = typer.Typer(
    name="interp-unlearn",
    help="Probe, unlearn and attack language models through one intervention layer.",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (
    collect,
    probe,
    directions,
    heatmap,
    unlearn,
    evaluate,
    exam,
    facts,
    toxicity,
    classifier,
    score,
    drift,
    attack,
    dissect,
    card,
    push,
    figures,
    report,
    reproduce,
    sensitivity,
    replicate,
    compare,
    evidence,
):
    app.command()(with_sources(verb))
app.add_typer(organism, name="organism")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("interp-unlearn"))
        raise typer.Exit


@app.callback()
def _settings(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr what is being done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; None takes them from the process.

    Returns:
        The exit code: 0, or 2 after an error in the input, of which one line is on stderr, or 130 when interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given or ["--help"], prog_name="interp-unlearn", standalone_mode=False) or 0
    except typer.TyperException as error:  # usage: a missing option, a number that is none, an unknown verb
        context = getattr(error, "ctx", None)
        where = "interp-unlearn" if context is None else context.command_path
        return _fail(f"{error.format_message().rstrip('.')}; see {where} --help")
    except (InterpError, OSError) as error:
        return _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer makes this of Ctrl-C
        typer.echo(f"interrupted; {_how_to_go_on(given)}", err=True)
    return code


def _how_to_go_on(given: Sequence[str]) -> str:
    """What an interrupted command left, and what to do: most keep what was finished, some write all or nothing."""
    told = [part for word in given for part in (word.split("=", 1) if word.startswith("--out=") else [word])]
    out = Path(told[told.index("--out") + 1]) if "--out" in told[:-1] else None
    if out is not None and (out.exists() or out.with_name(f"{out.name}.state").exists()):
        return "what was finished is kept, and the same command goes on from there"
    return "nothing was written; the same command begins anew"


def _fail(message: str) -> int:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return 2
