"""`unlearn`: a model and a target in, a changed model in Hugging Face layout out."""

from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp_unlearn.cli import options
from interp_unlearn.cli.methods import (
    FROM_PROBES,
    ON_PAIRS,
    Intervention,
    check_edit,
    check_options,
    check_retention,
    distilling_options,
    make_intervention,
    make_method,
)
from interp_unlearn.errors import ConfigError

if TYPE_CHECKING:
    from interp_unlearn.unlearning import UnlearnConfig, UnlearnData, UnlearnResult

_REPLAY_TOKENS = 64


class Attacker(StrEnum):
    """Adversaries a run can be trained against."""

    text = "text"
    activations = "activations"
    fork = "fork"


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
        Intervention | None,
        typer.Option("--intervention", help="What `distilled` distils, at --layers; by default clamp."),
    ] = None,
    overshoot: Annotated[
        float | None, typer.Option("--overshoot", help="Of the clamps that `distilled` distils; by default 1.")
    ] = None,
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
    nll_weight: Annotated[float | None, typer.Option("--nll-weight", help="Of cross-entropy on retain text.")] = None,
    accumulation: Annotated[int | None, typer.Option("--accumulation", min=1, help="Batches of an update.")] = None,
    topics: Annotated[
        list[Path] | None, typer.Option("--topic", help="Another file like --data: batches are of one file in turn.")
    ] = None,
    adversary: Annotated[
        Attacker | None, typer.Option("--adversary", help="Train against an inner attacker that relearns these.")
    ] = None,
    rules: Annotated[
        list[str] | None, typer.Option("--rule", help="Change the forget gradient, as mask_by_sign; repeat it.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="Of counterfactual: cosine, relative_mse or predictions.")
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option("--lora-rank", min=1, help="Train adapters, then merge them.")
    ] = None,
    max_kl: Annotated[
        float | None, typer.Option("--max-kl", help="Stop once KL on retain text is beyond it, in nats per token.")
    ] = None,
    first_blocks: Annotated[
        int | None, typer.Option("--first-blocks", min=1, help="Load these blocks alone; for losses without logits.")
    ] = None,
    cache_prefix: Annotated[
        bool, typer.Option("--cache-prefix", help="Keep the stream below the trained blocks over the epochs.")
    ] = False,
    keep_every: Annotated[
        int | None, typer.Option("--keep-every", min=1, help="Updates between states to go on from, in OUT.state.")
    ] = None,
    shard: Annotated[
        bool, typer.Option("--shard", help="Under torchrun: each process holds a part of the model.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the run will take, and do nothing.")] = False,
    max_length: options.MaxLengthOption = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of batches and random directions.")] = None,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Train a model to forget the target texts while retained text holds the rest; write it with the run's record."""
    from contextlib import nullcontext
    from dataclasses import asdict

    from interp_unlearn.artifacts import hash_file, record_run
    from interp_unlearn.cli.inputs import open_model, parse_layers, read_plain, read_topics, require_both_classes
    from interp_unlearn.cli.outputs import has_finished, run_folder, show_finished, show_written
    from interp_unlearn.evaluation import sample_documents
    from interp_unlearn.models.processes import Processes
    from interp_unlearn.probes import ProbeSet
    from interp_unlearn.unlearning import (
        AdversaryConfig,
        Checkpoints,
        ForkConfig,
        GuardConfig,
        LoraConfig,
        UnlearnConfig,
        UnlearnData,
        WeightEdit,
        build_rule,
        load_recipe,
        method_kind,
    )
    from interp_unlearn.unlearning import unlearn as train
    from interp_unlearn.unlearning.sharding import shard as shard_model

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
    check_options(name, intervention, overshoot, coefficient, teacher)
    given = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "retain_weight": retain_weight,
        "kl_weight": kl_weight,
        "nll_weight": nll_weight,
        "accumulation": accumulation,
        "adversary": None
        if adversary is None
        else (ForkConfig() if adversary is Attacker.fork else AdversaryConfig(relearns=adversary.value)),
        "lora": None if lora_rank is None else LoraConfig(rank=lora_rank, alpha=float(lora_rank)),
        "guard": None if max_kl is None else GuardConfig(max_kl=max_kl),
        "cache_prefix": cache_prefix or None,
        "max_length": max_length,
        "seed": seed,
        "layers": None if train_layers is None else tuple(parse_layers(train_layers)),
    }
    weights = {"--retain-weight": retain_weight, "--kl-weight": kl_weight, "--nll-weight": nll_weight}
    config = replace(base.config if base else UnlearnConfig(), **{k: v for k, v in given.items() if v is not None})
    if lora_rank is not None and config.lora is not None:
        config = replace(config, lora=replace(config.lora, seed=config.seed))
    if roles is not None:
        config = replace(config, roles=None if roles == "all" else tuple(roles.split(",")))

    texts, topic_of = read_topics(data, topics or [], layout, neutral, limit=limit, skip=skip)
    if name in ON_PAIRS and layout is not options.Layout.pairs:
        raise ConfigError(f"objective {name} works on pairs, and --layout {layout} has none; give --layout pairs")
    if (retain is None and kind == "loss") or name in (*FROM_PROBES, "civil_finetuning"):
        require_both_classes(texts, data)
    asked = texts.questions()
    if asked is not None:
        config = replace(config, forget_on="completion")
    unlearn_data = UnlearnData(
        forget=texts.of_class(1) if asked is None else asked[0],
        forget_completions=None if asked is None else asked[1],
        retain=texts.of_class(0) if retain is None else read_plain(retain),
        neutral=texts.of_class(0),
        groups=texts.groups_of_class(1),
        topics=topic_of,
        counterparts=texts.of_class(0) if layout is options.Layout.pairs else None,
    )
    chosen: dict[str, Any] = dict(base.options) if base else {}
    chosen |= {} if layers is None else {"layers": parse_layers(layers)}
    extra = {"coefficient": coefficient, "estimator": estimator, "beta": beta, "rank": rank, "by": by}
    chosen |= {option: value for option, value in extra.items() if value is not None}
    if dry_run:
        _show_estimate(model, name, chosen, config, unlearn_data, probes, device, dtype, first_blocks)
        return
    processes = Processes.of_torchrun(device)
    if kind != "loss" and processes.size > 1:
        raise ConfigError(f"{name} is a weight edit, and several processes share losses only; run it in one process")
    # A model that is to be sharded may be larger than any one GPU.
    hooked = open_model(model, "cpu" if shard else device, dtype, first_blocks=first_blocks)
    if replay:
        written = sample_documents(hooked, replay, _REPLAY_TOKENS, seed=config.seed)
        unlearn_data = replace(unlearn_data, retain=[*unlearn_data.retain, *written])
    probe_set = None if probes is None else ProbeSet.load(probes, hooked)
    teacher_model = None if teacher is None else open_model(teacher, device, dtype)
    edits = partial(
        make_intervention,
        intervention or Intervention.clamp,
        hooked,
        unlearn_data,
        config,
        estimator=chosen.get("estimator"),
        overshoot=1.0 if overshoot is None else overshoot,
        coefficient=chosen.get("coefficient", 1.0),
    )
    target = make_method(name, chosen, config, probe_set, teacher_model, edits)
    if isinstance(target, WeightEdit):
        check_edit(name, config, {"--rule": rules, "--keep-every": keep_every, "--shard": shard, **weights})
    else:
        check_retention(target, weights, None if config.guard else replay)
    identity = {
        "task": "unlearn",
        "model_hash": hooked.hash(),
        "objective": name,
        "options": {**chosen, **distilling_options(name, intervention, overshoot)},
        "layers": None if isinstance(target, WeightEdit) else list(target.layers),
        "config": asdict(config),
        "rules": list(rules or ()),
        "data": [hash_file(file) for file in (data, *(topics or ()))],
        "neutral": None if neutral is None else hash_file(neutral),
        "retain": None if retain is None else hash_file(retain),
        "replay": replay,
        "layout": layout,
        "limit": limit,
        "skip": skip,
        "probes": None if probes is None else hash_file(probes / "probes.safetensors"),
        "teacher_hash": None if teacher_model is None else teacher_model.hash(),
    }
    kept = None if keep_every is None else Checkpoints(out.with_name(f"{out.name}.state"), keep_every, stays=True)
    if has_finished(out, identity):  # asked by every process: none may wait for the others
        show_finished(out, processes.is_first)
        if kept is not None and processes.is_first:  # killed after the model was saved
            kept.remove()
        return
    with run_folder(out, identity) if processes.is_first else nullcontext(out) as folder:
        if isinstance(target, WeightEdit):
            result = target.apply(hooked, unlearn_data, config)
        else:
            applied = [build_rule(rule) for rule in rules or ()]
            if shard:
                shard_model(hooked, processes, device)
            result = train(hooked, target, unlearn_data, config, rules=applied, resume=kept, processes=processes)
        if shard or processes.is_first:
            hooked.save_pretrained(folder)
        if processes.is_first:
            result.save(folder)
            record_run(folder, {"seconds": round(result.seconds, 1)})
    if not processes.is_first:
        return
    if kept is not None:  # not before the model is saved
        kept.remove()
    _show_result(result, "fine-tuning" if isinstance(target, WeightEdit) else "forget")
    show_written(out)


