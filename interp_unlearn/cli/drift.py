"""`drift`: how an unlearned model differs from its original, in activations and in weights."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp_unlearn.cli import options
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interp_unlearn.cli.inputs import LabelledTexts
    from interp_unlearn.drift import Answers, DriftResult

ALL, DISPLACEMENT = "all", "displacement"


def drift(
    model: options.ModelArgument,
    against: options.AgainstOption,
    data: options.DataOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the results. An interrupted run goes on in its own.")],
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    limit: options.LimitOption = None,
    skip: options.SkipOption = 0,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="all, or unlearning_depth, weight_delta, determinism, displacement (default), spectrum, logit_lens, "
            "tuned_lens, retrained_probes, cka, angles; repeat it.",
        ),
    ] = None,
    probes: options.ProbesOption = None,
    facts: Annotated[
        Path | None,
        typer.Option(
            "--facts",
            help="For the lenses and unlearning_depth: JSON lines with question and answer (TOFU), or with prompt and "
            "continuation (RealToxicityPrompts). Default: --data where it holds facts.",
        ),
    ] = None,
    twin: Annotated[
        str | None,
        typer.Option("--twin", metavar="MODEL", help="A model that never knew: the floor; unlearning_depth needs it."),
    ] = None,
    site: options.SiteOption = None,
    goal: Annotated[
        str | None, typer.Option("--goal", help="Heading in the figure; default by layout: knowledge for texts.")
    ] = None,
    n_null: Annotated[
        int | None, typer.Option("--null", min=1, help="Draws of each null; default: each measure's own number.")
    ] = None,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Directions of a subspace in angles.")] = 4,
    keep_activations: Annotated[
        bool, typer.Option("--keep-activations", help="Leave the activations that were read in the folder.")
    ] = False,
    batch_size: options.BatchSizeOption = 64,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", min=1, help="Tokens of a pass that reads texts, padding included.")
    ] = 4096,
    max_length: options.MaxLengthOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of nulls and the bootstrap.")] = 0,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Compare a model with its original, on the target texts (forget) and on the neutral ones (retain).

    One model is in memory at a time. A measure that lacks what it needs is named with the reason. What each of them
    cannot show is said beside it.
    """
    import torch

    from interp_unlearn.cli.inputs import check_device, quiet_transformers, read_labelled_texts, require_both_classes
    from interp_unlearn.cli.outputs import show_table, show_written
    from interp_unlearn.drift import DriftTexts, run_drift
    from interp_unlearn.interventions import Checkpoint
    from interp_unlearn.models.loading import load_config
    from interp_unlearn.probes import ProbeSet
    from interp_unlearn.sites import Site

    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    require_both_classes(texts, data)
    answers = _answers(facts, texts, limit, skip)
    check_device(device)
    quiet_transformers()
    paths = [path for path in (model, against, twin) if path is not None]
    for path in paths:
        load_config(path)  # a mistyped path is found before anything is computed
    precision = None if dtype is None else getattr(torch, dtype)
    sources = [Checkpoint(path, device, precision) for path in paths]
    corpora = ["forget" if label else "retain" for label in texts.labels]
    result = run_drift(
        sources[0],
        sources[1],
        DriftTexts(texts.texts, corpora, texts.groups),
        [Site.parse(name) for name in site] if site else None,
        _measures(measure),
        out=out,
        probes=None if probes is None else ProbeSet.load(probes),
        answers=answers,
        twin=sources[2] if twin is not None else None,
        keep_activations=keep_activations,
        n_null=n_null,
        rank=rank,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        max_length=max_length,
        seed=seed,
    )
    goal = goal or ("knowledge" if layout in (options.Layout.texts, options.Layout.facts) else "toxicity")
    _write_displacement(result, model, goal, out)
    draw_drift(out)
    if DISPLACEMENT in result.tables:
        columns = ["corpus", "site", "relative_displacement", "cosine", "norm_ratio", "n_tokens"]
        show_table(result.tables[DISPLACEMENT][DISPLACEMENT], columns)
    overview = result.overview()
    others = overview.loc[overview["measure"] != DISPLACEMENT]
    if len(others):
        show_table(others)
    _say(result)
    show_written(out)


def _measures(names: list[str] | None) -> list[str] | None:
    if names is None:
        return [DISPLACEMENT]
    if ALL in names:
        if len(names) > 1:
            raise ConfigError("--measure all: expected nothing beside it; leave the others out")
        return None
    return names


