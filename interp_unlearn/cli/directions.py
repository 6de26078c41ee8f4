"""`directions`: what a direction is and does, from probes or from a file."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp_unlearn.cli import options

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.directions import Directions


class Estimator(StrEnum):
    """Directions of a probe set."""

    logistic = "logistic"
    mean_difference = "mean_difference"


class Layers(StrEnum):
    """Where interventions are made."""

    each = "each"
    all = "all"
    both = "both"


def directions(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder that `probe` wrote, or a .safetensors (FILE#TENSOR for one of several) or .npy file.",
        ),
    ],
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="The model the directions belong to.")],
    out: options.OutOption,
    site: Annotated[
        list[str] | None,
        typer.Option("--site", help="Sites kept; where a file's tensor belongs that does not say so. Repeat it."),
    ] = None,
    row: Annotated[int | None, typer.Option("--row", min=0, help="Latent of a sparse autoencoder's decoder.")] = None,
    estimator: Annotated[Estimator, typer.Option("--estimator", help="Of probes.")] = Estimator.logistic,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="Folder that `collect` wrote: for whitened cosines, class gaps and clamps."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Prompts for the causal effects: the target texts of this file.")
    ] = None,
    layout: options.LayoutOption = options.Layout.prompts,
    limit: Annotated[int, typer.Option("--limit", min=2, help="Rows used of --data.")] = 64,
    skip: options.SkipOption = 0,
    token: Annotated[
        list[str] | None, typer.Option("--token", help="Token whose probability is followed; repeat it for a set.")
    ] = None,
    layers: Annotated[Layers, typer.Option("--layers", help="Intervene at each site, at all together.")] = Layers.both,
    random: Annotated[int, typer.Option("--random", min=1, help="Random directions of the control.")] = 3,
    category: Annotated[
        list[str] | None,
        typer.Option("--category", metavar="NAME=SOURCE", help="Directions of a category, for the rank; repeat it."),
    ] = None,
    train: Annotated[
        list[str] | None, typer.Option("--train", metavar="NAME=PROBES", help="For the transfer; repeat it.")
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option("--test", metavar="NAME=STORE", help="For the transfer; repeat it.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Tokens and value vectors listed on either side.")] = 10,
    show_tokens: Annotated[
        bool,
        typer.Option("--show-tokens", help="Write and print the promoted tokens, which may offend, beside their ids."),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of random directions, nulls and bootstrap.")] = 0,
    batch_size: options.BatchSizeOption = 64,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Compare directions between layers, read them through weights and head, and measure what they cause."""
    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.artifacts import hash_file, write_parquet
    from interp_unlearn.cli.inputs import open_model, read_labelled_texts
    from interp_unlearn.cli.outputs import run_folder, show_written
    from interp_unlearn.directions import (
        Directions,
        EffectsConfig,
        aligned_value_vectors,
        causal_effects,
        compare_directions,
        promoted_tokens,
        read_directions,
        subspace_rank,
        transfer,
    )
    from interp_unlearn.errors import ConfigError
    from interp_unlearn.probes import ProbeSet
    from interp_unlearn.sites import Site

    if bool(train) != bool(test):
        raise ConfigError("a transfer needs both --train NAME=PROBES and --test NAME=STORE")
    sites = None if not site else [Site.parse(name) for name in site]
    texts = None if data is None else read_labelled_texts(data, layout, limit=limit, skip=skip)
    hooked = open_model(model, device, dtype)
    found = read_directions(source, sites, row=row, model=hooked, estimator=estimator.value)
    activations = None if store is None else ActivationStore.open(store, hooked)
    categories = {
        name: read_directions(path, sites, model=hooked, estimator=estimator.value)
        for name, path in _named(category, "--category").items()
    }
    probe_sets = {name: ProbeSet.load(path) for name, path in _named(train, "--train").items()}
    stores = {name: ActivationStore.open(path) for name, path in _named(test, "--test").items()}
    identity = {
        "task": "directions",
        "model_hash": hooked.hash(),
        "directions": _hash(found),
        "sites": [str(place) for place in found.sites],
        "store": None if activations is None else _made_by(activations),
        "data": None if data is None else hash_file(data),
        "layout": layout,
        "limit": limit,
        "skip": skip,
        "tokens": token,
        "layers": layers,
        "random": random,
        "categories": {name: _hash(part) for name, part in categories.items()},
        "train": {name: _hash(Directions.of(part)) for name, part in probe_sets.items()},
        "test": {name: _made_by(part) for name, part in stores.items()},
        "k": k,
        "show_tokens": show_tokens,
        "seed": seed,
    }
    with run_folder(out, identity) as folder:
        found.save(folder / "directions.safetensors")
        tables: dict[str, pd.DataFrame] = {
            "promoted_tokens": promoted_tokens(hooked, found, k, seed=seed, with_text=show_tokens)
        }
        if any(place.layer is not None for place in found.sites):
            tables["value_vectors"] = aligned_value_vectors(hooked, found, k)
        if len(found.sites) > 1:
            tables["cosines"] = compare_directions(found, activations)
        if categories:
            tables["subspace_rank"] = subspace_rank(categories, seed=seed)
        if probe_sets:
            tables["transfer"] = transfer(probe_sets, stores, seed=seed)
        if texts is not None:
            config = EffectsConfig(layers=layers.value, n_random=random, seed=seed, batch_size=batch_size)
            prompts, groups = texts.of_class(1), texts.groups_of_class(1)
            tables["causal_effects"] = causal_effects(
                hooked, prompts, found, config, store=activations, tokens=token or (), groups=groups, progress=True
            )
        for name, table in tables.items():
            write_parquet(folder / f"{name}.parquet", table)
        draw_directions(folder)
    _show(tables)
    show_written(out)


