"""`unlearn`: a model and a target in, a changed model in Hugging Face layout out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp_unlearn.cli import options
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.probes import ProbeSet
    from interp_unlearn.unlearning import Objective, UnlearnConfig

_FROM_PROBES = ("probe_single", "probe_multi", "distilled")
_SEEDED = ("random_single", "random_multi", "rmu", "cosine_rmu", "cosine_rmu_meta")


def unlearn(
    model: options.ModelArgument,
    data: options.DataOption,
    out: options.OutOption,
    objective: Annotated[
        str | None, typer.Option("--objective", help="For example probe_multi, cosine_rmu, rmu, civil_finetuning.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Published settings to start from; other options override them.")
    ] = None,
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    retain: Annotated[
        Path | None, typer.Option("--retain", help="Plain texts to leave unchanged; default: the neutral texts.")
    ] = None,
    limit: options.LimitOption = None,
    skip: options.SkipOption = 0,
    probes: options.ProbesOption = None,
    estimator: Annotated[
        str | None, typer.Option("--estimator", help="Direction of the probes: logistic (default) or mean_difference.")
    ] = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="Model to distil, for the objective oracle.")] = None,
    layers: Annotated[
        str | None,
        typer.Option("--layers", help="Of the objective, as 3 or 1,4 or 2-6; default for probes: best, or all."),
    ] = None,
    coefficient: Annotated[float | None, typer.Option("--coefficient", help="Of the objective rmu.")] = None,
    overshoot: Annotated[float, typer.Option("--overshoot", help="Of the clamps that `distilled` distils.")] = 1.0,
    steps: Annotated[int | None, typer.Option("--steps", help="Updates.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Forget rows, and as many retain rows, a step.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Constant.")] = None,
    roles: Annotated[
        str | None, typer.Option("--roles", help="Matrices to train, as mlp.down,attn.o; all trains everything.")
    ] = None,
    train_layers: Annotated[str | None, typer.Option("--train-layers", help="Blocks to train; default: all.")] = None,
    retain_weight: Annotated[float | None, typer.Option("--retain-weight", help="Of retained activations.")] = None,
    kl_weight: Annotated[float | None, typer.Option("--kl-weight", help="Of the KL on retain text.")] = None,
    max_length: options.MaxLengthOption = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of batches and random directions.")] = None,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Train a model to forget the target texts while retained text holds the rest; write it with the run's record."""
    from dataclasses import asdict

    from interp_unlearn.artifacts import hash_file
    from interp_unlearn.cli.inputs import open_model, parse_layers, read_labelled_texts, require_both_classes
    from interp_unlearn.cli.outputs import run_folder, show_written
    from interp_unlearn.data import read_texts
    from interp_unlearn.probes import ProbeSet
    from interp_unlearn.unlearning import UnlearnConfig, UnlearnData, load_recipe
    from interp_unlearn.unlearning import unlearn as train

    base = None if recipe is None else load_recipe(recipe)
    name = objective or (base.objective if base else None)
    if name is None:
        raise ConfigError("give --objective, or --recipe which names one")
    given = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "retain_weight": retain_weight,
        "kl_weight": kl_weight,
        "max_length": max_length,
        "seed": seed,
        "layers": None if train_layers is None else tuple(parse_layers(train_layers)),
    }
    config = replace(base.config if base else UnlearnConfig(), **{k: v for k, v in given.items() if v is not None})
    if roles is not None:
        config = replace(config, roles=None if roles == "all" else tuple(roles.split(",")))

    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    if retain is None or name in (*_FROM_PROBES, "civil_finetuning"):
        require_both_classes(texts, data)
    kept = texts.of_class(0) if retain is None else read_texts(retain)
    unlearn_data = UnlearnData(
        forget=texts.of_class(1), retain=kept, neutral=texts.of_class(0), groups=texts.groups_of_class(1)
    )
    hooked = open_model(model, device, dtype)
    chosen: dict[str, Any] = dict(base.options) if base else {}
    chosen |= {} if layers is None else {"layers": parse_layers(layers)}
    chosen |= {} if coefficient is None else {"coefficient": coefficient}
    chosen |= {} if estimator is None else {"estimator": estimator}
    probe_set = None if probes is None else ProbeSet.load(probes, hooked)
    teacher_model = None if teacher is None else open_model(teacher, device, dtype)
    target = make_objective(name, chosen, config, probe_set, teacher_model, overshoot)
    identity = {
        "task": "unlearn",
        "model_hash": hooked.hash(),
        "objective": name,
        "options": {**chosen, "overshoot": overshoot},
        "layers": list(target.layers),
        "config": asdict(config),
        "data": hash_file(data),
        "neutral": None if neutral is None else hash_file(neutral),
        "retain": None if retain is None else hash_file(retain),
        "limit": limit,
        "skip": skip,
        "probes": None if probes is None else hash_file(probes / "probes.safetensors"),
        "teacher_hash": None if teacher_model is None else teacher_model.hash(),
    }
    with run_folder(out, identity) as folder:
        result = train(hooked, target, unlearn_data, config)
        hooked.save_pretrained(folder)
        result.save(folder)
    losses = result.history["forget"].tolist()
    typer.echo(f"forget loss {losses[0]:.4g} to {losses[-1]:.4g} in {config.steps} steps, {result.seconds:.1f} s")
    typer.echo(f"largest relative change of a matrix {max(result.changed['relative_change'].tolist()):.3g}")
    show_written(out)


