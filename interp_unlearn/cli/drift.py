"""`drift`: how far a model's activations have moved from its original's."""

from pathlib import Path
from typing import Annotated

import typer

from interp_unlearn.cli import options


def drift(
    model: options.ModelArgument,
    against: options.AgainstOption,
    data: options.DataOption,
    out: options.OutOption,
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    limit: options.LimitOption = None,
    skip: options.SkipOption = 0,
    site: options.SiteOption = None,
    goal: Annotated[
        str | None, typer.Option("--goal", help="Heading in the figure; default by layout: knowledge for texts.")
    ] = None,
    batch_size: options.BatchSizeOption = 64,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Measure the displacement at every site, on the target texts (forget) and on the neutral ones (retain)."""
    from interp_unlearn.artifacts import hash_file, write_parquet
    from interp_unlearn.cli.inputs import chosen_sites, open_model, read_labelled_texts, require_both_classes
    from interp_unlearn.cli.outputs import run_folder, show_table, show_written
    from interp_unlearn.drift import measure_drift
    from interp_unlearn.figures import plot_drift, save_figure

    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    require_both_classes(texts, data)
    changed, original = (open_model(path, device, dtype) for path in (model, against))
    sites = chosen_sites(site, original)
    identity = {
        "task": "drift",
        "model_hash": changed.hash(),
        "original_hash": original.hash(),
        "data": hash_file(data),
        "neutral": None if neutral is None else hash_file(neutral),
        "limit": limit,
        "skip": skip,
        "sites": [str(place) for place in sites],
        "goal": goal,
    }
    with run_folder(out, identity) as folder:
        corpora = {"forget": texts.of_class(1), "retain": texts.of_class(0)}
        table = measure_drift(changed, original, corpora, sites, batch_size=batch_size)
        objective, seed = _origin_of(model)
        goal = goal or ("knowledge" if layout is options.Layout.texts else "toxicity")
        table = table.assign(objective=objective, goal=goal, seed=seed)
        write_parquet(folder / "drift.parquet", table)
        if len({place.component for place in sites} - {"embed"}) == 1:
            save_figure(plot_drift(table), folder / "drift.pdf")
    show_table(table, ["corpus", "site", "relative_displacement", "cosine", "norm_ratio", "n_tokens"])
    show_written(out)


def _origin_of(model: str) -> tuple[str, int]:
    """Objective and seed that made a model, where `unlearn` left its record beside the weights."""
    from interp_unlearn.artifacts import read_record

    record = Path(model) / "unlearn.json"
    if not record.is_file():
        return Path(model).name, 0
    found = read_record(record, objective=str, config=dict)
    return found["objective"], found["config"].get("seed", 0)
