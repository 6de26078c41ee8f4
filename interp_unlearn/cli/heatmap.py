"""`heatmap`: what the probes read at every token of a few texts."""

from pathlib import Path
from typing import Annotated

import typer

from interp_unlearn.cli import options


def heatmap(
    model: options.ModelArgument,
    probes: Annotated[Path, typer.Option("--probes", help="Folder that `probe` wrote, for this or another model.")],
    data: options.DataOption,
    out: options.OutOption,
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Rows (pairs) drawn of each file.")] = 3,
    skip: options.SkipOption = 0,
    site: Annotated[
        list[str] | None,
        typer.Option("--site", help="As 5.resid_post; repeat it for a column of layers. Default: the best probe's."),
    ] = None,
    max_length: options.MaxLengthOption = None,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Draw the probes' scores over the tokens of texts. The table and the figure hold the texts themselves."""
    from interp_unlearn.activations import collect
    from interp_unlearn.artifacts import hash_file, write_parquet
    from interp_unlearn.cli.inputs import chosen_sites, open_model, read_labelled_texts
    from interp_unlearn.cli.outputs import run_folder, show_written
    from interp_unlearn.figures import draw_token_heatmap, save_figure
    from interp_unlearn.probes import ProbeSet, score_tokens

    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    probe_set = ProbeSet.load(probes)
    hooked = open_model(model, device, dtype)
    sites = chosen_sites(site or [str(probe_set.best())], hooked)
    for place in sites:
        probe_set.direction(place)  # refuses a site without a probe before anything is read
    identity = {
        "task": "heatmap",
        "model_hash": hooked.hash(),
        "probes": hash_file(probes / "probes.safetensors"),
        "data": hash_file(data),
        "neutral": None if neutral is None else hash_file(neutral),
        "layout": layout,
        "limit": limit,
        "skip": skip,
        "sites": [str(place) for place in sites],
        "max_length": max_length,
    }
    include_bos = bool(probe_set.metadata["include_bos"])
    titles = [
        f"{'target' if label else 'neutral'}, {group}" for label, group in zip(texts.labels, texts.groups, strict=True)
    ]
    with run_folder(out, identity) as folder:
        store = collect(hooked, texts.texts, sites, "none", max_length=max_length, include_bos=include_bos)
        table = score_tokens(probe_set, store, hooked.tokenizer, sites)
        table = table.assign(title=[titles[row] for row in table["row"]])
        write_parquet(folder / "token_scores.parquet", table)
        save_figure(draw_token_heatmap(table), folder / "token_heatmap.pdf")
    show_written(out)
