"""`unlearn`: a model and a target in, a changed model in Hugging Face layout out."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp_unlearn.cli import options
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from interp_unlearn.interventions import Edit, HookedModel
    from interp_unlearn.probes import Estimator, ProbeSet
    from interp_unlearn.sites import Site
    from interp_unlearn.unlearning import Objective, UnlearnConfig, UnlearnData, WeightEdit

_FROM_PROBES = ("probe_single", "probe_multi", "distilled")
_ON_PAIRS = ("dpo", "profs")
_REPLAY_TOKENS = 64
_SEEDED = ("random_single", "random_multi", "rmu", "cosine_rmu", "cosine_rmu_meta")


class Intervention(StrEnum):
    """What can be done to activations along a probe's direction."""

    clamp = "clamp"
    project_out = "project_out"
    steering = "steering"


def unlearn(
    model: options.ModelArgument,
    data: options.DataOption,
    out: options.OutOption,
    objective: Annotated[
        str | None, typer.Option("--objective", help="For example probe_multi, cosine_rmu, dpo, profs, task_vector.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Published settings to start from; other options override them.")
    ] = None,
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    retain: Annotated[
        Path | None, typer.Option("--retain", help="Plain texts to leave unchanged; default: the neutral texts.")
    ] = None,
    replay: Annotated[
        int, typer.Option("--replay", min=0, help="Texts that the model itself writes, retained beside the others.")
    ] = 0,
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
    coefficient: Annotated[
        float | None, typer.Option("--coefficient", help="Of rmu, of task_vector, or of steering in class gaps.")
    ] = None,
    beta: Annotated[float | None, typer.Option("--beta", help="Of the objective dpo.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="Of profs: directions removed at each layer.")] = None,
    intervention: Annotated[
        Intervention, typer.Option("--intervention", help="What `distilled` distils, at --layers.")
    ] = Intervention.clamp,
    overshoot: Annotated[float, typer.Option("--overshoot", help="Of the clamps that `distilled` distils.")] = 1.0,
    steps: Annotated[int | None, typer.Option("--steps", help="Updates.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Forget rows, and as many retain rows, a step.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Constant.")] = None,
    roles: Annotated[
        str | None, typer.Option("--roles", help="Matrices to train or edit, as mlp.down,attn.o; all trains all.")
    ] = None,
    train_layers: Annotated[
        str | None, typer.Option("--train-layers", help="Blocks to train or edit; default: all.")
    ] = None,
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
    from interp_unlearn.evaluation import sample_documents
    from interp_unlearn.probes import ProbeSet
    from interp_unlearn.unlearning import UnlearnConfig, UnlearnData, WeightEdit, load_recipe, method_kind
    from interp_unlearn.unlearning import unlearn as train

    base = None if recipe is None else load_recipe(recipe)
    name = objective or (base.objective if base else None)
    if name is None:
        raise ConfigError("give --objective, or --recipe which names one")
    kind = method_kind(name)
    if kind == "inference_edit":
        raise ConfigError(
            f"{name} changes activations at inference and no weights, so there is no model to write: distil it with "
            f"--objective distilled --intervention {name}, or run the model under model.edited(...) in Python"
        )
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
    if name in _ON_PAIRS and layout is not options.Layout.pairs:
        raise ConfigError(f"objective {name} works on pairs, and --layout {layout} has none; give --layout pairs")
    if (retain is None and kind == "loss") or name in (*_FROM_PROBES, "civil_finetuning"):
        require_both_classes(texts, data)
    hooked = open_model(model, device, dtype)
    retained = texts.of_class(0) if retain is None else read_texts(retain)
    unlearn_data = UnlearnData(
        forget=texts.of_class(1),
        retain=[*retained, *sample_documents(hooked, replay, _REPLAY_TOKENS, seed=config.seed)],
        neutral=texts.of_class(0),
        groups=texts.groups_of_class(1),
        counterparts=texts.of_class(0) if layout is options.Layout.pairs else None,
    )
    chosen: dict[str, Any] = dict(base.options) if base else {}
    chosen |= {} if layers is None else {"layers": parse_layers(layers)}
    for option, value in (("coefficient", coefficient), ("estimator", estimator), ("beta", beta), ("rank", rank)):
        chosen |= {} if value is None else {option: value}
    probe_set = None if probes is None else ProbeSet.load(probes, hooked)
    teacher_model = None if teacher is None else open_model(teacher, device, dtype)
    edits = partial(
        make_intervention,
        intervention,
        hooked,
        unlearn_data,
        config,
        estimator=chosen.get("estimator"),
        overshoot=overshoot,
        coefficient=chosen.get("coefficient", 1.0),
    )
    target = make_method(name, chosen, config, probe_set, teacher_model, edits)
    identity = {
        "task": "unlearn",
        "model_hash": hooked.hash(),
        "objective": name,
        "options": {**chosen, "intervention": intervention, "overshoot": overshoot},
        "layers": None if isinstance(target, WeightEdit) else list(target.layers),
        "config": asdict(config),
        "data": hash_file(data),
        "neutral": None if neutral is None else hash_file(neutral),
        "retain": None if retain is None else hash_file(retain),
        "replay": replay,
        "limit": limit,
        "skip": skip,
        "probes": None if probes is None else hash_file(probes / "probes.safetensors"),
        "teacher_hash": None if teacher_model is None else teacher_model.hash(),
    }
    with run_folder(out, identity) as folder:
        if isinstance(target, WeightEdit):
            result = target.apply(hooked, unlearn_data, config)
        else:
            result = train(hooked, target, unlearn_data, config)
        hooked.save_pretrained(folder)
        result.save(folder)
    typer.echo(f"{name}: {result.seconds:.1f} s")
    if "forget" in result.history:
        losses = result.history["forget"].tolist()
        what = "fine-tuning" if isinstance(target, WeightEdit) else "forget"
        typer.echo(f"{what} loss {losses[0]:.4g} to {losses[-1]:.4g} in {config.steps} steps")
    tensors = result.changed["tensor"].tolist()
    typer.echo(f"changed {len(tensors)} tensors, {tensors[0]} to {tensors[-1]}")
    typer.echo(f"largest relative change of a tensor {max(result.changed['relative_change'].tolist()):.3g}")
    show_written(out)


def make_method(
    name: str,
    chosen: dict[str, Any],
    config: "UnlearnConfig",
    probes: "ProbeSet | None" = None,
    teacher: "HookedModel | None" = None,
    edits: "Callable[[ProbeSet, list[int]], Mapping[Site, Edit]] | None" = None,
) -> "Objective | WeightEdit":
    """Build an objective or a weight edit from what the command line can say.

    Args:
        name: in the registry.
        chosen: options that were given.
        config: of the run.
        probes: where directions come from.
        teacher: what the oracle distils.
        edits: what `distilled` distils, made from probes and layers.

    Raises:
        ConfigError: the method needs something that was not given, or there is none of that name.
        SiteError: a layer has no probe.
    """
    from interp_unlearn.unlearning import build_method

    extra: dict[str, Any] = {}
    if name in _FROM_PROBES:
        if probes is None:
            raise ConfigError(f"objective {name} needs --probes, a folder that `interp-unlearn probe` wrote")
        found = chosen.get("layers") or _layers_of(probes, single=name == "probe_single")
        extra = {"layers": found, "directions": probes}
        if name == "distilled":
            assert edits is not None
            extra = {"layers": found, "edits": edits(probes, found), "contexts": 0.0}
            chosen = {key: value for key, value in chosen.items() if key not in ("estimator", "coefficient")}
    elif name in _SEEDED:
        if "layers" not in chosen:
            raise ConfigError(f"objective {name} needs --layers, for example --layers 2-5")
        extra = {"seed": config.seed}
    elif name == "oracle":
        if teacher is None:
            raise ConfigError("objective oracle needs --teacher, a model that never learned the target")
        extra = {"teacher": teacher}
    elif name == "hardened":
        extra = {"contexts": 0.0}  # nothing here tells prompts from what follows them
    return build_method(name, **{**chosen, **extra})  # pyright: ignore[reportReturnType] inference edits are refused


def make_intervention(
    intervention: Intervention,
    model: "HookedModel",
    data: "UnlearnData",
    config: "UnlearnConfig",
    probes: "ProbeSet",
    layers: list[int],
    *,
    estimator: "Estimator | None" = None,
    overshoot: float = 1.0,
    coefficient: float = 1.0,
) -> "Mapping[Site, Edit]":
    """What `distilled` distils at some layers: clamps at the probes' borders, projections, or steering in class gaps.

    Raises:
        ConfigError: for steering, at some layer the target texts do not project beyond the neutral ones.
        SiteError: a layer has no probe.
    """
    from interp_unlearn.unlearning import clamp_edits, project_out_edits, projection_scales, steering_edits

    if intervention is Intervention.steering:
        estimator = estimator or "mean_difference"
        scales = projection_scales(model, data, probes, layers, config, estimator=estimator)
        return steering_edits(probes, layers, coefficient, estimator=estimator, scales=scales)
    if intervention is Intervention.project_out:
        return project_out_edits(probes, layers, estimator=estimator or "logistic")
    return clamp_edits(probes, layers, estimator=estimator or "logistic", overshoot=overshoot)


def _layers_of(probes: "ProbeSet", single: bool) -> list[int]:
    """The layer of the best probe on the stream, or all layers that have one."""
    from interp_unlearn.unlearning import choose_layers

    n_probes = sum(site.component == "resid_post" for site in probes.sites)
    return list(choose_layers(probes, 1 if single else max(1, n_probes)))
