"""`collect`: texts in, pooled activations out."""

import logging
from typing import Annotated, Any

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
    pool: Annotated[
        str, typer.Option("--pool", help="mean over a text's tokens, last of them, or none: every token's vector.")
    ] = "mean",
    tokens: Annotated[
        str, typer.Option("--tokens", help="Tokens that count: all, last, or a span of positions such as 0:8 or -4:.")
    ] = "all",
    keep_texts: Annotated[
        bool, typer.Option(help="Keep the texts beside the vectors, for the bag-of-words control.")
    ] = True,
    batch_tokens: Annotated[
        int, typer.Option("--batch-tokens", min=1, help="Tokens of a pass, padding included; more on a GPU.")
    ] = 4096,
    max_length: options.MaxLengthOption = None,
    backend: Annotated[str, typer.Option("--backend", help="torch, transformer_lens or nnsight.")] = "torch",
    remote: Annotated[
        str | None,
        typer.Option("--remote", help="Read a hosted model, with --backend nnsight: ndif, a server's URL, or local."),
    ] = None,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print passes, tokens and bytes.")] = False,
) -> None:
    """Read activations at sites on labelled texts, pooled to one vector a text, into a folder."""
    from interp_unlearn.activations import collect as collect_activations
    from interp_unlearn.activations import plan_collection
    from interp_unlearn.cli.inputs import chosen_sites, open_model, parse_tokens, read_labelled_texts
    from interp_unlearn.cli.outputs import show_written
    from interp_unlearn.models.processes import Processes

    processes = Processes() if dry_run else Processes.of_torchrun(device)
    selection = parse_tokens(tokens)
    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    hooked = open_model(model, device, dtype, backend, remote=remote)
    sites = chosen_sites(site, hooked)
    settings: dict[str, Any] = {"pool": pool, "batch_tokens": batch_tokens, "max_length": max_length}
    if dry_run:
        typer.echo(str(plan_collection(hooked, texts.texts, sites, **settings)))
        return
    if processes.is_first:  # the plan, on stderr, before the first pass
        logging.getLogger("interp_unlearn.activations").setLevel(logging.INFO)
    store = collect_activations(
        hooked,
        texts.texts,
        sites,
        tokens=selection,
        labels=texts.labels,
        groups=texts.groups,
        keep_texts=keep_texts,
        out=out,
        processes=processes,
        **settings,
    )
    if not processes.is_first:
        return
    typer.echo(f"{len(store)} texts ({sum(texts.labels)} target) at {len(store.sites)} sites")
    show_written(out)
