"""`evaluate`: what unlearning did to the model's predictions, and to what the probes read."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp_unlearn.cli import options

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.cli.inputs import LabelledTexts
    from interp_unlearn.interventions import HookedModel
    from interp_unlearn.probes import ProbeSet


def evaluate(
    model: options.ModelArgument,
    against: options.AgainstOption,
    data: options.DataOption,
    out: options.OutOption,
    layout: options.LayoutOption = options.Layout.pairs,
    neutral: options.NeutralOption = None,
    limit: options.LimitOption = None,
    skip: options.SkipOption = 0,
    probes: options.ProbesOption = None,
    batch_size: options.BatchSizeOption = 64,
    max_length: options.MaxLengthOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    device: options.DeviceOption = "cpu",
    dtype: options.DtypeOption = None,
) -> None:
    """Perplexity of both classes, KL to the original, and probe scores. Writes numbers only, never a text."""
    from interp_unlearn.artifacts import hash_file, write_parquet
    from interp_unlearn.cli.inputs import open_model, read_labelled_texts, require_both_classes
    from interp_unlearn.cli.outputs import run_folder, show_table, show_written
    from interp_unlearn.errors import ConfigError
    from interp_unlearn.probes import ProbeSet

    texts = read_labelled_texts(data, layout, neutral, limit=limit, skip=skip)
    require_both_classes(texts, data)
    original = open_model(against, device, dtype)
    probe_set = None if probes is None else ProbeSet.load(probes, original)
    changed = open_model(model, device, dtype)
    if changed.tokenizer.get_vocab() != original.tokenizer.get_vocab():
        raise ConfigError(f"{model} and {against} have different tokenizers, so their predictions do not compare")
    identity = {
        "task": "evaluate",
        "model_hash": changed.hash(),
        "original_hash": original.hash(),
        "data": hash_file(data),
        "neutral": None if neutral is None else hash_file(neutral),
        "layout": layout,
        "limit": limit,
        "skip": skip,
        "max_length": max_length,
        "probes": None if probes is None else hash_file(Path(probes) / "probes.safetensors"),
        "seed": seed,
    }
    with run_folder(out, identity) as folder:
        table = measure_predictions(changed, original, texts, batch_size, max_length, seed)
        write_parquet(folder / "predictions.parquet", table)
        scores = None
        if probe_set is not None:
            scores = measure_probe_scores(changed, original, texts, probe_set, max_length)
            write_parquet(folder / "probe_scores.parquet", scores)
    show_table(table)
    if scores is not None:
        typer.echo("")
        show_table(scores)
    show_written(out)


def measure_predictions(
    model: "HookedModel",
    original: "HookedModel",
    texts: "LabelledTexts",
    batch_size: int = 64,
    max_length: int | None = None,
    seed: int = 0,
) -> "pd.DataFrame":
    """Perplexity of each class under both models, and KL(original || model) in nats per token, on each class.

    Returns:
        One row a number: corpus (target, neutral), measure, model (model, original, or empty for KL), value, its 95%
        bootstrap interval low and high (texts resampled by group), n_texts, n_tokens.
    """
    import numpy as np
    import pandas as pd

    from interp_unlearn.evaluation import text_kl, token_nll
    from interp_unlearn.statistics import bootstrap_means
    from interp_unlearn.statistics.intervals import percentile_interval

    nll = partial(token_nll, batch_size=batch_size, max_length=max_length, progress=True)
    rows: list[dict[str, object]] = []
    for corpus, label in (("target", 1), ("neutral", 0)):
        chosen, groups = texts.of_class(label), texts.groups_of_class(label)
        for measure, who, frame in (
            ("perplexity", "original", nll(original, chosen)),
            ("perplexity", "model", nll(model, chosen)),
            ("kl", "", text_kl(original, model, chosen, batch_size=batch_size, max_length=max_length)),
        ):
            sums = frame[["nll" if measure == "perplexity" else "kl", "tokens"]].to_numpy(dtype=float)
            drawn = bootstrap_means(sums, groups, seed=seed)
            # A mean over tokens is a ratio of sums over texts, and both are drawn together.
            per_token = np.concatenate([[sums[:, 0].sum() / sums[:, 1].sum()], drawn[:, 0] / drawn[:, 1]])
            values = np.exp(per_token) if measure == "perplexity" else per_token
            interval = percentile_interval(float(values[0]), values[1:], len(set(groups)))
            rows.append(
                {
                    "corpus": corpus,
                    "measure": measure,
                    "model": who,
                    "value": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "n_texts": len(frame),
                    "n_tokens": int(sums[:, 1].sum()),
                }
            )
    return pd.DataFrame(rows)


def measure_probe_scores(
    model: "HookedModel",
    original: "HookedModel",
    texts: "LabelledTexts",
    probes: "ProbeSet",
    max_length: int | None = None,
) -> "pd.DataFrame":
    """What the original's probes read in both models.

    Caveat: a score that falls may mean that the concept is gone, or that it moved to where this probe does not look;
    and on the texts the probes were fitted on, the original's AUROC is flattered.

    Returns:
        One row a site and model: site, layer, model, auroc, accuracy, and the mean signed distance from the probe's
        border (L2 units of the residual stream) on target and on neutral texts.
    """
    import numpy as np
    import pandas as pd

    from interp_unlearn.probes.reading import collect_as_fitted

    labels = np.array(texts.labels)
    tables: list[pd.DataFrame] = []
    for who, hooked in (("original", original), ("model", model)):
        options: dict[str, Any] = {"labels": labels, "keep_texts": False, "max_length": max_length}
        store = collect_as_fitted(probes, hooked, texts.texts, **options)
        table = probes.evaluate(store)[["site", "layer", "auroc", "accuracy"]].assign(model=who)
        scores = [probes.score(store, site).numpy() for site in probes.sites]
        for name, label in (("mean_score_target", 1), ("mean_score_neutral", 0)):
            table[name] = [float(score[labels == label].mean()) for score in scores]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
