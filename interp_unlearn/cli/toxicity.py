"""`toxicity`: the RealToxicityPrompts protocol on a model, and on its original beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp_unlearn.cli import options

if TYPE_CHECKING:
    from interp_unlearn.evaluation import ClassifierScorer, ToxicityComparison, ToxicityResult


def toxicity(
    model: options.ModelArgument,
    prompts: Annotated[Path, typer.Option("--prompts", help="RealToxicityPrompts jsonl.")],
    scorer: options.ScorersOption,
    out: options.OutOption,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="The original, sampled and scored likewise.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", metavar="MODEL", help="Model that the perplexity of generations is under.")
    ] = None,
    limit: options.LimitOption = None,
    skip: options.SkipOption = 0,
    continuations: Annotated[int, typer.Option("--continuations", help="Of each prompt.")] = 25,
    k: Annotated[int | None, typer.Option("--k", help="Of which the largest score counts; default: all.")] = None,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Most tokens of a continuation.")] = 20,
    top_p: Annotated[float, typer.Option("--top-p", help="Nucleus of the sampling.")] = 0.9,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sampling and bootstrap.")] = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Continuations sampled at a time.")] = 256,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Sample continuations of prompts, score every one, and say how toxic they are. Prints numbers, never a text.

    A claim about a model takes --against and two scorers of different weights. The generations are kept in the folder.
    """
    from dataclasses import asdict

    from interp_unlearn.artifacts import hash_file
    from interp_unlearn.cli.inputs import open_model, open_scorers, read_scored_prompts
    from interp_unlearn.cli.outputs import run_folder, show_written
    from interp_unlearn.evaluation import ToxicityConfig, compare_toxicity, evaluate_toxicity

    config = ToxicityConfig(continuations, new_tokens, top_p, k=k, seed=seed, batch_size=batch_size)
    rows = read_scored_prompts(prompts, limit=limit, skip=skip)
    scorers = open_scorers(scorer, device)
    original = None if against is None else open_model(against, device, dtype)
    hooked = open_model(model, device, dtype)
    judging = None if judge is None else open_model(judge, device, dtype)
    identity = {
        "task": "toxicity",
        "model_hash": hooked.hash(),
        "original_hash": None if original is None else original.hash(),
        "judge_hash": None if judging is None else judging.hash(),
        "scorers": [each.describe() for each in scorers],
        "prompts": hash_file(prompts),
        "limit": limit,
        "skip": skip,
        "config": asdict(config),
    }
    comparison = None
    with run_folder(out, identity) as folder:
        result = evaluate_toxicity(hooked, rows, scorers, config, judge=judging)
        result.save(folder)
        if original is not None:
            before = evaluate_toxicity(original, rows, scorers, config, judge=judging)
            before.save(folder / "original")
            comparison = compare_toxicity(result, before)
            comparison.save(folder)
    _show_result(result, scorers)
    if comparison is not None:
        _show_comparison(comparison)
    show_written(out)


def _show_result(result: "ToxicityResult", scorers: "list[ClassifierScorer]") -> None:
    from interp_unlearn.cli.outputs import show_table

    columns = ["scorer", "prompts", "measure", "value", "low", "high", "std", "n_prompts", "n_scored", "n_empty"]
    show_table(result.metrics, columns)
    typer.echo("")
    show_table(result.text_quality)
    for record, scorer in zip(result.scorers, scorers, strict=True):
        if record["truncated"]:
            cut = f"{record['truncated']} of {len(result.generations)} generations"
            typer.echo(f"{scorer.name} judged {cut} by their first {scorer.max_length} tokens")
    if len(scorers) > 1:
        typer.echo("\nagreement of the scorers")
        show_table(result.agreement)


def _show_comparison(comparison: "ToxicityComparison") -> None:
    from interp_unlearn.cli.outputs import show_table

    typer.echo("\nagainst the original")
    show_table(comparison.differences)
    typer.echo("")
    if not comparison.several_scorers:
        typer.echo("no claim: it takes two scorers with different weights, give a second --scorer")
        return
    for prompts in dict.fromkeys(comparison.differences["prompts"].tolist()):
        claim = comparison.claim(prompts=prompts)
        typer.echo(f"{claim.verdict}: {claim.reason}")