def make_objective(
    name: str,
    chosen: dict[str, Any],
    config: "UnlearnConfig",
    probes: "ProbeSet | None" = None,
    teacher: "HookedModel | None" = None,
    overshoot: float = 1.0,
) -> "Objective":
    """Build an objective from what the command line can say.

    Raises:
        ConfigError: the objective needs something that was not given, or there is none of that name.
        SiteError: a layer has no probe.
    """
    from interp_unlearn.unlearning import build_objective

    extra: dict[str, Any] = {}
    if name in _FROM_PROBES:
        if probes is None:
            raise ConfigError(f"objective {name} needs --probes, a folder that `interp-unlearn probe` wrote")
        found = chosen.get("layers") or _layers_of(probes, single=name == "probe_single")
        extra = {"layers": found, "directions": probes}
        if name == "distilled":
            estimator = chosen.get("estimator", "logistic")
            extra = {"layers": found, "edits": _clamps(probes, found, estimator, overshoot), "contexts": 0.0}
            chosen = {key: value for key, value in chosen.items() if key != "estimator"}
    elif name in _SEEDED:
        if "layers" not in chosen:
            raise ConfigError(f"objective {name} needs --layers, for example --layers 2-5")
        extra = {"seed": config.seed}
    elif name == "oracle":
        if teacher is None:
            raise ConfigError("objective oracle needs --teacher, a model that never learned the target")
        extra = {"teacher": teacher}
    return build_objective(name, **{**chosen, **extra})


def _layers_of(probes: "ProbeSet", single: bool) -> list[int]:
    """The layer of the best probe on the stream, or all layers that have one."""
    rows = zip(probes.sites, probes.table["auroc"].tolist(), strict=True)
    found = [(auroc, site.layer) for site, auroc in rows if site.component == "resid_post" and site.layer is not None]
    if not found:
        raise ConfigError("the probe set has no probe at resid_post; collect and probe those sites")
    return [max(found)[1]] if single else sorted(layer for _, layer in found)


def _clamps(probes: "ProbeSet", layers: list[int], estimator: Any, overshoot: float) -> dict[Any, Any]:
    """At each layer, what lies beyond the probe's border is moved back over it."""
    from interp_unlearn.interventions import Clamp
    from interp_unlearn.sites import Site

    sites = [Site(layer, "resid_post") for layer in layers]
    return {
        site: Clamp(probes.direction(site, estimator), threshold=-probes.bias(site, estimator), overshoot=overshoot)
        for site in sites
    }