def draw_directions(folder: Path) -> None:
    """Draw every table of the folder; those over several components of the stream have no axis of layers.

    Raises:
        ArtifactError: a table is damaged.
    """
    from functools import partial

    from interp_unlearn import figures
    from interp_unlearn.artifacts import check_columns, read_parquet
    from interp_unlearn.errors import ArtifactError

    plots = {
        "promoted_tokens": {"promoted_tokens": figures.plot_promoted_tokens},
        "value_vectors": {"value_vectors": figures.plot_value_vectors},
        "cosines": {"cosines": figures.plot_direction_cosines},
        "subspace_rank": {"subspace_rank": figures.plot_subspace_rank},
        "transfer": {"transfer": figures.plot_transfer, "transfer_by_layer": figures.plot_transfer_by_layer},
    }
    tables = {name: folder / f"{name}.parquet" for name in (*plots, "causal_effects")}
    for name, path in tables.items():
        if not path.is_file():
            continue
        table = read_parquet(path)
        if name == "causal_effects":
            check_columns(path, table, texts=["measure", "site"], again="run directions again")
            measures = dict.fromkeys(m for m in table["measure"].tolist() if m != "distance")  # the control's by design
            if strange := [measure for measure in measures if not measure.isidentifier()]:  # they name files
                raise ArtifactError(f"{path}: {strange[0]!r} is no measure; run directions again")
            drawn = {f"effect_{m}": partial(figures.plot_causal_effects, measure=m) for m in measures}
        else:
            drawn = plots[name]
        if name in ("promoted_tokens", "value_vectors") or _one_component(table):
            for file, plot in drawn.items():
                figures.save_figure(plot(table), folder / file)


def _one_component(table: "pd.DataFrame") -> bool:
    column = "site_a" if "site_a" in table else "site"
    sites: list[str] = [str(site) for site in table[column]] if column in table else []  # a plot says what is missing
    return len({site.partition(".")[2] for site in sites if "." in site}) <= 1


def _made_by(store: "ActivationStore") -> "dict[str, Any]":
    """What makes a store this one."""
    from interp_unlearn.activations.store import IDENTITY

    return {key: store.metadata.get(key) for key in IDENTITY} | {"sites": [str(site) for site in store.sites]}


def _hash(directions: "Directions") -> str:
    from interp_unlearn.artifacts import hash_tensors

    return hash_tensors((str(site), vector) for site, vector in directions.vectors.items())


def _named(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """Paths by name, from NAME=PATH.

    Raises:
        ConfigError: there is no name, or it is given twice.
    """
    from interp_unlearn.errors import ConfigError

    found: dict[str, str] = {}
    for text in given or ():
        name, equals, path = text.partition("=")
        if not (name and equals and path) or name in found:
            raise ConfigError(f"{option}: expected NAME=PATH, each name once, got {text!r}")
        found[name] = path
    return found


def _show(tables: "dict[str, pd.DataFrame]") -> None:
    """Print the head of what was found; no text but the tokens asked for."""
    from interp_unlearn.cli.outputs import show_table

    tokens = tables["promoted_tokens"]
    shown = [name for name in ("site", "side", "rank", "token_id", "token", "value", "null_high") if name in tokens]
    show_table(tokens if "token" in tokens else tokens.loc[tokens["rank"] == 1], shown)
    if "value_vectors" in tables:
        typer.echo("")
        table = tables["value_vectors"]
        show_table(table.loc[table["rank"] == 1], ["site", "mlp_layer", "side", "neuron", "cosine", "null_high"])
    if "causal_effects" in tables:
        typer.echo("")
        table = tables["causal_effects"]
        table = table.loc[(table["measure"] == "kl") & (table["control"] != "random")]
        show_table(
            table, ["intervention", "strength", "unit", "site", "control", "measure", "mean", "low", "high", "n"]
        )