def _answers(facts: Path | None, texts: "LabelledTexts", limit: int | None, skip: int) -> "Answers | None":
    """Prompts with their true answers, from a file of their own or from the target texts.

    Raises:
        DataError: the file is missing, malformed, or a prompt in it has no continuation.
    """
    from interp_unlearn.data import read_facts, read_prompts
    from interp_unlearn.data.lines import read_objects
    from interp_unlearn.drift import Answers
    from interp_unlearn.errors import DataError
    from interp_unlearn.evaluation.multiple_choice import TEMPLATE

    if facts is None:
        asked = texts.questions()
        return None if asked is None else Answers(*asked)
    _, first = next(iter(read_objects(facts)))
    rows: list[tuple[str, str]] = []
    if "prompt" in first:
        for number, prompt in enumerate(read_prompts(facts), start=1):
            if prompt.continuation is None:
                raise DataError(facts, "the prompt has no continuation, so there is no answer; leave it out", number)
            rows.append((prompt.text, prompt.continuation))
    else:
        rows = [(TEMPLATE.format(question=fact.question), f" {fact.answer}") for fact in read_facts(facts)]
    chosen = rows[skip : None if limit is None else skip + limit]
    if not chosen:
        raise DataError(facts, f"holds {len(rows)} rows, so none is left after --skip {skip}")
    return Answers([prompt for prompt, _ in chosen], [answer for _, answer in chosen])


def _write_displacement(result: "DriftResult", model: str, goal: str, out: Path) -> None:
    """drift.parquet: the displacement with what `plot_drift` and the study call the run."""
    from interp_unlearn.artifacts import write_parquet

    if DISPLACEMENT in result.tables:
        objective, seed = _origin_of(model)
        table = result.tables[DISPLACEMENT][DISPLACEMENT].assign(objective=objective, goal=goal, seed=seed)
        write_parquet(out / "drift.parquet", table)


def draw_drift(run: Path) -> list[Path]:
    """Draw what a folder of this verb holds tables for; tables that mix components of the stream are left out.

    Returns:
        The PDF files.
    """
    from interp_unlearn.artifacts import read_parquet
    from interp_unlearn.errors import ArtifactError
    from interp_unlearn.figures import (
        plot_cka,
        plot_displacement_spectrum,
        plot_drift,
        plot_lens,
        plot_principal_angles,
        plot_retrained_probes,
        plot_unlearning_depth,
        plot_weight_delta,
        save_figure,
    )

    kept = run / "measures"
    figures: dict[str, tuple[Callable[..., Figure], tuple[Path, ...]]] = {
        "drift": (plot_drift, (run / "drift.parquet",)),
        "unlearning_depth": (plot_unlearning_depth, _files(kept / "unlearning_depth", "unlearning_depth", "score")),
        "weight_delta": (plot_weight_delta, _files(kept / "weight_delta", "weight_delta")),
        "spectrum": (plot_displacement_spectrum, _files(kept / "spectrum", "spectrum", "components")),
        "logit_lens": (plot_lens, _files(kept / "logit_lens", "lens")),
        "tuned_lens": (plot_lens, _files(kept / "tuned_lens", "lens")),
        "retrained_probes": (plot_retrained_probes, _files(kept / "retrained_probes", "retrained_probes")),
        "cka": (plot_cka, _files(kept / "cka", "cka")),
        "angles": (plot_principal_angles, _files(kept / "angles", "angles")),
    }
    drawn: list[Path] = []
    for name, (plot, files) in figures.items():
        if not all(file.is_file() for file in files):
            continue
        tables: list[Any] = [read_parquet(file) for file in files]
        try:
            figure = plot(*tables)
        except ArtifactError as error:
            typer.echo(f"{name}: not drawn: {error}", err=True)
            continue
        drawn.append(save_figure(figure, run / name)[0])
    return drawn


def _files(folder: Path, *tables: str) -> tuple[Path, ...]:
    return tuple(folder / f"{table}.parquet" for table in tables)


def _say(result: "DriftResult") -> None:
    """What no number shows: what is missing, a control that failed, and what each measure cannot show."""
    for name, reason in result.missing().items():
        typer.echo(f"{name}: no value: {reason}")
    control = result.tables.get("determinism")
    if control is not None and False in control["result"]["passed"].dropna().tolist():  # null where not checked
        typer.echo(
            "determinism: FAILED: activations differ before the first changed weight, so no drift can be believed"
        )
    said = result.to_frame().drop_duplicates("measure")
    for row in said.loc[said["measure"].isin(list(result.tables))].to_dict("records"):
        small = row["small_models"]
        typer.echo(f"{row['measure']} ({row['evidence']}) cannot show: {row['cannot_show']}")
        if isinstance(small, str):
            typer.echo(f"{row['measure']} {small}.")


def _origin_of(model: str) -> tuple[str, int]:
    """Objective and seed that made a model, where `unlearn` left its record beside the weights."""
    from interp_unlearn.artifacts import read_record

    record = Path(model) / "unlearn.json"
    if not record.is_file():
        return Path(model).name, 0
    found = read_record(record, objective=str, config=dict)
    return found["objective"], found["config"].get("seed", 0)
