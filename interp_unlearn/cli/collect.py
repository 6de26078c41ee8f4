"""`collect`: texts in, pooled activations out."""

from typing import Annotated

import typer

from interp_unlearn.cli import options


def collect(
    model: options.ModelArgument,
    data: options.DataOption,
    out: options.OutOption,
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    limit: options.LimitOption = None,
    skip: options.SkipOption = 0,
    site: options.SiteOption = None,
    pool: Annotated[str, typer.Option("--pool", help="mean over a text's tokens, or its last.")] = "mean",
    keep_texts: Annotated[
        bool, typer.Option(help="Keep the texts beside the vectors, for the bag-of-words control.")
    ] = True,
    batch_size: options.BatchSizeOption = 32,
    max_length: options.MaxLengthOption = None,
    backend: Annotated[str, typer.Option("--backend", help="torch, transformer_lens or nnsight.")] = "torch",
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Read activations at sites on labelled texts, pooled to one vector a text, into a folder."""
    from interp_unlearn.activations import collect as collect_activations
    from interp_unlearn.cli.inputs import chosen_sites, open_model, read_labelled_texts
    from interp_unlearn.cli.outputs import show_written

    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    hooked = open_model(model, device, dtype, backend)
    store = collect_activations(
        hooked,
        texts.texts,
        chosen_sites(site, hooked),
        pool,  # pyright: ignore[reportArgumentType]  # checked by collect
        labels=texts.labels,
        groups=texts.groups,
        keep_texts=keep_texts,
        out=out,
        batch_size=batch_size,
        max_length=max_length,
    )
    typer.echo(f"{len(store)} texts ({sum(texts.labels)} target) at {len(store.sites)} sites")
    show_written(out)
