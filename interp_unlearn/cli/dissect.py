"""`dissect`: which tensors carry what a run changed, how deep they sit, and how many directions it takes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp_unlearn.cli import options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from interp_unlearn.interventions import HookedModel


def dissect(
    models: Annotated[
        list[str], typer.Argument(metavar="UNLEARNED...", help="Unlearned models, one a seed: directories or hub ids.")
    ],
    against: options.AgainstOption,
    data: options.DataOption,
    out: options.OutOption,
    margin: Annotated[
        float, typer.Option("--margin", min=0, help="Largest mean difference that would not matter. Set it beforehand.")
    ] = 0.05,
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    questions: Annotated[
        list[Path] | None,
        typer.Option("--questions", help="What is asked, as of `attack`: WMDP .json, MMLU .csv; repeat it."),
    ] = None,
    form: Annotated[str, typer.Option("--form", help="Of questions: text, text_after_choices or letter.")] = "text",
    score: Annotated[str | None, typer.Option("--score", help="As of `attack`.")] = None,
    limit: options.LimitOption = None,
    skip: options.SkipOption = 0,
    batch_size: options.BatchSizeOption = 32,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Move tensors between an original and its unlearned models: where the change acts, and how many directions it has.

    Two models are in memory at a time. What needs a second goal or a twin is named, with the floor of the rest.
    """
    from interp_unlearn.activations.store import hash_data
    from interp_unlearn.artifacts import hash_file
    from interp_unlearn.artifacts.fingerprint import fingerprint
    from interp_unlearn.cli.asked import measure_from
    from interp_unlearn.cli.inputs import check_device, open_model, read_labelled_texts
    from interp_unlearn.cli.outputs import run_folder, show_table, show_written
    from interp_unlearn.figures import plot_dissection, save_figure
    from interp_unlearn.mechanism import DissectionConfig, GoalRuns
    from interp_unlearn.mechanism import dissect as take_apart
    from interp_unlearn.models.loading import load_config

    check_device(device)
    for path in (*models, against):
        load_config(path)  # a mistyped path is found before anything is computed
    config = DissectionConfig(margin)
    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    measure = measure_from(texts, data, layout, questions, form, score, False, limit, skip, batch_size)

    def outcome(model: "HookedModel") -> "Mapping[str, Sequence[float]]":
        return {measure.score: measure(model).scores.tolist()}

    original = open_model(against, device, dtype)
    identity = {
        "task": "dissect",
        "original_hash": original.hash(),
        "model_hashes": [open_model(path, device, dtype).hash() for path in models],
        "data": hash_file(data),
        "measure": hash_data([fingerprint(measure)]),
        "form": form,
        "score": measure.score,
        "limit": limit,
        "skip": skip,
        "margin": margin,
    }
    with run_folder(out, identity) as folder:
        goal = GoalRuns(list(models), outcome)
        found = take_apart(original, {"target": goal}, config, progress=True)
        found.save(folder)
        save_figure(plot_dissection(found.tables), folder / "dissection")
    table = found.tables["transplant"]
    shown = ["direction", "group", "n_tensors", "effect", "share", "share_low", "share_high", "n"]
    show_table(table.loc[table["kind"].isin(("all", "part", "layer"))], shown)
    typer.echo(found.conclusions())
    show_written(out)