def _show_result(result: "UnlearnResult", what: str) -> None:
    typer.echo(f"{result.objective}: {result.seconds:.1f} s")
    if "forget" in result.history:
        losses = result.history["forget"].tolist()
        typer.echo(f"{what} loss {losses[0]:.4g} to {losses[-1]:.4g} in {len(losses)} steps")
    if result.stopped is not None:
        typer.echo(result.stopped)
    tensors = result.changed["tensor"].tolist()
    typer.echo(f"changed {len(tensors)} tensors, {tensors[0]} to {tensors[-1]}")
    relative = [value for value in result.changed["relative_change"].tolist() if value < float("inf")]
    typer.echo(f"largest relative change of a tensor {max(relative, default=float('nan')):.3g}")


def _show_estimate(
    model: str,
    name: str,
    chosen: dict[str, Any],
    config: "UnlearnConfig",
    data: "UnlearnData",
    probes: Path | None,
    device: str,
    dtype: options.Dtype | None,
    first_blocks: int | None,
) -> None:
    """Say what a run will take; nothing is loaded but the tokenizer."""
    import torch

    from interp_unlearn.cli.inputs import check_device
    from interp_unlearn.cli.outputs import show_table
    from interp_unlearn.models.loading import load_tokenizer
    from interp_unlearn.probes import ProbeSet
    from interp_unlearn.unlearning import Objective
    from interp_unlearn.unlearning.corpora import Corpora
    from interp_unlearn.unlearning.estimate import estimate_run

    if name in ("distilled", "oracle"):
        raise ConfigError(
            f"--dry-run cannot build {name} without loading models; estimate hardened, which costs as much"
        )
    target = make_method(name, chosen, config, None if probes is None else ProbeSet.load(probes))
    if not isinstance(target, Objective):
        raise ConfigError(f"--dry-run is for losses; {name} is a weight edit and takes a pass or two over the texts")
    check_device(device)
    tokenizer = load_tokenizer(model)
    corpora = Corpora.from_data(tokenizer, data, config.max_length)
    precision = None if dtype is None else getattr(torch, dtype)
    found = estimate_run(model, target, corpora, config, dtype=precision, device=device, first_blocks=first_blocks)
    typer.echo(f"trains {found.trained_numbers:,} numbers in {len(found.trained)} tensors: {', '.join(found.trained)}")
    show_table(found.to_frame())
    typer.echo(f"disk {found.disk / 1e9:.3g} GB; about {found.step_seconds:.3g} s a step, {found.seconds:.3g} s in all")
