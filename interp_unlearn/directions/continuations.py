"""How an intervention along a direction changes what a model writes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from interp_unlearn.directions.controls import random_moves, typical_distances
from interp_unlearn.directions.direction_set import Directions, residual_directions
from interp_unlearn.directions.effects import EffectsConfig, contrast_rows, make_conditions
from interp_unlearn.errors import ConfigError
from interp_unlearn.evaluation import sample_rows, token_nll
from interp_unlearn.evaluation.generations import continuation_texts
from interp_unlearn.interventions import Edit
from interp_unlearn.interventions.buckets import TokenRow
from interp_unlearn.models import TokenBatch
from interp_unlearn.models.encoding import special_id
from interp_unlearn.probes import ProbeSet
from interp_unlearn.sites import Site

if TYPE_CHECKING:
    import pandas as pd

    from interp_unlearn.activations import ActivationStore
    from interp_unlearn.interventions import HookedModel

Judge = Callable[[Sequence[str], Sequence[str]], Sequence[float] | Sequence[str]]
"""From prompts and what was written after each to a score or the name of a verdict for each."""

Verdicts = Float[np.ndarray, " text"] | list[str]


def generation_effects(
    model: "HookedModel",
    prompts: Sequence[str],
    directions: Directions | ProbeSet,
    judge: Judge,
    config: EffectsConfig | None = None,
    *,
    store: "ActivationStore | None" = None,
    groups: Sequence[object] | None = None,
    progress: bool = False,
) -> "pd.DataFrame":
    """Judge what the model writes after each prompt with and without each intervention, and how fluent it is.

    Edits are made at every token of the prompt but the BOS, and at every token written. The control moves every token
    by the root mean square of the distances that the intervention moves the prompts' tokens at that site: no pass tells
    how far it would have moved tokens that only the control wrote.
    Caveat: read a share beside the perplexity. An intervention that breaks the text also lowers the share of what was
    looked for; a judge that knows broken text must give it a verdict of its own.

    Args:
        model: the model, under any surrounding edits.
        prompts: what is continued, once each; repeat them for several samples, with equal groups.
        directions: where and along what.
        judge: called with all prompts and their texts; a number for each text, or a verdict's name.
        config: how.
        store: activations with labels, which class gaps and clamping thresholds are measured on.
        groups: one key a prompt; prompts of one group are resampled together.
        progress: whether to show a progress bar.

    Returns:
        Columns as of `next_token_effects`; the untouched model's rows have the intervention "none", the control "plain"
        and an empty site. Measures: ``share_<verdict>`` for each verdict that was given, or ``score`` (mean of the
        judge's numbers); ``perplexity`` (of all that was written, under the untouched model; of a text
        that ended at once, the token that ended it).

    Raises:
        ConfigError: fewer than two prompts or groups, a judge that does not give one finite number or one name for each
            text, or something that strengths are counted in is not known.
        SiteError: the model has no such site, or it is not in the residual stream.
    """
    import pandas as pd

    config = config or EffectsConfig()
    found = residual_directions(directions)
    found.check_width(model)
    conditions = make_conditions(model, prompts, found, config, store)
    asked = list(prompts)

    def judged(edits: dict[Site, Edit]) -> tuple[Verdicts, Float[np.ndarray, "text 2"]]:
        with model.edited(edits):
            rows = sample_rows(
                model,
                asked,
                config.max_new_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                seed=config.seed,
                batch_size=config.batch_size,
                stop=config.stop,
                progress=False,
            )
        texts = continuation_texts(model, rows)
        # Scored are the very tokens: as a text of its own a continuation may be tokenised otherwise.
        special = set(model.tokenizer.all_special_ids)
        said = [_said(new, special) for _, new in rows]
        batch = TokenBatch.from_rows(
            [prompt + new for (prompt, _), new in zip(rows, said, strict=True)],
            bos_token_id=special_id(model.tokenizer, "bos"),
            completion_starts=[len(prompt) for prompt, _ in rows],
        )
        nll = token_nll(model, batch, batch_size=config.batch_size)
        return _checked(judge(asked, texts), len(texts)), nll[["nll", "tokens"]].to_numpy(dtype=float)

    with tqdm(total=1 + len(conditions) * (1 + config.n_random), desc="generating", disable=not progress) as bar:
        plain = judged({})
        bar.update()
        results: list[list[tuple[Verdicts, np.ndarray]]] = []
        for condition in conditions:
            distances = typical_distances(model, asked, condition.edits, found, config.batch_size)
            moved = [random_moves(distances, found, seed) for seed in config.random_seeds]
            results.append([])
            for edits in (condition.edits, *moved):
                results[-1].append(judged(edits))
                bar.update()
    names = _verdict_names([plain, *(result for part in results for result in part)])
    baseline = {"intervention": "none", "strength": float("nan"), "unit": "", "site": "", "layer": None}
    table: list[dict[str, Any]] = []
    for measure, columns in _measures(*plain, names).items():
        interval = contrast_rows(
            columns, columns[None].repeat(config.n_random, 0), config, groups, _statistic(measure)
        )[0]
        table.append({**baseline, "measure": measure, **interval, "control": "plain"})
    for condition, parts in zip(conditions, results, strict=True):
        measures = [_measures(*part, names) for part in parts]
        for measure in measures[0]:
            columns = np.stack([part[measure] for part in measures])
            for row in contrast_rows(columns[0], columns[1:], config, groups, _statistic(measure)):
                table.append({**condition.describe(), "measure": measure, **row})
    return pd.DataFrame(table).astype({"layer": "Int64", "seed": "Int64"})


def _measures(
    verdicts: Verdicts, nll: Float[np.ndarray, "text 2"], names: list[str]
) -> dict[str, Float[np.ndarray, "text column"]]:
    if isinstance(verdicts, list):
        shares = {f"share_{name}": np.array([[float(v == name)] for v in verdicts]) for name in names}
        return {**shares, "perplexity": nll}
    return {"score": verdicts[:, None], "perplexity": nll}


def _statistic(measure: str) -> Callable[[np.ndarray], np.ndarray]:
    if measure == "perplexity":  # a ratio of sums over texts, which are drawn together
        return lambda means: np.exp(means[..., 0] / means[..., 1])
    return lambda means: means[..., 0]


def _verdict_names(results: Sequence[tuple[Verdicts, np.ndarray]]) -> list[str]:
    kinds = {isinstance(verdicts, list) for verdicts, _ in results}
    if len(kinds) > 1:
        raise ConfigError("the judge gave numbers for some generations and names for others; expected one kind")
    return sorted({name for verdicts, _ in results if isinstance(verdicts, list) for name in verdicts})


def _checked(verdicts: Sequence[float] | Sequence[str], n: int) -> Verdicts:
    given = list(verdicts)
    if len(given) != n:
        raise ConfigError(f"the judge gave {len(given)} verdicts for {n} texts; expected one each")
    if all(isinstance(verdict, str) for verdict in given):
        return [str(verdict) for verdict in given]
    try:
        numbers = np.array(given, dtype=float)
    except (TypeError, ValueError) as error:
        raise ConfigError("the judge must give a number for each text, or a name for each") from error
    if not np.isfinite(numbers).all():
        raise ConfigError(
            f"the judge gave {int((~np.isfinite(numbers)).sum())} numbers that are not finite; score them"
        )
    return numbers


def _said(new: TokenRow, special: set[int]) -> TokenRow:
    """What was written, without special tokens; who says nothing, which has no perplexity, is scored for ending."""
    return tuple(token for token in new if token not in special) or new
